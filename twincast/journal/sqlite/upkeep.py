"""What is done to an open journal behind its commits: the log is trimmed and closed, histories erased and thinned."""

from collections.abc import Awaitable, Callable

from twincast.core.space import Space
from twincast.journal.sqlite.history.erasing import Erasing
from twincast.journal.sqlite.history.schedule import Closing
from twincast.journal.sqlite.history.thinning import Thinning
from twincast.journal.sqlite.open_journal import OpenJournal
from twincast.journal.sqlite.trim_schedule import TrimSchedule


class Upkeep:
    """All that is done to one journal, begun and ended together. Lives on one event loop."""

    def __init__(self, journal: OpenJournal) -> None:
        """Look at a journal that was just opened; see `start`."""
        self._file = journal.file
        self.trimming = TrimSchedule(journal)
        self.closing = Closing(journal, closed=self.trimming.closed, keep_back=self.trimming.keep_back)
        self.erasing = Erasing(journal)
        self.thinning = Thinning(journal, thinned=self.trimming.closed)

    def start(self) -> None:
        """Begin, on the event loop."""
        self.trimming.start()
        self.closing.start()
        self.thinning.start()
        if self._file.has_erasures:
            self.erasing.wake()

    def appended(self, newest_seq: int) -> None:
        """Take note of a commit."""
        self.trimming.appended(newest_seq)
        self.closing.appended(newest_seq)
        if self._file.has_erasures:
            self.erasing.wake()

    def when_rewritten(self, forget: Callable[[], Awaitable[None]]) -> None:
        """Have something called when files are replaced: it lets go of those that are gone, and of what was read."""
        self.erasing.when_rewritten(forget)
        self.thinning.when_rewritten(forget)

    def space(self) -> Space:
        """Return how full the journal is, and what of all this fails."""
        space = self.trimming.space()
        for problem, what in (
            (self.closing.problem, "the log is not closed into partitions, and its file grows"),
            (self.erasing.problem, "a history that was deleted is not erased yet"),
            (self.thinning.problem, "the history of some devices is kept for longer than it is to be"),
        ):
            if space.problem is None and problem is not None:
                space.problem = f"{what}: {problem}"
        return space

    async def close(self) -> None:
        """End what is under way; what is not done is done after the next start."""
        self.trimming.close()
        await self.trimming.end()
        await self.closing.close()
        await self.erasing.close()
        await self.thinning.close()
