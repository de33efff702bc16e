"""The newest entries of a log, in memory: followers read these first. Bounded in bytes."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec.structs import replace

from twincast.core.batch import Committed
from twincast.core.erasure import Erasure, Erasures, up_to, without_erased
from twincast.core.model import Entry, Erased
from twincast.journal.bell import Bell
from twincast.wire.messages import encode_all

ENTRY_BYTES = 400
"""What an entry costs beside its value: the object, its strings, its slot. Measured on CPython 3.11, rounded up."""
TEXT_BYTES = 33
"""What its event costs beside its length, where the journal keeps it: the header of a `bytes`."""


class _Batches:
    """A queue of batches with their sizes, each found as fast as the next; in a deque those in the middle are far.

    What has left at the front keeps its empty place until it is half of all places.
    """

    def __init__(self) -> None:
        self._places: list[tuple[int, Committed] | None] = []
        self._left = 0

    def __len__(self) -> int:
        return len(self._places) - self._left

    def __getitem__(self, index: int) -> tuple[int, Committed]:
        batch = self._places[index if index < 0 else index + self._left]
        assert batch is not None
        return batch

    def __setitem__(self, index: int, batch: tuple[int, Committed]) -> None:
        self._places[index + self._left] = batch

    def __iter__(self) -> Iterator[tuple[int, Committed]]:
        return self.after(0)

    def after(self, index: int) -> Iterator[tuple[int, Committed]]:
        """Return the batches from an index on."""
        return (batch for batch in islice(self._places, index + self._left, None) if batch is not None)

    def append(self, batch: tuple[int, Committed]) -> None:
        """Add a batch at the end."""
        self._places.append(batch)

    def popleft(self) -> tuple[int, Committed]:
        """Take the oldest batch out."""
        batch = self[0]
        self._places[self._left] = None
        self._left += 1
        if 2 * self._left > len(self._places):
            del self._places[: self._left]
            self._left = 0
        return batch

    def clear(self) -> None:
        """Take all batches out."""
        self._places.clear()
        self._left = 0


class LogTail:
    """The batches that were appended last. A follower that is too slow for it must read the log itself."""

    def __init__(self, seq: int, max_bytes: int) -> None:
        self._batches = _Batches()
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._grown = Bell()
        self.since = seq
        """The position before the oldest entry that is still here."""
        self.seq = seq
        """The position of the newest entry."""
        self.ended: BaseException | None = None
        """Why nothing comes any more; None as long as something may."""

    @property
    def size_bytes(self) -> int:
        """How much memory the batches take."""
        return self._size_bytes

    @property
    def batches(self) -> Sequence[Committed]:
        """All batches that are still here, oldest first."""
        return [committed for _, committed in self._batches]

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry that is still here."""
        return self._batches[0][1].entries[0] if self._batches else None

    def append(self, committed: Committed, size_bytes: int) -> list[Committed]:
        """Add a durable batch that follows `seq`, and wake the followers.

        Args:
            committed: the batch.
            size_bytes: the length of the text that it keeps in memory.

        Returns:
            The batches that have become too many, oldest first: they are here no longer.
        """
        self.seq = committed.entries[-1].seq
        size_bytes += ENTRY_BYTES * len(committed.entries)
        self._batches.append((size_bytes, committed))
        self._size_bytes += size_bytes
        dropped: list[Committed] = []
        while self._size_bytes > self._max_bytes and len(self._batches) > 1:
            dropped_bytes, oldest = self._batches.popleft()
            self._size_bytes -= dropped_bytes
            self.since = oldest.entries[-1].seq
            dropped.append(oldest)
        self._grown.ring()
        return dropped

    def erase(self, erasing: Sequence[Erasure]) -> None:
        """Leave places of the entries that deletions of histories take, of which followers read the rest as before."""
        erasures = up_to(erasing)
        for index, (size_bytes, committed) in enumerate(self._batches):
            erased = _without_erased(committed, erasures)
            if erased is not committed:
                self._batches[index] = size_bytes, erased

    def skip_to(self, seq: int) -> None:
        """Forget everything up to a position that is not here: a follower from before it reads the log itself."""
        self._batches.clear()
        self._size_bytes = 0
        self.since = self.seq = seq

    def read(self, since: int) -> Committed | None:
        """Return the rest of the batch that holds the entry after `since`; None if there is no such entry yet.

        `since` must not be before `self.since`.
        """
        if since >= self.seq:
            return None
        newest = self._batches[-1][1]
        if newest.entries[0].seq == since + 1:  # a follower that keeps up
            return newest
        return self._batches[self._index_of(since)][1].after(since)

    def recent(self, since: int, limit: int = 1) -> Sequence[Entry]:
        """See Journal.recent."""
        if not self.since <= since < self.seq:
            return ()
        batches = self._batches.after(self._index_of(since))
        _, first = next(batches)
        found = first.after(since).entries
        if len(found) >= limit:
            return found
        entries = list(found)
        for _, committed in batches:
            entries += committed.entries
            if len(entries) >= limit:
                break
        return entries

    def _index_of(self, since: int) -> int:
        """Return the index of the batch that holds the entry after `since`."""
        return bisect_right(self._batches, since, key=_last_seq)

    def end(self, why: BaseException) -> None:
        """Tell those who have read everything, or will have, that nothing comes any more."""
        self.ended = why
        self._grown.ring()

    async def grown(self, since: int) -> None:
        """Wait until there is an entry after `since`. Raises why there will be none, if there will not."""
        while self.seq <= since:
            if self.ended is not None:
                raise self.ended
            await self._grown.next_ring()


def _without_erased(committed: Committed, erasures: Erasures) -> Committed:
    entries = without_erased(committed.entries, erasures)
    if entries is committed.entries:
        return committed
    gone = [entry.seq for entry in entries if isinstance(entry, Erased)]
    keys = tuple(
        replace(record, digest="") if any(record.first_seq <= seq <= record.last_seq for seq in gone) else record
        for record in committed.keys
    )
    texts = None if committed.texts is None else tuple(encode_all(entries))
    return Committed(tuple(entries), keys, committed.marks, texts, has_late=True)


def _last_seq(batch: tuple[int, Committed]) -> int:
    return batch[1].entries[-1].seq


def up_to_bytes(entries: Sequence[Entry], max_bytes: int | None) -> Sequence[Entry]:
    """Return the first entries, up to the one whose value makes it `max_bytes`; all of them if that is None."""
    if max_bytes is None:
        return entries
    size_bytes = 0
    for count, entry in enumerate(entries, 1):
        size_bytes += len(entry.payload)
        if size_bytes >= max_bytes:
            return entries[:count]
    return entries
