import asyncio
from collections.abc import Sequence

import pytest

from tests.fakes import LONG_S
from twincast.errors import RateLimited
from twincast.history import History
from twincast.hub import past
from twincast.hub.past import STEPS_A_SECOND, Past
from twincast.hub.reads import WAITING_MAX
from twincast.journal.memory import MemoryJournal


class CountingBudget:
    """A budget that counts what is charged to it."""

    def __init__(self, account: str = "a") -> None:
        self.account, self.spent = account, 0

    def spend(self, steps: int) -> float:
        self.spent += steps
        return 0.0


class Slow:
    """A question that ends when it is told to."""

    def __init__(self) -> None:
        self.asked, self.end = asyncio.Event(), asyncio.Event()

    async def __call__(self, history: History) -> str:
        self.asked.set()
        await self.end.wait()
        return "answer"


def asked(clock: Sequence[float] = ()) -> Past:
    times = iter(clock)
    return Past(MemoryJournal(max_bytes=1_000).history, lambda: next(times, 0.0))


async def test_an_answer_costs_the_time_that_it_took() -> None:
    budget, question = CountingBudget(), Slow()
    question.end.set()
    assert await asked([10.0, 10.5]).ask(question, budget) == "answer"
    assert budget.spent == STEPS_A_SECOND // 2


async def test_who_asks_beside_others_pays_a_part() -> None:
    mine, other, first, second = CountingBudget("mine"), CountingBudget("other"), Slow(), Slow()
    history = asked([0.0, 0.0, 1.0, 1.0])
    async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
        group.create_task(history.ask(first, mine))
        group.create_task(history.ask(second, other))
        await first.asked.wait()
        await second.asked.wait()
        first.end.set()
        second.end.set()
    assert mine.spent == STEPS_A_SECOND // 2
    assert mine.spent + other.spent > STEPS_A_SECOND


async def test_an_account_has_only_so_many_questions_at_once_and_others_have_theirs() -> None:
    history, budget, questions = asked(), CountingBudget(), [Slow() for _ in range(WAITING_MAX)]
    async with asyncio.timeout(LONG_S), asyncio.TaskGroup() as group:
        for question in questions:
            group.create_task(history.ask(question, budget))
        for question in questions:
            await question.asked.wait()
        with pytest.raises(RateLimited, match="wait already"):
            await history.ask(Slow(), budget)
        other = Slow()
        other.end.set()
        assert await history.ask(other, CountingBudget("b")) == "answer"
        for question in questions:
            question.end.set()
    free = Slow()
    free.end.set()
    assert await history.ask(free, budget) == "answer"


async def test_a_question_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "ANSWER_MAX_S", 0.0)
    with pytest.raises(RateLimited, match="ask for less time"):
        await asked().ask(Slow(), CountingBudget())
