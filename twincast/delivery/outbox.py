"""The queue of one client that does not keep up: merged per device, or every entry within a bound."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from twincast.core.model import DataUpdate, Entry, MergeKey
from twincast.core.state import State
from twincast.delivery.cast import Cast
from twincast.wire.messages import encode_merged

_SLOT_BYTES = 64
"""What one queued message costs beside its text: a slot of a deque and a small object, measured and rounded up."""
_ENTRY_BYTES = 256
"""What a queued entry costs beside its payload, if it is queued whole: the state has no twin to look it up in."""


class Outbox(Protocol):
    """What waits for one client."""

    @property
    def size_bytes(self) -> int:
        """How much waits that cannot be merged."""

    def __bool__(self) -> bool:
        """Whether anything waits."""

    def enqueue(self, cast: Cast, seq: int) -> None:
        """Queue one more cast; `seq` is the position behind which a reply belongs, which has no entries."""

    def drain(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """Take the oldest part of the queue, in order of seq: about `max_bytes`, at least one message.

        `state` has every cast applied that was enqueued.
        """

    def drop_entries(self) -> int | None:
        """Drop the entries that can be had again from the state or the journal; keep the rest.

        Returns:
            The seq of the oldest dropped entry that must be read from the log again; None if there is none.
        """

    def replies(self) -> list[Cast]:
        """Return the queued replies. Unlike entries, they cannot be read from the log again."""

    def caught_up(self) -> None:
        """Note that the state is no longer ahead of what is enqueued."""


class LatestOutbox:
    """The queue of mode `latest`: per device the newest reading only, each command and each reply.

    A waiting device is no more than a count; its value is looked up in the state when the client takes it. So a
    client that stopped reading costs about a hundred bytes per device, not per reading. Of a deleted device the
    deletion itself waits; a client whose subscription has no deletions gets nothing of a device that is deleted. So
    does the newest entry of every further kind that conflates: by its `merge_key`, it takes the place of older ones.

    While the log is read back, the state is ahead of what is enqueued, and its newest value would come before its turn.
    So the outbox then keeps the newest reading of each device itself, until `caught_up`.
    """

    __slots__ = ("_drained", "_kept", "_kept_bytes", "_merged", "_newest", "_newest_bytes", "_read")

    def __init__(self, *, is_behind_state: bool = False) -> None:
        """Make an empty queue.

        Args:
            is_behind_state: whether what is enqueued is read back from the log, and the state is ahead of it.
        """
        self._merged: dict[MergeKey, int] = {}  # how many entries of a device wait; the newest entry's is last
        self._drained = 0  # how many devices have left the dict since it was made: it keeps their places
        self._newest: dict[MergeKey, Entry] = {}  # of those whose newest entry is not in the state
        self._newest_bytes = 0
        self._kept: deque[tuple[int, Cast]] = deque()  # commands and replies
        self._kept_bytes = 0
        self._read: dict[MergeKey, DataUpdate] | None = {} if is_behind_state else None

    def __bool__(self) -> bool:
        return bool(self._merged or self._kept)

    @property
    def size_bytes(self) -> int:
        """See Outbox. Devices do not count, there are only so many; of deleted ones there may be any number."""
        return self._kept_bytes + self._newest_bytes

    def enqueue(self, cast: Cast, seq: int) -> None:
        """See Outbox."""
        if not cast.entries:
            self._keep(seq, cast)
            return
        waiting, newest, merged = self._merged, self._newest, cast.merged
        for index, entry in enumerate(cast.entries):
            if not entry.conflates:
                self._keep(entry.seq, cast.pick([index]))
                continue
            key = entry.merge_key
            waiting[key] = waiting.pop(key, 0) + (1 if merged is None else merged[index])
            if newest:
                self._forget(key)
            if not isinstance(entry, DataUpdate):
                newest[key] = entry
                self._newest_bytes += _ENTRY_BYTES + len(entry.payload)
        if self._read is not None:
            self._read.update((entry.merge_key, entry) for entry in cast.entries if isinstance(entry, DataUpdate))

    def drain(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """See Outbox."""
        drained, left = _Drained(max_bytes), []
        for key, merged in self._merged.items():
            newest = self._newest_of(key, state)
            if newest is not None:  # None: the device is deleted, and the subscription has no deletions
                while self._kept and self._kept[0][0] < newest.seq and not drained.is_enough:
                    drained.add_kept(self._pop())
                if drained.is_enough:
                    break
                drained.add_newest(newest, merged)
            left.append(key)
        else:
            while self._kept and not drained.is_enough:
                drained.add_kept(self._pop())
        self._remove(left)
        return drained.casts()

    def drop_entries(self) -> int | None:
        """See Outbox. What is dropped is the newest of some devices, which the state has, or no longer has."""
        self._remove([key for key in self._merged if key not in self._newest or self._newest[key].changes_twin])
        return None

    def replies(self) -> list[Cast]:
        """See Outbox."""
        return [cast for _, cast in self._kept if not cast.entries]

    def caught_up(self) -> None:
        """See Outbox. From here on the newest values are those of the state."""
        self._read = None

    def _newest_of(self, key: MergeKey, state: State) -> Entry | None:
        newest = self._newest.get(key)
        if newest is not None:
            return newest
        assert isinstance(key, str)  # a device: the newest of everything else is kept here
        return state.newest(key) if self._read is None else self._read[key]

    def _forget(self, key: MergeKey) -> None:
        entry = self._newest.pop(key, None)
        if entry is not None:
            self._newest_bytes -= _ENTRY_BYTES + len(entry.payload)

    def _remove(self, keys: Sequence[MergeKey]) -> None:
        for key in keys:
            del self._merged[key]
            self._forget(key)
        self._drained += len(keys)
        if self._drained > len(self._merged):
            self._merged = dict(self._merged)
            self._drained = 0

    def _keep(self, seq: int, cast: Cast) -> None:
        self._kept.append((seq, cast))
        self._kept_bytes += cast.size_bytes + _SLOT_BYTES

    def _pop(self) -> Cast:
        cast = self._kept.popleft()[1]
        self._kept_bytes -= cast.size_bytes + _SLOT_BYTES
        return cast


class _Drained:
    """What leaves a LatestOutbox in one go: readings and deletions in a row become one cast."""

    def __init__(self, max_bytes: int) -> None:
        self._left_bytes = max_bytes
        self._casts: list[Cast] = []
        self._messages: list[bytes] = []
        self._entries: list[Entry] = []
        self._merged: list[int] = []

    @property
    def is_enough(self) -> bool:
        return self._left_bytes <= 0

    def add_newest(self, entry: Entry, merged: int) -> None:
        self._messages.append(encode_merged(entry, merged))
        self._entries.append(entry)
        self._merged.append(merged)
        self._left_bytes -= len(self._messages[-1])

    def add_kept(self, cast: Cast) -> None:
        self._flush()
        self._casts.append(cast)
        self._left_bytes -= cast.size_bytes

    def casts(self) -> list[Cast]:
        self._flush()
        return self._casts

    def _flush(self) -> None:
        if self._messages:
            self._casts.append(Cast(self._messages, self._entries, self._merged))
            self._messages, self._entries, self._merged = [], [], []


class EveryOutbox:
    """The queue of mode `every`: each entry, up to the sender's bound. Beyond it, the journal has them just as well."""

    __slots__ = ("_casts", "size_bytes")

    def __init__(self) -> None:
        self._casts: deque[Cast] = deque()
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._casts)

    def enqueue(self, cast: Cast, seq: int) -> None:
        """See Outbox."""
        del seq  # casts stay in the order in which they came
        self._casts.append(cast)
        self.size_bytes += _cost_bytes(cast)

    def drain(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """See Outbox."""
        del state
        drained: list[Cast] = []
        while self._casts and max_bytes > 0:
            cast = self._casts.popleft()
            self.size_bytes -= _cost_bytes(cast)
            max_bytes -= cast.size_bytes
            drained.append(cast)
        return drained

    def drop_entries(self) -> int | None:
        """See Outbox. The journal has them all, commands too."""
        first = next((cast.entries[0].seq for cast in self._casts if cast.entries), None)
        self._casts = deque(self.replies())
        self.size_bytes = sum(map(_cost_bytes, self._casts))
        return first

    def replies(self) -> list[Cast]:
        """See Outbox."""
        return [cast for cast in self._casts if not cast.entries]

    def caught_up(self) -> None:
        """See Outbox. Nothing here is looked up in the state."""


def _cost_bytes(cast: Cast) -> int:
    return cast.size_bytes + _SLOT_BYTES * len(cast.messages)
