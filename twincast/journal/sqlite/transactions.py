"""How an open journal is changed: one transaction at a time, on the disk at once or later, with the reserve whole."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apsw

from twincast.core.counters import Histogram
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.reserve import Reserve

BUSY_TIMEOUT_MS = 10_000
"""How long to wait for another program that writes: `twincast keys` locks the file for the length of a commit."""


class Transactions:
    """The transactions of one connection. All methods but `look_at_reserve` must be called in its thread."""

    def __init__(self, db: apsw.Connection, reserve: Reserve, *, synchronous: str) -> None:
        """Change a journal that was just opened.

        Args:
            db: the connection that alone appends to it.
            reserve: what is kept of the disk for ending keys.
            synchronous: SQLite's pragma, as the connection has it.
        """
        self._db = db
        self._reserve = reserve
        self._is_reserve_short = False
        self._synchronous = synchronous
        self._not_at_once = "normal" if synchronous == "full" else synchronous

    def fill_reserve(self) -> None:
        """Make the reserve whole, if there is room: a full disk may be read, and says so with the first append."""
        with suppress(JournalUnavailable):
            self._reserve.fill()
        self._is_reserve_short = not self._reserve.is_whole

    def look_at_reserve(self) -> None:
        """See whether a change of keys used the reserve. To be called before each append, from any thread."""
        if not self._reserve.is_whole:
            self._is_reserve_short = True

    @contextmanager
    def begin(self, *, needs_reserve: bool = False, sync_s: Histogram | None = None) -> Iterator[None]:
        """Make one transaction of what is done within, as synced as the connection is.

        Args:
            needs_reserve: whether nothing may be stored while the reserve is not whole.
            sync_s: is told how long SQLite's COMMIT took.

        Raises:
            JournalUnavailable: the disk fails; nothing is changed.
        """
        with unavailable_if_failing(), self.atomically(sync_s):
            if needs_reserve and self._is_reserve_short:
                self._reserve.fill()
            yield
        if needs_reserve:
            self._is_reserve_short = False

    @contextmanager
    def synced(self, *, needs_reserve: bool = False) -> Iterator[None]:
        """Do what `begin` does, and have it on the disk at once, also in a copy, which is else not synced."""
        with self._as_synced_as("full"), self.begin(needs_reserve=needs_reserve):
            yield

    @contextmanager
    def unsynced(self, *, needs_reserve: bool = False) -> Iterator[None]:
        """Do what `begin` does, and leave it to the next append to sync it."""
        with self._as_synced_as(self._not_at_once), self.begin(needs_reserve=needs_reserve):
            yield

    @contextmanager
    def atomically(self, sync_s: Histogram | None = None) -> Iterator[None]:
        """Do what `begin` does, and raise what SQLite raises."""
        try:
            self._db.execute("begin immediate")
            yield
            began_s = time.perf_counter()
            self._db.execute("commit")
            if sync_s is not None:
                sync_s.add(time.perf_counter() - began_s)
        except BaseException:
            self._is_reserve_short = True  # perhaps: the room that the next one finds may be a reserve in use
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    @contextmanager
    def _as_synced_as(self, synchronous: str) -> Iterator[None]:
        self._db.pragma("synchronous", synchronous)
        try:
            yield
        finally:
            self._db.pragma("synchronous", self._synchronous)
