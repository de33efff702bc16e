"""Whether a -wal belongs to the database that it stands beside; SQLite believes any, and lays its pages over the file.

After a crash the -wal has the newest changes. But a file that was restored, copied or moved alone finds a -wal of other
days, or of another journal: then pages are mixed, and what comes is malformed, or an old state under a new name. The
database alone must be what the -wal's changes were made to, as far as the log can tell.
"""

import os
from contextlib import closing
from urllib.parse import quote

import apsw
import msgspec

from twincast.errors import JournalUnusable
from twincast.journal.sqlite.failing import in_words

_BUSY_TIMEOUT_MS = 10_000
"""How long to wait for another program that has the file: when a server is killed, who closes a part of the log for it
goes on for a moment, and perhaps is the one that reads the -wal anew."""
_NOT_DAMAGE = (
    *(apsw.BusyError, apsw.LockedError, apsw.FullError, apsw.CantOpenError),
    *(apsw.ReadOnlyError, apsw.PermissionsError, apsw.NoMemError),
)
"""What says nothing of whether a file and a -wal belong together."""
_WAL_HEADER_BYTES = 32
_PROBES = 512
"""How many entries before those of the -wal are looked for. Where pages are mixed, most are not found."""
_TABLES = ("meta", "checkpoint", "receipt", "access_key", "audit", "generation", "fence", "pairing", "part")
"""All but the log, which is checked where the -wal changes it, and probed in the rest."""


def has_changes(path: str) -> bool:
    """Return whether a -wal beside a database holds anything: after a clean end there is none."""
    try:
        return os.stat(f"{path}-wal").st_size > _WAL_HEADER_BYTES
    except OSError:
        return False


def refuse_lonely_wal(path: str) -> None:
    """Refuse a -wal whose database is gone: SQLite would delete it, and begin anew.

    Raises:
        JournalUnusable: it holds changes, and there is nothing that they belong to.
    """
    if has_changes(path) and (not os.path.exists(path) or os.path.getsize(path) == 0):
        raise JournalUnusable(
            f"{path}-wal holds changes, and {path} itself is {'empty' if os.path.exists(path) else 'gone'}. Put the"
            f" journal back; or, to begin anew, move {path}-wal and {path}-shm away"
        )


def open_with_its_wal(path: str, *, vfs: str | None = None, makes_shm: bool = True) -> apsw.Connection:
    """Open a database of which no server runs, after a look whether the -wal beside it is its own.

    Args:
        path: its name.
        vfs: SQLite's file layer, if not the system's.
        makes_shm: if not, nobody else can use it meanwhile, and it takes no room for a -shm.

    Raises:
        JournalUnusable: it is not; the message says what to do. Nothing was changed.
        apsw.Error: it cannot be opened.
    """
    db = apsw.Connection(path, vfs=vfs)
    try:
        db.set_busy_timeout(_BUSY_TIMEOUT_MS)
        if not makes_shm:
            db.pragma("locking_mode", "exclusive")
        if has_changes(path):
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # else the close mixes them for good
            _refuse_foreign_wal(db, path, vfs)
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except BaseException:
        db.close(True)
        raise
    return db


def _refuse_foreign_wal(db: apsw.Connection, path: str, vfs: str | None) -> None:
    try:
        why = _why_not_together(db, _Alone(path, vfs))
    except _NOT_DAMAGE:
        raise
    except apsw.Error as error:
        why = f"together they are damaged ({in_words(error)})"
    if why:
        raise JournalUnusable(
            f"the journal {path} and its -wal do not belong together: {why}. One of them was restored, copied or moved"
            " without the other. Nothing was changed. If the journal is what you want, as it is in a backup, move"
            f" {path}-wal and {path}-shm away and start again; else bring back both as they were at one moment"
        )


def alone(path: str, *, vfs: str | None = None) -> apsw.Connection:
    """Open a database that no process writes at the moment, to read it without its -wal."""
    address = f"file:{quote(os.path.abspath(path))}?immutable=1"
    return apsw.Connection(address, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs)


class _Alone:
    """What the database holds without its -wal; None for what cannot be known, as after a kill amid a checkpoint."""

    def __init__(self, path: str, vfs: str | None) -> None:
        self.log: str | None = None
        self.newest: int | None = None
        self.generation: str | None = None
        try:
            with closing(alone(path, vfs=vfs)) as db:
                self.log = _log_of(db)
                self.generation = _generation_of(db)
                self.newest = _newest_of(db)
        except apsw.Error:
            return


def _why_not_together(db: apsw.Connection, file: _Alone) -> str:
    if file.log is not None and (log := _log_of(db)) != file.log:
        return f"the file is of the log {file.log}, the -wal of {log}"
    if file.generation is not None and not _has_generation(db, file.generation):
        return "the file has been used after what the -wal tells of"
    newest = _newest_of(db) or 0
    if file.newest is not None and file.newest > newest:
        return f"the file reaches to entry {file.newest}, the -wal only to {newest}"
    return _why_damaged(db, newest, file.newest)


def _why_damaged(db: apsw.Connection, newest: int, unchanged: int | None) -> str:
    """Return what is wrong with what both are together: with all of the log if what is unchanged cannot be told."""
    if newest:
        oldest = db.execute("select min(seq) from log").get
        begin = oldest if unchanged is None else max(oldest, unchanged)
        found = db.execute("select count(*) from log where seq >= ?", (begin,)).get
        if found != newest - begin + 1:
            return f"of the entries from {begin} to {newest} only {found} are found"
        probes = sorted({oldest + (begin - oldest) * number // _PROBES for number in range(_PROBES + 1)})
        found = db.execute(
            "select count(*) from json_each(?) as probe join log on log.seq = probe.value where length(log.source) > 0",
            (msgspec.json.encode(probes).decode(),),
        ).get
        if found != len(probes):
            return f"of {len(probes)} entries that were looked for between {oldest} and {begin} only {found} are found"
    for table in _TABLES:
        if _has(db, table) and (said := db.execute(f"pragma quick_check('{table}')").get) != "ok":
            return f"the table {table} is damaged: {said}"
    return ""


def _log_of(db: apsw.Connection) -> str | None:
    found = db.execute("select value from meta where name = 'epoch'").get if _has(db, "meta") else None
    return None if found is None else str(found)


def _generation_of(db: apsw.Connection) -> str | None:
    """Return the newest run that a database knows."""
    if not _has(db, "generation"):
        return None
    name = db.execute("select name from generation order by id desc limit 1").get
    return None if name is None else str(name)


def _has_generation(db: apsw.Connection, name: str) -> bool:
    return _has(db, "generation") and bool(db.execute("select count(*) from generation where name = ?", (name,)).get)


def _newest_of(db: apsw.Connection) -> int | None:
    newest = db.execute("select max(seq) from log").get if _has(db, "log") else None
    return None if newest is None else int(newest)


def _has(db: apsw.Connection, table: str) -> bool:
    return bool(db.execute("select count(*) from sqlite_schema where type = 'table' and name = ?", (table,)).get)
