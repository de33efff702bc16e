"""The durable journal: one SQLite file, appended by one thread, readable by any SQLite tool while it runs.

Why it looks as it does, with the figures, stands in docs/journal.md. In short: a commit appends to the log and touches
nothing else, in one statement, so that it costs one sequential write and one fsync; the state table follows behind,
a slice at a time, and what it lacks is replayed from the log at the next start.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from typing import Self

from twincast.core.batch import Batch, Committed, Placed
from twincast.core.model import Entry, Snapshot
from twincast.core.space import Space
from twincast.errors import JournalUnavailable
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.trim_schedule import TrimSchedule, system_now_utc
from twincast.journal.sqlite.worker import Worker
from twincast.journal.tail import LogTail

logger = logging.getLogger("twincast.journal")

TAIL_MAX_BYTES = 8 * 1024 * 1024
"""How much of the end of the log is in memory for followers; they read the rest from the file."""
READ_BATCH, READ_BATCH_BYTES = 1_000, 1024 * 1024
"""At most so much a follower reads from the file at once."""
READ_AGAIN_S = 0.2
"""After so long a follower tries again to read what the disk did not give."""


class SqliteJournal:
    """Group commit on a file: whatever was appended together is one transaction and one fsync."""

    def __init__(self, file: SqliteFile, worker: Worker, reader: LogReader, trimming: TrimSchedule) -> None:
        self._file = file
        self._worker = worker
        self._reader = reader
        # Its own worker, so that a read far back in the log keeps no commit waiting.
        self._reader_worker = Worker("journal reader")
        self._tail = LogTail(file.seq, TAIL_MAX_BYTES)
        self._checkpointing = False
        self._is_settled = False
        self.epoch = file.epoch
        self.lineage = file.lineage
        self._trimming = trimming
        self.keys = file.idempotency_keys()
        """See Journal.keys."""
        self.sync_s = file.sync_s
        """See Journal.sync_s."""
        self.marks = file.marks()
        """See Journal.marks."""

    @classmethod
    async def open(
        cls, path: str, *, retention: Retention = KEEP_ALL, now_utc: Callable[[], str] = system_now_utc
    ) -> Self:
        """Open or create the file.

        Args:
            path: the file.
            retention: what of the log is kept.
            now_utc: the clock that entries are stamped by.

        Raises:
            JournalUnusable: it is not a journal, read-only, from a newer version, or in use by another server.
        """
        worker = Worker("journal")
        try:
            journal = await worker.do(cls._open, path, worker, retention, now_utc)
        except BaseException:
            worker.abandon()
            raise
        journal._trimming.start()
        return journal

    @classmethod
    def _open(cls, path: str, worker: Worker, retention: Retention, now_utc: Callable[[], str]) -> Self:
        with ExitStack() as undo:
            file = SqliteFile(path, retention=retention)
            undo.callback(file.close)
            reader = LogReader(path, file.lineage.epoch)
            undo.callback(reader.close)
            trimming = TrimSchedule(file, worker, path, retention=retention, now_utc=now_utc)
            journal = cls(file, worker, reader, trimming)
            undo.pop_all()
            return journal

    async def append(self, batch: Batch) -> Placed:
        """See Journal.append."""
        self.check_files()
        self._file.look_at_reserve()
        future = self._worker.do(self._file.append, batch)
        future.add_done_callback(self._appended)
        # Shielded, for what has begun in the thread ends there, and the tail must learn of it.
        return Placed((await asyncio.shield(future)).seqs)

    def check_files(self) -> None:
        """Check that the open files are still those that the path leads to.

        On the event loop and not in the thread, which would ask for the interpreter's lock after each system call.

        Raises:
            JournalUnavailable: they are not: what is written to them would not be found again.
        """
        try:
            self._file.guard.check()
        except JournalUnavailable:
            if not self._is_settled:
                self._is_settled = True
                self._worker.do(self._file.settle).add_done_callback(_say_unsettled)
            raise
        self._is_settled = False

    def _appended(self, future: asyncio.Future[Committed]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        committed = future.result()
        first_seq = committed.entries[0].seq
        if first_seq > self._tail.seq + 1:  # what another program wrote comes before; followers read that in the file
            self._tail.skip_to(first_seq - 1)
        self._tail.append(committed)
        self._trimming.appended(self._tail.seq)
        if self._file.checkpoint_is_due and not self._checkpointing:
            self._checkpointing = True
            self._worker.do(self._file.checkpoint, None).add_done_callback(self._checkpointed)

    def _checkpointed(self, future: asyncio.Future[None]) -> None:
        self._checkpointing = False
        if not future.cancelled() and (error := future.exception()) is not None:
            logger.warning("the checkpoint waits, nothing is lost: %s", error)

    @property
    def oldest_since(self) -> int:
        """See Journal.oldest_since."""
        return self._trimming.oldest_since

    def space(self) -> Space:
        """See Journal.space."""
        return self._trimming.space()

    def recent(self, since: int) -> Sequence[Entry]:
        """See Journal.recent."""
        return self._tail.recent(since)

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """See Journal.read."""
        return await self._reader_worker.do(self._reader.read, since, limit, max_bytes)

    async def snapshot(self) -> Snapshot:
        """See Journal.snapshot."""
        return await self._worker.do(self._file.snapshot)

    async def follow(self, since: int) -> AsyncIterator[Committed]:
        """See Journal.follow."""
        followed = self._trimming.followed
        follower = object()
        followed[follower] = since
        try:
            while True:
                await self._tail.grown(since)
                committed = self._tail.read(since) if since >= self._tail.since else None
                if committed is None:
                    committed = await self._read_until_it_works(since)
                since = followed[follower] = committed.entries[-1].seq
                yield committed
        finally:
            followed.pop(follower, None)

    async def _read_until_it_works(self, since: int) -> Committed:
        """Read for a follower, which drives the state: a disk that fails for a while delays it and does not end it."""
        is_failing = False
        while True:
            try:
                return await self._reader_worker.do(self._reader.read_committed, since, READ_BATCH, READ_BATCH_BYTES)
            except JournalUnavailable as error:
                if not is_failing:
                    logger.warning("entries after %d cannot be read yet: %s", since, error)
                is_failing = True
                await asyncio.sleep(READ_AGAIN_S)

    async def close(self) -> None:
        """See Journal.close."""
        self._trimming.close()
        for worker, close in ((self._reader_worker, self._reader.close), (self._worker, self._file.close)):
            try:
                await worker.close(close)
            except JournalUnavailable as error:
                logger.warning("the journal closed on a failing disk; what was acknowledged is in its log: %s", error)


def _say_unsettled(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("the newest entries are in the journal's -wal alone: %s", error)
