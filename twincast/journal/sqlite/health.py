"""What a journal's file says of itself, and whether that holds; beside a server that runs on it, or without."""

import os
import shutil
from collections.abc import Container, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import apsw
from msgspec import Struct

from twincast.core.lineage import epoch_of
from twincast.core.space import PACE_LEAST_S, full_in_s
from twincast.errors import JournalUnusable
from twincast.journal.sqlite import backups
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.catalog import ROLLUP, Part, has_parts, of_log, reaches_back_to
from twincast.journal.sqlite.history.files import digest, found, path_of
from twincast.journal.sqlite.lock import serves_the_file
from twincast.journal.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from twincast.journal.sqlite.wal import has_changes, open_with_its_wal, refuse_lonely_wal

_BUSY_TIMEOUT_MS = 10_000
PACE_ENTRIES = 100_000
"""Of how many of the newest entries the pace is taken."""


class Facts(Struct):
    """What a journal holds."""

    epoch: str
    schema: int
    oldest_seq: int
    newest_seq: int
    checkpoint_seq: int
    entries: int
    """How many changes the log has."""
    partitions: int
    """How many of the files are there that have its closed part."""
    history_bytes: int
    """The closed part of the log, in files of its own."""
    oldest_at_utc: str | None
    newest_at_utc: str | None
    created_at_utc: str | None
    devices: int
    keys: int
    file_bytes: int
    wal_bytes: int
    free_bytes: int
    """Of the file: pages that are written anew before it grows."""
    disk_free_bytes: int | None
    growth_bytes_per_s: float | None
    """How fast the newest 100,000 changes came, in bytes of the file; None if they span no minute."""
    full_in_s: float | None
    """When the disk is full at that pace if nothing is trimmed: a file does not say what its server keeps; None if that
    is not known."""
    is_served: bool
    """Whether a server runs on it."""
    backups: list[backups.Backup]
    """Where backups of it are, the newest at each place, as far as it was told."""
    erasing: int
    """How many deletions of histories are not carried out yet: its files, or a shared log's stream, have some of it."""
    backups_with_erased: list[str]
    """The backups that may have something of histories that were deleted since, as far as the journal knows of them."""


@contextmanager
def reading(path: str) -> Iterator[apsw.Connection]:
    """Open a journal to be read, as it is at one moment; not a byte of it is changed.

    Raises:
        JournalUnusable: there is none, it is something else, newer, or cannot be read.
    """
    path = os.path.realpath(path)
    is_served = serves_the_file(path)
    if not is_served:
        refuse_lonely_wal(path)
    if not os.path.isfile(path):
        raise JournalUnusable(f"there is no journal at {path}; --journal or TWINCAST_JOURNAL names the server's")
    try:
        db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY) if is_served else open_with_its_wal(path)
        with closing(db):
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_changes(path))
            db.set_busy_timeout(_BUSY_TIMEOUT_MS)
            db.pragma("query_only", 1)
            db.execute("begin")
            refuse_others(db, path)
            yield db
    except apsw.NotADBError:
        raise JournalUnusable(f"{path} is not a journal: the file is something else") from None
    except apsw.Error as error:
        raise JournalUnusable(f"the journal {path} cannot be read: {in_words(error)}") from None


def refuse_others(db: apsw.Connection, path: str) -> None:
    """Refuse a database that is no journal, or one that a newer version wrote.

    Raises:
        JournalUnusable: it is.
    """
    if db.pragma("application_id") != APPLICATION_ID:
        raise JournalUnusable(f"{path} is an SQLite database, but not a twincast journal")
    version = db.pragma("user_version")
    if version > SCHEMA_VERSION:
        raise JournalUnusable(
            f"{path} is a journal of version {version}, written by a newer twincast; this one reads {SCHEMA_VERSION}"
        )


def facts(path: str) -> Facts:
    """Return what a journal holds.

    Raises:
        JournalUnusable: see `reading`.
    """
    with reading(path) as db:
        return facts_of(db, os.path.realpath(path))


def facts_of(db: apsw.Connection, path: str) -> Facts:
    """Return what an open journal holds."""
    meta = dict(db.execute("select name, value from meta"))
    newest = db.execute("select seq, timestamp_utc from log order by seq desc limit 1").fetchone() or (0, None)
    oldest: Any = db.execute("select seq, timestamp_utc from log order by seq limit 1").fetchone() or (0, None)
    hot_seq, parts = oldest[0], found(db, path)
    if parts and (since := reaches_back_to(parts, hot_seq - 1)) < hot_seq - 1:
        oldest = since + 1, next(part.oldest_at_utc for part in parts if part.first_seq == since + 1)
    page_bytes, free_pages = db.pragma("page_size"), db.pragma("freelist_count")
    used_bytes = (db.pragma("page_count") - free_pages) * page_bytes
    disk_free_bytes = free_of_disk_bytes(path)
    growth = _growth_bytes_per_s(db, used_bytes, hot_seq, newest[0])
    room_bytes = None if disk_free_bytes is None else disk_free_bytes + free_pages * page_bytes
    return Facts(
        epoch=epoch_of(meta["epoch"], _newest_generation(db)),
        schema=db.pragma("user_version"),
        oldest_seq=oldest[0],
        newest_seq=newest[0],
        checkpoint_seq=int(meta["checkpoint_seq"]),
        entries=newest[0] - oldest[0] + 1 if newest[0] else 0,
        partitions=len(of_log(parts)),
        history_bytes=sum(part.bytes for part in parts),
        oldest_at_utc=oldest[1],
        newest_at_utc=newest[1],
        created_at_utc=meta.get("created_at_utc"),
        devices=db.execute("select count(*) from twin").get,
        keys=_count(db, "access_key", "revoked_at_utc is null"),
        file_bytes=_size(path),
        wal_bytes=_size(f"{path}-wal"),
        free_bytes=free_pages * page_bytes,
        disk_free_bytes=disk_free_bytes,
        growth_bytes_per_s=growth,
        full_in_s=full_in_s(room_bytes, growth, None),
        is_served=serves_the_file(path),
        backups=backups.noted(db),
        erasing=_count(db, "erasure", "true"),
        backups_with_erased=[f"{each.place} on {each.host}" for each in backups.with_erased(db)],
    )


def problems(path: str) -> list[str]:
    """Return what is wrong with a journal, in words; nothing if it is whole. Reads all of it.

    Raises:
        JournalUnusable: see `reading`.
    """
    with reading(path) as db:
        return problems_of(db, os.path.realpath(path))


def problems_of(db: apsw.Connection, path: str, *, reads_parts: bool = True, lost: Container[str] = ()) -> list[str]:
    """Return what is wrong with an open journal, and with the closed part of its log beside it.

    Args:
        db: the journal.
        path: beside which its closed partitions are.
        reads_parts: whether these are read, too; otherwise it is enough that they are there.
        lost: names of their files that are known not to be there.
    """
    wrong = [str(row[0]) for row in db.execute("pragma integrity_check(20)") if row[0] != "ok"]
    if wrong:
        return wrong  # what is asked below would be asked of damaged pages
    count, oldest, newest = db.execute("select count(*), coalesce(min(seq), 1), coalesce(max(seq), 0) from log").get
    if count != newest - oldest + 1:
        wrong.append(
            f"the log has {count:,} entries from {oldest:,} to {newest:,}: {newest - oldest + 1 - count:,} lack"
        )
    broken = db.execute("select count(*), min(seq) from log where not json_valid(value)").get
    if broken[0]:
        wrong.append(f"the values of {broken[0]:,} entries are no JSON; the first is {broken[1]:,}")
    checkpoint = db.execute("select cast(value as integer) from meta where name = 'checkpoint_seq'").get
    if checkpoint is None or checkpoint > newest:
        wrong.append(f"the checkpoint is of {checkpoint}, and the log ends at {newest:,}")
    elif checkpoint < oldest - 1:
        wrong.append(f"the checkpoint is of {checkpoint:,}, and the log begins at {oldest:,}: what was between lacks")
    ahead = db.execute("select count(*) from checkpoint where seq > ?", (checkpoint or 0,)).get
    if ahead:
        wrong.append(f"the checkpoint has {ahead:,} devices as of a later time than it says")
    beyond = _count(db, "fence", f"seq > {newest}")
    if beyond:
        wrong.append(f"the fence says of {beyond:,} numbered lines that they are stored behind the log's end")
    if has_parts(db):
        wrong += problems_of_parts(path, catalog.parts(db), oldest - 1, reads=reads_parts, lost=lost)
    return wrong


def problems_of_parts(
    path: str, parts: Sequence[Part], hot_since: int, *, reads: bool = True, lost: Container[str] = ()
) -> list[str]:
    """Return what is wrong with the closed partitions of a journal: a file is gone or changed, or entries lack."""
    wrong = []
    for number, part in enumerate(parts):
        file = path_of(path, part)
        follows = parts[number + 1].first_seq - 1 if number + 1 < len(parts) else hot_since
        if part.file in lost:
            pass
        elif not os.path.isfile(file):
            what = "the sums of the entries" if part.kind == ROLLUP else "the entries"
            wrong.append(f"{file} is gone: the log lacks {what} from {part.first_seq:,} to {part.last_seq:,}")
        elif reads and digest(file) != part.sha256:
            wrong.append(f"{file} was changed since it was closed: its SHA-256 is not that of the catalog")
        if part.last_seq < follows and part.kind != ROLLUP:
            wrong.append(f"the log lacks the entries from {part.last_seq + 1:,} to {follows:,}")
    return wrong


def free_of_disk_bytes(path: str) -> int | None:
    """Return how much room the disk of a file has for those who are not root; None if it does not say."""
    try:
        return shutil.disk_usage(os.path.dirname(path)).free
    except OSError:
        return None


def _growth_bytes_per_s(db: apsw.Connection, used_bytes: int, oldest_seq: int, newest_seq: int) -> float | None:
    """Return how fast the newest part of the log came, each entry as large as the file makes it on the average."""
    since_seq = max(oldest_seq, newest_seq - PACE_ENTRIES)
    ends = db.execute(
        "select (julianday(last.timestamp_utc) - julianday(first.timestamp_utc)) * 86400"
        " from log as first, log as last where first.seq = ? and last.seq = ?",
        (since_seq, newest_seq),
    ).fetchone()
    if ends is None or ends[0] is None or ends[0] < PACE_LEAST_S:
        return None
    entry_bytes = used_bytes / (newest_seq - oldest_seq + 1)
    return round(float((newest_seq - since_seq) / ends[0] * entry_bytes), 1)


def _newest_generation(db: apsw.Connection) -> str:
    if not _has(db, "generation"):
        return ""
    return str(
        db.execute("select coalesce(max(name), '') from generation where id = (select max(id) from generation)").get
    )


def _count(db: apsw.Connection, table: str, condition: str) -> int:
    return int(db.execute(f"select count(*) from {table} where {condition}").get) if _has(db, table) else 0


def _has(db: apsw.Connection, table: str) -> Any:
    return db.execute("select count(*) from sqlite_schema where type = 'table' and name = ?", (table,)).get


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
