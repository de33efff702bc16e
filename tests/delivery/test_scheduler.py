"""Long work in turns: short slices, every account in its turn, who is in debt now and then."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.fakes import FreePayer, WaitingTimer
from twincast.delivery import scheduler
from twincast.delivery.scheduler import FixedCost, Scheduler


class Clockwork:
    """A loop of timers: `turn` runs those that are due at once, `pass_time` those that wait."""

    def __init__(self) -> None:
        self.timers: list[WaitingTimer] = []
        self.clock_s = 0.0
        self.scheduler = Scheduler(self._call_later)

    def turn(self, seconds: float = 0.0) -> None:
        self.clock_s += seconds
        due = [timer for timer in self.timers if timer.at_s <= self.clock_s]
        self.timers = [timer for timer in self.timers if timer.at_s > self.clock_s]
        for timer in due:
            timer.callback()

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> WaitingTimer:
        timer = WaitingTimer(self.timers, self.clock_s + delay_s, callback)
        self.timers.append(timer)
        return timer


class Digging:
    """Work of so many steps, which notes how many were done at once."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.slices: list[int] = []

    @property
    def is_done(self) -> bool:
        return self.left <= 0

    def advance(self, max_steps: int) -> int:
        steps = min(max_steps, self.left)
        self.left -= steps
        self.slices.append(steps)
        return steps


class CountingPayer(FreePayer):
    """A payer that is in debt when it has spent what it has."""

    def __init__(self, account: str, has: int) -> None:
        super().__init__(account)
        self.has = has

    def spend(self, steps: int) -> float:
        self.has -= steps
        return max(0.0, -self.has / 1_000)


def test_short_work_is_done_at_once_and_paid_for() -> None:
    clockwork, budget = Clockwork(), CountingPayer("a", 10_000)
    work = Digging(scheduler.AT_ONCE_STEPS)
    assert clockwork.scheduler.do(work, budget, lambda: None) is None
    assert (work.is_done, budget.has, clockwork.timers) == (True, 9_000, [])


def test_long_work_is_done_in_slices_one_in_a_turn_and_told_once() -> None:
    clockwork, budget = Clockwork(), CountingPayer("a", 1 << 40)
    work = Digging(100_000)
    told: list[object] = []
    assert clockwork.scheduler.do(work, budget, lambda: told.append(1)) is not None
    while not told:
        done = len(work.slices)
        clockwork.turn()
        assert len(work.slices) - done <= 1
    assert max(work.slices) <= scheduler.SLICE_STEPS
    assert sum(work.slices) == 100_000 == (1 << 40) - budget.has
    assert (len(clockwork.scheduler), clockwork.timers, told) == (0, [], [1]), "nothing turns when nothing waits"


def test_an_account_with_much_work_keeps_no_other_waiting_longer_than_its_turn() -> None:
    clockwork = Clockwork()
    told: list[object] = []
    for number in range(20):
        clockwork.scheduler.do(Digging(1 << 30), CountingPayer("greedy", 1 << 60), partial(told.append, number))
    small = Digging(scheduler.AT_ONCE_STEPS + 3 * scheduler.SLICE_STEPS)
    clockwork.scheduler.do(small, CountingPayer("modest", 1 << 40), lambda: told.append("modest"))
    for _ in range(2 * 3):
        clockwork.turn()
    assert told == ["modest"]


def test_who_is_in_debt_waits_between_slices_and_who_is_not_does_not_wait_for_him() -> None:
    clockwork = Clockwork()
    told: list[object] = []
    debtor = Digging(1 << 30)
    clockwork.scheduler.do(debtor, CountingPayer("debtor", 5_000), lambda: None)
    for _ in range(5):
        clockwork.turn()
    before = len(debtor.slices)
    clockwork.scheduler.do(Digging(50_000), CountingPayer("b", 1 << 40), lambda: told.append("b"))
    while not told:
        clockwork.turn()
    assert len(debtor.slices) == before
    clockwork.turn(scheduler.OVERSPENT_PAUSE_S)
    clockwork.turn()
    assert len(debtor.slices) == before + 1, "the pause is over, and it goes on by one slice"


def test_equal_work_is_done_once_and_all_who_wait_are_told_a_few_at_a_time() -> None:
    clockwork = Clockwork()
    told: list[object] = []
    work = Digging(10_000)
    for number in range(10):
        clockwork.scheduler.do(work, FreePayer(f"{number}"), partial(told.append, number))
    told_at_once = 0
    while len(told) < 10:
        before = len(told)
        clockwork.turn()
        told_at_once = max(told_at_once, len(told) - before)
    assert (sum(work.slices), told, told_at_once) == (10_000, list(range(10)), scheduler.CALLED_AT_ONCE)


def test_work_that_nobody_waits_for_any_more_is_not_done() -> None:
    clockwork = Clockwork()
    told: list[object] = []
    work = Digging(1 << 30)
    forget = clockwork.scheduler.do(work, FreePayer("a"), lambda: told.append(1))
    other = clockwork.scheduler.do(work, FreePayer("b"), lambda: told.append(2))
    assert forget is not None and other is not None
    forget()
    clockwork.turn()
    assert len(work.slices) == 2, "b still waits for it"
    other()
    clockwork.turn()
    clockwork.turn()
    assert (len(work.slices), len(clockwork.scheduler), clockwork.timers, told) == (2, 0, [], [])


@pytest.mark.parametrize("behind", [0, 3_000])
def test_what_takes_long_in_one_piece_is_paid_in_slices_before_it_comes(behind: int) -> None:
    clockwork = Clockwork()
    budget = CountingPayer("a", 1 << 40)
    work = Digging(behind) if behind else None
    told: list[int] = []
    cost = scheduler.AT_ONCE_STEPS + 2 * scheduler.SLICE_STEPS
    assert clockwork.scheduler.do(FixedCost(work, cost), budget, lambda: told.append(1)) is not None
    clockwork.turn()
    assert told == []
    clockwork.turn()
    clockwork.turn()
    assert (told, (1 << 40) - budget.has) == ([1], cost + behind)
    assert clockwork.scheduler.do(FixedCost(None, scheduler.AT_ONCE_STEPS - 1), budget, lambda: told.append(2)) is None


def test_how_much_waits_for_an_account_can_be_asked() -> None:
    clockwork = Clockwork()
    for _ in range(3):
        clockwork.scheduler.do(Digging(1 << 30), CountingPayer("a", 500), lambda: None)
    assert (clockwork.scheduler.waiting("a"), clockwork.scheduler.waiting("b")) == (3, 0)
