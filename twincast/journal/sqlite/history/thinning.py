"""Writes closed partitions, and what is left of some, anew without devices of which they are kept for too long by now.

A crash at any step loses nothing: the old file is part of the log until the commit that puts the new one in its place,
which is whole and on the disk then. What is left over goes at the next start.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import apsw

from twincast.core.pattern import Pattern
from twincast.errors import JournalUnavailable
from twincast.journal.retention import Retention
from twincast.journal.sqlite.history import apart, files
from twincast.journal.sqlite.history.catalog import ROLLUP, THINNED, Part
from twincast.journal.sqlite.history.closer import Closed
from twincast.journal.sqlite.history.layout import open_partition
from twincast.journal.sqlite.history.rewrite import EVERYTHING
from twincast.journal.sqlite.history.times import time_us
from twincast.journal.sqlite.open_journal import OpenJournal

logger = logging.getLogger("twincast.journal")

LOOK_S = 60.0
"""How often it is looked for what is too old."""

_DEVICES = """
select name from device where name <> ''
and (id in (select device from entry) or id in (select device from state) or id in (select device from rollup))
"""


class Rule(NamedTuple):
    """How long the history of some devices is kept."""

    pattern: Pattern
    keep_us: int


def rules_of(retention: Retention) -> Sequence[Rule]:
    """Return the rules of a retention, of which the first one that selects a device counts.

    Raises:
        ValidationFailed: a pattern is none.
    """
    return [Rule(Pattern(text), round(keep_s * 1e6)) for text, keep_s in retention.keep_for]


class Thinning:
    """Thins the partitions of an open journal, the oldest first. Lives on one event loop."""

    def __init__(self, journal: OpenJournal, *, thinned: Callable[[], None]) -> None:
        """Begin with `start`.

        Args:
            journal: the open journal.
            thinned: is called when a partition has been thinned.
        """
        self._file, self._worker, self._path = journal.file, journal.worker, journal.path
        self._partitions = journal.file.partitions
        self._now_utc, self._making = journal.now_utc, journal.making
        self._rules, self._keep_entries = rules_of(journal.retention), journal.retention.keep_entries
        self._thinned = thinned
        self._forgetting: list[Callable[[], Awaitable[None]]] = []
        self._seen: set[tuple[str, tuple[bool, ...]]] = set()
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why nothing is thinned; None if it is, or nothing is due."""

    def when_rewritten(self, forget: Callable[[], Awaitable[None]]) -> None:
        """Have something called when partitions are replaced: it lets go of files that are gone."""
        self._forgetting.append(forget)

    def start(self) -> None:
        """Begin, on the event loop, if there are rules."""
        if self._rules:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="thinning partitions")

    async def close(self) -> None:
        """End what is under way; what it has made so far is thrown away."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
            except (JournalUnavailable, OSError) as error:
                if self.problem is None:
                    logger.warning("the history of some devices is kept for longer than it is to be: %s", error)
                self.problem = str(error)
            else:
                self.problem = None
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """Thin what is due. What keeps it from one partition keeps it from no other.

        Nor what the journal itself still has, or clients may resume from.
        """
        end = min(await self._worker.do(self._file.hot_since), self._file.seq - self._keep_entries)
        failed: JournalUnavailable | None = None
        for first_seq in [part.first_seq for part in self._candidates() if part.last_seq <= end]:
            async with self._making:
                part = next((part for part in self._candidates() if part.first_seq == first_seq), None)
                if part is None:  # it was dropped meanwhile; one that was written anew is what it is now
                    continue
                now_us = time_us(self._now_utc())
                due = tuple(part.stored_max_us < now_us - rule.keep_us for rule in self._rules)
                if not any(due) or (part.sha256, due) in self._seen:
                    continue
                try:
                    await self._thin(part, due)
                except (JournalUnavailable, OSError, apsw.Error) as error:
                    path, loop = files.path_of(self._path, part), asyncio.get_running_loop()
                    failed = failed or await loop.run_in_executor(None, files.failing, path, part, error)
                else:
                    self._seen.add((part.sha256, due))
        if failed:
            raise failed

    def _candidates(self) -> Sequence[Part]:
        """Return what may be thinned: not the newest partition, from which the next one takes its twins."""
        return [*self._partitions.summaries, *self._partitions.parts[:-1]]

    async def _thin(self, part: Part, due: Sequence[bool]) -> None:
        """Put a partition without devices that are due in the place of one, if that has any of them.

        Raises:
            JournalUnavailable, OSError: it is not; the partition is what it was.
        """
        loop, old = asyncio.get_running_loop(), files.path_of(self._path, part)
        names = await loop.run_in_executor(None, _names_in, old)
        gone = [name for name in names if self._is_due(name, due)]
        if not gone:
            return
        without = [(name, EVERYTHING) for name in gone]
        made, name = await apart.rewritten(self._path, part, without, keeps_places=False)
        if not name:
            return
        anew = thinned_part(part, name, made)
        replaced = self._worker.do(self._partitions.replace, part, anew)
        is_part = await asyncio.shield(replaced)  # what has begun in the thread ends there
        await loop.run_in_executor(None, files.unlink, self._path, [part if is_part else anew])
        if is_part:
            logger.info("thinned the log from %d to %d, of %d devices", *part[:2], len(gone))
            self._thinned()
            for forget in self._forgetting:
                await forget()

    def _is_due(self, name: str, due: Sequence[bool]) -> bool:
        return next(
            (is_due for rule, is_due in zip(self._rules, due, strict=True) if rule.pattern.matches(name)), False
        )


def _names_in(path: str) -> list[str]:
    with closing(open_partition(path)) as db:
        return [str(name) for (name,) in db.execute(_DEVICES)]


def thinned_part(part: Part, name: str, made: Closed) -> Part:
    """Return what the catalog says of a partition that was thinned; of one without any entries, its old times."""
    anew = apart.part_anew(part, name, made)
    return anew if part.kind == ROLLUP else anew._replace(entries=made.entries, kind=THINNED)
