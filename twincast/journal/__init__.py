"""Where entries become durable and get their positions: one interface, several kinds of journal."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol

from twincast.core.batch import Batch, Committed, Placed
from twincast.core.counters import Histogram
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.keys import AccessStore
from twincast.core.lineage import Lineage
from twincast.core.model import Entry, Snapshot
from twincast.core.producers import ProducerMark
from twincast.core.space import Space
from twincast.journal.memory import MemoryAccessStore, MemoryJournal
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import access_file
from twincast.journal.sqlite.access_store import SqliteAccessStore
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.trim_schedule import system_now_utc
from twincast.journal.url import JournalUrl, file_of

logger = logging.getLogger("twincast.journal")


class Journal(Protocol):
    """An ordered log, which says what its entries survive. All positions come from here."""

    @property
    def epoch(self) -> str:
        """The name of this one log: one that was wiped gets another name, a copy has the same."""

    @property
    def lineage(self) -> Lineage:
        """The runs on this log, the newest of which goes on: which positions count here, and the epoch on the wire."""

    @property
    def oldest_since(self) -> int:
        """The oldest position that `read` can start from. It moves when old entries are trimmed, or memory is full."""

    @property
    def keys(self) -> Sequence[IdempotencyRecord]:
        """The idempotency keys of the newest entries, oldest first, as of when the journal was opened, or of later."""

    @property
    def marks(self) -> Sequence[ProducerMark]:
        """Up to where the lines of the producers that wrote last are stored, in the order of seq.

        As of when the journal was opened, or of later.
        """

    async def append(self, batch: Batch) -> Placed:
        """Make a batch durable, in order, and give each entry its position.

        Returns once the batch survives a crash, all of it, with its keys, origins and marks: they are stored in the
        same transaction. If cancelled, it is stored whole or not at all.

        Args:
            batch: at least one entry, with its time set. The journal calls its `place`; where others append to the
                same log, and one of its keys is stored already, also its `leave_out`.

        Raises:
            JournalUnavailable: nothing of the batch was stored. The next one may succeed.
        """

    def recent(self, since: int) -> Sequence[Entry]:
        """Return some of the entries that follow `since`, oldest first, from memory; none if it has none of them."""

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """Return entries that follow position `since`, oldest first; none if there are none yet.

        Args:
            since: the position.
            limit: how many entries at most.
            max_bytes: stop after the entry that reaches this many bytes of values; None for no limit.

        Raises:
            Truncated: the log no longer reaches back to `since`.
        """

    async def snapshot(self) -> Snapshot:
        """Return the state as of the newest durable entry."""

    def follow(self, since: int) -> AsyncIterator[Committed]:
        """Yield what became durable after `since`, whoever appended it, in order, without end.

        Raises:
            Truncated: the log no longer reaches back to `since`.
        """

    @property
    def sync_s(self) -> Histogram:
        """How long the last step of each commit took, in seconds: the one that makes it durable."""

    def space(self) -> Space:
        """Return how full the journal is, as of a few seconds ago, and for how long the disk lasts."""

    async def close(self) -> None:
        """Finish what was begun, and release files and threads."""


class Stores(NamedTuple):
    """What one journal URL gives a server: the log, and the keys with the audit trail."""

    journal: Journal
    access: AccessStore

    async def close(self) -> None:
        """Finish what is under way, and release files and threads."""
        try:
            await self.access.close()
        finally:
            await self.journal.close()


def has_keys(url: str) -> bool:
    """Whether a journal holds an API key, or ever did. May be asked while a server runs on it.

    Raises:
        JournalUnusable: it cannot be read.
    """
    path = file_of(url)
    return path is not None and access_file.has_keys(path)


async def open_stores(
    url: str,
    *,
    memory_max_bytes: int,
    retention: Retention = KEEP_ALL,
    now_utc: Callable[[], str] = system_now_utc,
) -> Stores:
    """Open the stores that a URL names: `sqlite:PATH` or `memory:`.

    Args:
        url: which.
        memory_max_bytes: how much of the log a journal in memory keeps.
        retention: how much of the log a journal on disk keeps.
        now_utc: the clock that entries are stamped by.

    Raises:
        JournalUnusable: there is no such kind, or the file cannot serve; the message says why.
        SettingUnusable: the retention leaves no room for what must stay.
    """
    retention.check()
    kind, path = JournalUrl.parse(url)
    if kind == "memory":
        if retention.is_bounded:
            logger.warning(
                "--keep and --keep-bytes apply to a journal on disk only; one in memory keeps the newest %d bytes"
                " (--memory-journal-max-bytes)",
                memory_max_bytes,
            )
        memory = MemoryJournal(max_bytes=memory_max_bytes)
        return Stores(memory, MemoryAccessStore(memory.trail))
    journal = await SqliteJournal.open(path, retention=retention, now_utc=now_utc)
    try:
        return Stores(journal, await SqliteAccessStore.open(path, check_files=journal.check_files))
    except BaseException:
        await journal.close()
        raise
