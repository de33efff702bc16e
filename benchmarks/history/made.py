"""The files of a fleet: its journal with closed partitions, made by the code that a server has for it; a plain log."""

import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import apsw

from benchmarks.history.fleets import VERSION, Fleet, fill
from twincast.journal.retention import Retention
from twincast.journal.sqlite import schema
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.history import catalog, files
from twincast.journal.sqlite.history.catalog import CLOSED, Part
from twincast.journal.sqlite.history.closer import Job, close

KEPT_AT = "TWINCAST_BENCH_LOGS"
"""The variable of the environment that names a folder where the files stay for the next time."""
FILL_ENTRIES = 500_000
_CACHE_KIB = 64_000
_CLOSED_AT = "2026-11-01T00:00:00.000000+00:00"
Told = Callable[[str], None]

_CHECKPOINT = """
insert or replace into checkpoint (device_id, value, updated_at_utc, source, seq)
select device_id, value, timestamp_utc, source, max(seq) from {log} group by device_id
"""


@cache
def _of_this_run() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="twincast-bench-")


def folder() -> Path:
    """Return where files are made: for as long as this process runs, or where the environment says."""
    return Path(os.environ.get(KEPT_AT) or _of_this_run().name)


def made_once(fleet: Fleet, what: str, make: Callable[[Path], None]) -> Path:
    """Return a folder with files of a fleet, which are made if they are not there."""
    place = folder() / f"{what}-{VERSION}-{fleet.devices}-{fleet.entries}"
    if not place.exists():
        unfinished = place.with_suffix(".unfinished")
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(place)
    return place


def plain_log(fleet: Fleet, told: Told) -> Path:
    """Return a file whose table `log` has all entries of a fleet, as a journal that closes nothing."""

    def make(place: Path) -> None:
        with closing(_new_log(place / "log.db")) as db:
            for first in range(1, fleet.entries + 1, FILL_ENTRIES):
                told(f"{fleet.name}: {first - 1:,} of {fleet.entries:,} entries written")
                with db:
                    fill(db, fleet, first, min(first + FILL_ENTRIES - 1, fleet.entries))

    return made_once(fleet, "log", make) / "log.db"


def journal(fleet: Fleet, told: Told) -> Path:
    """Return a journal of a fleet, as a server leaves one that has taken all entries: partitions, and an open end."""

    def make(place: Path) -> None:
        path = str(place / "journal.db")
        with closing(SqliteFile(path)) as file:
            log = file.epoch
        parts: list[Part] = []
        for span in fleet.spans:
            told(f"{fleet.name}: {span[0] - 1:,} of {fleet.closed_entries:,} entries closed")
            parts.append(_closed(path, log, fleet, span, parts[-1] if parts else None))
        _write_open_end(path, fleet, parts)
        keeps = Retention(keep_entries=fleet.partition_entries)
        with closing(SqliteFile(path, retention=keeps)) as file:
            while (until := file.look(_CLOSED_AT).until) is not None:
                file.trim(until)

    return made_once(fleet, "journal", make) / "journal.db"


def _new_log(path: Path) -> apsw.Connection:
    """Return a new journal's file, in which no entry is, with nothing to guard against crashes."""
    db = apsw.Connection(str(path))
    for pragma in "journal_mode = off", "synchronous = off", f"cache_size = -{_CACHE_KIB}":
        db.execute(f"pragma {pragma}")
    schema.create(db, "bench")
    return db


def _closed(journal: str, log: str, fleet: Fleet, span: tuple[int, int], before: Part | None) -> Part:
    """Write a span and close it, as a server does once it is written."""
    first, last = span
    written = Path(f"{journal}-span")
    written.unlink(missing_ok=True)
    with closing(_new_log(written)) as db, db:
        fill(db, fleet, first, last)
    new = files.new_file(journal, first)
    made = close(Job(str(written), new, first, last, log, before and files.path_of(journal, before), share=1))
    written.unlink()
    times = made.min_us, made.max_us, made.stored_min_us, made.stored_max_us
    name = files.settle(new, first)
    return Part(first, last, name, *times, made.entries, made.bytes, made.sha256, CLOSED, _CLOSED_AT)


def _write_open_end(journal: str, fleet: Fleet, parts: list[Part]) -> None:
    """Write the catalog, and into the log what was in it when the last partition was closed: so large is the file."""
    first = max(1, fleet.closed_entries - fleet.partition_entries + 1)
    with closing(apsw.Connection(journal)) as db:
        for pragma in "journal_mode = off", "synchronous = off", f"cache_size = -{_CACHE_KIB}":
            db.execute(f"pragma {pragma}")
        with db:
            for part in parts:
                catalog.add(db, part)
            fill(db, fleet, first, fleet.entries)
            _write_checkpoint(db, journal, parts)
            db.execute("update meta set value = ? where name = 'checkpoint_seq'", (str(fleet.entries),))
        db.execute("pragma journal_mode = wal")


def _write_checkpoint(db: apsw.Connection, journal: str, parts: list[Part]) -> None:
    """Write each device's newest reading, from the oldest partition on."""
    for part in parts:
        with closing(apsw.Connection(files.path_of(journal, part), flags=apsw.SQLITE_OPEN_READONLY)) as closed:
            newest = closed.execute(
                "select device_id, value, timestamp_utc, source, log.seq from (select max(seq) as seq from entry"
                " group by device) newest cross join log on log.seq = newest.seq"
            )
            db.executemany(
                "insert or replace into checkpoint (device_id, value, updated_at_utc, source, seq)"
                " values (?, ?, ?, ?, ?)",
                newest.fetchall(),
            )
    db.execute(_CHECKPOINT.format(log="log"))
