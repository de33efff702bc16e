"""The state at a position: each device's twin there, found from its newest entry up to it, a seek a device."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import apsw
import msgspec
from msgspec import Raw

from twincast.core.lateness import clock_of
from twincast.core.model import Twin
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, DELETION, ERASED, KINDS, READING
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.partition import Partition
from twincast.journal.sqlite.history.slices import Slices
from twincast.journal.sqlite.history.turns import Steps

DEVICES = 1_000
"""So many devices are looked up in one statement: two or three milliseconds."""
SCAN_ENTRIES = 20_000
_TWIN_KINDS = f"({READING}, {DELETION})"
_TWIN_TYPES = f"('{KINDS[READING]}', '{KINDS[DELETION]}')"

NEWEST_TABLE = """
create temp table newest (
    query integer not null, name text not null, seq integer not null, primary key (query, name)
) without rowid;
"""
"""What the connection of the open end needs."""

Known = dict[str, Twin | None]
"""What is known of devices: the twin, or None of one that was deleted."""


class _Row(NamedTuple):
    """A device's newest entry: `seq` is 0 for a deletion."""

    name: str
    seq: int
    source: str
    value: Raw
    updated_at_utc: str
    measured_at_utc: str | None


_decode_rows = msgspec.json.Decoder(list[_Row]).decode
_decode_names = msgspec.json.Decoder(list[tuple[int, str]]).decode

_DEVICES = "select json_group_array(json_array(id, name)) from (select id, name from device where id > ? limit ?)"

_TWINS = """
with here as materialized (
    select d.id, d.name, ({newest}) as twin from json_each(:devices) j cross join device d on d.id = j.value
)
select '[' || coalesce(group_concat('[' || json_quote(name) || ',' || twin || ']', ','), '') || ']' from (
    select name, twin from here where twin is not null
    union all
    select name, {before} from here cross join state on state.device = here.id where here.twin is null
)"""
_NEWEST = """
select {twin} from entry
where device = d.id and at_us <= :latest_us and seq <= :until and kind in {kinds} order by at_us desc, seq desc limit 1
"""
_NEWEST_OF_UNORDERED = """
select {twin} from entry where device = d.id and seq <= :until and kind in {kinds} order by seq desc limit 1
"""
_IS_UNORDERED = "d.id in (select device from unordered)"

_ADD_SLICE = f"""
insert or ignore into newest select :query, d.name, n.seq from (
    select device, max(seq) as seq from open.run
    where slice = :slice and seq between :first and :last and kind in {_TWIN_KINDS} group by device
) n cross join open.device d on d.id = n.device
"""
_ADD_LOG = f"""
insert or ignore into newest select :query, device_id, max(seq) from hot.log
where seq between :first and :last and type in {_TWIN_TYPES} group by device_id
"""
_PAIRS = """
select json_group_array(json_array(seq, name)) from (
    select seq, name from newest where query = ? and name > ? order by name limit ?
)"""
_ROWS = f"""
select '[' || coalesce(group_concat('[' || json_quote(log.device_id) || ',' ||
    iif(log.type = '{KINDS[DELETION]}', 0, log.seq) || ',' || json_quote(log.source) || ',' || log.value || ',' ||
    json_quote(log.timestamp_utc) || ',' || json_quote(log.measured_at_utc) || ']', ','), '') || ']'
from json_each(?) j cross join hot.log log on log.seq = j.value where log.type <> '{KINDS[ERASED]}'"""
_UNCHANGED = """
select '[' || coalesce(group_concat('[' || json_quote(device_id) || ',' || seq || ',' || json_quote(source) || ',' ||
    value || ',' || json_quote(updated_at_utc) || ',' || json_quote(measured_at_utc) || ']', ','), '') || ']'
from (select * from hot.twin where seq <= ?)"""


def twins_of(partition: Partition, until: int, known: Known, is_wanted: Callable[[str], bool]) -> Steps[None]:
    """Add the twins of a partition's devices as of a position in it, of those that are not known yet.

    Args:
        partition: the partition.
        until: the position.
        known: what is known of later positions; it is added to.
        is_wanted: which names are asked for.
    """
    db = partition.db
    latest_us = db.execute("select max(max_us) from tick where first_seq <= ?", (until,)).get
    bindings = {"until": until, "latest_us": (latest_us or 0) + BELIEVED_AHEAD_US}
    sql = _twins_sql(partition)
    after = 0
    while devices := _decode_names(db.execute(_DEVICES, (after, DEVICES)).get):
        after = devices[-1][0]
        wanted = [number for number, name in devices if name not in known and is_wanted(name)]
        if wanted:
            _note(known, db.execute(sql, {**bindings, "devices": json.dumps(wanted)}).get)
        yield


def _twins_sql(partition: Partition) -> str:
    newest = _NEWEST.format(twin=_twin("entry", "iif(kind = 0, entry.seq, 0)", partition), kinds=_TWIN_KINDS)
    if partition.has_unordered:
        other = _NEWEST_OF_UNORDERED.format(
            twin=_twin("entry", "iif(kind = 0, entry.seq, 0)", partition), kinds=_TWIN_KINDS
        )
        newest = f"select iif({_IS_UNORDERED}, ({other}), ({newest}))"
    return _TWINS.format(newest=newest, before=_twin("state", "state.seq", partition))


def _twin(table: str, seq: str, partition: Partition) -> str:
    """Return the SQL for a row of `entry` or `state`, without its name."""
    stored, measured = partition.state_texts if table == "state" else (partition.stored_text, partition.measured_text)
    source = f"(select json_quote(name) from source where source.id = {table}.source)"
    return f"{seq} || ',' || {source} || ',' || {table}.value || ',' || {stored} || ',' || {measured}"


class OpenState:
    """What the open end says of twins. All methods must be called in one thread."""

    def __init__(self, slices: Slices, query: int) -> None:
        """Begin a query; to be closed."""
        self._slices = slices
        self._db = slices.db
        self._query = query

    def changed(self, since: int, until: int) -> Steps[None]:
        """Find the newest change of each device behind a position, up to another one, which no partition has."""
        reach = self._slices.reach(since)
        stretches = range(max(since, reach) + 1, until + 1, SCAN_ENTRIES)
        for first in reversed(stretches):  # the newest one is the first that comes
            last = min(first + SCAN_ENTRIES - 1, until)
            run(self._db, _ADD_LOG, {"query": self._query, "first": first, "last": last})
            yield
        for each in reversed(self._slices.between(since, min(until, reach))):
            which = {"slice": each.number, "first": since + 1, "last": min(until, each.last_seq, reach)}
            run(self._db, _ADD_SLICE, {"query": self._query, **which})
            yield

    def found(self, is_wanted: Callable[[str], bool]) -> Steps[list[tuple[int, str]]]:
        """Return what was found, as pairs of position and name."""
        found: list[tuple[int, str]] = []
        after = ""
        while pairs := _decode_names(self._db.execute(_PAIRS, (self._query, after, 5 * DEVICES)).get):
            after = pairs[-1][1]
            found += [pair for pair in pairs if is_wanted(pair[1])]
            yield
        return found

    def read(self, pairs: Sequence[tuple[int, str]], known: Known) -> Steps[None]:
        """Add the twins of what was found to what is known."""
        for start in range(0, len(pairs), DEVICES):
            seqs = [seq for seq, _ in pairs[start : start + DEVICES]]
            _note(known, self._db.execute(_ROWS, (json.dumps(seqs),)).get)
            yield

    def close(self) -> None:
        """Let go of what was found."""
        run(self._db, "delete from newest where query = ?", (self._query,))


def add_unchanged(db: apsw.Connection, since: int, known: Known, is_wanted: Callable[[str], bool]) -> None:
    """Add the twins that have not changed since a position, before which there is no log."""
    found: Known = {}
    _note(found, str(db.execute(_UNCHANGED, (since,)).get))
    known.update({name: twin for name, twin in found.items() if name not in known and is_wanted(name)})


def _note(known: Known, text: str) -> None:
    for row in _decode_rows(text):
        known[row.name] = _twin_of(row) if row.seq else None


def _twin_of(row: _Row) -> Twin:
    twin = Twin(Raw(bytes(row.value)), row.updated_at_utc, row.seq, row.source)  # type: ignore[arg-type]
    if row.measured_at_utc is not None:
        twin.measured_at_utc = row.measured_at_utc
        twin.clock = clock_of(row.measured_at_utc, row.updated_at_utc)
    return twin
