"""The durable journal: one SQLite file, appended by one thread, readable by any SQLite tool while it runs.

Why it looks as it does, with the figures, stands in docs/journal.md. In short: a commit appends to the log and touches
nothing else, in one statement, so that it costs one sequential write and one fsync; the state table follows behind,
a slice at a time, and what it lacks is replayed from the log at the next start.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Self

from twincast.core.batch import Batch, Committed, Placed
from twincast.core.erasure import erasures_in
from twincast.errors import JournalUnavailable
from twincast.journal.outage import Outage
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.open_journal import OpenJournal
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.stored_log import StoredLog
from twincast.journal.sqlite.trim_schedule import system_now_utc
from twincast.journal.sqlite.worker import Worker
from twincast.journal.tail import TEXT_BYTES

logger = logging.getLogger("twincast.journal")

TAIL_MAX_BYTES = 8 * 1024 * 1024
"""How much of the end of the log is in memory for followers; they read the rest from the file."""


class SqliteJournal(StoredLog):
    """Group commit on a file: whatever was appended together is one transaction and one fsync."""

    batch_max_bytes: int | None = None
    """See Journal.batch_max_bytes. The bound of the open batch suffices."""

    def __init__(self, opened: OpenJournal, reader: LogReader) -> None:
        super().__init__(opened, reader, tail_max_bytes=TAIL_MAX_BYTES)
        file = opened.file
        self._is_settled = False
        self._outage = Outage()
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
        journal._upkeep.start()
        return journal

    @classmethod
    def _open(cls, path: str, worker: Worker, retention: Retention, now_utc: Callable[[], str]) -> Self:
        with ExitStack() as undo:
            file = SqliteFile(path, retention=retention)
            undo.callback(file.close)
            reader = LogReader(path, file.lineage.epoch)
            undo.callback(reader.close)
            journal = cls(OpenJournal(file, worker, retention, now_utc), reader)
            undo.pop_all()
            return journal

    async def append(self, batch: Batch) -> Placed:
        """See Journal.append."""
        try:
            self.check_files()
            self._file.look_at_reserve()
            batch.decide()  # here, where the state stands still
            future = self._worker.do(self._file.append, batch)
            future.add_done_callback(partial(self._appended, batch.text_bytes))
            # Shielded, for what has begun in the thread ends there, and the tail must learn of it.
            committed = await asyncio.shield(future)
        except JournalUnavailable as problem:
            self._outage.begin(problem)
            raise
        self._outage.end()
        return Placed(committed.seqs)

    @property
    def problem(self) -> JournalUnavailable | None:
        """See Journal.problem."""
        return self._outage.problem

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

    def _appended(self, text_bytes: int, future: asyncio.Future[Committed]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        committed = future.result()
        first_seq = committed.entries[0].seq
        if first_seq > self._tail.seq + 1:  # what another program wrote comes before; followers read that in the file
            self._tail.skip_to(first_seq - 1)
        assert committed.texts is not None
        event_bytes = sum(map(len, committed.texts)) + TEXT_BYTES * len(committed.texts)
        self._tail.append(committed, text_bytes + event_bytes)
        if self._file.has_erasures:
            self._tail.erase(erasures_in(committed.entries))
        self._has_stored(self._tail.seq)


def _say_unsettled(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("the newest entries are in the journal's -wal alone: %s", error)
