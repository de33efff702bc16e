"""The file of a spool: lines on the program's own disk until the server has them. Synchronous, for one thread.

It is SQLite as Python brings it. In WAL mode a commit costs one fsync, where a rollback journal takes three: that
matters on a memory card. In exclusive locking mode there is one connection, so two libraries or versions of SQLite
share nothing that they could disagree about. `synchronous = full` makes each commit survive a power cut.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple

from twincast.client.file_lock import lock
from twincast.errors import SpoolFull, SpoolUnusable
from twincast.machine import OWNER_ALONE, sync_folder

APPLICATION_ID = 0x5457534F  # "TWSO"
SCHEMA_VERSION = 1
ROW_BYTES = 64
"""What a line costs in the file beside its message."""
REFUSED_MAX_BYTES = 4 * 1024 * 1024
"""By default: how much of what the server refused for good is kept, the newest."""

# AUTOINCREMENT: a number is never used again, even when its line is gone.
_SCHEMA = """
create table meta (name text primary key, value text not null) without rowid;
create table line (
    line            integer primary key autoincrement,
    message         text not null,      -- as it is sent, without its ids
    value_bytes     integer not null,   -- the size of the value in it
    accepted_at_utc text not null,      -- by this machine's clock
    measured_at_utc text                -- when it was measured; not used so far
);
create table refused (                  -- what the server will never store
    line            integer primary key,
    message         text not null,
    value_bytes     integer not null,
    accepted_at_utc text not null,
    measured_at_utc text,
    refused_at_utc  text not null,
    code            text not null,
    reason          text not null
);
"""

_REFUSE = """
insert or replace into refused
select line, message, value_bytes, accepted_at_utc, measured_at_utc, ?, ?, ? from line where line = ?
"""

_FORGET_REFUSED = """
delete from refused where line in (
    select line from (select line, sum(length(message)) over (order by line desc) as newer_bytes from refused)
    where newer_bytes > ?
)
"""


class Row(NamedTuple):
    """One line: an update without its ids, as JSON."""

    line: int
    message: str
    value_bytes: int

    @property
    def size_bytes(self) -> int:
        """What it costs of the spool's `max_bytes`."""
        return len(self.message.encode()) + ROW_BYTES


class Refusal(NamedTuple):
    """A line that the server will never store, and why."""

    line: int
    code: str
    reason: str


class SpoolFile:
    """The lines of one producer, in a file that only this process uses."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, or make it.

        Raises:
            SpoolUnusable: another program has it, or it is not such a file. Nothing in it is changed then.
        """
        self._path = os.path.realpath(path)
        self._lock = lock(self._path, "spool", SpoolUnusable)
        self._db: sqlite3.Connection | None = None
        self.producer: str
        self.last_line: int
        """The highest number that was used."""
        self.lines: int
        self.size_bytes: int
        self.refused = 0
        """How many refused lines are kept."""
        try:
            self._open(os.path.dirname(self._path))
        except BaseException:
            self.close()
            raise

    def write(
        self,
        added: Sequence[Row],
        removed: Sequence[int],
        refused: Sequence[Refusal] = (),
        *,
        refused_max_bytes: int = REFUSED_MAX_BYTES,
    ) -> None:
        """Add and remove lines, all or nothing; on disk when this returns.

        Args:
            added: new lines, in order.
            removed: lines that the server has, or has refused.
            refused: those of the removed lines that it has refused; they move to the table of refusals.
            refused_max_bytes: how much is kept there, the newest.

        Raises:
            SpoolFull: the disk is full.
            SpoolUnusable: the disk fails otherwise.
        """
        count = self.refused
        now_utc = datetime.now(UTC).isoformat(timespec="microseconds")
        with self._transaction() as db:
            for line, code, reason in refused:
                db.execute(_REFUSE, (now_utc, code, reason, line))
            if refused:
                db.execute(_FORGET_REFUSED, (refused_max_bytes,))
                count = db.execute("select count(*) from refused").fetchone()[0]
            db.executemany("delete from line where line = ?", [(line,) for line in removed])
            db.executemany(
                "insert into line (line, message, value_bytes, accepted_at_utc) values (?, ?, ?, ?)",
                [(*row, now_utc) for row in added],
            )
        self.refused = count

    def read(self, after: int, limit: int, max_bytes: int) -> list[Row]:
        """Return up to `limit` lines behind line `after`, in order; stop with the one that reaches `max_bytes`.

        Raises:
            SpoolUnusable: they cannot be read.
        """
        with self._working() as db:
            sql = "select line, message, value_bytes from line where line > ? order by line limit ?"
            rows: list[Row] = []
            with closing(db.execute(sql, (after, limit))) as found:
                for each in found:
                    rows.append(Row(*each))
                    max_bytes -= rows[-1].size_bytes
                    if max_bytes <= 0:
                        break
            return rows

    def close(self) -> None:
        """Close it. A closed file is complete by itself, without a `-wal`."""
        try:
            if self._db is not None:
                with suppress(sqlite3.Error):  # accepted lines are on disk, in the -wal
                    self._db.close()
        finally:
            self._lock.release()

    def _open(self, folder: str) -> None:
        is_new = self._make()
        with self._working() as db:
            kind = db.execute("pragma application_id").fetchone()[0]
            version = db.execute("pragma user_version").fetchone()[0]
            if is_new:
                self._create(db)
            elif kind != APPLICATION_ID:
                raise SpoolUnusable(f"{self._path} is an SQLite database, but not a spool; name another file")
            elif version > SCHEMA_VERSION:
                raise SpoolUnusable(
                    f"the spool {self._path} is of version {version}, written by a newer twincast;"
                    f" this one reads version {SCHEMA_VERSION}: use the newer one, or another file"
                )
            elif (found := db.execute("pragma quick_check(1)").fetchone()[0]) != "ok":
                raise self._torn(found)
            db.execute("pragma journal_mode = wal")
            self.producer = str(db.execute("select value from meta where name = 'producer'").fetchone()[0])
            last = db.execute("select seq from sqlite_sequence where name = 'line'").fetchone()
            self.last_line = last[0] if last else 0
            measured = "select count(*), coalesce(sum(length(cast(message as blob))), 0) from line"
            self.lines, message_bytes = db.execute(measured).fetchone()
            self.size_bytes = message_bytes + self.lines * ROW_BYTES
            self.refused = db.execute("select count(*) from refused").fetchone()[0]
        if is_new:
            sync_folder(folder)

    def _make(self) -> bool:
        """Open the file, and return whether it is empty."""
        try:
            size_bytes = os.stat(self._path).st_size if os.path.exists(self._path) else None
            if not size_bytes and os.path.exists(f"{self._path}-wal"):
                raise SpoolUnusable(
                    f"the spool {self._path} is empty or gone, and its lines may be in {self._path}-wal;"
                    " put the file back beside it, or move the -wal away"
                )
            if size_bytes is None:  # SQLite would make it readable for others; its -wal gets the mode of the file
                os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE))
            with open(self._path, "r+b"):  # SQLite would report a read-only file as damaged
                pass
        except OSError as error:
            raise SpoolUnusable(f"the spool {self._path} cannot be used: {error.strerror or error}") from None
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1.0)
        with self._working() as db:
            db.execute("pragma locking_mode = exclusive")
            db.execute("pragma synchronous = full")
        return not size_bytes

    def _create(self, db: sqlite3.Connection) -> None:
        # In the file itself, before there is a -wal: so the file can be identified without one.
        db.executescript(
            f"begin; pragma application_id = {APPLICATION_ID}; pragma user_version = {SCHEMA_VERSION}; {_SCHEMA}"
            f" insert into meta values ('producer', '{secrets.token_hex(16)}'); commit;"
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._working() as db:
            try:
                db.execute("begin immediate")
                yield db
                db.execute("commit")
            except BaseException:
                if db.in_transaction:
                    db.execute("rollback")
                raise

    @contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        """Translate the errors of SQLite."""
        assert self._db is not None
        try:
            yield self._db
        except sqlite3.Error as error:
            raise self._in_words(error) from None

    def _in_words(self, error: sqlite3.Error) -> SpoolFull | SpoolUnusable:
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        if name == "SQLITE_FULL":
            return SpoolFull(f"the disk of the spool {self._path} is full")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return SpoolUnusable(f"the spool {self._path} is open in another program; close it there")
        if name == "SQLITE_NOTADB":
            return SpoolUnusable(f"{self._path} is not a spool, or is damaged; {self._advice}")
        if name.startswith(("SQLITE_CORRUPT", "DatabaseError")):
            return self._torn("it is damaged")
        return SpoolUnusable(f"the spool {self._path} cannot be used: its disk fails ({name})")

    def _torn(self, what: str) -> SpoolUnusable:
        return SpoolUnusable(f"the spool {self._path} is torn ({what}); {self._advice}")

    @property
    def _advice(self) -> str:
        return "move it away, and `sqlite3 FILE .recover` may save its lines"
