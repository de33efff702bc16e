"""A thread of its own for each connection to SQLite."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Worker:
    """One thread that does one call after the other, so that an event loop waits for none of them.

    SQLite's calls block, on the disk and on other programs. A connection belongs to one worker, so what is slow on one
    connection delays nothing on another.
    """

    def __init__(self, name: str) -> None:
        """Make a worker. Its thread starts with the first call, and ends with `close`."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    def do(self, call: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Call in the thread, after all calls before; the future has the result.

        If the future is cancelled, a call that has begun runs to its end in the thread; one that has not is left out.
        """
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *args)

    def abandon(self) -> None:
        """End the thread after what has begun, without waiting for it."""
        self._thread.shutdown(wait=False)

    async def close(self, last: Callable[[], object] = lambda: None) -> None:
        """Wait for all calls before, make a last one, and end the thread. Raises what the last call raises."""
        try:
            await self.do(last)
        finally:
            self._thread.shutdown()
