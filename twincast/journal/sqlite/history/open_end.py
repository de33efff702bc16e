"""The end of the log that is not closed: runs of its slices, and of what a query finds behind them."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import apsw

from twincast.core.erasure import Erasures
from twincast.journal.sqlite.history.buckets import EDGE_TABLE
from twincast.journal.sqlite.history.dense import rolled
from twincast.journal.sqlite.history.events import claim_of, event_of
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, IS_MARK, SOURCES
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.run_table import RUN_COLUMNS, kind_of, timed, value_of
from twincast.journal.sqlite.history.slices import Slice, Slices
from twincast.journal.sqlite.history.sorted_run import Columns, SortedRun
from twincast.journal.sqlite.history.states import NEWEST_TABLE
from twincast.journal.sqlite.history.times import us_of
from twincast.journal.sqlite.history.turns import Steps

SCAN_ENTRIES = 50_000
"""So many entries of the log are looked at in one statement, for a few devices: some five milliseconds."""
FEW_ENTRIES = 5_000
"""Up to so many entries of a device one statement looks at, in however many slices they are."""
FEW_MIN_ENTRIES, FEW_A_PAGE = 128, 8
"""For a page, slices with up to so many entries are looked at together, or with up to this part of what it needs."""
_TEMPORARY = f"""
create temp table tail ({RUN_COLUMNS}) without rowid;
create temp table asked (
    query integer not null, name text not null, device integer not null, primary key (query, name)
) without rowid;
"""
_ASK = "insert into asked select ?, value, key from json_each(?)"
_SCAN = """
insert into tail select :query, a.device, at_us, seq, stored_us, l.kind, l.bytes, l.value, l.source
from ({rows}) l cross join asked a on a.query = :query and a.name = l.device_id order by 2, 3, 4
"""
_ROWS = "select * from hot.log where seq between :first and :last and device_id "
_SCAN_ONE = _SCAN.format(rows=timed(f"{_ROWS} = :name"))
_SCAN_SOME = _SCAN.format(rows=timed(f"{_ROWS} in (select name from asked where query = :query)"))
_EXTENT = """
select min(at_us), max(at_us), min(coalesce(stored_us, at_us)), max(coalesce(stored_us, at_us)),
       max(stored_us is not null)
from tail where slice = ?
"""
_OF_PATH = "r.slice = :slice and r.device = :device and r.path in (select id from open.path where pointer = :pointer)"


_IS_OFF = f"""
coalesce({us_of("log.measured_at_utc")} > coalesce({us_of("log.timestamp_utc")}, time_us(log.timestamp_utc))
    + {BELIEVED_AHEAD_US}, 1)"""
_EVENT = event_of(
    *(f"({kind_of('log.type')})", "log.seq", "log.value", "json_quote(log.timestamp_utc)", "json_quote(log.source)"),
    command="iif(log.command is null, null, json_quote(log.command))",
    claim=f"iif(log.measured_at_utc is null, '', {claim_of('json_quote(log.measured_at_utc)', is_off=_IS_OFF)})",
)

_NAMED = " ".join(f"when {number} then '\"{name}\"'" for number, name in SOURCES.items())
_SOURCE = f"case run.source {_NAMED} end"


def _columns(table: str) -> Columns:
    return Columns(
        rows=f"{table} run",
        where="run.slice = :slice and run.device = :device and run.seq > :since and run.seq <= :until",
        at="run.at_us",
        seq="run.seq",
        stored="coalesce(run.stored_us, run.at_us)",
        kind="run.kind",
        value=value_of("run"),
        bytes="run.bytes",
        has_all="run.source is not null",
        source=_SOURCE,
        own_stored="run.stored_us",
        event=_EVENT,
        seek="hot.log log on log.seq = f.value ->> 1",
        is_clustered=False,
        rollups="rollup",
        rolled=_OF_PATH,
        rolled_device="r.slice = :slice and r.device = :device",
    )


_SLICE, _TAIL = _columns("open.run"), _columns("temp.tail")
_MARKS = _SLICE._replace(
    rows="open.run run indexed by marks",
    where=f"{_SLICE.where} and run.kind {IS_MARK}",
)
_EACH = "json_each(:slices) each cross join open.run run"
_SLICES = _SLICE._replace(
    rows=_EACH,
    where="run.slice = each.value ->> 0 and run.device = :device and run.seq > each.value ->> 1"
    " and run.seq <= each.value ->> 2",
)
_ROLLED_DEVICE = "r.slice = each.value ->> 0 and r.device = :device and r.until_seq <= each.value ->> 1"
_ROLLED = _SLICE._replace(
    rollups="json_each(:slices) each cross join open.rollup",
    rolled=f"{_ROLLED_DEVICE} and r.path in (select id from open.path where pointer = :pointer)",
    rolled_device=_ROLLED_DEVICE,
)
"""Of what each slice has up to a position."""
_COUNTS = """
select json_group_array((
    select count(*) from (
        select 1 from open.run run where run.slice = each.value and run.device = :device limit :few
    )
)) from json_each(:slices) each"""
"""How many entries of a device slices have, up to a few."""


class _Stretch(NamedTuple):
    """What a slice has behind a position, and up to another one."""

    slice: Slice
    since: int
    until: int


class OpenEnd:
    """What is not closed, as of the moment at which a query begins. All methods must be called in one thread."""

    def __init__(
        self, slices: Slices, query: int, devices: Sequence[str], since: int, until: int, *, erasures: Erasures
    ) -> None:
        """Begin a query; see `scan` and `forget`.

        Args:
            slices: the slices, as far as they reach at the moment.
            query: its number.
            devices: the devices that are asked for.
            since: the position behind which the log is not closed.
            until: the last position that is asked for.
            erasures: up to where entries are to be erased, by device.
        """
        self._db = slices.db
        self._erasures = erasures
        self._query = query
        self._devices = devices
        self._since, self._until = since, until
        self._slices = slices.between(since, until)
        self._reach = min(slices.reach(since), max(since, until))
        self._numbers: dict[str, int] = {}
        self._tail: Slice | None = None

    def scan(self) -> Steps[None]:
        """Find what no slice has, and the numbers of the devices in those."""
        names = json.dumps(self._devices)
        with self._db:
            run(self._db, _ASK, (self._query, names))
        self._numbers = dict(
            self._db.execute(
                "select name, id from open.device where name in (select name from asked where query = ?)",
                (self._query,),
            )
        )
        one = self._devices[0] if len(self._devices) == 1 else None
        for first in range(self._reach + 1, self._until + 1, SCAN_ENTRIES):
            yield
            last = min(first + SCAN_ENTRIES - 1, self._until)
            which = {"query": self._query, "first": first, "last": last, "name": one}
            run(self._db, _SCAN_SOME if one is None else _SCAN_ONE, which)
        extent = self._db.execute(_EXTENT, (self._query,)).get
        if extent[0] is not None:
            self._tail = Slice(self._query, self._reach + 1, self._until, *extent)

    def marks(self, device: str) -> list[SortedRun]:
        """Return the entries of one of the devices that are no readings, and perhaps some others."""
        number, tail = self._numbers.get(device), self._tail_of(device)
        return (
            tail
            if number is None
            else [*(_run_in(self._db, _MARKS, each, number) for each in self._all_of(device)), *tail]
        )

    def runs(self, device: str, need: int, *, newest_first: bool) -> list[SortedRun]:
        """Return the entries of one of the devices, for a page of so many.

        Most slices have a few entries of a device. So a run has those of as many slices as fill a page, in any order.

        Args:
            device: the device.
            need: how many are needed.
            newest_first: whether the page begins with the newest.
        """
        number, tail = self._numbers.get(device), self._tail_of(device)
        if number is None:
            return tail
        few = max(FEW_MIN_ENTRIES, need // FEW_A_PAGE)
        rest = self._all_of(device)
        ordered = rest[::-1] if newest_first else rest
        return [*tail, *self._in_few_runs(ordered, number, few=few, together=min(FEW_ENTRIES, need))]

    def sums(self, device: str, is_asked: Callable[[Slice], bool]) -> Steps[list[SortedRun]]:
        """Return the same for what needs no order, in few runs: a statement costs more than to add up what is there.

        Of a device that is much of slices, one run has the rollups of all; of others, a run has what is in many slices.

        Args:
            device: the device.
            is_asked: whether a slice may have entries that are asked for.
        """
        number = self._numbers.get(device)
        found = [run for run in self._tail_of(device) if self._tail is not None and is_asked(self._tail)]
        asked = [each for each in self._all_of(device) if number is not None and is_asked(each.slice)]
        if number is None or not asked:
            return found
        yield
        with_rollups, rest = self._divided(number, asked)
        found += [self._rolled_together(each, number) for each in with_rollups.values()]
        return found + self._in_few_runs(rest, number, few=FEW_ENTRIES, together=FEW_ENTRIES)

    def _divided(self, device: int, asked: Sequence[_Stretch]) -> tuple[dict[int, list[_Stretch]], list[_Stretch]]:
        """Return what slices have rollups of, by their finest width, and what they have none of."""
        pieces = {each.slice: each for each in rolled(self._db, device, asked[-1].until)}
        with_rollups: dict[int, list[_Stretch]] = {}
        rest: list[_Stretch] = []
        for each in asked:
            piece = pieces.get(each.slice.number)
            left = each
            if piece is not None and each.slice.first_seq > each.since:
                with_rollups.setdefault(piece.finest_s, []).append(each._replace(until=piece.until_seq))
                left = each._replace(since=piece.until_seq)
            if left.since < left.until:
                rest.append(left)
        return with_rollups, rest

    def _in_few_runs(self, rest: Sequence[_Stretch], device: int, *, few: int, together: int) -> list[SortedRun]:
        """Return runs of what slices have: more than a few entries of one alone, and those of several together."""
        which = {"device": device, "slices": json.dumps([each.slice.number for each in rest]), "few": few + 1}
        counts = json.loads(self._db.execute(_COUNTS, which).get)
        found: list[SortedRun] = []
        group: list[_Stretch] = []
        size = 0
        for each, in_slice in zip(rest, counts, strict=True):
            count = min(in_slice, each.until - each.since)
            if count > few:
                found.append(_run_in(self._db, _SLICE, each, device))
                continue
            if group and size + count > together:
                found.append(self._together(group, device))
                group, size = [], 0
            if count:
                group.append(each)
                size += count
        return [*found, self._together(group, device)] if group else found

    def _all_of(self, device: str) -> list[_Stretch]:
        """Return what slices have of a device: what is erased may still be there."""
        since = self._since_of(device)
        rest = [
            _Stretch(each, since, min(self._until, each.last_seq)) for each in self._slices
        ]  # one may have grown since
        return [each for each in rest if each.since < each.until]

    def _since_of(self, device: str) -> int:
        """Return the position behind which entries of a device count."""
        return max(self._since, self._erasures.get(device, 0) - 1)

    def _tail_of(self, device: str) -> list[SortedRun]:
        if self._tail is None:
            return []
        tail = _Stretch(self._tail, self._since_of(device), self._until)
        return [_run_in(self._db, _TAIL, tail, self._devices.index(device))]

    def _together(self, group: Sequence[_Stretch], device: int) -> SortedRun:
        spans = json.dumps([(each.slice.number, each.since, each.until) for each in group])
        return _run_over(self._db, _SLICES, [each.slice for each in group], device, spans, is_short=True)

    def _rolled_together(self, slices: Sequence[_Stretch], device: int) -> SortedRun:
        spans = json.dumps([(each.slice.number, each.until) for each in slices])
        members = [_run_in(self._db, _SLICE, each, device) for each in slices]
        return _run_over(self._db, _ROLLED, [each.slice for each in slices], device, spans, members=members)

    def forget(self) -> None:
        """Let go of what the query has found."""
        for table, column in ("tail", "slice"), ("asked", "query"):
            run(self._db, f"delete from {table} where {column} = ?", (self._query,))


def prepare(slices: Slices) -> None:
    """Make the tables that queries use for a while."""
    run(slices.db, _TEMPORARY + EDGE_TABLE + NEWEST_TABLE)


def _run_in(db: apsw.Connection, columns: Columns, rest: _Stretch, device: int) -> SortedRun:
    each = rest.slice
    return SortedRun(
        db,
        columns,
        {"slice": each.number, "device": device, "since": rest.since, "until": rest.until},
        times_us=(each.min_us, each.max_us),
        stored_us=(each.min_stored_us, each.max_stored_us),
        is_whole=False,
        has_measured=bool(each.has_measured),
    )


def _run_over(
    db: apsw.Connection,
    columns: Columns,
    slices: Sequence[Slice],
    device: int,
    spans: str,
    *,
    is_short: bool = False,
    members: Sequence[SortedRun] = (),
) -> SortedRun:
    """Return one run of several slices; `spans` says which, as JSON."""
    return SortedRun(
        db,
        columns,
        {"device": device},
        texts={"slices": spans},
        times_us=(min(each.min_us for each in slices), max(each.max_us for each in slices)),
        stored_us=(min(each.min_stored_us for each in slices), max(each.max_stored_us for each in slices)),
        is_whole=bool(members),
        has_measured=any(each.has_measured for each in slices),
        is_short=is_short,
        members=members,
    )
