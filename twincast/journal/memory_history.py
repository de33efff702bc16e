"""The history of a journal in memory: a look at all that it holds."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice

from twincast.core.batch import Committed
from twincast.core.model import Entry, Snapshot
from twincast.core.state import State
from twincast.history.query import Names
from twincast.journal.scanned_history import ScannedHistory, apply_to, check_reach
from twincast.journal.tail import LogTail

BLOCK_ENTRIES = 250
"""So many are looked at in one step of the event loop: about half a millisecond."""


class MemoryHistory(ScannedHistory):
    """See History. It runs on the event loop, in steps between which all else has its turn."""

    def __init__(self, tail: LogTail, before: State) -> None:
        """Look at the entries of a tail; `before` is the state before the oldest of them, at each moment."""
        self._tail = tail
        self._before = before

    @property
    def oldest_since(self) -> int:
        """See ScannedHistory."""
        return self._tail.since

    @property
    def head(self) -> int:
        """See ScannedHistory."""
        return self._tail.seq

    async def oldest(self) -> Entry | None:
        """See History.oldest."""
        return self._tail.oldest

    async def blocks(self, since: int, until: int, subjects: frozenset[str] | None) -> AsyncIterator[Sequence[Entry]]:
        """See ScannedHistory."""
        async for block in _blocks(self._tail.batches, since, until):
            yield block if subjects is None else [entry for entry in block if entry.subject in subjects]

    async def state_at(self, seq: int, names: Names) -> Snapshot:
        """See History.state_at."""
        check_reach(seq, self._tail.since)
        since, batches = self._before.seq, self._tail.batches  # of one moment: entries may leave meanwhile
        twins = dict(self._before.twins)
        if not names.are_all:
            twins = {name: twin for name, twin in twins.items() if names.has(name)}
        async for block in _blocks(batches, since, seq):
            for entry in block:
                if names.has(entry.subject):
                    apply_to(twins, entry)
        return Snapshot(self._before.epoch, seq, twins)


async def _blocks(batches: Iterable[Committed], since: int, until: int) -> AsyncIterator[Sequence[Entry]]:
    entries = (
        entry
        for committed in batches
        if committed.entries[-1].seq > since and committed.entries[0].seq <= until
        for entry in committed.entries
        if since < entry.seq <= until
    )
    while block := list(islice(entries, BLOCK_ENTRIES)):
        yield block
        await asyncio.sleep(0)
