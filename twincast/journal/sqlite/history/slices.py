"""An index of what is not closed yet: sorted runs over the log, in a file that may be lost at any time.

It is made anew at each start, in the background. What it does not have yet, queries scan in the log itself.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

import apsw

from twincast.journal.sqlite.history.files import OPEN_END
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, KINDS, LATE, READING, WIDTHS_S, folder_of
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.parts import add_part_of
from twincast.journal.sqlite.history.rollup import CONDENSES, pointer_of
from twincast.journal.sqlite.history.times import add_function, add_time_us, us_of
from twincast.machine import OWNER_ALONE

SLICE_ENTRIES = 20_000
BLOCK_ENTRIES = 1_000
"""So many entries are indexed at once, in some two milliseconds: for as long the journal is read, and no longer."""
LEAF_ENTRIES = 2_000
"""The numbers of so many entries are taken out and summed up at once: no statement takes more than two milliseconds."""
DENSE = 16
"""A slice has rollups of devices that are this part of it; of the others there is little to read."""
_ROLLED_S = tuple(width for width in WIDTHS_S if width <= 3_600)
"""A slice is short: wider ones would not condense what these have."""

_UNSYNCED = ("journal_mode = memory", "synchronous = off")
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
_CACHE_KIB = 2_048
_BUSY_TIMEOUT_MS = 1_000

RUN_COLUMNS = """
    slice integer not null, device integer not null, at_us integer not null, seq integer not null,
    stored_us integer, kind integer not null, primary key (slice, device, at_us, seq)
"""
"""As the table `entry` of a partition, without what the log has."""
_TABLES = f"""
create table open.device (id integer primary key, name text not null unique);
create table open.path (id integer primary key, key text not null unique, pointer text not null);
create table open.run ({RUN_COLUMNS}) without rowid;
create table open.rollup (
    slice integer not null, device integer not null, path integer not null, width_s integer not null,
    start_s integer not null, n integer not null, sum real not null, min, max,
    min_us integer not null, max_us integer not null, primary key (slice, device, path, width_s, start_s)
) without rowid;
"""
_ROOT = "insert into open.path values (1, '$', '')"
_TEMPORARY = """
create temp table block (
    seq integer primary key, device_id text not null, at_us integer not null, stored_us integer, kind integer not null
);
create temp table leaf (path integer not null, at_us integer not null, x);
create temp table nested (key text not null, at_us integer not null, x);
"""
_NUMBERED = " ".join(f"when '{name}' then {number}" for number, name in KINDS.items())


def kind_of(type_: str) -> str:
    """Return the SQL for the number of a kind, of what the log has as its type."""
    return f"case {type_} {_NUMBERED} end"


def timed(rows: str) -> str:
    """Return the SQL for rows of the log, with their times and kinds as the table `entry` has them."""
    return f"""
select seq, device_id, iif(is_believed, measured, stored) as at_us, iif(is_believed, stored, null) as stored_us,
       {kind_of("type")} as kind
from (
    select *, measured is not null and measured <= stored + {BELIEVED_AHEAD_US} as is_believed from (
        select *, coalesce({us_of("timestamp_utc")}, time_us(timestamp_utc)) as stored,
               iif(measured_at_utc is null, null, {us_of("measured_at_utc")}) as measured
        from ({rows}) limit -1
    ) limit -1
)
"""


_STAGE = f"insert into block {timed('select * from hot.log where seq between ? and ?')}"
_NAME = "insert or ignore into device (name) select distinct device_id from block"
_EXTENT = """
select min(at_us), max(at_us), min(coalesce(stored_us, at_us)), max(coalesce(stored_us, at_us)),
       max(stored_us is not null)
from block
"""
_ADD = """
insert into run select ?, d.id, at_us, seq, stored_us, kind
from block cross join device d on d.name = device_id
order by 2, 3, 4
"""
_DENSE = "select device, count(*) from run where slice = ? group by device having count(*) >= ?"
_ENTRIES = "run r cross join hot.log l on l.seq = r.seq"
_OF_DEVICE = (
    f"r.slice = :slice and r.device = :device and r.kind in ({READING}, {LATE}) and r.seq between :first and :last"
)
_NUMBERS = f"""
insert into leaf select 1, r.at_us, l.value + 0 from {_ENTRIES} where {_OF_DEVICE} and l.value >= '-' and l.value < ':'
"""
_NESTED = f"""
insert into nested select t.fullkey, r.at_us, t.atom from {_ENTRIES} cross join json_tree(l.value) t
where {_OF_DEVICE} and substr(l.value, 1, 1) in ('[', '{{') and t.type in ('integer', 'real')
"""
_NEW_PATHS = """
insert or ignore into path (key, pointer) select key, pointer_of(key) from (select distinct key from nested)
"""
_NESTED_NUMBERS = "insert into leaf select p.id, n.at_us, n.x from nested n cross join path p on p.key = n.key"
_ROLLUP = "insert into rollup select :slice, :device, path, :width"
# What is there already is of other entries. Of equal extremes the earliest says when it was.
_AND_LOWS = """
on conflict do update set n = n + excluded.n, sum = sum + excluded.sum,
    min = min(min, excluded.min),
    min_us = iif((excluded.min, excluded.min_us) < (min, min_us), excluded.min_us, min_us)
"""
_AND_HIGHS = """
on conflict do update set max = excluded.max, max_us = excluded.max_us
    where max is null or excluded.max > max or excluded.max = max and excluded.max_us < max_us
"""


_FILLED = object()


def floor_of(number: str, width: str) -> str:
    """Return the SQL for the last multiple of a width up to a number; a division alone rounds those below 0 up."""
    return f"({number} - (({number}) % {width} + {width}) % {width})"


class Slice(NamedTuple):
    """A sorted run: which entries it has, and their times."""

    number: int
    first_seq: int
    last_seq: int
    min_us: int
    max_us: int
    min_stored_us: int
    max_stored_us: int
    has_measured: int
    """Whether the stored time of an entry is another one than that which counts."""
    is_full: bool = False
    """Whether it has the rollups of its dense devices."""

    def grown(self, last_seq: int, extent: tuple[int, int, int, int, int]) -> "Slice":
        """Return it with the next entries, and their times."""
        return Slice(
            *(self.number, self.first_seq, last_seq),
            *(min(self.min_us, extent[0]), max(self.max_us, extent[1])),
            *(min(self.min_stored_us, extent[2]), max(self.max_stored_us, extent[3])),
            max(self.has_measured, extent[4]),
        )


class Slices:
    """The open file. Its connection reads the journal too, as `hot`. All methods must be called in one thread."""

    def __init__(self, journal: str) -> None:
        """Begin without a slice.

        Args:
            journal: its file.

        Raises:
            apsw.Error: the disk does not give the journal.
        """
        self._journal = os.path.realpath(journal)
        self._path: str | None = None
        self.db = apsw.Connection(":memory:", flags=_FLAGS)
        self.db.set_busy_timeout(_BUSY_TIMEOUT_MS)
        add_time_us(self.db)
        add_part_of(self.db)
        add_function(self.db, "pointer_of", pointer_of)
        run(self.db, "attach ? as hot", (f"file:{quote(self._journal)}?mode=ro",))
        run(self.db, "attach ':memory:' as open")
        run(self.db, _TABLES + _TEMPORARY)
        run(self.db, _ROOT)
        self._slices: list[Slice] = []
        self._filling: Iterator[None] | None = None
        self.times_emptied = 0
        """How often `empty` was called: a query that began before has perhaps not found all."""

    def close(self) -> None:
        """Close the file and remove it."""
        self.db.close(True)
        if self._path is not None:
            with suppress(OSError):
                os.unlink(self._path)

    def empty(self) -> None:
        """Forget all slices, names and numbers, and leave nothing of them in the file; they are made anew.

        Raises:
            apsw.Error: the disk does not take it.
        """
        with self.db:
            for table in "run", "rollup", "device", "path", "block", "leaf", "nested":
                run(self.db, f"delete from {table}")
            run(self.db, _ROOT)
        self._slices.clear()
        self._filling = None
        self.times_emptied += 1

    def between(self, since: int, until: int) -> list[Slice]:
        """Return the slices that have entries behind a position, and up to another one, in order."""
        return [each for each in self._slices if each.last_seq > since and each.first_seq <= until]

    def reach(self, since: int) -> int:
        """Return the position up to which slices have all entries behind another one."""
        if self._slices and self._slices[0].first_seq <= since + 1 and self._slices[-1].last_seq > since:
            return self._slices[-1].last_seq
        return since

    def go_on(self, since: int, head: int, *, may_forget: bool = True) -> bool:
        """Do a block of the work: index the next entries, or forget what is closed. Return whether there is more.

        Args:
            since: the position behind which the log is open.
            head: its newest entry.
            may_forget: whether no query is at work, which may be reading what is closed by now.

        Raises:
            apsw.Error: a disk does not give or take it; what was there is as it was.
        """
        slices = self._slices
        if may_forget and slices and (slices[0].last_seq <= since or slices[0].first_seq > since + 1):
            self._forget()
        elif self._filling is not None:
            filling, self._filling = self._filling, None  # what fails begins anew
            if next(filling, _FILLED) is _FILLED:
                slices[-1] = slices[-1]._replace(is_full=True)
            else:
                self._filling = filling
        elif slices and not slices[-1].is_full and slices[-1].last_seq - slices[-1].first_seq + 1 >= SLICE_ENTRIES:
            self._filling = self._roll_up_dense(slices[-1])
        elif head - self.reach(since) >= BLOCK_ENTRIES:
            self._add(self.reach(since) + 1, self.reach(since) + BLOCK_ENTRIES)
        else:
            return False
        return True

    def _add(self, first: int, last: int) -> None:
        newest = self._slices[-1] if self._slices else None
        if newest is None and self._path is None:
            self._begin_file()
        with self.db:
            run(self.db, "delete from block")
            run(self.db, _STAGE, (first, last))
            run(self.db, _NAME)
            extent = self.db.execute(_EXTENT).get
            if newest is None or newest.is_full:
                added = Slice(1 if newest is None else newest.number + 1, first, last, *extent)
            else:
                added = newest.grown(last, extent)
            run(self.db, _ADD, (added.number,))
        if newest is None or newest.is_full:
            self._slices.append(added)
        else:
            self._slices[-1] = added

    def _begin_file(self) -> None:
        """Have the slices in a file from now on, made anew; they stay in memory where the folder takes none."""
        folder = folder_of(self._journal)
        path = os.path.join(folder, OPEN_END)
        with suppress(OSError, apsw.Error):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ALONE))
            run(self.db, "detach open")
            try:
                run(self.db, "attach ? as open", (path,))
            except apsw.Error:
                run(self.db, "attach ':memory:' as open")
            else:
                self._path = path
            # What an unclean end leaves nobody reads, so nothing is synced; but a full disk leaves what was there.
            # What is deleted is written over: the history of a device may be one that is to be erased.
            for pragma in *_UNSYNCED, f"cache_size = {-_CACHE_KIB}", "secure_delete = on":
                run(self.db, f"pragma open.{pragma}")
            run(self.db, _TABLES)
            run(self.db, _ROOT)

    def _forget(self) -> None:
        with self.db:
            for table in "run", "rollup":
                run(self.db, f"delete from {table} where slice = ?", (self._slices[0].number,))
        del self._slices[0]
        if not self._slices:
            self._filling = None

    def _roll_up_dense(self, full: Slice) -> Iterator[None]:
        """Sum up the numbers of devices that are much of a slice, in steps."""
        run(self.db, "delete from rollup where slice = ?", (full.number,))
        dense: list[Any] = self.db.execute(_DENSE, (full.number, SLICE_ENTRIES // DENSE)).fetchall()
        for device, entries in dense:
            yield
            yield from self._roll_up(full, device, entries)

    def _roll_up(self, full: Slice, device: int, entries: int) -> Iterator[None]:
        """Sum up a device's numbers, from the finest width on at which that condenses."""
        which = {"slice": full.number, "device": device}
        finest: Sequence[int] = ()
        for index, width in enumerate(_ROLLED_S):
            start = floor_of("at_us", str(width * 1_000_000))
            sql = f"select count(distinct {start}) from run where slice = :slice and device = :device"
            if self.db.execute(sql, which).get * CONDENSES <= entries:
                finest = _ROLLED_S[index:]
                break
            yield
        for first in range(full.first_seq, full.last_seq + 1, LEAF_ENTRIES) if finest else ():
            for table in "leaf", "nested":
                run(self.db, f"delete from {table}")
            span = {**which, "first": first, "last": first + LEAF_ENTRIES - 1}
            for sql in _NUMBERS, _NESTED, _NEW_PATHS, _NESTED_NUMBERS:
                run(self.db, sql, span)
                yield
            self._sum_up({**which, "width": finest[0]})
            yield
        for finer, width in pairwise(finest):
            self._widen({**which, "width": width}, finer)
            yield

    def _sum_up(self, which: dict[str, int]) -> None:
        """Add the numbers to the rollups of the finest width."""
        rows = f"select *, {floor_of('at_us', ':width * 1000000')} / 1000000 as start from leaf order by at_us"
        self._add_up(which, rows, ("count(*)", "total(x)", "x", "x", "at_us", "at_us"))

    def _widen(self, which: dict[str, int], finer: int) -> None:
        """Add the rollups of a width from those of a finer one."""
        start = floor_of("start_s", ":width")
        rows = f"select *, {start} as start from rollup where slice = :slice and device = :device and width_s = {finer}"
        self._add_up(which, rows, ("sum(n)", "total(sum)", "min", "max", "min_us", "max_us"))

    def _add_up(self, which: dict[str, int], rows: str, columns: tuple[str, str, str, str, str, str]) -> None:
        """Add rows up by path and `start`.

        SQLite says where an extreme was for one of the two at a time. `limit -1` forbids it to flatten the rows into
        the outer query, where `start` would be computed again for each aggregate.
        """
        count, total, low, high, low_us, high_us = columns
        grouped = f"from ({rows} limit -1) group by path, start"
        lows = f"start, {count}, {total}, min({low}), null, {low_us}, 0"
        highs = f"start, 0, 0, null, max({high}), 0, {high_us}"
        with self.db:
            run(self.db, f"{_ROLLUP}, {lows} {grouped} {_AND_LOWS}", which)
            run(self.db, f"{_ROLLUP}, {highs} {grouped} {_AND_HIGHS}", which)
