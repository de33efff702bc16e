"""When an entry was: stored, and measured. One of the two is the time that counts; see core/lateness."""

from twincast.core.lateness import time_of
from twincast.core.model import Entry
from twincast.core.times import comparable
from twincast.history.query import Place
from twincast.history.times import MIN_US, stamp_us


def stored_us(entry: Entry) -> int:
    """Return when an entry was stored; of what another program wrote there and is no time, the beginning of all."""
    return _us(comparable(entry.timestamp_utc))


def at_us(entry: Entry) -> int:
    """Return the time of an entry that counts: measured, where that is believed, else stored."""
    return _us(time_of(entry))


def place_of(entry: Entry, *, by_stored: bool) -> Place:
    """Return where an entry stands in its device's history."""
    return Place(stored_us(entry) if by_stored else at_us(entry), entry.seq)


def _us(comparable_utc: str) -> int:
    return stamp_us(comparable_utc) if comparable_utc else MIN_US
