"""Rollups over the open end, of devices that are much of a slice: what they sent is read as fast as if it were closed.

They grow with the slice, a piece a block: rows of a piece do not change once they are there, so a query that has begun
adds up what was there then. Devices that are less of it get theirs once it is full and there is time, in one piece: a
piece takes ten statements, which for some dozens of devices in each block would cost more than all that is read.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import apsw

from twincast.journal.sqlite.history.layout import LATE, READING, WIDTHS_S
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.rollup import CONDENSES, total_of
from twincast.journal.sqlite.history.run_table import value_of

DENSE = 16
"""Of devices that are this part of a slice there are rollups as it grows."""
DENSE_AT_END = 64
"""Of devices that are this part of a full slice there are rollups; of the others there is little to read."""
LEAF_ENTRIES = 2_000
"""The numbers of so many entries are taken out at once: no statement takes more than two milliseconds."""
_ROLLED_S = tuple(width for width in WIDTHS_S if width <= 3_600)
"""A slice is short: wider ones would not condense what these have."""

TABLES = """
create table open.path (id integer primary key, key text not null unique, pointer text not null);
create table open.rollup (
    slice integer not null, device integer not null, path integer not null, width_s integer not null,
    start_s integer not null, until_seq integer not null, n integer not null, sum real, min, max,
    min_us integer not null, max_us integer not null, primary key (slice, device, path, width_s, start_s, until_seq)
) without rowid;
create table open.piece (
    device integer not null, slice integer not null, until_seq integer not null, finest_s integer not null,
    primary key (device, slice, until_seq)
) without rowid;
"""
ROOT = "insert into open.path values (1, '$', '')"
HOLD = ("path", "rollup", "piece", "leaf", "nested", "sums")
"""The tables that have numbers of devices, or their names."""
TEMPORARY = """
create temp table leaf (path integer not null, at_us integer not null, x);
create temp table nested (key text not null, at_us integer not null, x);
create temp table sums (
    path integer not null, width_s integer not null, start_s integer not null, n integer not null, sum real, min, max,
    min_us integer not null, max_us integer not null, primary key (width_s, path, start_s)
) without rowid;
"""

_MANY_OF_BLOCK = """
select d.id from (select device_id from block group by device_id having count(*) >= ?) b
cross join device d on d.name = b.device_id
"""
_MANY_AT_END = """
select device from run where slice = :slice and device not in (select device from piece where slice = :slice)
group by device having count(*) >= :least
"""
_COUNT = "select count(*) from run where slice = :slice and device = :device"
_LAST_PIECE = """
select until_seq, finest_s from piece where device = :device and slice = :slice order by until_seq desc limit 1
"""
_READINGS = f"""(
    select r.at_us, {value_of("r")} as value from run r
    where r.slice = :slice and r.device = :device and r.at_us between :min_us and :max_us
          and r.seq between :first and :last and r.kind in ({READING}, {LATE})
    limit -1
)"""
_NUMBERS = f"""
insert into leaf select 1, at_us, value + 0 from {_READINGS} where value >= '-' and value < ':'
"""
_NESTED = f"""
insert into nested select t.fullkey, r.at_us, t.atom from {_READINGS} r cross join json_tree(r.value) t
where substr(r.value, 1, 1) in ('[', '{{') and t.type in ('integer', 'real')
"""
_NEW_PATHS = """
insert or ignore into path (key, pointer) select key, pointer_of(key) from (select distinct key from nested)
"""
_NESTED_NUMBERS = "insert into leaf select p.id, n.at_us, n.x from nested n cross join path p on p.key = n.key"
_ADD_ROLLUPS = """
insert into rollup
select :slice, :device, path, width_s, start_s, :last, n, sum, min, max, min_us, max_us from sums
"""
_ADD_PIECE = "insert into piece values (:device, :slice, :last, :finest)"
_PIECES = """
select slice, max(until_seq), finest_s from open.piece where device = ? and until_seq <= ? group by slice
"""


class Rolled(NamedTuple):
    """What there are rollups of in a slice, of a device."""

    slice: int
    until_seq: int
    """From the slice's first entry up to this one."""
    finest_s: int
    """The finest width."""


class Growing(Protocol):
    """A slice to which a block was just added."""

    @property
    def number(self) -> int:
        """See Slice."""

    @property
    def first_seq(self) -> int:
        """See Slice."""

    @property
    def last_seq(self) -> int:
        """See Slice."""

    @property
    def min_us(self) -> int:
        """See Slice."""

    @property
    def max_us(self) -> int:
        """See Slice."""


def floor_of(number: str, width: str) -> str:
    """Return the SQL for the last multiple of a width up to a number; a division alone rounds those below 0 up."""
    return f"(({number}) - (({number}) % ({width}) + ({width})) % ({width}))"


def rolled(db: apsw.Connection, device: int, until: int) -> list[Rolled]:
    """Return what there are rollups of, of a device, of entries up to a position."""
    return [Rolled(*row) for row in db.execute(_PIECES, (device, until))]


class Dense:
    """Finds the devices that are much of the slice that grows, and sums up their numbers."""

    def __init__(self, db: apsw.Connection) -> None:
        """Take a connection that has TABLES and TEMPORARY, and the tables of slices."""
        self._db = db
        self._slice = 0
        self._candidates: set[int] = set()

    def grow(self, growing: Growing, first: int, extent: tuple[int, int], *, least: tuple[int, int]) -> Iterator[None]:
        """Sum up what a slice has grown by, in steps.

        Args:
            growing: the slice, as it is now.
            first: the first entry of the block by which it has grown.
            extent: the first and last time of that block.
            least: how many entries a device has at least in a block, and in a slice, to be much of it.
        """
        if growing.number != self._slice:
            self._slice, self._candidates = growing.number, set()
        # A device that has so much of a slice has as much of at least one of its blocks.
        self._candidates.update(row[0] for row in self._db.execute(_MANY_OF_BLOCK, (least[0],)))
        for device in sorted(self._candidates):
            which = {"slice": growing.number, "device": device, "last": growing.last_seq}
            pieces: list[Any] = self._db.execute(_LAST_PIECE, which).fetchall()
            if pieces:
                behind, finest = pieces[0][0] + 1, pieces[0][1]
                times = extent if behind == first else (growing.min_us, growing.max_us)  # unless a block has failed
                yield from self._add({**which, "first": behind, "finest": finest}, times, LEAF_ENTRIES)
            elif self._db.execute(_COUNT, which).get >= least[1]:
                yield from self._begin(growing, which)
            yield

    def many_of(self, full: Growing, least: int) -> list[int]:
        """Return the devices that have so many entries in a slice, and no rollups yet."""
        return [device for (device,) in self._db.execute(_MANY_AT_END, {"slice": full.number, "least": least})]

    def sum_up(self, full: Growing, device: int) -> Iterator[None]:
        """Sum up all that a full slice has of a device, in steps, between which nothing else is summed up."""
        yield from self._begin(full, {"slice": full.number, "device": device, "last": full.last_seq})

    def _begin(self, growing: Growing, which: dict[str, int]) -> Iterator[None]:
        """Sum up all that a slice has of a device, from the finest width on at which that condenses."""
        entries = self._db.execute(_COUNT, which).get
        for width in _ROLLED_S:
            start = floor_of("at_us", str(width * 1_000_000))
            sql = f"select count(distinct {start}) from run where slice = :slice and device = :device"
            if self._db.execute(sql, which).get * CONDENSES <= entries:
                whole = growing.min_us, growing.max_us
                of_all = growing.last_seq - growing.first_seq + 1
                step = max(1, LEAF_ENTRIES * of_all // entries)
                yield from self._add({**which, "first": growing.first_seq, "finest": width}, whole, step)
                return
            if entries > LEAF_ENTRIES:
                yield
        self._candidates.discard(which["device"])

    def _add(self, piece: dict[str, int], extent: tuple[int, int], step: int) -> Iterator[None]:
        """Add the rollups of a piece; all of them are there at once.

        Args:
            piece: which.
            extent: the first and last time in it.
            step: of so many positions the numbers are taken out at once.
        """
        for table in "leaf", "nested", "sums":
            run(self._db, f"delete from {table}")
        for first in range(piece["first"], piece["last"] + 1, step):
            last = min(first + step - 1, piece["last"])
            which = {**piece, "first": first, "last": last, "min_us": extent[0], "max_us": extent[1]}
            for sql in _NUMBERS, _NESTED:
                run(self._db, sql, which)
                yield
        for sql in _NEW_PATHS, _NESTED_NUMBERS:
            run(self._db, sql)
            yield
        widths: Sequence[int] = [width for width in _ROLLED_S if width >= piece["finest"]]
        for finer, width in pairwise((0, *widths)):
            self._sum_up(width, finer)
            yield
        with self._db:
            run(self._db, _ADD_ROLLUPS, piece)
            run(self._db, _ADD_PIECE, piece)

    def _sum_up(self, width: int, finer: int) -> None:
        """Add the rollups of a width: from those of the finer one, or from the numbers.

        SQLite says where an extreme was for one of the two at a time. `limit -1` forbids it to flatten the rows into
        the outer query, where `start` would be computed again for each aggregate.
        """
        count, total, low, high, low_us, high_us = "count(*)", "total(x)", "x", "x", "at_us", "at_us"
        rows = f"select *, {floor_of('at_us', ':width * 1000000')} / 1000000 as start from leaf order by at_us"
        if finer:
            count, total, low, high, low_us, high_us = "sum(n)", total_of("sum"), "min", "max", "min_us", "max_us"
            rows = f"select *, {floor_of('start_s', ':width')} as start from sums where width_s = {finer}"
        grouped = f"from ({rows} limit -1) group by path, start"
        which = {"width": width}
        run(
            self._db,
            f"insert into sums select path, :width, start, {count}, {total}, min({low}), null, {low_us}, 0 {grouped}",
            which,
        )
        run(
            self._db,
            f"insert into sums select path, :width, start, 0, 0, null, max({high}), 0, {high_us} {grouped}"
            " on conflict do update set max = excluded.max, max_us = excluded.max_us",
            which,
        )
