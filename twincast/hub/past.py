"""What one client asks of the log's past: a bound on what waits, and charged to its budget."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from twincast.delivery.scheduler import Budget
from twincast.errors import RateLimited
from twincast.history import History
from twincast.hub.reads import WAITING_MAX

STEPS_A_SECOND = 100_000
"""What a second of work costs: about what an account earns in a second. It is done beside the event loop, so it costs
less than a search of the state, which delays everybody."""
ANSWER_MAX_S = 60.0
"""How long a question is worked on."""

Answer = TypeVar("Answer")


class Past:
    """A history, asked for clients. Lives on one event loop."""

    def __init__(self, history: History, clock_s: Callable[[], float]) -> None:
        """Ask a history; `clock_s` is a monotonic clock."""
        self._history = history
        self._clock_s = clock_s
        self._asking: Counter[str] = Counter()

    async def ask(self, question: Callable[[History], Awaitable[Answer]], budget: Budget) -> Answer:
        """Return what the history answers, and charge the time that it took; who asks beside others pays a part.

        Raises:
            RateLimited: too many questions of this account wait already, or this one has taken too long.
        """
        account = budget.account
        if self._asking[account] >= WAITING_MAX:
            raise RateLimited(f"{WAITING_MAX} questions of {account} about history wait already")
        self._asking[account] += 1
        began_s = self._clock_s()
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                return await question(self._history)
        except TimeoutError:
            text = f"this took longer than {ANSWER_MAX_S:.0f} s; ask for less time, or for fewer devices"
            raise RateLimited(text) from None
        finally:
            beside = sum(self._asking.values())
            budget.spend(int((self._clock_s() - began_s) * STEPS_A_SECOND / beside))
            self._asking[account] -= 1
            if not self._asking[account]:
                del self._asking[account]
