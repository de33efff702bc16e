"""Has made what is left of partitions before they are dropped: one at a time, in another process.

A crash at any step loses nothing: the partition is part of the log until the commit that puts what is left of it in its
place, and that file is whole and on the disk then. One that came to no commit goes at the next start.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.history import apart, files
from twincast.journal.sqlite.history.catalog import ROLLUP, Part
from twincast.journal.sqlite.history.closer import Summing
from twincast.journal.sqlite.history.layout import folder_of, summary_name
from twincast.journal.sqlite.history.schedule import AGAIN_S, SHARE_MIN
from twincast.journal.sqlite.open_journal import OpenJournal

logger = logging.getLogger("twincast.journal")


class Summaries:
    """What is left of partitions that are kept no longer, made when it is asked for. Lives on one event loop."""

    def __init__(self, journal: OpenJournal, *, made: Callable[[], None]) -> None:
        """Make nothing yet.

        Args:
            journal: the open journal.
            made: is called when one has been made.
        """
        self._path, self._now_utc, self._making = journal.path, journal.now_utc, journal.making
        self._made = made
        self._found: dict[str, Part | None] = {}  # by the partition's digest; None: it cannot be read any more
        self._task: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why none is made; None if one is, or nothing is asked for."""

    def has(self, part: Part) -> bool:
        """Return whether what is left of a partition is made; if not, begin with it, unless another one is made."""
        if part.sha256 in self._found:
            return True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(part), name="summing up a partition")
            self._task.add_done_callback(self._ended)
        return False

    def of(self, parts: Iterable[Part]) -> list[Part]:
        """Return what is left of partitions, for the catalog."""
        return [left for part in parts if (left := self._found.get(part.sha256)) is not None]

    def forget(self, parts: Iterable[Part]) -> None:
        """Take note that partitions are dropped."""
        for part in parts:
            self._found.pop(part.sha256, None)

    async def close(self) -> None:
        """End what is under way; what it has made so far is thrown away."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, part: Part) -> None:
        while True:
            try:
                async with self._making:
                    self._found[part.sha256] = await self._make(part)
            except (JournalUnavailable, OSError) as error:
                if self.problem is None:
                    logger.warning("entries %d to %d are not summed up, and stay: %s", *part[:2], error)
                self.problem = str(error)
                await asyncio.sleep(AGAIN_S)
            else:
                self.problem = None
                return

    async def _make(self, part: Part) -> Part | None:
        """Make the file, and return what the catalog is to say of it.

        Raises:
            JournalUnavailable, OSError: it is not made; the partition is what it was.
        """
        loop, source = asyncio.get_running_loop(), files.path_of(self._path, part)
        if not await loop.run_in_executor(None, os.path.exists, source):
            return None  # another one has taken its place meanwhile
        await apart.check_room(self._path, part.bytes)
        name = summary_name(part.first_seq)
        new = os.path.join(folder_of(self._path), f"{name}.{os.getpid()}.new")
        try:
            made = await apart.made_apart(Summing(source, new, SHARE_MIN))
            if made.problem:
                if await loop.run_in_executor(None, _is_damaged, source, part):
                    logger.error("%s is damaged: nothing is left of it once it is kept no longer", source)
                    return None
                raise JournalUnavailable(made.problem)
            await loop.run_in_executor(None, files.settle_as, new, name)
        finally:
            await loop.run_in_executor(None, files.remove_unfinished, new)
        logger.info("summed up the log from %d to %d: %d bytes", *part[:2], made.bytes)
        return part._replace(
            file=name, bytes=made.bytes, sha256=made.sha256, kind=ROLLUP, closed_at_utc=self._now_utc()
        )

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self.problem = f"{type(error).__name__}: {error}"
            logger.error("a partition is not summed up", exc_info=error)
            return
        self._made()


def _is_damaged(path: str, part: Part) -> bool:
    try:
        return files.digest(path) != part.sha256
    except FileNotFoundError:
        return True
    except OSError:
        return False
