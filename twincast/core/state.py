"""The fold: state is what applying the log's entries in order leaves behind."""

from twincast.core.model import DataUpdate, Deleted, Entry, Snapshot, Twin


class State:
    """The newest twin of every device, as of `seq`. Nothing but `apply` changes it."""

    __slots__ = ("epoch", "seq", "twins")

    def __init__(self, snapshot: Snapshot) -> None:
        self.epoch = snapshot.epoch
        self.seq = snapshot.seq
        self.twins = snapshot.twins

    def apply(self, entry: Entry) -> None:
        """Take the next entry of the log.

        Raises:
            ValueError: the entry is not the next one; the log has a gap or came out of order.
        """
        if entry.seq != self.seq + 1:
            raise ValueError(f"the log goes on at {self.seq + 1}, not at {entry.seq}")
        self.seq = entry.seq
        if isinstance(entry, DataUpdate):
            self.twins[entry.device_id] = twin_of(entry)
        elif isinstance(entry, Deleted):
            self.twins.pop(entry.device_id, None)

    def newest(self, device_id: str) -> DataUpdate | None:
        """Return the change that a device's twin comes from; None if there is no such device."""
        twin = self.twins.get(device_id)
        if twin is None:
            return None
        return DataUpdate(device_id, twin.value, twin.updated_at_utc, twin.source, twin.seq, self.epoch)


def twin_of(update: DataUpdate) -> Twin:
    """Return what is known of a device after an update of it."""
    return Twin(update.value, update.timestamp_utc, update.seq, update.source)
