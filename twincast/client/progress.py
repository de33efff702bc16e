"""Up to where a program is done with what it was told: what a cursor says."""

import asyncio
from collections.abc import Callable

from twincast.client.event_queue import Mark
from twincast.client.watch import Watch

Reached = Callable[[], Mark | None]
"""Up to where a watch was offered everything."""


class Progress:
    """The slowest watch decides. One that has ended counts too, as long as nobody has done anything behind it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when the mark may be another one."""
        self._watches: dict[Watch, Reached] = {}
        self._ended: Mark | None = None  # where the ended ones were
        self._ended_at: Mark | None = None  # where their hub was then

    @property
    def mark(self) -> Mark | None:
        """Up to where everything is done; None if nothing was watched yet."""
        marks = [watch.undone or reached() for watch, reached in self._watches.items()]
        return _earliest(*marks, self._ended)

    def begin(self, watch: Watch, reached: Reached) -> None:
        """Count a watch, before it is offered anything."""
        self._watches[watch] = reached
        self.changed.set()

    def end(self, watch: Watch, *, has_begun: bool) -> None:
        """Count a watch no longer: for what it has not done it counts as one that ended."""
        reached = self._watches.pop(watch, None)
        if reached is not None and has_begun:
            now = reached()
            undone = watch.undone
            if undone is not None or not self._watches:
                self._ended = _earliest(self._ended, undone or now)
                self._ended_at = now or undone
        self.changed.set()

    def done(self, mark: Mark) -> None:
        """Note that a change behind this mark is done."""
        if self._ended_at is not None and mark.order >= self._ended_at.order:
            self._ended = self._ended_at = None
        self.changed.set()


def _earliest(*marks: Mark | None) -> Mark | None:
    return min((mark for mark in marks if mark is not None), key=lambda mark: mark.order, default=None)
