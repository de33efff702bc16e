"""Long work in short slices, in turns: what one client asks for holds up no other client.

Work is charged to a budget. Short work is done at once. Longer work waits in a queue, of which one slice is done in
each turn of the event loop: one for each account before any account gets its second. An account that has overspent its
budget is served all the same, but all of these accounts together only once in `OVERSPENT_PAUSE_S`.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twincast.delivery.timer import CallLater

AT_ONCE_STEPS = 1_000
"""How much work is done before it has to wait: a tenth of a millisecond or two."""
SLICE_STEPS = 4_000
"""About half a millisecond; a step is a fraction of a microsecond."""
OVERSPENT_PAUSE_S = 0.01
"""How long after a slice for an overspent account the next one comes: all of them take a twentieth of the time."""
CALLED_AT_ONCE = 4
"""How many of those that wait for the same work are called in one turn: each may have a snapshot to write."""


class Budget(Protocol):
    """What work is charged to."""

    @property
    def account(self) -> str:
        """What takes turns with other accounts: all that one identity asks for is one account."""

    def spend(self, steps: int) -> float:
        """Charge work, and return for how many seconds its account is overspent."""


class Unmetered:
    """The budget of the server's own reads: they take turns with those of others, and cost nothing."""

    def __init__(self, account: str) -> None:
        self.account = account

    def spend(self, steps: int) -> float:
        """See Budget."""
        return 0.0


class Work(Protocol):
    """Something long that is done in slices."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do as things stand."""

    def advance(self, max_steps: int) -> int:
        """Do about so many steps, but some at least; return how many were done."""


class Pause:
    """Work that is not done before other accounts have had their turn."""

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
    """Work that is charged in advance for what follows it in one piece. There may be no work but that."""

    def __init__(self, work: Work | None, steps: int) -> None:
        self._work = work
        self._left = steps

    @property
    def is_done(self) -> bool:
        """See Work."""
        return self._left <= 0 and (self._work is None or self._work.is_done)

    def advance(self, max_steps: int) -> int:
        """See Work."""
        charged = min(self._left, max_steps)
        self._left -= charged
        if charged == max_steps or self._work is None or self._work.is_done:
            return charged
        return charged + self._work.advance(max_steps - charged)


class _Job:
    """Work under way, and what waits for it; the budget of the first is charged."""

    __slots__ = ("waiting", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.waiting: dict[object, tuple[Budget, Callable[[], None]]] = {}


_Accounts = dict[str, deque[_Job]]


class Scheduler:
    """All work that waits. Lives on one event loop.

    A job is in one of two queues: `_due`, of which a slice is done in each turn of the loop, or `_overspent`, of which
    a slice is done once in `OVERSPENT_PAUSE_S`. After each slice it is queued again, in the queue that its account
    belongs to by then. A job leaves when its work is done and all that waited for it were called, or when nothing waits
    for it any more.
    """

    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._jobs: dict[int, _Job] = {}  # by the identity of their work
        self._due: _Accounts = {}
        self._overspent: _Accounts = {}
        self._is_turn_due = self._is_pausing = False
        self.at_once_steps = AT_ONCE_STEPS

    def __len__(self) -> int:
        return len(self._jobs)

    def waiting(self, account: str) -> int:
        """Return how many jobs of an account wait."""
        return len(self._due.get(account, ())) + len(self._overspent.get(account, ()))

    def do(self, work: Work, budget: Budget, done: Callable[[], None]) -> Callable[[], None] | None:
        """Do work: now if it is short and its account is not overspent, else in turns.

        Returns:
            None if it is done. Otherwise a function that gives it up; `done` is called in a later turn, when the work
            is done, and may find that there is more to do by then.
        """
        if work.is_done:  # also while others have still to be called
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
        accounts = self._overspent if debt_s > 0 else self._due
        accounts.setdefault(budget.account, deque()).append(job)
        self._wake()

    def _wake(self) -> None:
        if self._due and not self._is_turn_due:
            self._is_turn_due = True
            self._call_later(0, self._turn)
        if self._overspent and not self._is_pausing:
            self._is_pausing = True
            self._call_later(OVERSPENT_PAUSE_S, self._serve_overspent)

    def _turn(self) -> None:
        self._is_turn_due = False
        self._serve(self._due)

    def _serve_overspent(self) -> None:
        self._is_pausing = False
        self._serve(self._overspent)

    def _serve(self, accounts: _Accounts) -> None:
        """Do a slice for the account whose turn it is, or call what waits for work that is done."""
        account, jobs = next(iter(accounts.items()))
        del accounts[account]
        job = jobs.popleft()
        if jobs:
            accounts[account] = jobs  # behind the others
        calls: list[Callable[[], None]] = []
        debt_s = 0.0
        if job.waiting:
            budget = next(iter(job.waiting.values()))[0]
            debt_s = budget.spend(0 if job.work.is_done else job.work.advance(SLICE_STEPS))
            if job.work.is_done:
                calls = [job.waiting.pop(waiter)[1] for waiter in tuple(job.waiting)[:CALLED_AT_ONCE]]
        if job.waiting:
            self._queue(job, next(iter(job.waiting.values()))[0], debt_s)
        else:
            del self._jobs[id(job.work)]
        self._wake()
        for call in calls:
            call()
