"""The newest entries of a log, in memory: what followers read first, bounded in bytes."""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from twincast.core.model import Entry, value_bytes

ENTRY_BYTES = 400
"""What an entry costs beside its value: the object, its strings, its slot. Measured on CPython 3.11, rounded up."""


class LogTail:
    """The batches that were appended last. A follower that is too slow for it reads the log itself."""

    def __init__(self, seq: int, max_bytes: int) -> None:
        self._batches: deque[tuple[int, Sequence[Entry]]] = deque()
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._grown = asyncio.Event()
        self.since = seq
        """The position before the oldest entry that is still here."""
        self.seq = seq
        """The position of the newest entry."""

    @property
    def size_bytes(self) -> int:
        """What the batches take of the memory."""
        return self._size_bytes

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry that is still here."""
        return self._batches[0][1][0] if self._batches else None

    def append(self, batch: Sequence[Entry]) -> None:
        """Add durable entries that follow `seq`, and wake the followers."""
        self.seq = batch[-1].seq
        size_bytes = _cost_bytes(batch)
        self._batches.append((size_bytes, batch))
        self._size_bytes += size_bytes
        while self._size_bytes > self._max_bytes and len(self._batches) > 1:
            dropped_bytes, dropped = self._batches.popleft()
            self._size_bytes -= dropped_bytes
            self.since = dropped[-1].seq
        self._grown.set()
        self._grown = asyncio.Event()

    def skip_to(self, seq: int) -> None:
        """Forget everything up to a position that is not here: whoever follows from before it reads the log itself."""
        self._batches.clear()
        self._size_bytes = 0
        self.since = self.seq = seq

    def read(self, since: int) -> Sequence[Entry]:
        """Return the rest of the batch that holds the entry after `since`, which must not be before `self.since`."""
        if since >= self.seq:
            return ()
        newest = self._batches[-1][1]
        if newest[0].seq == since + 1:  # a follower that keeps up
            return newest
        for _, batch in self._batches:
            if batch[-1].seq > since:
                return batch[bisect_right(batch, since, key=_seq) :] if batch[0].seq <= since else batch
        return ()

    async def grown(self, since: int) -> None:
        """Wait until there is an entry after `since`."""
        while self.seq <= since:
            await self._grown.wait()


def up_to_bytes(entries: Sequence[Entry], max_bytes: int | None) -> Sequence[Entry]:
    """Return the first entries, up to the one whose value makes it `max_bytes`; all of them if that is None."""
    if max_bytes is None:
        return entries
    size_bytes = 0
    for count, entry in enumerate(entries, 1):
        size_bytes += value_bytes(entry)
        if size_bytes >= max_bytes:
            return entries[:count]
    return entries


def _seq(entry: Entry) -> int:
    return entry.seq


def _cost_bytes(batch: Sequence[Entry]) -> int:
    return sum(map(value_bytes, batch)) + ENTRY_BYTES * len(batch)
