"""Which readings are late: the rules of measured time. Pure, and the same for every journal.

1. A reading may claim when it was measured. The claim is believed if it is at most 60 seconds ahead of the time at
   which the reading was stored; else it is kept, with `"clock": "off"` beside it, and counts for nothing.
2. The time that counts of a reading is its believed claim, or else the time at which it was stored.
3. A reading without a believed claim always becomes its device's twin: a server's clock that was set back must not
   freeze a device.
4. A reading with a believed claim is late if its time is before the one that counts of the device's twin; or, where
   the device is deleted, before the time at which that was stored. Of equal times the later entry becomes the twin.
5. What is late is an entry of a kind of its own, `Late`, which changes no twin. It is decided once, before the entry is
   durable, and written so.
"""

from collections.abc import Callable, Mapping

from msgspec import UNSET, UnsetType

from twincast.core.model import Clock, DataUpdate, Deleted, Entry, Late, Twin
from twincast.core.times import comparable, time_after

AHEAD_MAX_S = 60.0
"""How far ahead a device's clock may be: ordinary drift without NTP stays below, a wrong zone or year is above."""
DELETIONS_MAX = 100_000
"""Of so many devices, those that were deleted last, it is remembered when that was: some 15 MB in memory."""
NEVER = ""
"""Before all times: what a device has that never was."""

Horizon = Callable[[str], str]
"""The time before which a believed reading of a device is late; NEVER for none."""


def clock_of(measured_at_utc: str, stored_at_utc: str) -> Clock | UnsetType:
    """Return "off" for a claim that is not believed of a reading that was stored at a time; else nothing."""
    return UNSET if measured_at_utc <= time_after(stored_at_utc, AHEAD_MAX_S) else "off"


def is_clock_off(entry: Entry) -> bool:
    """Whether an entry is a reading whose claim is not believed."""
    return isinstance(entry, DataUpdate) and entry.clock is not UNSET


def time_that_counts(measured_at_utc: str | None, stored_at_utc: str) -> str:
    """Return the time that counts of a reading that claims to have been measured at a time, or claims nothing."""
    if measured_at_utc is not None and clock_of(measured_at_utc, stored_at_utc) is UNSET:
        return measured_at_utc
    return comparable(stored_at_utc)


def time_of(entry: Entry) -> str:
    """Return the time that counts of an entry: when it was measured, if that is believed, or else stored."""
    if isinstance(entry, Late):
        return entry.measured_at_utc
    if isinstance(entry, DataUpdate) and entry.measured_at_utc is not UNSET and entry.clock is UNSET:
        return entry.measured_at_utc
    return comparable(entry.timestamp_utc)


def time_of_twin(twin: Twin) -> str:
    """Return the time that counts of the reading that a twin comes from."""
    if twin.measured_at_utc is not UNSET and twin.clock is UNSET:
        return twin.measured_at_utc
    return comparable(twin.updated_at_utc)


def horizon_in(twins: Mapping[str, Twin], deletions: Mapping[str, str]) -> Horizon:
    """Return the horizon of each device in a state.

    Args:
        twins: the newest of each device.
        deletions: when devices were deleted; those that came again since are in `twins`.
    """

    def horizon(device_id: str) -> str:
        twin = twins.get(device_id)
        return comparable(deletions.get(device_id, NEVER)) if twin is None else time_of_twin(twin)

    return horizon


def note(newest: dict[str, str], entry: Entry) -> None:
    """Take the next entry of the log into what is known of horizons, each under its device."""
    if isinstance(entry, DataUpdate | Deleted):
        newest[entry.device_id] = time_of(entry)


def decide(entries: list[Entry], horizon: Horizon) -> bool:
    """Decide which readings among the next entries of the log are late, and put those there as such.

    Args:
        entries: they have the time at which they are stored, and no position yet.
        horizon: of each device before the first of them.

    Returns:
        Whether one is late.
    """
    newest: dict[str, str] = {}
    has_late = False
    for index, entry in enumerate(entries):
        if isinstance(entry, DataUpdate) and entry.measured_at_utc is not UNSET:
            before = newest.get(entry.device_id)
            decided = _decided(entry, entry.measured_at_utc, horizon(entry.device_id) if before is None else before)
            entries[index] = decided
            has_late |= decided is not entry
            note(newest, decided)
        else:
            has_late |= isinstance(entry, Late)
            note(newest, entry)
    return has_late


def decide_again(entries: list[Entry], newest: dict[str, str]) -> bool:
    """Decide anew what was decided before more of the log was known, of the devices that are in that.

    Args:
        entries: as `decide` has left them.
        newest: the horizons of these devices before the first entry. It is changed.

    Returns:
        Whether one of all entries is late.
    """
    for index, before in enumerate(entries):
        if before.subject not in newest:
            continue
        entry = _on_time(before) if isinstance(before, Late) else before
        if isinstance(entry, DataUpdate) and entry.measured_at_utc is not UNSET:
            entries[index] = _decided(entry, entry.measured_at_utc, newest[entry.device_id])
        note(newest, entries[index])
    return any(isinstance(entry, Late) for entry in entries)


def mark_clocks(entries: list[Entry]) -> None:
    """Mark the claims that are not believed, of entries that were decided elsewhere and keep their times."""
    for entry in entries:
        if isinstance(entry, DataUpdate) and entry.measured_at_utc is not UNSET:
            entry.clock = clock_of(entry.measured_at_utc, entry.timestamp_utc)


def _decided(reading: DataUpdate, measured_at_utc: str, before: str) -> DataUpdate | Late:
    reading.clock = clock_of(measured_at_utc, reading.timestamp_utc)
    if reading.clock is not UNSET or measured_at_utc >= before:
        return reading
    return Late(
        *(reading.device_id, reading.value, reading.timestamp_utc, reading.source, measured_at_utc),
        seq=reading.seq,
        epoch=reading.epoch,
    )


def _on_time(entry: Late) -> DataUpdate:
    return DataUpdate(
        *(entry.device_id, entry.value, entry.timestamp_utc, entry.source, entry.seq, entry.epoch),
        measured_at_utc=entry.measured_at_utc,
    )
