"""The position of a time: the last entry that was stored at it or before, over the whole log.

A clock that was wrong for a while has left entries with later times before ones with earlier times. So what is searched
is the order of the log, from its end: the first stretch that has any early enough time has the entry.
"""

from collections.abc import Sequence
from typing import Any

import apsw

from twincast.history.times import text_of
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.layout import TICK_ENTRIES
from twincast.journal.sqlite.history.partition import Partitions
from twincast.journal.sqlite.history.slices import Slices
from twincast.journal.sqlite.history.turns import Steps

SCAN_ENTRIES = 20_000
"""So many entries of the log are looked at in one statement: some three milliseconds."""

# Texts in the log's own form compare as times do.
_IN_LOG = """
select seq from hot.log where seq between :first and :last and iif(
    length(timestamp_utc) = 32 and substr(timestamp_utc, 11, 1) = 'T' and substr(timestamp_utc, 20, 1) = '.'
        and substr(timestamp_utc, 27) = '+00:00',
    timestamp_utc <= :text, time_us(timestamp_utc) <= :stored_us)
order by seq desc limit 1
"""
_TICK = "select first_seq from tick where min_us <= ? order by first_seq desc limit 1"
_IN_TICK = """
select seq from entry indexed by by_seq
where seq >= :first and seq < :end and coalesce(stored_us, at_us) <= :stored_us order by seq desc limit 1
"""


def position_in_open_end(stored_us: int, slices: Slices, since: int, head: int) -> Steps[int]:
    """Return the position of a time in what is not closed; 0 if no entry there is early enough.

    Args:
        stored_us: the time.
        slices: of what is not closed.
        since: the position behind which the log is not closed.
        head: its newest entry.
    """
    reach = slices.reach(since)
    stretches = [(first, min(first + SCAN_ENTRIES - 1, head)) for first in range(reach + 1, head + 1, SCAN_ENTRIES)]
    stretches[:0] = [
        (max(each.first_seq, since + 1), min(each.last_seq, head))
        for each in slices.between(since, head)
        if each.min_stored_us <= stored_us
    ]
    for first, last in reversed(stretches):
        found = _in_log(slices.db, stored_us, first, last)
        if found:
            return found
        yield
    return 0


def position_in(parts: Sequence[Part], partitions: Partitions, stored_us: int) -> int:
    """Return the position of a time in what is closed; 0 if no entry there is early enough."""
    for part in reversed(parts):
        if part.stored_min_us <= stored_us:
            return _in_partition(partitions.get(part).db, stored_us)
    return 0


def _in_log(db: apsw.Connection, stored_us: int, first: int, last: int) -> int:
    which = {"first": first, "last": last, "text": text_of(stored_us), "stored_us": stored_us}
    found: list[Any] = db.execute(_IN_LOG, which).fetchall()
    return int(found[0][0]) if found else 0


def _in_partition(db: apsw.Connection, stored_us: int) -> int:
    first = int(db.execute(_TICK, (stored_us,)).get)
    which = {"first": first, "end": first + TICK_ENTRIES, "stored_us": stored_us}
    return int(db.execute(_IN_TICK, which).get)
