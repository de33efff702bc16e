"""The queue of one client that does not keep up: merged per device, or every entry within a bound."""

from collections import deque
from collections.abc import Sequence
from heapq import merge
from operator import itemgetter
from typing import Protocol

from twincast.core.model import DataUpdate, Entry, MergeKey
from twincast.core.state import State
from twincast.delivery.backlog import ENTRY_BYTES, SLOT_BYTES, Backlog, Drained, Place
from twincast.delivery.cast import Cast
from twincast.wire.messages import encode_merged

NO_PLACE = Place(0, 0)


class Outbox(Protocol):
    """What waits for one client."""

    @property
    def size_bytes(self) -> int:
        """How much waits that cannot be merged, or somewhat more."""

    def __bool__(self) -> bool:
        """Whether anything waits."""

    def exceeds(self, max_bytes: int) -> bool:
        """Whether more than `max_bytes` waits that cannot be merged, exactly."""

    def follow(self, backlog: Backlog) -> bool:
        """Queue from here on also what a backlog records, until `unfollow`; return False if this queue never does."""

    def unfollow(self) -> None:
        """Keep what the backlog has recorded for this queue until now, and follow it no more."""

    def close(self) -> None:
        """Give up the queue, and what it follows."""

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

    What a group offers to all of its watchers that are behind is in the backlog that their outboxes follow, once for
    all. An outbox takes over what it owes of it when its client takes something.
    """

    __slots__ = (
        "_backlog",
        "_drained",
        "_kept",
        "_kept_bytes",
        "_merged",
        "_newest",
        "_newest_bytes",
        "_place",
        "_read",
    )

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
        self._backlog: Backlog | None = None
        self._place = NO_PLACE  # in the backlog: what was recorded behind it is not taken over yet

    def __bool__(self) -> bool:
        if self._merged or self._kept:
            return True
        return self._backlog is not None and self._backlog.has_since(self._place)

    @property
    def size_bytes(self) -> int:
        """See Outbox. Devices do not count, there are only so many; of deleted ones there may be any number.

        What is not taken over yet counts as it was added: also deletions of devices that were made anew since.
        """
        own_bytes = self._kept_bytes + self._newest_bytes
        if self._backlog is None:
            return own_bytes
        return own_bytes + self._backlog.added_bytes - self._place.added_bytes

    def exceeds(self, max_bytes: int) -> bool:
        """See Outbox. Only what seems to be too much is taken over, to know exactly."""
        if self.size_bytes > max_bytes:
            self._take_over()
        if self._backlog is not None:
            self._backlog.check_at(self._backlog.added_bytes + max_bytes - self.size_bytes)
        return self.size_bytes > max_bytes

    def follow(self, backlog: Backlog) -> bool:
        """See Outbox. The state is not ahead of what comes from here on."""
        self.caught_up()
        self._backlog, self._place = backlog, backlog.enter()
        return True

    def unfollow(self) -> None:
        """See Outbox."""
        self._take_over()
        self.close()

    def close(self) -> None:
        """See Outbox."""
        if self._backlog is not None:
            self._backlog.leave(self._place)
            self._backlog = None

    def enqueue(self, cast: Cast, seq: int) -> None:
        """See Outbox."""
        if not cast.entries:
            self._keep(seq, cast)
            return
        self._take_over()  # for it came before
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
                self._remember(key, entry)
        if self._read is not None:
            self._read.update((entry.merge_key, entry) for entry in cast.entries if isinstance(entry, DataUpdate))

    def drain(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """See Outbox."""
        backlog, place = self._backlog, self._place
        if backlog is None or self._merged or self._kept:
            self._take_over()
            return self._drain(state, max_bytes)
        casts = backlog.drained(place, state.seq, max_bytes)
        if casts is not None:
            backlog.leave(place)
            self._place = backlog.enter()
            return casts
        self._take_over()
        casts = self._drain(state, max_bytes)
        if not (self._merged or self._kept):
            backlog.share(Drained(state.seq, max_bytes, casts), place)
        return casts

    def _drain(self, state: State, max_bytes: int) -> Sequence[Cast]:
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
        self._take_over()
        self._remove([key for key in self._merged if key not in self._newest or self._newest[key].changes_twin])
        return None

    def replies(self) -> list[Cast]:
        """See Outbox."""
        return [cast for _, cast in self._kept if not cast.entries]

    def caught_up(self) -> None:
        """See Outbox. From here on the newest values are those of the state."""
        self._read = None

    def _take_over(self) -> None:
        """Merge what the backlog has recorded for this queue since it was taken over last."""
        backlog, place, waiting = self._backlog, self._place, self._merged
        if backlog is None or not backlog.has_since(place):
            return
        for key, count, entry in backlog.owed(place):
            waiting[key] = waiting.pop(key, 0) + count
            if self._newest:
                self._forget(key)
            if entry is not None:
                self._remember(key, entry)
        if kept := backlog.kept(place):
            self._kept_bytes += sum([cast.size_bytes + SLOT_BYTES for _, cast in kept])
            # A command has its own seq, and a reply that of the entry before it; so of equal ones the command is first.
            self._kept = deque(merge(kept, self._kept, key=itemgetter(0))) if self._kept else deque(kept)
        backlog.leave(place)
        self._place = backlog.enter()

    def _newest_of(self, key: MergeKey, state: State) -> Entry | None:
        newest = self._newest.get(key)
        if newest is not None:
            return newest
        assert isinstance(key, str)  # a device: the newest of everything else is kept here
        return state.newest(key) if self._read is None else self._read[key]

    def _remember(self, key: MergeKey, entry: Entry) -> None:
        self._newest[key] = entry
        self._newest_bytes += ENTRY_BYTES + len(entry.payload)

    def _forget(self, key: MergeKey) -> None:
        entry = self._newest.pop(key, None)
        if entry is not None:
            self._newest_bytes -= ENTRY_BYTES + len(entry.payload)

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
        self._kept_bytes += cast.size_bytes + SLOT_BYTES

    def _pop(self) -> Cast:
        cast = self._kept.popleft()[1]
        self._kept_bytes -= cast.size_bytes + SLOT_BYTES
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

    def exceeds(self, max_bytes: int) -> bool:
        """See Outbox."""
        return self.size_bytes > max_bytes

    def follow(self, backlog: Backlog) -> bool:
        """See Outbox. Each cast is shared already, so there is nothing to gain."""
        del backlog
        return False

    def unfollow(self) -> None:
        """See Outbox. Nothing is followed."""

    def close(self) -> None:
        """See Outbox. Nothing is followed."""

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
    return cast.size_bytes + SLOT_BYTES * len(cast.messages)
