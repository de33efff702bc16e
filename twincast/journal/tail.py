"""The newest entries of a log, in memory: followers read these first. Bounded in bytes."""

import asyncio
from collections import deque
from collections.abc import Sequence

from twincast.core.batch import Committed
from twincast.core.model import Entry

ENTRY_BYTES = 400
"""What an entry costs beside its value: the object, its strings, its slot. Measured on CPython 3.11, rounded up."""
TEXT_BYTES = 33
"""What its text costs beside its length, if it is kept: the header of a `bytes`."""


class LogTail:
    """The batches that were appended last. A follower that is too slow for it must read the log itself."""

    def __init__(self, seq: int, max_bytes: int) -> None:
        self._batches: deque[tuple[int, Committed]] = deque()
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._grown = asyncio.Event()
        self.since = seq
        """The position before the oldest entry that is still here."""
        self.seq = seq
        """The position of the newest entry."""

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

    def append(self, committed: Committed) -> None:
        """Add a durable batch that follows `seq`, and wake the followers."""
        self.seq = committed.entries[-1].seq
        size_bytes = _cost_bytes(committed)
        self._batches.append((size_bytes, committed))
        self._size_bytes += size_bytes
        while self._size_bytes > self._max_bytes and len(self._batches) > 1:
            dropped_bytes, dropped = self._batches.popleft()
            self._size_bytes -= dropped_bytes
            self.since = dropped.entries[-1].seq
        self._grown.set()
        self._grown = asyncio.Event()

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
        for _, committed in self._batches:
            if committed.entries[-1].seq > since:
                return committed.after(since)
        return None

    def recent(self, since: int) -> Sequence[Entry]:
        """See Journal.recent."""
        committed = self.read(since) if since >= self.since else None
        return () if committed is None else committed.entries

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
        size_bytes += len(entry.payload)
        if size_bytes >= max_bytes:
            return entries[:count]
    return entries


def _cost_bytes(committed: Committed) -> int:
    entries, texts = committed.entries, committed.texts
    size_bytes = sum([len(entry.payload) for entry in entries]) + ENTRY_BYTES * len(entries)
    return size_bytes if texts is None else size_bytes + sum(map(len, texts)) + TEXT_BYTES * len(texts)
