"""A bell that wakes what waits for its next ring: an event without a state.

`asyncio.Event` would do as well. But it is waited for and set once a commit, and Python 3.11 asks the system for the
process's number several times at each wait; here a ring is one bare future.
"""

import asyncio


class Bell:
    """Wakes all that wait. Whoever waits looks first whether there is something to wait for."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wake what waits now."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():  # cancelled
                future.set_result(None)

    def next_ring(self) -> asyncio.Future[None]:
        """Return what is done at the next ring."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        return future
