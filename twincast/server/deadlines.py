"""The times that one connection has: for a head to come in, for a body, and for its client to read."""

import asyncio
from collections.abc import Callable


class Deadline:
    """A time that something has from `start` on. Once it is over, `late` is called, unless `stop` came before."""

    __slots__ = ("_after_s", "_late", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float, late: Callable[[], None]) -> None:
        self._loop = loop
        self._after_s = after_s
        self._late = late
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether the deadline is running."""
        return self._timer is not None

    def start(self) -> None:
        """Begin, unless it runs already: what comes in pieces has no more time than what comes at once."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._end)

    def stop(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self._late()


class Deadlines:
    """Those of one connection."""

    __slots__ = ("body", "head", "write")

    def __init__(self, *, head: Deadline, body: Deadline, write: Deadline) -> None:
        self.head = head
        """For a request's head to come in, from the connection's beginning or its first byte on."""
        self.body = body
        """For what does not come with the head."""
        self.write = write
        """For a client that does not read to take what was written for it."""

    def stop(self) -> None:
        """Wait for nothing any more."""
        self.head.stop()
        self.body.stop()
        self.write.stop()
