"""A buffer between a feed and a `send` that waits.

ASGI gives no view of the socket's buffer, only a `send` that waits while it is full. So a stream has a buffer of its
own, as large as one client's outbox, which pauses the stream when it is full and resumes it when it has drained.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from twincast.delivery.cast import Cast


class Flow(Protocol):
    """What the buffer pauses while it is full."""

    def pause(self) -> None:
        """Write nothing more until `resume`."""

    def resume(self) -> None:
        """Write again."""


class Buffer:
    """Casts that a feed has written and `send` has not taken."""

    def __init__(self, max_bytes: int) -> None:
        self._casts: deque[Cast] = deque()
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._filled = asyncio.Event()
        self._is_closing = False
        self.flow: Flow

    def write(self, cast: Cast) -> None:
        """Queue one cast; may pause the flow."""
        self._casts.append(cast)
        self._size_bytes += cast.size_bytes
        self._filled.set()
        if self._size_bytes > self._max_bytes:
            self.flow.pause()

    def end(self) -> None:
        """Let `drain_to` return once everything that was written is sent."""
        self._is_closing = True
        self._filled.set()

    async def drain_to(self, send: Callable[[Cast], Awaitable[None]], *, idle: "Idle | None" = None) -> None:
        """Send until `end`; `idle` is called each time when there was nothing to send for a while."""
        low_bytes = self._max_bytes // 4
        while True:
            await self._something(idle)
            self._filled.clear()
            while self._casts:
                cast = self._casts.popleft()
                await send(cast)
                was_above = self._size_bytes > low_bytes
                self._size_bytes -= cast.size_bytes
                if was_above and self._size_bytes <= low_bytes:
                    self.flow.resume()
            if self._is_closing:
                return

    async def _something(self, idle: "Idle | None") -> None:
        while not self._filled.is_set():
            try:
                async with asyncio.timeout(None if idle is None else idle.after_s):
                    await self._filled.wait()
            except TimeoutError:
                assert idle is not None
                await idle.call()


class Idle:
    """What to call when there was nothing to send for `after_s` seconds."""

    def __init__(self, after_s: float, call: Callable[[], Awaitable[None]]) -> None:
        self.after_s = after_s
        self.call = call
