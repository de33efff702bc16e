"""What a group's watchers that are behind were not sent: recorded once, however many of them there are."""

from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from twincast.core.model import DataUpdate, Entry, MergeKey
from twincast.delivery.cast import Cast

SLOT_BYTES = 64
"""What one queued message costs beside its text: a slot of a deque and a small object, measured and rounded up."""
ENTRY_BYTES = 256
"""What a queued entry costs beside its payload, if it is queued whole: the state has no twin to look it up in."""
_NEVER = 1 << 62
_SPARE_STRETCHES = 8


class Place(NamedTuple):
    """Where in a backlog an outbox begins: before a stretch of casts, and behind so many bytes."""

    stretch: int
    added_bytes: int


class Kept(NamedTuple):
    """What is never merged, in the stretch that it came in."""

    stretch: int
    seq: int
    cast: Cast


class Drained(NamedTuple):
    """The messages for all that is owed behind a place, as of a seq of the state, if they may be sent at once."""

    seq: int
    max_bytes: int
    casts: Sequence[Cast]


class Backlog:
    """The casts that some outboxes of mode `latest` have in common, each from its own place on.

    The casts between two places are a stretch. A device has one slot, in the order of the newest entries; it knows how
    many entries came in all, and how many of them before each stretch. So a cast costs its entries, whatever the number
    of outboxes, and an outbox finds what it owes behind its place, with exact counts, without looking at the rest. What
    one has drained is kept for the others of the same place: clients that stall together also catch up together.

    What lies before every place is dropped. With no place left, the backlog is empty.
    """

    __slots__ = ("_check_at_bytes", "_drained", "_is_begun", "_kept", "_places", "_slots", "_stretch", "added_bytes")

    def __init__(self) -> None:
        self._slots: OrderedDict[MergeKey, _Slot] = OrderedDict()  # the newest entry's is last
        self._kept: deque[Kept] = deque()
        self._places: OrderedDict[int, int] = OrderedDict()  # how many there are before each stretch
        self._stretch = 0
        self._is_begun = False  # whether the stretch has casts
        self._drained: dict[int, Drained] = {}  # by the stretch of a place
        self.added_bytes = 0
        """How much was ever added that the state does not have. Only grows: later entries may have made it needless."""
        self._check_at_bytes = _NEVER  # with how many added bytes one of the outboxes may be above its bound

    def __len__(self) -> int:
        """Return how many devices and commands are recorded."""
        return len(self._slots) + len(self._kept)

    def enter(self) -> Place:
        """Return a place behind all that was added until now."""
        if self._is_begun:
            self._stretch += 1
            self._is_begun = False
        self._places[self._stretch] = self._places.get(self._stretch, 0) + 1
        return Place(self._stretch, self.added_bytes)

    def leave(self, place: Place) -> None:
        """Give up a place, and drop what is owed behind no other."""
        stretch = place.stretch
        self._places[stretch] -= 1
        if not self._places[stretch]:
            del self._places[stretch]
            self._drained.pop(stretch, None)
            self._drop()

    def has_since(self, place: Place) -> bool:
        """Whether anything was added behind a place."""
        return place.stretch < self._stretch or self._is_begun

    def add(self, cast: Cast) -> None:
        """Record a cast for all that have a place here."""
        self._is_begun = True
        self._drained.clear()
        slots, stretch, merged = self._slots, self._stretch, cast.merged
        for index, entry in enumerate(cast.entries):
            if not entry.conflates:
                kept = cast.pick([index])
                self._kept.append(Kept(stretch, entry.seq, kept))
                self.added_bytes += kept.size_bytes + SLOT_BYTES
                continue
            key = entry.merge_key
            slot = slots.get(key)
            if slot is None:
                slot = slots[key] = _Slot(stretch, stretch)
            else:
                slots.move_to_end(key)
                if slot.newest_stretch != stretch:
                    slot.begin(stretch, self._places)
            slot.count += 1 if merged is None else merged[index]
            if isinstance(entry, DataUpdate):
                slot.newest = None
            else:
                slot.newest = entry
                self.added_bytes += ENTRY_BYTES + len(entry.payload)

    def share(self, drained: Drained, place: Place) -> None:
        """Keep the messages for all that is owed behind a place, until more is owed or no outbox has the place."""
        if place.stretch in self._places:
            self._drained[place.stretch] = drained

    def drained(self, place: Place, seq: int, max_bytes: int) -> Sequence[Cast] | None:
        """Return the messages for all that is owed behind a place, as of a seq of the state; None if nobody made them.

        They are for an outbox that owes nothing else, and may be sent so many bytes at once.
        """
        drained = self._drained.get(place.stretch)
        return drained.casts if drained is not None and drained[:2] == (seq, max_bytes) else None

    def check_at(self, added_bytes: int) -> None:
        """Have `is_check_due` say so once more than so many bytes were added."""
        self._check_at_bytes = min(self._check_at_bytes, added_bytes)

    def is_check_due(self) -> bool:
        """Whether outboxes may be above their bounds; each must then be asked, and says when to ask again."""
        if self.added_bytes <= self._check_at_bytes:
            return False
        self._check_at_bytes = _NEVER
        return True

    def owed(self, place: Place) -> Iterator[tuple[MergeKey, int, Entry | None]]:
        """Yield the devices that had entries behind a place, in the order of the newest ones.

        Each comes with the number of these entries, and with the newest if the state does not have it.
        """
        stretch, owed = place.stretch, []
        for key, slot in reversed(self._slots.items()):
            if slot.newest_stretch < stretch:
                break
            owed.append((key, slot))
        for key, slot in reversed(owed):
            yield key, slot.count_since(stretch), slot.newest

    def kept(self, place: Place) -> list[tuple[int, Cast]]:
        """Return the commands behind a place, in order, each with its seq."""
        kept = []
        for stretch, seq, cast in reversed(self._kept):
            if stretch < place.stretch:
                break
            kept.append((seq, cast))
        kept.reverse()
        return kept

    def _drop(self) -> None:
        if not self._places:
            self._slots, self._kept, self._check_at_bytes = OrderedDict(), deque(), _NEVER
            return
        oldest = next(iter(self._places))
        while self._slots and next(iter(self._slots.values())).newest_stretch < oldest:
            self._slots.popitem(last=False)
        while self._kept and self._kept[0].stretch < oldest:
            self._kept.popleft()


class _Slot(Struct, gc=False):
    """How many entries of a device came in all, and how many of them before each stretch that has some.

    There is one for each device, and in no cycle: the garbage collector need not look at them.
    """

    first: int
    """The stretch of the first entry."""
    newest_stretch: int
    count: int = 0
    newest: Entry | None = None
    """If the state does not have it."""
    before: list[tuple[int, int]] | None = None
    """Of the stretches behind the first; mostly there are none."""

    def begin(self, stretch: int, places: OrderedDict[int, int]) -> None:
        """Note that the next entry is in a later stretch."""
        if self.before is None:
            self.before = []
        self.before.append((stretch, self.count))
        self.newest_stretch = stretch
        if len(self.before) > 2 * len(places) + _SPARE_STRETCHES:
            self._forget_all_but(list(places))

    def count_since(self, stretch: int) -> int:
        """Return how many entries came in a stretch and behind it; there must be one."""
        if stretch <= self.first or self.before is None:
            return self.count
        return self.count - self.before[bisect_left(self.before, (stretch,))][1]

    def _forget_all_but(self, places: list[int]) -> None:
        """Forget the stretches that no place leads to: those that have none between them and the stretch before."""
        assert self.before is not None
        kept, before = [], self.first
        for stretch, count in self.before:
            if bisect_right(places, stretch) > bisect_right(places, before):
                kept.append((stretch, count))
            before = stretch
        self.before = kept
