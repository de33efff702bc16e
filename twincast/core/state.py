"""The fold: state is what applying the log's entries in order leaves behind."""

from collections.abc import Sequence
from itertools import islice

from msgspec import UNSET

from twincast.core.lateness import DELETIONS_MAX
from twincast.core.model import DataUpdate, Deleted, Entry, Snapshot, Twin

DEVICE_BYTES = 512
"""What a device counts beside its value: its name, its times and their containers, in memory and on disk."""


class State:
    """The newest twin of every device, as of `seq`. Nothing but `apply` changes it."""

    __slots__ = (
        "_births",
        "_births_seen",
        "_names",
        "_names_as_of",
        "deaths",
        "deletions",
        "epoch",
        "erasures",
        "seq",
        "size_bytes",
        "twins",
    )

    def __init__(self, snapshot: Snapshot) -> None:
        self.epoch = snapshot.epoch
        self.seq = snapshot.seq
        self.twins = snapshot.twins
        self.size_bytes: int = sum(DEVICE_BYTES + len(twin.value) for twin in snapshot.twins.values())
        """The size of all devices: 512 bytes each, and their values."""
        self.deaths = 0
        """How many devices were deleted."""
        self.erasures = 0
        """How many deletions have erased a history."""
        self.deletions = snapshot.deletions
        """When devices were deleted; see Snapshot."""
        self._births: list[str] = []
        self._births_seen = 0
        self._names: Sequence[str] = ()
        self._names_as_of = (0, 0)

    def apply(self, entry: Entry) -> None:
        """Take the next entry of the log.

        Raises:
            ValueError: the entry is not the next one; the log has a gap or came out of order.
        """
        self.apply_all((entry,))

    def apply_all(self, entries: Sequence[Entry]) -> None:
        """Take the next entries of the log, in order. Raises what `apply` raises, with those before it taken."""
        seq, size_bytes, twins = self.seq, self.size_bytes, self.twins
        reading, twin, newest, unset = DataUpdate, Twin, twins.get, UNSET  # local, for it is done for each reading
        try:
            for entry in entries:
                if entry.seq != seq + 1:
                    raise ValueError(f"the log goes on at {seq + 1}, not at {entry.seq}")
                seq = entry.seq
                if isinstance(entry, reading):
                    device_id, value = entry.device_id, entry.value
                    before = newest(device_id)
                    size_bytes += len(value) + DEVICE_BYTES if before is None else len(value) - len(before.value)
                    if entry.measured_at_utc is unset:
                        twins[device_id] = twin(value, entry.timestamp_utc, seq, entry.source)
                    else:
                        twins[device_id] = twin_of(entry)
                elif isinstance(entry, Deleted):
                    self._note_deletion(entry)
                    before = twins.pop(entry.device_id, None)
                    if before is not None:
                        self.deaths += 1
                        size_bytes -= DEVICE_BYTES + len(before.value)
        finally:
            self.seq, self.size_bytes = seq, size_bytes

    def names(self) -> Sequence[str]:
        """Return all devices, each once: the same sequence until a device comes or goes."""
        as_of = (len(self.twins), self.deaths)
        if as_of != self._names_as_of:
            self._names, self._names_as_of = tuple(self.twins), as_of
        return self._names

    def births(self) -> list[str]:
        """Return the devices in the order in which they came, in a list that grows at its end.

        So a reader can continue where it stopped. A deleted device may be in it, and one that came back more than once;
        when there are too many of those, another list without them is returned.
        """
        births = len(self.twins) + self.deaths
        unseen, self._births_seen = births - self._births_seen, births
        if unseen:
            if unseen >= len(self.twins) or len(self._births) > 2 * len(self.twins) + 1_000:
                self._births = list(self.twins)
            else:  # a dict keeps its order, so what came last stands last
                self._births.extend(reversed(tuple(islice(reversed(self.twins), unseen))))
        return self._births

    def newest(self, device_id: str) -> DataUpdate | None:
        """Return the reading that a device's twin comes from; None if there is no such device."""
        twin = self.twins.get(device_id)
        if twin is None:
            return None
        stored = (device_id, twin.value, twin.updated_at_utc, twin.source, twin.seq, self.epoch)
        return DataUpdate(*stored, measured_at_utc=twin.measured_at_utc, clock=twin.clock)

    def _note_deletion(self, entry: Deleted) -> None:
        deletions = self.deletions
        self.erasures += entry.erases
        deletions.pop(entry.device_id, None)  # so that it stands last
        deletions[entry.device_id] = entry.timestamp_utc
        if len(deletions) > DELETIONS_MAX:
            del deletions[next(iter(deletions))]


def twin_of(update: DataUpdate) -> Twin:
    """Return the twin of a device after a reading."""
    return Twin(
        *(update.value, update.timestamp_utc, update.seq, update.source),
        measured_at_utc=update.measured_at_utc,
        clock=update.clock,
    )
