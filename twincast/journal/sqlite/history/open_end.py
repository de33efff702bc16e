"""The end of the log that is not closed: runs of its slices, and of what a query finds behind them."""

import json
from collections.abc import Callable, Sequence

from twincast.core.erasure import Erasures
from twincast.journal.sqlite.history.events import claim_of, event_of
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.percentiles import NUMBER_TABLE
from twincast.journal.sqlite.history.slices import RUN_COLUMNS, Slice, Slices, kind_of, timed
from twincast.journal.sqlite.history.sorted_run import Columns, SortedRun
from twincast.journal.sqlite.history.states import NEWEST_TABLE
from twincast.journal.sqlite.history.sums import EDGE_TABLE
from twincast.journal.sqlite.history.times import us_of
from twincast.journal.sqlite.history.turns import Steps

SCAN_ENTRIES = 50_000
"""So many entries of the log are looked at in one statement, for a few devices: some five milliseconds."""
FEW_ENTRIES = 5_000
"""Up to so many entries of a device are added up in one statement, in however many slices they are."""
_TEMPORARY = f"""
create temp table tail ({RUN_COLUMNS}) without rowid;
create temp table asked (
    query integer not null, name text not null, device integer not null, primary key (query, name)
) without rowid;
"""
_ASK = "insert into asked select ?, value, key from json_each(?)"
_SCAN = """
insert into tail select :query, a.device, at_us, seq, stored_us, l.kind
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


def _columns(table: str) -> Columns:
    return Columns(
        times=f"{table} run",
        rows=f"{table} run cross join hot.log log on log.seq = run.seq",
        where="run.slice = :slice and run.device = :device and run.seq > :since and run.seq <= :until",
        at="run.at_us",
        seq="run.seq",
        stored="coalesce(run.stored_us, run.at_us)",
        kind="run.kind",
        value="log.value",
        event=_EVENT,
        rollups="rollup",
        rolled=_OF_PATH,
        rolled_device="r.slice = :slice and r.device = :device",
    )


_SLICE, _TAIL = _columns("open.run"), _columns("temp.tail")
_EACH = "json_each(:slices) each cross join open.run run"
_SLICES = _SLICE._replace(
    times=_EACH,
    rows=f"{_EACH} cross join hot.log log on log.seq = run.seq",
    where="run.slice = each.value ->> 0 and run.device = :device and run.seq > :since"
    " and run.seq <= min(:until, each.value ->> 1)",
)
_COUNTS = """
select json_group_array(iif(exists (select 1 from rollup r where r.slice = each.value and r.device = :device), :few, (
    select count(*) from (
        select 1 from open.run run where run.slice = each.value and run.device = :device limit :few
    )
))) from json_each(:slices) each"""
"""How many entries of a device slices have, up to a few; as many are said of one that has rollups."""


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

    def runs(self, device: str) -> list[SortedRun]:
        """Return the entries of one of the devices."""
        number, tail = self._numbers.get(device), self._tail_of(device)
        if number is None:
            return tail
        since = self._since_of(device)
        return [*(self._run(_SLICE, each, number, since) for each in self._slices if each.last_seq > since), *tail]

    def sums(self, device: str, is_asked: Callable[[Slice], bool]) -> Steps[list[SortedRun]]:
        """Return the same, for what needs no order: those slices together that have few of the device and no rollups.

        A slice has a few entries of most devices, and a statement costs more than to add those up.

        Args:
            device: the device.
            is_asked: whether a slice may have entries that are asked for.
        """
        number = self._numbers.get(device)
        since = self._since_of(device)
        found = [run for run in self._tail_of(device) if self._tail is not None and is_asked(self._tail)]
        slices = [each for each in self._slices if number is not None and is_asked(each) and each.last_seq > since]
        if number is None or not slices:
            return found
        which = {"device": number, "slices": json.dumps([each.number for each in slices]), "few": FEW_ENTRIES + 1}
        counts = json.loads(self._db.execute(_COUNTS, which).get)
        yield
        few: list[Slice] = []
        size = 0
        for each, count in zip(slices, counts, strict=True):
            if count > FEW_ENTRIES:
                found.append(self._run(_SLICE, each, number, since))
                continue
            if few and size + count > FEW_ENTRIES:
                found.append(self._together(few, number, since))
                few, size = [], 0
            if count:
                few.append(each)
                size += count
        return [*found, self._together(few, number, since)] if few else found

    def _since_of(self, device: str) -> int:
        """Return the position behind which entries of a device count: what is erased may still be there."""
        return max(self._since, self._erasures.get(device, 0) - 1)

    def _tail_of(self, device: str) -> list[SortedRun]:
        if self._tail is None:
            return []
        return [self._run(_TAIL, self._tail, self._devices.index(device), self._since_of(device))]

    def _together(self, slices: Sequence[Slice], device: int, since: int) -> SortedRun:
        low, high = zip(*((each.min_us, each.max_us) for each in slices), strict=True)
        stored_low, stored_high = zip(*((each.min_stored_us, each.max_stored_us) for each in slices), strict=True)
        return SortedRun(
            self._db,
            _SLICES,
            {"device": device, "since": since, "until": self._until},
            texts={"slices": json.dumps([(each.number, each.last_seq) for each in slices])},
            times_us=(min(low), max(high)),
            stored_us=(min(stored_low), max(stored_high)),
            is_whole=False,
            has_measured=any(each.has_measured for each in slices),
            is_short=True,
        )

    def forget(self) -> None:
        """Let go of what the query has found."""
        for table, column in ("tail", "slice"), ("asked", "query"):
            run(self._db, f"delete from {table} where {column} = ?", (self._query,))

    def _run(self, columns: Columns, each: Slice, device: int, since: int) -> SortedRun:
        until = min(self._until, each.last_seq)  # a slice may have grown since
        return SortedRun(
            self._db,
            columns,
            {"slice": each.number, "device": device, "since": since, "until": until},
            times_us=(each.min_us, each.max_us),
            stored_us=(each.min_stored_us, each.max_stored_us),
            is_whole=each.is_full and each.first_seq > since and each.last_seq <= self._until,
            has_measured=bool(each.has_measured),
        )


def prepare(slices: Slices) -> None:
    """Make the tables that queries use for a while."""
    run(slices.db, _TEMPORARY + EDGE_TABLE + NUMBER_TABLE + NEWEST_TABLE)
