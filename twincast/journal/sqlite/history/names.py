"""The names of devices and targets of which the log holds an entry, and where the first one of some of them stands."""

import json
from collections.abc import Callable

import apsw
import msgspec

from twincast.journal.sqlite.history.layout import DELETION, KINDS, READING
from twincast.journal.sqlite.history.partition import Partition
from twincast.journal.sqlite.history.slices import Slices
from twincast.journal.sqlite.history.turns import Steps

_TWINS = f"kind in ({READING}, {DELETION})"
_TWIN_TYPES = f"type in ('{KINDS[READING]}', '{KINDS[DELETION]}')"
NAMES = 5_000
"""So many names one statement looks up."""
SCAN_ENTRIES = 20_000
_decode = msgspec.json.Decoder(list[tuple[int, str, int]]).decode

_IN_PARTITION = """
select json_group_array(json_array(id, name, exists (select 1 from entry where device = d.id and {kinds})))
from (select id, name from device where id > :after order by id limit :limit) d"""
_IN_SUMMARY = """
select json_group_array(json_array(id, name, 1))
from (select id, name from device where id > :after order by id limit :limit)"""
_IN_SLICES = """
select json_group_array(json_array(id, name, exists (
    select 1 from json_each(:slices) s cross join open.run r
    where r.slice = s.value and r.device = d.id and r.seq > :since and {kinds}
)))
from (select id, name from open.device where id > :after order by id limit :limit) d"""
_IN_LOG = "select json_group_array(distinct device_id) from hot.log where seq between ? and ? and {kinds}"

_FIRSTS_IN_PARTITION = f"""
select json_group_array(json_array(0, d.name, first)) from (
    select device, min(seq) as first from entry indexed by by_seq where seq between ? and ? and {_TWINS} group by device
) cross join device d on d.id = device"""
_FIRSTS_IN_LOG = f"""
select json_group_array(json_array(0, device_id, first)) from (
    select device_id, min(seq) as first from hot.log where seq between ? and ? and {_TWIN_TYPES} group by device_id
)"""


def names_in(
    partition: Partition, found: set[str], is_wanted: Callable[[str], bool], *, of_twins: bool = False
) -> Steps[None]:
    """Add the names that a partition has entries of; with `of_twins`, of those that make or end twins."""
    sql = _IN_PARTITION.format(kinds=_TWINS if of_twins else "1")
    yield from _add(partition.db, sql, {}, found, is_wanted)


def names_summed(partition: Partition, found: set[str], is_wanted: Callable[[str], bool]) -> Steps[None]:
    """Add the names of which sums are left."""
    yield from _add(partition.db, _IN_SUMMARY, {}, found, is_wanted)


def names_behind(
    slices: Slices, cut: tuple[int, int], found: set[str], is_wanted: Callable[[str], bool], *, of_twins: bool = False
) -> Steps[None]:
    """Add the names that the log has entries of behind a position, up to another one, which no partition has."""
    since, head = cut
    reach = slices.reach(since)
    numbers = json.dumps([each.number for each in slices.between(since, head)])
    yield from _add(
        slices.db,
        _IN_SLICES.format(kinds=_TWINS if of_twins else "1"),
        {"slices": numbers, "since": since},
        found,
        is_wanted,
    )
    in_log = _IN_LOG.format(kinds=_TWIN_TYPES if of_twins else "1")
    for first in range(reach + 1, head + 1, SCAN_ENTRIES):
        last = min(first + SCAN_ENTRIES - 1, head)
        found.update(filter(is_wanted, json.loads(slices.db.execute(in_log, (first, last)).get)))
        yield


def firsts_in(partition: Partition, span: tuple[int, int], missing: set[str]) -> Steps[int]:
    """Look in a span of a partition for the first entry that makes or ends a twin, of each device that is missing.

    Those that are found are missing no longer. Return the last of these entries' positions; 0 if there is none.
    """
    return (yield from _firsts(partition.db, _FIRSTS_IN_PARTITION, span, missing))


def firsts_behind(slices: Slices, cut: tuple[int, int], missing: set[str]) -> Steps[int]:
    """Look for the same behind a position, up to another one, which no partition has."""
    since, head = cut
    return (yield from _firsts(slices.db, _FIRSTS_IN_LOG, (since + 1, head), missing))


def _firsts(db: apsw.Connection, sql: str, span: tuple[int, int], missing: set[str]) -> Steps[int]:
    found = 0
    for first in range(span[0], span[1] + 1, SCAN_ENTRIES):
        if not missing:
            break
        for _, name, seq in _decode(db.execute(sql, (first, min(first + SCAN_ENTRIES - 1, span[1]))).get):
            if name in missing:
                missing.remove(name)
                found = max(found, seq)
        yield
    return found


def _add(
    db: apsw.Connection, sql: str, bindings: dict[str, object], found: set[str], is_wanted: Callable[[str], bool]
) -> Steps[None]:
    after = 0
    while rows := _decode(db.execute(sql, {**bindings, "after": after, "limit": NAMES}).get):
        after = rows[-1][0]
        found.update(name for _, name, is_there in rows if is_there and is_wanted(name))
        yield
