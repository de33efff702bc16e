"""Journals and partitions for tests."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
from msgspec import UNSET, Raw
from msgspec.structs import replace

from twincast.core.model import Control, DataUpdate, Deleted, Entry, Late
from twincast.journal.retention import Retention
from twincast.journal.sqlite.entries import LOG_COLUMNS, insertion_of_rows
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.history import files
from twincast.journal.sqlite.history.catalog import CLOSED, Part
from twincast.journal.sqlite.history.closer import Closed, Job, close

Row = tuple[Any, ...]


def at(second: float, day: int = 23) -> str:
    """Return a time as the log has it."""
    whole = int(second)
    return (
        f"2026-11-{day:02}T{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}.{round(second % 1 * 1e6):06}+00:00"
    )


def reading(device: str, value: str, second: float, *, measured: str | None = None, source: Any = "rest") -> Entry:
    """Return a reading that was stored at a second of the day."""
    return DataUpdate(
        device, Raw(value.encode()), at(second), source, measured_at_utc=UNSET if measured is None else measured
    )


def late(device: str, value: str, second: float, measured: str) -> Entry:
    """Return a reading that was late."""
    return Late(device, Raw(value.encode()), at(second), "websocket", measured)


def command(target: str, second: float) -> Entry:
    """Return a command."""
    return Control(target, "set", Raw(b'{"rpm":900}'), at(second), "websocket")


def deletion(device: str, second: float) -> Entry:
    """Return a deletion."""
    return Deleted(device, at(second), "rest")


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write entries into a journal as they are, each with its own time and kind, and fold them."""
    SqliteFile(str(path)).close()
    with closing(apsw.Connection(str(path))) as db:
        newest = int(db.execute("select coalesce(max(seq), 0) from log").get)
        db.execute(*insertion_of_rows([replace(entry, seq=seq) for seq, entry in enumerate(entries, newest + 1)]))
    SqliteFile(str(path)).close()


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows into a journal's log as another program does, whatever they are."""
    with closing(apsw.Connection(str(path))) as db, db:
        db.executemany(f"insert into log ({LOG_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def closed(journal: Path, first: int, last: int, before: Path | None = None) -> tuple[Path, Closed]:
    """Close a span of a journal; return its file, and what is said of it."""
    new = journal.parent / f"{first:012}.db"
    job = Job(str(journal), str(new), first, last, "log", None if before is None else str(before), share=1)
    return new, close(job)


def rows(path: Path, sql: str, bindings: Any = ()) -> list[Row]:
    """Return what a query of a file gives."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return db.execute(sql, bindings).fetchall()


def log_of(path: Path, first: int = 1, last: int = 1 << 40) -> list[Row]:
    """Return the rows of a log, of a journal or of a partition, in the order of seq."""
    return rows(path, f"select {LOG_COLUMNS} from log where seq between ? and ? order by seq", (first, last))


def close_log(path: str, entries: int) -> None:
    """Close the log of a journal that nobody serves, in partitions of so many entries, and trim it behind them."""
    with closing(SqliteFile(path, retention=Retention(keep_entries=1))) as file:
        while file.seq - (since := file.closed_seq()) > entries:
            new, first, last = files.new_file(path, since + 1), since + 1, since + entries
            before = files.path_of(path, file.partitions.parts[-1]) if file.partitions.parts else None
            made = close(Job(path, new, first, last, file.epoch, before, share=1))
            times = made.min_us, made.max_us, made.stored_min_us, made.stored_max_us
            name = files.settle(new, first)
            part = Part(first, last, name, *times, made.entries, made.bytes, made.sha256, CLOSED, at(0))
            file.partitions.add(part)
        while (until := file.look(at(0)).until) is not None:
            file.trim(until)


def damaged(file: Path) -> bytes:
    """Damage a partition but for its first page; return what it was."""
    content = file.read_bytes()
    file.write_bytes(content[:4_096] + b"\xff" * (len(content) - 4_096))
    return content


def removed(file: Path) -> bytes:
    """Remove a partition; return what it was."""
    content = file.read_bytes()
    file.unlink()
    return content


def put_back(file: Path, content: bytes) -> None:
    """Put a partition in its place again."""
    file.write_bytes(content)
