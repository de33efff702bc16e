"""Decides when a part of the log is closed, and has it done: built in another process, named by the journal's thread.

A crash at any step loses nothing: until the catalog names the file, the log has every entry of it; from then on the
file is whole and on the disk. What is left over goes at the next start.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from twincast.errors import JournalUnavailable
from twincast.journal.retention import CLOSING_BYTES
from twincast.journal.sqlite.history import apart, files
from twincast.journal.sqlite.history.catalog import CLOSED, Part
from twincast.journal.sqlite.history.closer import Job
from twincast.journal.sqlite.open_journal import OpenJournal

logger = logging.getLogger("twincast.journal")

LOOK_S = 60.0
"""How often the age of what is not closed is looked at."""
AGAIN_S = 30.0
"""After how long a failed closing is tried again."""
SHARE_MIN, SHARE_MAX = 0.15, 1.0
SHARE_FULL = 0.7
"""At its share a closing takes this part of the time in which as much is appended again."""
SHARE_BESIDE = 0.2
"""Where that is not enough it takes no more than this at first: commits come first, and what is to be closed waits."""
FIRST_CPU_S = 6e-6
"""What an entry is taken to cost before one was closed."""


class Span(NamedTuple):
    """What is closed next."""

    first: int
    last: int


class Closing:
    """Closes the log behind the newest entries, one partition at a time. Lives on one event loop."""

    def __init__(
        self,
        journal: OpenJournal,
        *,
        closed: Callable[[], None],
        keep_back: Callable[[Part | None], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Close parts of a journal that was just opened; see `start`.

        Args:
            journal: the open journal.
            closed: is called when a partition has been closed.
            keep_back: has a partition stay, until it is called with another one or none.
            clock_s: a clock, for how fast entries come.
        """
        file, retention = journal.file, journal.retention
        self._file, self._worker, self._path = file, journal.worker, journal.path
        self._partitions = file.partitions
        self._now_utc, self._making = journal.now_utc, journal.making
        self._entries = retention.closes_at_entries
        self._age_s, self._aged_entries = retention.closes_at_age_s, retention.aged_entries
        self._bytes = retention.closes_at_bytes
        self._looks_at_bytes = 0  # at how much that was appended it looks how much is not closed
        self._closed = closed
        self._keep_back = keep_back
        self._clock_s = clock_s
        self._seq = file.seq
        self._since = file.closed_seq()
        self._cpu_s = FIRST_CPU_S
        self._began_seq, self._began_s = file.seq, clock_s()
        self._looks_at_s = clock_s()
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why nothing is closed; None if it is, or nothing is due."""

    def start(self) -> None:
        """Begin, on the event loop."""
        self.appended(self._seq)

    def appended(self, newest_seq: int) -> None:
        """Take note of a commit."""
        self._seq = newest_seq
        if self._task is not None or not self._entries:
            return
        waiting = newest_seq - self._since
        is_aged = waiting >= min(self._aged_entries, self._entries) and self._clock_s() >= self._looks_at_s
        is_much = self._bytes is not None and self._file.appended_bytes >= self._looks_at_bytes
        if waiting >= self._entries or is_aged or is_much:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="closing the log")
            self._task.add_done_callback(self._ended)

    async def settled(self) -> None:
        """Wait until nothing is being closed."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """End what is under way; what it has made so far is thrown away."""
        self._entries = 0
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while (span := await self._due()) is not None:
            try:
                async with self._making:
                    await self._close(span)
            except (JournalUnavailable, OSError) as error:
                if await self._has_gone(span):
                    continue
                if self.problem is None:
                    logger.warning("the log is not closed from %d to %d, and goes on as it is: %s", *span, error)
                self.problem = str(error)
                await asyncio.sleep(AGAIN_S)
            else:
                self.problem = None
                self._closed()

    async def _has_gone(self, span: Span) -> bool:
        """Return whether the log begins behind the first entry of a span by now, so that another one is due."""
        with suppress(JournalUnavailable):
            return await self._worker.do(self._file.closed_seq) >= span.first
        return False

    async def _due(self) -> Span | None:
        """Return what is to be closed now: a full partition, or for its age what there is."""
        try:
            self._since = await self._worker.do(self._file.closed_seq)
        except JournalUnavailable:
            return None
        waiting = self._seq - self._since
        if self._entries and waiting >= self._entries:
            return Span(self._since + 1, self._since + self._entries)
        if self._entries and self._bytes is not None:
            self._looks_at_bytes = self._file.appended_bytes + self._bytes // 4
            with suppress(JournalUnavailable):
                if await self._worker.do(self._file.bytes_behind, self._since) >= self._bytes:
                    return Span(self._since + 1, self._seq)
        self._looks_at_s = self._clock_s() + LOOK_S
        if not self._entries or waiting < min(self._aged_entries, self._entries):
            return None
        with suppress(JournalUnavailable):
            if await self._worker.do(self._file.is_older, self._since + 1, self._age_s, self._now_utc()):
                return Span(self._since + 1, self._seq)
        return None

    async def _close(self, span: Span) -> None:
        """Make a partition, and then have it named.

        Raises:
            JournalUnavailable, OSError: it is not; the log has what it had.
        """
        await apart.check_room(self._path, self._needed_bytes(span))
        loop = asyncio.get_running_loop()
        new = await loop.run_in_executor(None, files.new_file, self._path, span.first)
        try:
            before = await self._before(span)
            job = Job(
                journal=self._path,
                new=new,
                first=span.first,
                last=span.last,
                log=self._file.epoch,
                before=None if before is None else files.path_of(self._path, before),
                share=self._share(span),
            )
            made, name = await apart.settled(job, partial(files.settle, new, span.first))
        finally:
            self._keep_back(None)
        self._cpu_s = made.cpu_s / made.entries
        part = Part(
            first_seq=span.first,
            last_seq=span.last,
            file=name,
            min_us=made.min_us,
            max_us=made.max_us,
            stored_min_us=made.stored_min_us,
            stored_max_us=made.stored_max_us,
            entries=made.entries,
            bytes=made.bytes,
            sha256=made.sha256,
            kind=CLOSED,
            closed_at_utc=self._now_utc(),
        )
        await asyncio.shield(self._worker.do(self._partitions.add, part))  # what has begun in the thread ends there
        logger.info("closed the log from %d to %d: %d bytes, %.1f s of a core", *span, made.bytes, made.cpu_s)

    async def _before(self, span: Span) -> Part | None:
        """Return the partition before a span, which is kept back until that is closed; None if there is none."""
        parts = self._partitions.parts
        if not parts or parts[-1].last_seq + 1 != span.first or parts[-1].kind != CLOSED:
            return None
        self._keep_back(parts[-1])
        await self._worker.do(self._file.closed_seq)  # a drop of it that has begun ends before that
        return parts[-1] if parts[-1] in self._partitions.parts else None

    def _needed_bytes(self, span: Span) -> int:
        """Return how much room the copy and the new file take, at most."""
        entries, size_bytes = span.last - span.first + 1, os.path.getsize(self._path)
        entry_bytes = size_bytes / max(1, self._seq - self._since)  # at most: some of it may be free, or something else
        return round(entries * max(CLOSING_BYTES, 2 * entry_bytes))

    def _share(self, span: Span) -> float:
        """Return how much of a core the next closing takes, by how fast entries came since the one before."""
        now_s = self._clock_s()
        per_s = (self._seq - self._began_seq) / max(1.0, now_s - self._began_s)
        self._began_seq, self._began_s = self._seq, now_s
        return share(self._cpu_s, per_s, (self._seq - span.last) / self._entries)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.problem = f"{type(error).__name__}: {error}"
            logger.error("the log is not closed any more until the server is started again", exc_info=error)
            self._entries = 0


def share(entry_cpu_s: float, entries_per_s: float, lag: float) -> float:
    """Return how much of a core a closing takes, so that it keeps up with the load, and catches up if it lags.

    Under a load that takes all there is, it falls behind by some four partitions before it takes a core of its own.

    Args:
        entry_cpu_s: what closing an entry costs.
        entries_per_s: how fast they come.
        lag: how many partitions the log is ahead of the one that is closed.
    """
    keeping_up = entry_cpu_s * entries_per_s / SHARE_FULL * (1 + lag)
    at_first = SHARE_BESIDE * max(1.0, lag - 1)
    return min(SHARE_MAX, at_first if keeping_up > at_first else max(keeping_up, SHARE_MIN * (1 + lag)))
