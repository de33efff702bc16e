"""Long work in short slices, in turns: what one client asks for holds up nobody else.

Work is asked for by a payer. What is short is done at once. The rest waits, and one slice a turn of the event loop is
done, for each account once before any gets its second. Who has spent more than he may is served all the same, but all
of these together only now and then.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twincast.delivery.timer import CallLater

AT_ONCE_STEPS = 1_000
"""What is done before anything waits: a tenth of a millisecond or two."""
SLICE_STEPS = 4_000
"""About half a millisecond; a step is a fraction of a microsecond."""
OWING_PAUSE_S = 0.01
"""How long after a slice for somebody in debt the next one comes: all of them take a twentieth of the time."""
TOLD_AT_ONCE = 4
"""How many are told in one turn that what they wait for is done: each may have a greeting to write."""


class Budget(Protocol):
    """Whom work is counted against."""

    @property
    def account(self) -> str:
        """What takes turns with others: all that one identity asks for is one account."""

    def spend(self, steps: int) -> float:
        """Count work, and return for how many seconds its account is in debt."""


class Work(Protocol):
    """Something long, done in slices."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do as things stand."""

    def advance(self, max_steps: int) -> int:
        """Do about so many steps, and some at least; return how many it took."""


class Pause:
    """Work that is not done before others have had their turn."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._is_over = False

    @property
    def is_done(self) -> bool:
        """See Work."""
        return self._is_over and self._work.is_done

    def advance(self, max_steps: int) -> int:
        """See Work."""
        self._is_over = max_steps >= SLICE_STEPS
        return 0 if self._work.is_done else self._work.advance(max_steps)


class FixedCost:
    """Work that has its cost before it: what it leads to takes so long in one piece. There may be no other work."""

    def __init__(self, work: Work | None, steps: int) -> None:
        self._work = work
        self._left = steps

    @property
    def is_done(self) -> bool:
        """See Work."""
        return self._left <= 0 and (self._work is None or self._work.is_done)

    def advance(self, max_steps: int) -> int:
        """See Work."""
        paid = min(self._left, max_steps)
        self._left -= paid
        if paid == max_steps or self._work is None or self._work.is_done:
            return paid
        return paid + self._work.advance(max_steps - paid)


class _Job:
    """Work under way, and who waits for it; the first one pays."""

    __slots__ = ("waiting", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.waiting: dict[object, tuple[Budget, Callable[[], None]]] = {}


_Accounts = dict[str, deque[_Job]]


class Scheduler:
    """All work that waits. Lives on one event loop."""

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._jobs: dict[int, _Job] = {}  # by the identity of their work
        self._due: _Accounts = {}
        self._owing: _Accounts = {}
        self._is_turning = self._is_collecting = False
        self.at_once_steps = AT_ONCE_STEPS

    def __len__(self) -> int:
        return len(self._jobs)

    def waiting(self, account: str) -> int:
        """Return how much waits for an account."""
        return len(self._due.get(account, ())) + len(self._owing.get(account, ()))

    def do(self, work: Work, budget: Budget, done: Callable[[], None]) -> Callable[[], None] | None:
        """Do work: now if it is short and its payer is not in debt, else in turns.

        Returns:
            None if it is done. Otherwise `done` is called when it was, in a later turn, and may find that there is more
            to do by then; what is returned forgets it.
        """
        if work.is_done:  # also where others have still to be told
            return None
        job = self._jobs.get(id(work))
        if job is None:
            debt_s = budget.spend(0)
            if self.at_once_steps and debt_s <= 0:
                debt_s = budget.spend(work.advance(self.at_once_steps))
                if work.is_done:
                    return None
            job = self._jobs[id(work)] = _Job(work)
            self._queue(job, budget, debt_s)
        waiter = object()
        job.waiting[waiter] = (budget, done)
        return lambda: self._forget(job, waiter)

    def _forget(self, job: _Job, waiter: object) -> None:
        job.waiting.pop(waiter, None)

    def _queue(self, job: _Job, budget: Budget, debt_s: float) -> None:
        accounts = self._owing if debt_s > 0 else self._due
        accounts.setdefault(budget.account, deque()).append(job)
        self._wake()

    def _wake(self) -> None:
        if self._due and not self._is_turning:
            self._is_turning = True
            self._call_later(0, self._turn)
        if self._owing and not self._is_collecting:
            self._is_collecting = True
            self._call_later(OWING_PAUSE_S, self._collect)

    def _turn(self) -> None:
        self._is_turning = False
        self._serve(self._due)

    def _collect(self) -> None:
        self._is_collecting = False
        self._serve(self._owing)

    def _serve(self, accounts: _Accounts) -> None:
        """Do a slice for the account whose turn it is, or tell those who wait for what is done."""
        account, jobs = next(iter(accounts.items()))
        del accounts[account]
        job = jobs.popleft()
        if jobs:
            accounts[account] = jobs  # behind the others
        told: list[Callable[[], None]] = []
        debt_s = 0.0
        if job.waiting:
            budget = next(iter(job.waiting.values()))[0]
            debt_s = budget.spend(0 if job.work.is_done else job.work.advance(SLICE_STEPS))
            if job.work.is_done:
                told = [job.waiting.pop(waiter)[1] for waiter in tuple(job.waiting)[:TOLD_AT_ONCE]]
        if job.waiting:
            self._queue(job, next(iter(job.waiting.values()))[0], debt_s)
        else:
            del self._jobs[id(job.work)]
        self._wake()
        for tell in told:
            tell()
