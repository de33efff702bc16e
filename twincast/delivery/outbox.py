"""What one client that does not keep up has not taken yet: merged per device, or every change within a bound."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from twincast.core.model import Change, Control, DataUpdate, Deleted, Entry
from twincast.core.state import State
from twincast.delivery.cast import Cast
from twincast.wire.messages import encode_merged

_SLOT_BYTES = 64
"""What one waiting message costs beside its text: a slot of a deque and a small object, measured and rounded up."""
_DELETION_BYTES = 256
"""What a device costs that is no more: its deletion is kept, for the state has forgotten it."""


class Outbox(Protocol):
    """The debt to one client."""

    @property
    def size_bytes(self) -> int:
        """How much waits that cannot be merged."""

    def __bool__(self) -> bool:
        """Whether anything waits."""

    def add(self, cast: Cast, seq: int) -> None:
        """Owe the client one more cast; `seq` is the position behind which an answer without entries belongs."""

    def take(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """Pay the oldest part of the debt, in order of seq: about `max_bytes`, at least one message.

        `state` has every cast applied that was added.
        """

    def forget_changes(self) -> int | None:
        """Let go of what can be had again from the state or the journal; keep the answers.

        Returns:
            The seq of the oldest change that the client lacks now; None if there was none.
        """

    def answers(self) -> list[Cast]:
        """Return what waits and is no change: of that nobody else knows."""


class LatestOutbox:
    """The debt of mode `latest`: per device the newest change only, commands and answers each.

    A waiting device is no more than a count; its value is looked up in the state when the client takes it. So a
    client that stopped reading costs about a hundred bytes per device, not per change. Of a device that was deleted
    the deletion itself waits; a client that is not told of deletions gets nothing of a device that is no more.
    """

    __slots__ = ("_changes", "_deleted", "_kept", "_kept_bytes", "_taken")

    def __init__(self) -> None:
        self._changes: dict[str, int] = {}  # in order of the newest change's seq: who changes goes to the end
        self._taken = 0  # how many have left since the dict was made: it keeps their places
        self._deleted: dict[str, Deleted] = {}
        self._kept: deque[tuple[int, Cast]] = deque()
        self._kept_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._changes or self._kept)

    @property
    def size_bytes(self) -> int:
        """See Outbox. Devices do not count, there are only so many; of deleted ones there may be any number."""
        return self._kept_bytes + _DELETION_BYTES * len(self._deleted)

    def add(self, cast: Cast, seq: int) -> None:
        """See Outbox."""
        if not cast.entries:
            self._keep(seq, cast)
            return
        changes, deleted, merged = self._changes, self._deleted, cast.merged
        for index, entry in enumerate(cast.entries):
            if isinstance(entry, Control):
                self._keep(entry.seq, cast.pick([index]))
                continue
            device_id = entry.device_id
            changes[device_id] = changes.pop(device_id, 0) + (1 if merged is None else merged[index])
            if isinstance(entry, Deleted):
                deleted[device_id] = entry
            elif deleted:
                deleted.pop(device_id, None)

    def take(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """See Outbox."""
        taken, left = _Taken(max_bytes), []
        for device_id, merged in self._changes.items():
            newest = self._newest(device_id, state)
            if newest is not None:  # None: it is gone, which this client is not told
                while self._kept and self._kept[0][0] < newest.seq and not taken.is_enough:
                    taken.add_kept(self._pop())
                if taken.is_enough:
                    break
                taken.add_change(newest, merged)
            left.append(device_id)
        else:
            while self._kept and not taken.is_enough:
                taken.add_kept(self._pop())
        self._let_go(left)
        return taken.casts()

    def forget_changes(self) -> int | None:
        """See Outbox. What is forgotten is the newest of some devices, which the state has."""
        self._changes, self._deleted, self._taken = {}, {}, 0
        return None

    def answers(self) -> list[Cast]:
        """See Outbox."""
        return [cast for _, cast in self._kept if not cast.entries]

    def _let_go(self, devices: Sequence[str]) -> None:
        for device_id in devices:
            del self._changes[device_id]
            self._deleted.pop(device_id, None)
        self._taken += len(devices)
        if self._taken > len(self._changes):
            self._changes = dict(self._changes)
            self._taken = 0

    def _newest(self, device_id: str, state: State) -> Change | None:
        return self._deleted.get(device_id) or state.newest(device_id)

    def _keep(self, seq: int, cast: Cast) -> None:
        self._kept.append((seq, cast))
        self._kept_bytes += cast.size_bytes + _SLOT_BYTES

    def _pop(self) -> Cast:
        cast = self._kept.popleft()[1]
        self._kept_bytes -= cast.size_bytes + _SLOT_BYTES
        return cast


class CatchUpOutbox(LatestOutbox):
    """The debt of mode `latest` while the log is read back: the state is ahead, so it keeps changes itself."""

    __slots__ = ("_read",)

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[str, DataUpdate] = {}

    def add(self, cast: Cast, seq: int) -> None:
        """See Outbox."""
        super().add(cast, seq)
        self._read.update((entry.device_id, entry) for entry in cast.entries if isinstance(entry, DataUpdate))

    def caught_up(self) -> LatestOutbox:
        """Return the same debt, once the state is no longer ahead."""
        outbox = LatestOutbox()
        outbox._changes, outbox._deleted, outbox._taken = self._changes, self._deleted, self._taken
        outbox._kept, outbox._kept_bytes = self._kept, self._kept_bytes
        return outbox

    def _newest(self, device_id: str, state: State) -> Change | None:
        return self._deleted.get(device_id) or self._read[device_id]


class _Taken:
    """What leaves a LatestOutbox in one go: changes in a row become one cast."""

    def __init__(self, max_bytes: int) -> None:
        self._left_bytes = max_bytes
        self._casts: list[Cast] = []
        self._messages: list[bytes] = []
        self._entries: list[Entry] = []
        self._merged: list[int] = []

    @property
    def is_enough(self) -> bool:
        return self._left_bytes <= 0

    def add_change(self, entry: Change, merged: int) -> None:
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
    """The debt of mode `every`: each change, until it is too much. Then the journal knows it just as well."""

    __slots__ = ("_casts", "size_bytes")

    def __init__(self) -> None:
        self._casts: deque[Cast] = deque()
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._casts)

    def add(self, cast: Cast, seq: int) -> None:
        """See Outbox."""
        del seq  # they stay in the order in which they came
        self._casts.append(cast)
        self.size_bytes += _cost_bytes(cast)

    def take(self, state: State, max_bytes: int) -> Sequence[Cast]:
        """See Outbox."""
        del state
        taken: list[Cast] = []
        while self._casts and max_bytes > 0:
            cast = self._casts.popleft()
            self.size_bytes -= _cost_bytes(cast)
            max_bytes -= cast.size_bytes
            taken.append(cast)
        return taken

    def forget_changes(self) -> int | None:
        """See Outbox. The journal has them all, commands too."""
        first = next((cast.entries[0].seq for cast in self._casts if cast.entries), None)
        self._casts = deque(self.answers())
        self.size_bytes = sum(map(_cost_bytes, self._casts))
        return first

    def answers(self) -> list[Cast]:
        """See Outbox."""
        return [cast for cast in self._casts if not cast.entries]


def _cost_bytes(cast: Cast) -> int:
    return cast.size_bytes + _SLOT_BYTES * len(cast.messages)
