"""Carries out deletions of histories on a server's own files, behind whatever is live.

In this order, and again from the beginning after a crash: the log's rows, so that nothing more is closed of them; the
closed partitions, each written anew in another process; what is open or indexed of them; the file's free pages; and at
last the -wal. Only then it is noted that this is done. What is asked meanwhile leaves out what is still there.
A partition that cannot be written anew keeps none of the rest from it, and the deletion from being noted as done.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from contextlib import suppress
from functools import partial

import apsw

from twincast.core.erasure import Erasure, Erasures, up_to
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite import erasures as rows
from twincast.journal.sqlite.history import apart, files
from twincast.journal.sqlite.history.catalog import ROLLUP, Part
from twincast.journal.sqlite.history.layout import folder_of, summary_name
from twincast.journal.sqlite.open_journal import OpenJournal

logger = logging.getLogger("twincast.journal")

AGAIN_S = 30.0
"""After how long a failed step is tried again."""
BUSY_S = 0.05
"""The same for one that a reader of the file is in the way of."""
PAUSE_MAX_S = 0.1


class Erasing:
    """Erases what is to be erased in an open journal. Lives on one event loop."""

    def __init__(self, journal: OpenJournal) -> None:
        """Begin with `wake`."""
        self._file, self._worker, self._path = journal.file, journal.worker, journal.path
        self._partitions = journal.file.partitions
        self._now_utc, self._making = journal.now_utc, journal.making
        self._replaced: set[str] = set()
        self._clean: set[str] = set()
        self._clean_of: Erasures = {}
        self._forgetting: list[Callable[[], Awaitable[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self.problem: str | None = None
        """Why it is not done yet; None if it goes on, or there is nothing to do."""

    def when_rewritten(self, forget: Callable[[], Awaitable[None]]) -> None:
        """Have something called before the last step: it lets go of files that are gone, and of what was read."""
        self._forgetting.append(forget)

    def wake(self) -> None:
        """Take note that there is something to erase."""
        if self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="erasing histories")
            self._task.add_done_callback(self._ended)

    async def settled(self) -> None:
        """Wait until everything is erased that is to be."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """End what is under way; it begins anew with the next start."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                pending = await self._worker.do(self._file.erasing)
                if not pending:
                    return
                async with self._making:
                    await self._carry_out(pending)
            except (JournalUnavailable, OSError) as error:
                if self.problem is None:
                    logger.warning("a history is not erased yet: %s", error)
                self.problem = str(error)
                await asyncio.sleep(AGAIN_S)
            else:
                self.problem = None
                logger.info("erased what the log had of %d devices", len(up_to(pending)))

    async def _carry_out(self, pending: Sequence[Erasure]) -> None:
        """Erase, and take note of that.

        Raises:
            JournalUnavailable, OSError: something of it is still there.
        """
        file, do = self._file, self._worker.do
        erasures, until = up_to(pending), pending[-1].seq
        await do(partial(file.overwrite, is_all=True))
        while file.checkpoint_seq < until:  # which has the values of the twins
            await do(file.checkpoint, until)
        await self._erase_rows(erasures, until)
        failed = await self._rewrite_all(erasures, until)
        for forget in self._forgetting:
            await forget()
        await asyncio.get_running_loop().run_in_executor(None, self._remove_replaced)
        await self._write_over_free_pages()
        await self._empty_wal()
        if failed:
            raise failed
        noted = partial(rows.note_erased, erasures=pending, now_utc=self._now_utc())
        await do(partial(file.change, noted, is_synced=True))
        await do(file.erasing)

    async def _rewrite_all(self, erasures: Erasures, until: int) -> JournalUnavailable | None:
        """Put partitions without the devices in the place of all that have something of them.

        Returns:
            What keeps it from the first one that it failed for.
        """
        if erasures != self._clean_of:  # what a digest says of a file holds for as long as the same is looked for
            self._clean, self._clean_of = set(), erasures
        tried: set[str] = set()
        failed: JournalUnavailable | None = None
        while part := next(self._unclean(until, tried | self._clean), None):  # meanwhile some may leave their sums
            tried.add(part.sha256)
            try:
                anew = await self._rewrite(part, erasures)
            except (JournalUnavailable, OSError) as error:
                path, loop = files.path_of(self._path, part), asyncio.get_running_loop()
                failed = failed or await loop.run_in_executor(None, files.failing, path, part, error)
            else:
                self._clean |= {part.sha256, anew}
        return failed

    def _unclean(self, until: int, clean: Container[str]) -> Iterator[Part]:
        """Yield the partitions, and what is left of some, that may have something from before a position."""
        for part in (*self._partitions.parts, *self._partitions.summaries):
            if part.first_seq < until and part.sha256 not in clean:
                yield part

    async def _empty_wal(self) -> None:
        while True:
            if await self._worker.do(self._file.empty_wal):
                return
            await asyncio.sleep(BUSY_S)  # somebody reads the file as it was

    async def _erase_rows(self, erasures: Erasures, until: int) -> None:
        first = await self._worker.do(self._file.hot_since) + 1
        while first <= until:
            last = min(until, first + rows.SLICE_ENTRIES - 1)
            await self._in_turn(partial(rows.erase_rows, first=first, last=last, erasures=erasures))
            first = last + 1

    async def _rewrite(self, part: Part, erasures: Erasures) -> str:
        """Put a partition without the devices in the place of one, if that has anything of them; return its digest."""
        without = [(device_id, seq - 1) for device_id, seq in erasures.items()]
        made, name = await apart.rewritten(self._path, part, without, keeps_places=True)
        if not name:
            return part.sha256
        anew = apart.part_anew(part, name, made)
        replaced = self._worker.do(self._partitions.replace, part, anew)
        is_part = await asyncio.shield(replaced)  # what has begun in the thread ends there
        self._replaced.add(files.path_of(self._path, part if is_part else anew))
        if part.kind != ROLLUP:  # what was made of it before, to be left of it, is no longer wanted
            self._replaced.add(os.path.join(folder_of(self._path), summary_name(part.first_seq)))
        return anew.sha256

    def _remove_replaced(self) -> None:
        named = {files.path_of(self._path, part) for part in (*self._partitions.parts, *self._partitions.summaries)}
        self._replaced -= named
        for path in tuple(self._replaced):
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._replaced.discard(path)

    async def _write_over_free_pages(self) -> None:
        lent = 0
        while pages := await self._in_turn(rows.fill_free_pages):
            lent += pages
            self._file.lend(lent)
        await self._worker.do(partial(self._file.overwrite, is_all=False))
        while await self._in_turn(rows.let_go_of_zeros):
            pass
        self._file.lend(0)

    async def _in_turn(self, work: Callable[[apsw.Connection], int]) -> int:
        """Do something in the journal's thread; then leave as much of its time to commits."""
        began_s = time.monotonic()
        result = await self._worker.do(partial(self._file.change, work))
        await asyncio.sleep(min(PAUSE_MAX_S, time.monotonic() - began_s))
        return result

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self.problem = f"{type(error).__name__}: {error}"
            logger.error("histories are not erased any more until the server is started again", exc_info=error)
            self._is_closed = True
        elif self._file.has_erasures:
            self.wake()
