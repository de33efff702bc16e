"""A journal as the rest sees it, and the one place that opens whichever kind a URL names."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twincast import extras
from twincast.core.batch import Batch, Committed, Placed
from twincast.core.counters import Histogram
from twincast.core.erasure import Erasure
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.keys import AccessStore
from twincast.core.lineage import Lineage
from twincast.core.model import Entry, Snapshot
from twincast.core.opening import Opening
from twincast.core.producers import ProducerMark
from twincast.core.space import Space
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.history import History
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.memory import MemoryAccessStore, MemoryJournal
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import access_file
from twincast.journal.sqlite.access_store import SqliteAccessStore
from twincast.journal.sqlite.history.history import SqliteHistory
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.trim_schedule import system_now_utc
from twincast.journal.url import JournalUrl, file_of, local_log_of, shared_log_of
from twincast.later import later

if TYPE_CHECKING:  # only a shared log takes NATS
    from twincast.journal.jetstream import access_log
    from twincast.journal.jetstream import access_store as shared_access
    from twincast.journal.jetstream import journal as jetstream
else:
    access_log = later("twincast.journal.jetstream.access_log")
    shared_access = later("twincast.journal.jetstream.access_store")
    jetstream = later("twincast.journal.jetstream.journal")

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

    @property
    def problem(self) -> JournalUnavailable | None:
        """Why nothing is taken at the moment; None while entries are taken, as far as the journal knows.

        A file learns of it by an append that fails, and of its end by one that succeeds. A log that is shared over a
        network may learn of both without one.
        """

    @property
    def batch_max_bytes(self) -> int | None:
        """How much text (`Batch.text_bytes`) one batch may hold, but for one of a single submission; None: no bound."""

    async def append(self, batch: Batch) -> Placed:
        """Make a batch durable, in order, and give each entry its position.

        Returns once the batch survives a crash, all of it, with its keys, origins and marks: they are stored in the
        same transaction. If cancelled, it is stored whole or not at all.

        Args:
            batch: at least one entry, with its time set. The journal calls its `decide`, or does the same by rules of
                its own, and then its `place`; where others append to the same log, and one of its keys is stored
                already, also its `leave_out`.

        Raises:
            JournalUnavailable: nothing of the batch was stored, and `problem` says so. The next one may succeed.
            TooLarge: nothing of it was stored, for it is larger than this journal can take at once. It says nothing of
                other batches.
        """

    def recent(self, since: int, limit: int = 1) -> Sequence[Entry]:
        """Return some of the entries that follow `since`, oldest first, from memory; none if it has none of them.

        Args:
            since: the position.
            limit: after how many entries it may end; it ends before if it is at the newest.
        """

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """Return entries that follow position `since`, oldest first; none if there are none yet.

        Args:
            since: the position.
            limit: how many entries at most.
            max_bytes: stop after the entry that reaches this many bytes of values; None for no limit.

        Raises:
            Truncated: the log no longer reaches back to `since`.
        """

    async def erasures(self) -> Sequence[Erasure]:
        """Return the deletions of histories that are not carried out everywhere, in order, with what still has it.

        What they take is in no answer any more, but still in the files of this server, or in a shared log's stream.

        Raises:
            JournalUnavailable: the disk does not give them.
        """

    async def snapshot(self) -> Snapshot:
        """Return the state as of the newest durable entry."""

    def follow(self, since: int) -> AsyncIterator[Committed]:
        """Yield what became durable after `since`, whoever appended it, in order, without end.

        Raises:
            Truncated: the log no longer reaches back to `since`.
            LogReplaced: this log is no more, and another one has its place; a journal is to be opened anew.
        """

    @property
    def sync_s(self) -> Histogram:
        """How long the last step of each commit took, in seconds: the one that makes it durable."""

    def space(self) -> Space:
        """Return how full the journal is, as of a few seconds ago, and for how long the disk lasts."""

    async def close(self) -> None:
        """Finish what was begun, and release files and threads."""


class Stores(NamedTuple):
    """What one journal URL gives a server: the log, the same asked by time, and the keys with the audit trail."""

    journal: Journal
    access: AccessStore
    history: History
    shared: "jetstream.JetStreamJournal | None" = None
    """The journal once more, if other servers are on its log: what they tell each other goes beside it."""

    async def close(self) -> None:
        """Finish what is under way, and release files and threads."""
        async with AsyncExitStack() as closing:  # each, also if one before it fails
            closing.push_async_callback(self.journal.close)
            closing.push_async_callback(self.access.close)
            closing.push_async_callback(self.history.close)


def has_keys(url: str) -> bool:
    """Whether a journal holds an API key, or ever did. May be asked while a server runs on it.

    Raises:
        JournalUnusable: it cannot be read.
        JournalUnavailable: it is a shared log, and NATS does not answer.
        ExtraMissing: a shared log takes packages that are not installed.
    """
    shared = shared_log_of(url)
    if shared is not None:
        with extras.needed("a shared log", "cluster"):
            return access_log.has_keys(shared)
    path = file_of(url)
    return path is not None and access_file.has_keys(path)


async def open_stores(
    url: str,
    *,
    memory_max_bytes: int,
    retention: Retention = KEEP_ALL,
    now_utc: Callable[[], str] = system_now_utc,
    opening: Opening | None = None,
) -> Stores:
    """Open the stores that a URL names: `sqlite:PATH`, `memory:`, or a shared log.

    Returns once all of the log is there. If cancelled, what was opened is closed again.

    Args:
        url: which.
        memory_max_bytes: how much of the log a journal in memory keeps.
        retention: how much of the log a journal on disk keeps.
        now_utc: the clock that entries are stamped by, but for a shared log, which has its own.
        opening: is told how far a journal is that catches up with others.

    Raises:
        JournalUnavailable: what holds a shared log does not answer at the moment.
        ExtraMissing: a shared log takes packages that are not installed.
        JournalUnusable: there is no such kind, or the file cannot serve; the message says why.
        SettingUnusable: the retention leaves no room for what must stay.
    """
    retention.check()
    if (local := local_log_of(url)) is not None:
        raise JournalUnusable(
            f"the log of {local.path} is shared by workers, in {local.folder}, and `twincast serve` serves it, with one"
            " worker or several; one process alone does not"
        )
    kind, path = JournalUrl.parse(url)
    if kind == "memory":
        return _open_in_memory(memory_max_bytes, retention)
    _warn_of_no_effect(retention)
    if kind == "nats":
        return await _open_shared(url, retention, now_utc, opening)
    return await _open_file(path, retention, now_utc)


def _warn_of_no_effect(retention: Retention) -> None:
    for text in retention.keep_for_in_vain:
        logger.warning("--keep-for of %r has no effect: nothing of the log is kept for longer than that", text)
    if retention.keep_rollups_s is not None and not retention.is_bounded:
        logger.warning("--keep-rollups has no effect: without --keep and --keep-bytes all entries are kept")
    if retention.needs_partitions and not retention.closes_at_entries:
        logger.warning(
            "--keep-rollups and --keep-for are of closed partitions, and nothing is closed: partition_entries is 0,"
            " or --keep-bytes has no room for several"
        )


def _open_in_memory(max_bytes: int, retention: Retention) -> Stores:
    if retention.is_bounded or retention.needs_partitions:
        logger.warning(
            "--keep and its like apply to a journal on disk only; one in memory keeps the newest %d bytes"
            " (--memory-journal-max-bytes)",
            max_bytes,
        )
    memory = MemoryJournal(max_bytes=max_bytes)
    return Stores(memory, MemoryAccessStore(memory.trail), memory.history)


async def _open_file(path: str, retention: Retention, now_utc: Callable[[], str]) -> Stores:
    async with AsyncExitStack() as undo:
        journal = await SqliteJournal.open(path, retention=retention, now_utc=now_utc)
        undo.push_async_callback(journal.close)
        access = await SqliteAccessStore.open(path, check_files=journal.check_files)
        undo.push_async_callback(access.close)
        history = await SqliteHistory.open(path, journal)
        undo.pop_all()
    return Stores(journal, access, history)


async def _open_shared(url: str, retention: Retention, now_utc: Callable[[], str], opening: Opening | None) -> Stores:
    with extras.needed("a shared log", "cluster"):
        kind = jetstream.JetStreamJournal
    address = NatsAddress.parse(url)
    async with AsyncExitStack() as undo:
        journal = await kind.open(address, retention=retention, now_utc=now_utc, opening=opening)
        undo.push_async_callback(journal.close)
        access = await shared_access.SharedAccessStore.open(journal)
        undo.push_async_callback(access.close)
        history = await SqliteHistory.open(address.copy, journal, settle=journal.when_stored)
        undo.pop_all()
    return Stores(journal, access, history, journal)
