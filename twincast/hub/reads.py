"""What one client asks of the state: found in slices, in turns with other clients, and charged to its budget."""

import asyncio
from collections.abc import Sequence

from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.scheduler import Budget, FixedCost, Scheduler, Work
from twincast.delivery.selection import Picking, Selections
from twincast.errors import RateLimited

WAITING_MAX = 16
"""How many reads of one account may wait: each holds what it has found."""
READ_MAX_S = 30.0
"""How long a read is worked on. Only one that exceeds the budget of its account takes so long."""


class Reads:
    """Reads of the state. None of them holds the event loop for longer than one slice."""

    def __init__(self, state: State, scheduler: Scheduler, selections: Selections) -> None:
        self._state = state
        self._scheduler = scheduler
        self._selections = selections

    async def select(self, subscription: Subscription, budget: Budget) -> Sequence[str]:
        """Return the devices that a subscription selects.

        Raises:
            RateLimited: too many reads of this account wait already, or this one has taken too long.
        """
        if subscription.is_everything:
            return self._state.names()
        selection = self._selections.of(subscription)
        await self._do(selection, budget)
        return selection.names()

    async def count(self, subscription: Subscription, budget: Budget) -> int:
        """Return how many devices a subscription selects. Raises what `select` raises."""
        if subscription.is_everything:
            return len(self._state.twins)
        selection = self._selections.of(subscription)
        await self._do(selection, budget)
        return selection.count()

    async def pick(self, cast: Cast, subscription: Subscription, budget: Budget) -> Cast:
        """Return what a subscription selects of a cast. Raises what `select` raises."""
        picking = Picking(cast, subscription)
        await self._do(picking, budget)
        return picking.picked()

    async def turn(self, steps: int, budget: Budget) -> None:
        """Wait for the turn of work that takes `steps` in one piece, and charge it. Raises what `select` raises."""
        await self._do(FixedCost(None, steps), budget)

    async def _do(self, work: Work, budget: Budget) -> None:
        """Return when work is done, in the same step of the loop: so what it found is still true."""
        if self._scheduler.waiting(budget.account) >= WAITING_MAX:
            raise RateLimited(f"{WAITING_MAX} reads of {budget.account} wait already", max(1.0, budget.spend(0)))
        try:
            async with asyncio.timeout(READ_MAX_S):
                while True:
                    done = asyncio.Event()
                    forget = self._scheduler.do(work, budget, done.set)
                    if forget is None:
                        return
                    try:
                        await done.wait()
                    finally:
                        forget()
        except TimeoutError:
            debt_s = max(1.0, budget.spend(0))
            text = f"this read has cost more than {budget.account} may spend; ask for less"
            raise RateLimited(text, debt_s) from None
