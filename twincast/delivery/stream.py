"""What a feed reads: the state, the log behind it, and the groups that receive what comes."""

from collections.abc import Callable
from typing import Protocol

from twincast.core.model import Position
from twincast.core.state import State
from twincast.delivery.cast import Cast
from twincast.delivery.router import Router
from twincast.delivery.scheduler import Scheduler
from twincast.delivery.selection import Selections
from twincast.delivery.snapshots import SnapshotCache
from twincast.errors import TwincastError

OnBlock = Callable[[Cast | TwincastError], None]
"""Receives a block of the log, or the error that kept it from being read."""


class Stream(Protocol):
    """A log that goes on. The hub is one; a replay with a state and a clock of its own would be another."""

    state: State
    router: Router
    snapshots: SnapshotCache
    selections: Selections
    scheduler: Scheduler

    def why_not_resume(self, since: Position) -> str:
        """Say why a client cannot go on behind a position: epoch, too_old or ahead. Empty if it can."""

    def when_come(self, since: Position, call: Callable[[TwincastError | None], None]) -> Callable[[], None] | None:
        """Wait for a position that another server on the same log has given out, and that is still to come here.

        Args:
            since: the position.
            call: called without an error once it has come; after some seconds with the error that says that it has not.

        Returns:
            None where there is nothing to wait for; else what gives the wait up.
        """

    def read_back(self, since: int, until: int, on_block: OnBlock) -> Cast | None:
        """Return some of the entries after `since` up to `until`, at least one; or None, and call `on_block` with them.

        `on_block` is called with the error if they cannot be read: Truncated if the log does not reach back any more.
        """
