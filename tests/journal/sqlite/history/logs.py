"""Logs that are written as files, closed in parts and read back as entries: what tests of history have to do with."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from twincast.core.lineage import Generation, Lineage
from twincast.core.model import Entry
from twincast.history.times import text_of
from twincast.journal.sqlite import schema
from twincast.journal.sqlite.entries import LOG_COLUMNS
from twincast.journal.sqlite.history import (
    catalog,
    dense,
    names,
    open_end,
    pages,
    percentiles,
    positions,
    rollup,
    series,
    slices,
    states,
)
from twincast.journal.sqlite.history.catalog import CLOSED, Part
from twincast.journal.sqlite.history.closer import Job, close
from twincast.journal.sqlite.history.files import new_file, settle
from twincast.journal.sqlite.history.turns import Steps

T = TypeVar("T")
EPOCH = "10c-run"
SMALL: dict[Any, dict[str, Any]] = {
    pages: {"LOOK_ENTRIES": 4, "LOOK_MIN_ENTRIES": 3, "PARSE_ENTRIES": 3, "READ_ENTRIES": 3},
    series: {"RAW_ENTRIES": 5, "ROLLUPS": 3, "SEEKS": 3, "EDGES": 2, "WIDE_US": 3_600_000_000},
    percentiles: {"SORTED_ENTRIES": 4},
    slices: {"SLICE_ENTRIES": 16, "BLOCK_ENTRIES": 3},
    dense: {"CONDENSES": 2, "LEAF_ENTRIES": 2},
    rollup: {"CONDENSES": 2},
    open_end: {"SCAN_ENTRIES": 7, "FEW_ENTRIES": 4, "FEW_MIN_ENTRIES": 2},
    positions: {"SCAN_ENTRIES": 5},
    states: {"SCAN_ENTRIES": 5, "DEVICES": 2},
    names: {"NAMES": 2, "SCAN_ENTRIES": 4},
}
"""So little does each statement, that a short log takes as many as a long one."""


def drive(steps: Steps[T]) -> T:
    """Take all steps, one behind the other, and return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: T = end.value
            return found


class OpenLog:
    """A journal's file that a test writes, in place of a journal that is open."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "twincast.db")
        self.lineage = Lineage("10c", [Generation("run", 0)])
        self.oldest_since = 0
        self.closed = 0
        self.db = apsw.Connection(self.path)
        self.db.pragma("journal_mode", "wal")
        self.db.pragma("synchronous", "off")
        schema.create(self.db, "10c")

    def write(self, entries: Iterable[Entry]) -> None:
        """Add entries, which have their positions."""
        with self.db:
            self.db.executemany(f"insert into log ({LOG_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)", map(_row, entries))

    def close_up_to(self, last: int) -> None:
        """Make a partition of what is not closed yet."""
        parts = catalog.parts(self.db)
        first = parts[-1].last_seq + 1 if parts else self.db.execute("select min(seq) from log").get
        new = new_file(self.path, first)
        folder = Path(new).parent
        closed = close(
            Job(self.path, new, first, last, "10c", str(folder / parts[-1].file) if parts else None, share=1.0)
        )
        times = closed.min_us, closed.max_us, closed.stored_min_us, closed.stored_max_us
        facts = closed.entries, closed.bytes, closed.sha256
        with self.db:
            catalog.add(self.db, Part(first, last, settle(new, first), *times, *facts, CLOSED, text_of(0)))
        self.closed = last

    def trim_up_to(self, seq: int) -> None:
        """Take entries off the log that partitions have."""
        with self.db:
            self.db.execute("delete from log where seq <= ?", (seq,))


def _row(entry: Entry) -> tuple[object, ...]:
    value = bytes(entry.payload).decode() or "null"
    columns = (entry.seq, entry.kind, entry.subject, value, entry.detail or None, entry.timestamp_utc, entry.source)
    return *columns, entry.claim or None
