"""An index of what is not closed yet: sorted runs over the log, in a file that may be lost at any time.

It is made anew at each start, in the background. What it does not have yet, queries scan in the log itself.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

import apsw

from twincast.journal.sqlite.history import dense
from twincast.journal.sqlite.history.dense import DENSE, DENSE_AT_END, Dense
from twincast.journal.sqlite.history.files import OPEN_END
from twincast.journal.sqlite.history.layout import IS_MARK, folder_of
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.parts import add_part_of
from twincast.journal.sqlite.history.rollup import pointer_of
from twincast.journal.sqlite.history.run_table import RUN_COLUMNS, timed
from twincast.journal.sqlite.history.times import add_function, add_time_us
from twincast.machine import OWNER_ALONE

SLICE_ENTRIES = 20_000
BLOCK_ENTRIES = 1_000
"""So many entries are indexed at once, in some two milliseconds: for as long the journal is read, and no longer."""
SOON, AT_LEISURE = 2.0, 16.0
"""For so many times as long as a block took its thread rests: without the index, questions take long; without rollups
of what is in it, they take longer. Where entries come so fast that these lag, a partition is closed soon."""
BUSY_PER_S = 2_000
"""Where so many entries come there is little time: then rollups of full slices are made at leisure. A log that was
filled and rests now has all of them as soon as can be."""
RATE_S = 1.0
"""Over how long entries are counted for that, at least."""

_UNSYNCED = ("journal_mode = memory", "synchronous = off")
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
_CACHE_KIB = 2_048
_LOG_CACHE_KIB = 16_384
"""A page of a device's entries lies on as many pages of the log, which are read again for the next one."""
_BUSY_TIMEOUT_MS = 1_000

_TABLES = f"""
create table open.device (id integer primary key, name text not null unique);
create table open.run ({RUN_COLUMNS}) without rowid;
create index open.marks on run (slice, device, at_us, seq) where kind {IS_MARK};
{dense.TABLES}
"""
_TEMPORARY = f"""
create temp table block (
    seq integer primary key, device_id text not null, at_us integer not null, stored_us integer, kind integer not null,
    bytes integer not null, value text, source integer
);
{dense.TEMPORARY}
"""
_STAGE = f"insert into block {timed('select * from hot.log where seq between ? and ?')}"
_NAME = "insert or ignore into device (name) select distinct device_id from block"
_EXTENT = """
select min(at_us), max(at_us), min(coalesce(stored_us, at_us)), max(coalesce(stored_us, at_us)),
       max(stored_us is not null)
from block
"""
_ADD = """
insert into run select ?, d.id, at_us, seq, stored_us, kind, bytes, value, source
from block cross join device d on d.name = device_id
order by 2, 3, 4
"""
_FILLED = object()


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

    @property
    def is_full(self) -> bool:
        """Whether what follows goes into the next one."""
        return self.last_seq - self.first_seq + 1 >= SLICE_ENTRIES

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

    def __init__(self, journal: str, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Begin without a slice.

        Args:
            journal: its file.
            clock_s: a clock, for how fast entries come.

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
        run(self.db, f"pragma hot.cache_size = {-_LOG_CACHE_KIB}")
        run(self.db, "attach ':memory:' as open")
        run(self.db, _TABLES + _TEMPORARY)
        run(self.db, dense.ROOT)
        self._slices: list[Slice] = []
        self._dense = Dense(self.db)
        self._filling: Iterator[None] | None = None
        self._filled = 0
        self._is_of_full = False
        self._clock_s = clock_s
        self._counted: tuple[int, float] | None = None
        self._comes_per_s = 0.0
        self._full: deque[Slice] = deque()
        self._to_sum: deque[tuple[Slice, int]] = deque()
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
            for table in "run", "device", "block", *dense.HOLD:
                run(self.db, f"delete from {table}")
            run(self.db, dense.ROOT)
        self._slices.clear()
        self._dense, self._filling = Dense(self.db), None
        self._full.clear()
        self._to_sum.clear()
        self.times_emptied += 1

    def between(self, since: int, until: int) -> list[Slice]:
        """Return the slices that have entries behind a position, and up to another one, in order."""
        return [each for each in self._slices if each.last_seq > since and each.first_seq <= until]

    def reach(self, since: int) -> int:
        """Return the position up to which slices have all entries behind another one."""
        if self._slices and self._slices[0].first_seq <= since + 1 and self._slices[-1].last_seq > since:
            return self._slices[-1].last_seq
        return since

    def go_on(self, since: int, head: int, *, may_forget: bool = True) -> float:
        """Do a block of the work: index the next entries, or forget what is closed.

        Return for how many times as long as it took to rest before the next one; 0 if there is no more.

        Args:
            since: the position behind which the log is open.
            head: its newest entry.
            may_forget: whether no query is at work, which may be reading what is closed by now.

        Raises:
            apsw.Error: a disk does not give or take it; what was there is as it was.
        """
        slices = self._slices
        self._count(head)
        if may_forget and slices and (slices[0].last_seq <= since or slices[0].first_seq > since + 1):
            self._forget()
        elif self._filling is not None:
            filling, self._filling = self._filling, None  # what fails is done with the block after it
            if next(filling, _FILLED) is not _FILLED:
                self._filling = filling
            return AT_LEISURE if self._is_of_full and self._comes_per_s >= BUSY_PER_S else SOON
        elif head - self.reach(since) >= BLOCK_ENTRIES:
            self._add(self.reach(since) + 1, self.reach(since) + BLOCK_ENTRIES)
        elif self._to_sum:
            full, device = self._to_sum.popleft()
            self._filling, self._filled, self._is_of_full = self._dense.sum_up(full, device), full.number, True
        elif self._full:
            full = self._full.popleft()
            least = max(1, SLICE_ENTRIES // DENSE_AT_END)
            self._to_sum.extend((full, device) for device in self._dense.many_of(full, least))
        else:
            return 0.0
        return SOON

    def _count(self, head: int) -> None:
        """Note how fast entries come."""
        now_s = self._clock_s()
        before, since_s = self._counted or (head, now_s)
        if self._counted is None:
            self._counted = head, now_s
        elif now_s - since_s >= RATE_S:
            self._counted, self._comes_per_s = (head, now_s), (head - before) / (now_s - since_s)

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
        least = max(1, BLOCK_ENTRIES // DENSE), max(1, SLICE_ENTRIES // DENSE)
        self._filling, self._filled = self._dense.grow(added, first, extent[:2], least=least), added.number
        self._is_of_full = False
        if added.is_full:
            self._full.append(added)

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
            run(self.db, dense.ROOT)

    def _forget(self) -> None:
        with self.db:
            for table in "run", "rollup", "piece":
                run(self.db, f"delete from {table} where slice = ?", (self._slices[0].number,))
        gone = self._slices.pop(0)
        self._full = deque(each for each in self._full if each.number != gone.number)
        self._to_sum = deque(each for each in self._to_sum if each[0].number != gone.number)
        if self._filled == gone.number:
            self._filling = None
