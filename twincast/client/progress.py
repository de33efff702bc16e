"""Up to where a program has finished with its events: what a cursor says."""

import asyncio
from collections.abc import Callable

from twincast.client.event_queue import Mark
from twincast.client.watch import Watch

Reached = Callable[[], Mark | None]
"""Returns up to where a watch was offered everything."""


class Progress:
    """The slowest watch decides. One that has ended counts too, until another one has finished an event behind it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when the mark may have moved."""
        self._watches: dict[Watch, Reached] = {}
        self._ended: Mark | None = None  # of the watches that have ended
        self._ended_at: Mark | None = None  # where the client was when the last of them ended

    @property
    def mark(self) -> Mark | None:
        """Up to where everything is finished; None if nothing was watched yet."""
        marks = [watch.undone or reached() for watch, reached in self._watches.items()]
        return _earliest(*marks, self._ended)

    def begin(self, watch: Watch, reached: Reached) -> None:
        """Count a watch, before it is offered anything."""
        self._watches[watch] = reached
        self.changed.set()

    def end(self, watch: Watch, *, has_begun: bool) -> None:
        """Stop counting a watch; what it has not finished counts as that of an ended one."""
        reached = self._watches.pop(watch, None)
        if reached is not None and has_begun:
            now = reached()
            undone = watch.undone
            if undone is not None or not self._watches:
                self._ended = _earliest(self._ended, undone or now)
                self._ended_at = now or undone
        self.changed.set()

    def done(self, mark: Mark) -> None:
        """Note that the event behind this mark is finished."""
        if self._ended_at is not None and mark.order >= self._ended_at.order:
            self._ended = self._ended_at = None
        self.changed.set()


def _earliest(*marks: Mark | None) -> Mark | None:
    return min((mark for mark in marks if mark is not None), key=lambda mark: mark.order, default=None)
