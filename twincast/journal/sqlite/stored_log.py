"""What a log in an SQLite file gives to those who read it; how entries come into it is not decided here."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from twincast.core.batch import Committed
from twincast.core.erasure import Erasure
from twincast.core.model import Entry, Snapshot
from twincast.core.space import Space
from twincast.errors import JournalUnavailable, Truncated
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.open_journal import OpenJournal
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.upkeep import Upkeep
from twincast.journal.sqlite.worker import Worker
from twincast.journal.tail import LogTail

logger = logging.getLogger("twincast.journal")

READ_BATCH, READ_BATCH_BYTES = 1_000, 1024 * 1024
"""At most so much a follower reads from the file at once."""
READ_AGAIN_S = 0.2
"""After so long a follower tries again to read what the disk did not give."""


class StoredLog:
    """The end of the log in memory, the rest in the file, whose checkpoint follows behind. Lives on one event loop."""

    def __init__(self, opened: OpenJournal, reader: LogReader, *, tail_max_bytes: int) -> None:
        file = opened.file
        self._file, self._worker = file, opened.worker
        self._reader = reader
        # Its own worker, so that a read far back in the log keeps no commit waiting.
        self._reader_worker = Worker("journal reader")
        self._tail = LogTail(file.seq, tail_max_bytes)
        self._upkeep = Upkeep(opened)
        self._upkeep.when_rewritten(self._forget_read)
        self._grown: Callable[[int], None] = _tell_nobody
        self._checkpointing = False
        self._is_closing = False
        self.epoch = file.epoch
        """See Journal.epoch."""
        self.lineage = file.lineage
        """See Journal.lineage."""

    def _has_stored(self, seq: int) -> None:
        """Take note that the file has what comes up to a position."""
        self._upkeep.appended(seq)
        self._grown(seq)
        if not self._checkpointing and not self._is_closing:
            self._go_on_with_checkpoint()

    def when_grown(self, call: Callable[[int], None]) -> None:
        """Call something with the newest position that the file has, each time that there is a newer one."""
        self._grown = call

    def _go_on_with_checkpoint(self) -> None:
        self._checkpointing = self._file.checkpoint_is_due
        if self._checkpointing:
            self._worker.do(self._file.checkpoint, None).add_done_callback(self._checkpointed)

    def _checkpointed(self, future: asyncio.Future[None]) -> None:
        """Go on until nothing is due, also when no commit comes any more; but behind each commit that waits."""
        self._checkpointing = False
        if future.cancelled():
            return
        if (error := future.exception()) is not None:  # said while the journal closes, too
            logger.warning("the checkpoint waits, nothing is lost: %s", error)
        elif not self._is_closing:
            self._go_on_with_checkpoint()

    async def closed(self) -> None:
        """Wait until everything is closed that is to be."""
        await self._upkeep.closing.settled()

    def when_erased(self, forget: Callable[[], Awaitable[None]]) -> None:
        """Have something called whenever histories are erased: it lets go of what it has read of the files."""
        self._upkeep.erasing.when_rewritten(forget)

    async def erased(self) -> None:
        """Wait until everything is erased that is to be."""
        await self._upkeep.erasing.settled()

    async def erasures(self) -> Sequence[Erasure]:
        """See Journal.erasures."""
        return await self._worker.do(self._file.erasures)

    async def _forget_read(self) -> None:
        await self._reader_worker.do(self._reader.forget)

    def note_gone(self, gone: Iterable[Part]) -> None:
        """Take note, from any thread, of partitions whose files a reader has not found."""
        self._file.partitions.note_gone(gone)

    @property
    def oldest_since(self) -> int:
        """See Journal.oldest_since."""
        return self._upkeep.trimming.oldest_since

    def space(self) -> Space:
        """See Journal.space."""
        return self._upkeep.space()

    def recent(self, since: int, limit: int = 1) -> Sequence[Entry]:
        """See Journal.recent."""
        return self._tail.recent(since, limit)

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """See Journal.read."""
        if since < self.oldest_since:  # a partition may have it still, until all of that is too old
            raise Truncated(f"this journal reaches back to {self.oldest_since}, not to {since}")
        return await self._reader_worker.do(self._reader.read, since, limit, max_bytes)

    async def snapshot(self) -> Snapshot:
        """See Journal.snapshot."""
        return await self._worker.do(self._file.snapshot)

    async def follow(self, since: int) -> AsyncIterator[Committed]:
        """See Journal.follow."""
        followed = self._upkeep.trimming.followed
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
        self._is_closing = True
        await self._upkeep.close()
        for worker, close in ((self._reader_worker, self._reader.close), (self._worker, self._file.close)):
            try:
                await worker.close(close)
            except JournalUnavailable as error:
                logger.warning("the journal closed on a failing disk; what was acknowledged is in its log: %s", error)


def _tell_nobody(seq: int) -> None:
    """Do nothing."""
