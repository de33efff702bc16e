"""The history of a journal in SQLite, with a thread of its own for its queries."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Self, TypeVar

from twincast.core.model import Entry, Snapshot
from twincast.errors import Stopping
from twincast.history.query import BucketsQuery, EntriesPage, EntriesQuery, Names, Series, Told
from twincast.journal.sqlite.history.queries import Queries
from twincast.journal.sqlite.history.slices import BLOCK_ENTRIES
from twincast.journal.sqlite.history.turns import Steps, Turns
from twincast.journal.sqlite.stored_log import StoredLog

T = TypeVar("T")


async def _at_once() -> None:
    """Wait for nothing."""


class SqliteHistory:
    """See History. All that touches a file is done in its one thread, in turns; see `turns`."""

    def __init__(self, turns: Turns, queries: Queries, settle: Callable[[], Awaitable[None]]) -> None:
        """See `open`."""
        self._turns = turns
        self._queries = queries
        self._settle = settle
        self._looked_at = 0

    @classmethod
    async def open(cls, path: str, journal: StoredLog, *, settle: Callable[[], Awaitable[None]] = _at_once) -> Self:
        """Open connections of its own to a journal's file; to be closed before the journal is.

        Args:
            path: the file.
            journal: whose file it is.
            settle: waits until the file has what the journal has taken.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        turns = Turns("journal history")
        try:
            queries = await turns.do(_opened(path, journal))
        except BaseException:
            await turns.close()
            raise
        turns.when_idle(lambda is_busy: queries.go_on(is_busy=is_busy))
        turns.wake()
        history = cls(turns, queries, settle)
        journal.when_grown(history.grown)
        journal.when_erased(history.forget)
        return history

    def grown(self, seq: int) -> None:
        """Take note that the log has entries up to a position. It costs next to nothing."""
        if seq - self._looked_at >= BLOCK_ENTRIES:
            self._looked_at = seq
            self._turns.wake()

    async def forget(self) -> None:
        """Let go of what was read of the files, for a history was erased in them.

        Raises:
            JournalUnavailable: a disk does not give or take it.
        """
        with suppress(Stopping):  # then there is nothing left that was read
            await self._turns.do(self._queries.forget())
        self._looked_at = 0
        self._turns.wake()  # the index is empty, and a log that is quiet does not grow

    async def entries(self, query: EntriesQuery) -> Told[Sequence[EntriesPage]]:
        """See History.entries."""
        return await self._do(lambda: self._queries.entries(query))

    async def buckets(self, query: BucketsQuery) -> Told[Sequence[Series]]:
        """See History.buckets."""
        return await self._do(lambda: self._queries.buckets(query))

    async def names(self, names: Names) -> Sequence[str]:
        """See History.names."""
        return await self._do(lambda: self._queries.names(names))

    async def oldest(self) -> Entry | None:
        """See History.oldest."""
        return await self._do(self._queries.oldest)

    async def position_at(self, at_us: int, names: Names) -> int:
        """See History.position_at."""
        return await self._do(lambda: self._queries.position_at(at_us, names))

    async def state_at(self, seq: int, names: Names) -> Snapshot:
        """See History.state_at."""
        return await self._do(lambda: self._queries.state_at(seq, names))

    async def close(self) -> None:
        """See History.close."""
        await self._turns.close(self._queries.close)

    async def _do(self, query: Callable[[], Steps[T]]) -> T:
        await self._settle()
        return await self._turns.do(self._queries.steady(query))


def _opened(path: str, journal: StoredLog) -> Steps[Queries]:
    queries = Queries(path, journal, note_gone=journal.note_gone)
    yield
    return queries
