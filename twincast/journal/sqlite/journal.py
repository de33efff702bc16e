"""The durable journal: one SQLite file, appended by one thread, readable by any SQLite tool while it runs.

Why it looks as it does, with the figures, stands in docs/journal.md. In short: a commit appends to the log and touches
nothing else, in one statement, so that it costs one sequential write and one fsync; the state table follows behind,
a slice at a time, and what it lacks is replayed from the log at the next start.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Self

from twincast.core.audit import AuditRecord, CommandOrigin
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.keys import Key, Keyring, Pairing
from twincast.core.model import Entry, Snapshot
from twincast.core.producers import ProducerMark
from twincast.core.space import Space
from twincast.errors import JournalUnavailable
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite.access import AccessReader, use_code
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.trimming import Trimming, system_now_utc
from twincast.journal.tail import LogTail

logger = logging.getLogger("twincast.journal")

WINDOW_MAX_BYTES = 8 * 1024 * 1024
"""How much of the log's end followers find in memory; the rest they read from the file."""
READ_BATCH, READ_BATCH_BYTES = 1_000, 1024 * 1024
"""What a follower that reads from the file takes at once."""
READ_AGAIN_S = 0.2
"""When a follower tries again what the disk did not give."""


class SqliteJournal:
    """Group commit on a file: whatever was appended together is one transaction and one fsync."""

    def __init__(
        self, file: SqliteFile, thread: ThreadPoolExecutor, reader: LogReader, access: AccessReader, trimming: Trimming
    ) -> None:
        self._file = file
        self._access = access
        self._thread = thread
        self._reader = reader
        # A thread of its own, so that one who reads far back keeps no commit waiting.
        self._reader_thread = ThreadPoolExecutor(1, thread_name_prefix="journal reader")
        # Another, so that a revoked key is noticed in time, whatever is read.
        self._access_thread = ThreadPoolExecutor(1, thread_name_prefix="journal keys")
        # And one that waits for others who write, as a new key of a code does.
        self._pairing_thread = ThreadPoolExecutor(1, thread_name_prefix="journal pairing")
        self._window = LogTail(file.seq, WINDOW_MAX_BYTES)
        self._checkpointing = False
        self._is_settled = False
        self.epoch = file.epoch
        self.lineage = file.lineage
        self._trimming = trimming
        self.receipts = file.receipts()
        self.sync_s = file.sync_s
        """See Journal.sync_s."""
        self.marks = file.marks()

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
        thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        try:
            journal = await asyncio.get_running_loop().run_in_executor(
                thread, cls._open, path, thread, retention, now_utc
            )
        except BaseException:
            thread.shutdown(wait=False)
            raise
        journal._trimming.start()
        return journal

    @classmethod
    def _open(cls, path: str, thread: ThreadPoolExecutor, retention: Retention, now_utc: Callable[[], str]) -> Self:
        with ExitStack() as undo:
            file = SqliteFile(path, retention=retention)
            undo.callback(file.close)
            reader = LogReader(path, file.lineage.epoch)
            undo.callback(reader.close)
            trimming = Trimming(file, thread, path, retention=retention, now_utc=now_utc)
            journal = cls(file, thread, reader, AccessReader(path), trimming)
            undo.pop_all()
            return journal

    async def append(
        self,
        batch: Sequence[Entry],
        keys: Sequence[IdempotencyRecord] = (),
        deeds: Sequence[CommandOrigin] = (),
        marks: Sequence[ProducerMark] = (),
    ) -> range:
        """See Journal.append."""
        self._look_at_files()
        self._file.look_at_reserve()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._file.append, batch, keys, deeds, marks)
        future.add_done_callback(partial(self._appended, batch))
        # Shielded, for what has begun in the thread ends there, and the window must learn of it.
        first = await asyncio.shield(future)
        return range(first, first + len(batch))

    def _look_at_files(self) -> None:
        # Here and not in the thread, which would ask for the interpreter's lock after each call, and wait for the loop.
        try:
            self._file.guard.check()
        except JournalUnavailable:
            if not self._is_settled:
                self._is_settled = True
                loop = asyncio.get_running_loop()
                loop.run_in_executor(self._thread, self._file.settle).add_done_callback(_say_unsettled)
            raise
        self._is_settled = False

    def _appended(self, batch: Sequence[Entry], future: asyncio.Future[int]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        epoch = self.lineage.epoch
        first = future.result()
        if first > self._window.seq + 1:  # what another program wrote comes before; followers read that in the file
            self._window.skip_to(first - 1)
        for seq, entry in enumerate(batch, first):
            entry.seq = seq
            entry.epoch = epoch
        self._window.append(batch)
        self._trimming.appended(self._window.seq)
        if self._file.checkpoint_is_due and not self._checkpointing:
            self._checkpointing = True
            loop = asyncio.get_running_loop()
            loop.run_in_executor(self._thread, self._file.checkpoint).add_done_callback(self._checkpointed)

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
        return self._window.read(since) if since >= self._window.since else ()

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """See Journal.read."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader_thread, self._reader.read, since, limit, max_bytes)

    async def snapshot(self) -> Snapshot:
        """See Journal.snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._file.snapshot)

    async def follow(self, since: int) -> AsyncIterator[Sequence[Entry]]:
        """See Journal.follow."""
        followed = self._trimming.followed
        follower = object()
        followed[follower] = since
        try:
            while True:
                await self._window.grown(since)
                if since >= self._window.since:
                    batch = self._window.read(since)
                else:
                    batch = await self._read_until_it_works(since)
                since = followed[follower] = batch[-1].seq
                yield batch
        finally:
            followed.pop(follower, None)

    async def _read_until_it_works(self, since: int) -> Sequence[Entry]:
        """Read for a follower, who drives the state: a disk that fails for a while holds it up, and does not end it."""
        is_failing = False
        while True:
            try:
                return await self.read(since, READ_BATCH, max_bytes=READ_BATCH_BYTES)
            except JournalUnavailable as error:
                if not is_failing:
                    logger.warning("changes after %d cannot be read yet: %s", since, error)
                is_failing = True
                await asyncio.sleep(READ_AGAIN_S)

    async def keyring(self, unless_version: int = -1) -> Keyring | None:
        """See Journal.keyring."""
        self._look_at_files()  # other files would have other keys
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._access_thread, self._access.keyring, unless_version)

    async def audit(self, limit: int, before: int | None = None) -> Sequence[tuple[int, AuditRecord]]:
        """See Journal.audit."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._access_thread, self._access.audit, limit, before)

    async def pair(
        self, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int
    ) -> Key:
        """See Journal.pair."""
        self._look_at_files()
        loop = asyncio.get_running_loop()
        check = partial(self._access.check_code, digest, now_s, life_s=life_s)
        await loop.run_in_executor(self._access_thread, check)  # what anybody may send waits for nobody who writes
        use = partial(use_code, self._access.path, digest, now_s, make, address, life_s=life_s)
        return await loop.run_in_executor(self._pairing_thread, use)

    async def close(self) -> None:
        """See Journal.close."""
        self._trimming.close()
        loop = asyncio.get_running_loop()
        for thread, close in (
            (self._pairing_thread, lambda: None),
            (self._reader_thread, self._reader.close),
            (self._access_thread, self._access.close),
            (self._thread, self._file.close),
        ):
            try:
                await loop.run_in_executor(thread, close)
            except JournalUnavailable as error:
                logger.warning("the journal closed on a failing disk; what was acknowledged is in its log: %s", error)
            finally:
                thread.shutdown()


def _say_unsettled(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        logger.warning("the newest changes are in the journal's -wal alone: %s", error)
