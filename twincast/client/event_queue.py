"""A watch's queue: events that its program has not taken yet. In mode `latest` they are conflated by device."""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from twincast.client.events import Event, Gap
from twincast.core.model import TWIN_KINDS, Position
from twincast.core.subscription import Mode

UNMERGED_MAX = 4_096
UNMERGED_MAX_BYTES = 8 * 1024 * 1024
"""How many events that cannot be merged one queue holds. When it is full, in mode `every` the connection is not read
until there is room; in mode `latest` the oldest commands are dropped, and a gap says so."""
NEARLY_EMPTY = 256
"""How many events may wait in a queue whose source can merge events, or read them again, by itself."""


class Mark(NamedTuple):
    """A place in what a client received. `log` counts the logs that its server continued in: a seq orders only one."""

    log: int
    position: Position

    @property
    def order(self) -> tuple[int, int]:
        """What marks are compared by; not by their epochs, for a log has another one after each start of its server."""
        return self.log, self.position.seq


class EventQueue:
    """Events in order. In mode `latest` a reading or deletion replaces the one that waits for the same device."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode
        self._items: OrderedDict[str | int, tuple[Event, int, Mark | None]] = OrderedDict()
        self._unmerged: deque[int] = deque()  # the keys of events that cannot be merged
        self._unmerged_bytes = 0
        self._numbers = itertools.count()
        self._taken = asyncio.Event()
        self._gap: Gap | None = None  # before the next event

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether it holds as many events that cannot be merged as it may."""
        return len(self._unmerged) >= UNMERGED_MAX or self._unmerged_bytes >= UNMERGED_MAX_BYTES

    def marks(self, told_to_seq: int = -1) -> Iterator[Mark]:
        """Yield the marks of the events in it, but for those of the first log that were told elsewhere up to a seq."""
        return (
            mark
            for event, _, mark in self._items.values()
            if mark is not None and (mark.log > 0 or event.seq > told_to_seq)
        )

    async def wait_for_room(self, is_wanted: Callable[[], bool]) -> None:
        """Wait until it is not full, as long as room is wanted."""
        while self.is_full and is_wanted():
            self._taken.clear()
            await self._taken.wait()

    async def wait_until_nearly_empty(self, is_wanted: Callable[[], bool]) -> None:
        """Wait until few events are in it, as long as that is wanted."""
        while len(self._items) > NEARLY_EMPTY and is_wanted():
            self._taken.clear()
            await self._taken.wait()

    def wake(self) -> None:
        """Have all that wait for room ask again whether it is wanted."""
        self._taken.set()

    def put(self, event: Event, size_bytes: int, mark: Mark | None) -> None:
        """Add an event; a client that resumes behind `mark` receives it again."""
        gap = event.gap
        key: str | int
        if self._mode == "latest" and event.kind in TWIN_KINDS:
            key = event.device_id
            older, _, older_mark = self._items.pop(key, (None, 0, None))
            if older is not None:
                event = replace(event, merged=older.merged + event.merged)
                gap = older.gap or gap
                mark = older_mark if older.gap is not None else mark  # only from before a gap is it reported again
        else:
            key = self._unmerged_key(size_bytes)
        if self._gap is not None:
            gap, self._gap = self._gap if gap is None else gap.joined(self._gap), None
        self._items[key] = (event if gap is event.gap else replace(event, gap=gap), size_bytes, mark)

    def take(self) -> tuple[Event, Mark | None]:
        """Remove the first event, and return it with its mark."""
        key, (event, size_bytes, mark) = self._items.popitem(last=False)
        if isinstance(key, int):
            self._unmerged.popleft()
            self._unmerged_bytes -= size_bytes
        self._taken.set()
        return event, mark

    def add_gap(self, gap: Gap) -> None:
        """Note what may be missing before the next event."""
        self._gap = gap if self._gap is None else self._gap.joined(gap)

    def follow(self, earlier: "EventQueue", seqs: range) -> None:
        """Become the queue behind an earlier one, which had the events of these seqs: they are dropped here."""
        for key, (event, size_bytes, _) in tuple(self._items.items()):
            if event.seq in seqs:
                del self._items[key]
                if isinstance(key, int):
                    self._unmerged.remove(key)
                    self._unmerged_bytes -= size_bytes
        self._taken.set()
        gap, earlier._gap = earlier._gap, None
        if gap is None:
            return
        first = next(iter(self._items), None)
        if first is None:
            self._gap = gap.joined(self._gap)
        else:
            event, size_bytes, mark = self._items[first]
            self._items[first] = (replace(event, gap=gap.joined(event.gap)), size_bytes, mark)

    def _unmerged_key(self, size_bytes: int) -> int:
        while self._mode == "latest" and self._unmerged and self.is_full:
            self._drop_oldest()
        key = next(self._numbers)
        self._unmerged.append(key)
        self._unmerged_bytes += size_bytes
        return key

    def _drop_oldest(self) -> None:
        """Drop the oldest command, and note the gap before the next one."""
        event, size_bytes, _ = self._items.pop(self._unmerged.popleft())
        self._unmerged_bytes -= size_bytes
        gap = Gap(event.seq, event.seq, "slow")
        gap = gap if event.gap is None else event.gap.joined(gap)
        if not self._unmerged:
            self._gap = gap if self._gap is None else gap.joined(self._gap)
            return
        following, its_bytes, mark = self._items[self._unmerged[0]]
        gap = gap.joined(following.gap)
        self._items[self._unmerged[0]] = (replace(following, gap=gap), its_bytes, mark)
