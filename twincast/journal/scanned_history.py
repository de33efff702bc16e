"""A history by a look at every entry: right for any log, and fast for a short one."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from twincast.core.model import DataUpdate, Deleted, Entry, Snapshot, Twin
from twincast.core.state import twin_of
from twincast.errors import Truncated
from twincast.history.moments import stored_us
from twincast.history.query import BucketsQuery, EntriesPage, EntriesQuery, Names, Series, Told
from twincast.history.scan import BucketsScan, EntriesScan, Scan

Answer = TypeVar("Answer")


class ScannedHistory(ABC):
    """See History. For an answer, all entries are looked at that the log has."""

    @abstractmethod
    def blocks(self, since: int, until: int, subjects: frozenset[str] | None) -> AsyncIterator[Sequence[Entry]]:
        """Yield the entries behind one position and up to another, in order, in blocks; neither holds anything up.

        Args:
            since: the position; of what is no longer there, nothing comes.
            until: the last position.
            subjects: the devices and targets that are looked for; None for all.
        """

    @property
    @abstractmethod
    def oldest_since(self) -> int:
        """The position before the oldest entry."""

    @property
    @abstractmethod
    def head(self) -> int:
        """The position of the newest entry."""

    @abstractmethod
    async def oldest(self) -> Entry | None:
        """See History.oldest."""

    @abstractmethod
    async def state_at(self, seq: int, names: Names) -> Snapshot:
        """See History.state_at."""

    async def entries(self, query: EntriesQuery) -> Told[Sequence[EntriesPage]]:
        """See History.entries."""
        return await self._scan(EntriesScan(query), query.after_seq, query.until_seq, query.devices)

    async def buckets(self, query: BucketsQuery) -> Told[Sequence[Series]]:
        """See History.buckets. A log that is closed nowhere leaves no sums."""
        return await self._scan(BucketsScan(query), 0, query.until_seq, query.devices)

    async def names(self, names: Names) -> Sequence[str]:
        """See History.names."""
        found: set[str] = set()
        async for block in self.blocks(0, self.head, names.listed):
            found.update(entry.subject for entry in block)
        return sorted(filter(names.has, found - {""}))  # places of erased entries have no name

    async def position_at(self, at_us: int, names: Names) -> int:
        """See History.position_at."""
        found = 0
        async for block in self.blocks(0, self.head, None):
            for entry in block:
                if stored_us(entry) <= at_us:
                    found = entry.seq
        if not found and self.oldest_since:
            raise Truncated(f"the state is known back to position {self.oldest_since}, which is later than that")
        return found

    async def close(self) -> None:  # noqa: B027 - a kind with nothing to release has nothing to add
        """See History.close. There is nothing to release, unless a kind says so."""

    async def _scan(self, scan: Scan[Answer], since: int, until: int, devices: Sequence[str]) -> Told[Answer]:
        async for block in self.blocks(since, until, frozenset(devices)):
            scan.take(block)
        oldest = await self.oldest()  # afterwards: meanwhile some may have left
        return Told(scan.answer(), None if oldest is None else oldest.timestamp_utc)


def check_reach(seq: int, oldest_since: int) -> None:
    """Raise Truncated if a log, which knows the state before its oldest entry, does not reach back to a position."""
    if seq < oldest_since:
        raise Truncated(f"the state is known back to position {oldest_since}, not to {seq}")


def apply_to(twins: dict[str, Twin], entry: Entry) -> None:
    """Apply an entry of the log to the twins of some devices."""
    if isinstance(entry, DataUpdate):
        twins[entry.device_id] = twin_of(entry)
    elif isinstance(entry, Deleted):
        twins.pop(entry.device_id, None)
