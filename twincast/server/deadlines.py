"""The times that one connection has: for a head to come in, for a body, for its client to read, and for being idle."""

import asyncio
from collections.abc import Callable


class Deadline:
    """A time that something has from `start` on. Once it is over, `late` is called, unless `stop` came before.

    Some are started and stopped at each request. So a timer that was set goes on, and is set anew when it fires too
    early; `cancel` takes it away.
    """

    __slots__ = ("_after_s", "_late", "_loop", "_timer", "due_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, after_s: float, late: Callable[[], None]) -> None:
        self._loop = loop
        self._after_s = after_s
        self._late = late
        self._timer: asyncio.TimerHandle | None = None
        self.due_s: float | None = None
        """When it is over, on the event loop's clock; None if it is not running."""

    @property
    def is_running(self) -> bool:
        """Whether the deadline is running."""
        return self.due_s is not None

    def start(self) -> None:
        """Begin, unless it runs already: what comes in pieces has no more time than what comes at once."""
        if self.due_s is None:
            self.due_s = self._loop.time() + self._after_s
            if self._timer is None:
                self._timer = self._loop.call_at(self.due_s, self._look)

    def stop(self) -> None:
        """Wait no longer."""
        self.due_s = None

    def cancel(self) -> None:
        """Wait no longer, and never again. Whoever owns this is free at once, without the garbage collector."""
        self.due_s = None
        self._late = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.due_s is None:
            return
        if self.due_s > self._loop.time():
            self._timer = self._loop.call_at(self.due_s, self._look)
            return
        self.due_s = None
        self._late()


def _nothing() -> None:
    """Stand in for what is not waited for any more."""


class Deadlines:
    """Those of one connection."""

    __slots__ = ("body", "head", "idle", "write")

    def __init__(self, *, head: Deadline, body: Deadline, write: Deadline, idle: Deadline) -> None:
        self.head = head
        """For a request's head to come in, from the connection's beginning or its first byte on."""
        self.body = body
        """For what does not come with the head."""
        self.write = write
        """For a client that does not read to take what was written for it."""
        self.idle = idle
        """For the next request to begin, behind an answer."""

    def stop_reading(self) -> None:
        """Wait no longer for what comes in."""
        self.head.due_s = self.body.due_s = None

    def cancel(self) -> None:
        """Wait for nothing any more."""
        for each in (self.head, self.body, self.write, self.idle):
            each.cancel()
