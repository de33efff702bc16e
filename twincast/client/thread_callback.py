"""A callback for commands that runs in a thread, for programs without asyncio."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from twincast.client.events import Command

RETURN_TIMEOUT_S = 1.0
"""How long the end of a client waits for a callback that is running: a thread cannot be cancelled."""


class ThreadCallback:
    """Calls a function in a thread, for one command after another."""

    def __init__(self, call: Callable[[Command], None]) -> None:
        self._call = call
        self._thread_id: int | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is this thread that runs the function."""
        return threading.get_ident() == self._thread_id

    async def __call__(self, command: Command) -> None:
        """Call the function, and return once it has.

        If cancelled meanwhile, wait for it RETURN_TIMEOUT_S at most. If it returns in that time, so does this, for then
        the command is finished, and must not come again.
        """
        running = asyncio.create_task(asyncio.to_thread(self._run, command), name="a callback in a thread")
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            await _over(running)
            if not running.done():
                running.cancel()
                raise
            running.result()

    def _run(self, command: Command) -> None:
        self._thread_id = threading.get_ident()
        try:
            self._call(command)
        finally:
            self._thread_id = None


async def _over(running: asyncio.Task[None]) -> None:
    """Wait for a callback RETURN_TIMEOUT_S at most, however often this is cancelled: by its listener and its client."""
    clock_s = asyncio.get_running_loop().time
    until_s = clock_s() + RETURN_TIMEOUT_S
    while not running.done() and (left_s := until_s - clock_s()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait([running], timeout=left_s)
