"""The file of a spool: lines on the program's own disk until the server has them. Synchronous, for one thread.

It is SQLite as Python brings it. In WAL mode a commit costs one fsync, where a rollback journal takes three: that
matters on a memory card. In exclusive locking mode there is one connection, so two libraries or versions of SQLite
share nothing that they could disagree about. `synchronous = full` makes each commit survive a power cut.
"""

import os
import secrets
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime

from twincast.client.file_lock import lock
from twincast.client.spool_line import READING, ROW_BYTES, Lines, Refusal, Row, device_of
from twincast.errors import SpoolFull, SpoolUnusable
from twincast.machine import OWNER_ALONE, sync_folder

APPLICATION_ID = 0x5457534F  # "TWSO"
SCHEMA_VERSION = 2
REFUSED_MAX_BYTES = 4 * 1024 * 1024
"""By default: how much of what the server refused for good is kept, the newest."""

# AUTOINCREMENT: a number is never used again, even when its line is gone.
_SCHEMA = """
create table meta (name text primary key, value text not null) without rowid;
create table line (
    line            integer primary key autoincrement,
    message         text not null,      -- as it is sent, without its ids
    value_bytes     integer not null,   -- the size of the value in it
    accepted_at_utc text not null,      -- when the program handed it over
    measured_at_utc text,               -- when it was measured, if the program said so; '' if nothing is said of it
    is_live         integer             -- 1: goes with the live ones; 0: with the backlog; null: see Lines
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

# Every line of version 1 may have been sent, under the name that the backlog has now.
_UPGRADE = f"""
begin;
alter table line add column is_live integer;
insert into meta select 'decided_until', coalesce(max(seq), 0) from sqlite_sequence where name = 'line';
pragma user_version = {SCHEMA_VERSION};
commit;
"""

_REFUSE = """
insert or replace into refused
select line, message, value_bytes, accepted_at_utc, measured_at_utc, ?, ?, ? from line where line = ?
"""

_ROW = "line, message, value_bytes, accepted_at_utc, measured_at_utc"
_READING = f"substr(message, 1, {len(READING)}) = :reading"
_WITHOUT_TIME = f"(not {_READING} or measured_at_utc = '')"
_LIVE = "is_live = 1"
_BACKLOG = "(is_live = 0 or is_live is null and line <= :decided_until)"
_UNDECIDED = "(is_live is null and line > :decided_until)"
_MEASURE = f"""
select count(*), coalesce(min(line), 0), coalesce(max(line), 0),
    coalesce(sum(length(cast(message as blob))), 0) + count(*) * {ROW_BYTES}
from line where
"""
_DECIDE = "insert or replace into meta values ('decided_until', ?)"

_FORGET_REFUSED = """
delete from refused where line in (
    select line from (select line, sum(length(message)) over (order by line desc) as newer_bytes from refused)
    where newer_bytes > ?
)
"""


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
        self.decided_until: int
        """See Lines."""
        self.live: Lines
        self.backlog: Lines
        self.undecided: Lines
        self.size_bytes: int
        self.refused = 0
        """How many refused lines are kept."""
        try:
            self._open(os.path.dirname(self._path))
        except BaseException:
            self.close()
            raise

    @property
    def lines(self) -> int:
        """How many lines were in it when it was opened."""
        return self.live.number + self.backlog.number + self.undecided.number

    def write(
        self,
        added: Sequence[tuple[Row, bool | None]],
        removed: Sequence[int],
        refused: Sequence[Refusal] = (),
        *,
        refused_max_bytes: int = REFUSED_MAX_BYTES,
    ) -> None:
        """Add and remove lines, all or nothing; on disk when this returns.

        Args:
            added: new lines, in order, and whether they are live; None for undecided.
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
                "insert into line (line, message, value_bytes, accepted_at_utc, measured_at_utc, is_live)"
                " values (?, ?, ?, ?, ?, ?)",
                [(*row, is_live) for row, is_live in added],
            )
        self.refused = count

    def read(self, after: int, limit: int, max_bytes: int, *, is_live: bool) -> list[Row]:
        """Return live or backlog lines behind line `after`, in order.

        Args:
            after: the line.
            limit: how many at most.
            max_bytes: stop with the one that reaches so many bytes.
            is_live: which of the two.

        Raises:
            SpoolUnusable: they cannot be read.
        """
        with self._working() as db:
            kind = _LIVE if is_live else _BACKLOG
            sql = f"select {_ROW} from line where line > :after and {kind} order by line limit :limit"
            rows: list[Row] = []
            how = {"after": after, "limit": limit, "decided_until": self.decided_until}
            with closing(db.execute(sql, how)) as found:
                for each in found:
                    rows.append(Row(*each))
                    max_bytes -= rows[-1].size_bytes
                    if max_bytes <= 0:
                        break
            return rows

    def without_time(self) -> list[tuple[Row, bool | None]]:
        """Return the commands, deletions and readings without a time, in order, and the part of each.

        The part is whether it is live; None for undecided.

        Raises:
            SpoolUnusable: they cannot be read.
        """
        kind = f"case when {_LIVE} then 1 when {_BACKLOG} then 0 end"
        sql = f"select {kind}, {_ROW} from line where {_WITHOUT_TIME} order by line"
        with self._working() as db:
            found = db.execute(sql, {"decided_until": self.decided_until, "reading": READING}).fetchall()
        return [(Row(*row), None if is_live is None else bool(is_live)) for is_live, *row in found]

    def make_all_live(self) -> None:
        """Put all undecided lines behind the live ones.

        Raises:
            SpoolFull: the disk is full.
            SpoolUnusable: the disk fails otherwise.
        """
        with self._transaction() as db:
            db.execute(f"update line set is_live = 1 where {_UNDECIDED}", {"decided_until": self.decided_until})

    def make_newest_live(self, span: int, limit: int, but: Collection[str]) -> Lines:
        """Put the newest undecided reading of each device behind the live lines, all other lines into the backlog.

        Args:
            span: how far behind the last line these readings may be.
            limit: how many it may be; those of the devices that have the newest.
            but: devices whose readings all go into the backlog; see `Row.device`.

        Returns:
            Which are live now.

        Raises:
            SpoolFull: the disk is full.
            SpoolUnusable: the disk fails otherwise.
        """
        newest: dict[str, tuple[str, int, int]] = {}
        with self._transaction() as db:
            last = db.execute("select max(line) from line").fetchone()[0] or 0
            how = {"decided_until": max(self.decided_until, last - span), "reading": READING}
            sql = "select line, message, coalesce(nullif(measured_at_utc, ''), accepted_at_utc) from line"
            for line, message, at_utc in db.execute(f"{sql} where {_UNDECIDED} and {_READING}", how):
                device = device_of(message)
                if device not in but and newest.get(device, ("", 0, 0)) < (at_utc, line, 0):
                    newest[device] = (at_utc, line, len(message.encode()) + ROW_BYTES)
            chosen = sorted(((line, size_bytes) for _, line, size_bytes in newest.values()), reverse=True)[:limit]
            db.executemany("update line set is_live = 1 where line = ?", [(line,) for line, _ in chosen])
            db.execute(_DECIDE, (last,))
        self.decided_until = last
        if not chosen:
            return Lines(0, 0, 0, 0)
        return Lines(len(chosen), chosen[-1][0], chosen[0][0], sum(size_bytes for _, size_bytes in chosen))

    def take_back(self, after: int) -> tuple[Lines, list[Row]]:
        """Make live lines behind line `after`, which were not sent, undecided.

        Returns:
            How many there were, and those among them that `without_time` returns.

        Raises:
            SpoolFull: the disk is full.
            SpoolUnusable: the disk fails otherwise.
        """
        these = f"line > :after and {_LIVE}"
        with self._transaction() as db:
            how = {"after": after, "reading": READING}
            lines = Lines(*db.execute(_MEASURE + these, how).fetchone())
            found = db.execute(f"select {_ROW} from line where {these} and {_WITHOUT_TIME}", how).fetchall()
            db.execute(f"update line set is_live = null where {these}", how)
        return lines, [Row(*row) for row in found]

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
            if version == 1:
                db.executescript(_UPGRADE)
            decided = db.execute("select value from meta where name = 'decided_until'").fetchone()
            self.decided_until = int(decided[0]) if decided else 0
            self._measure(db)
            self.refused = db.execute("select count(*) from refused").fetchone()[0]
        if is_new:
            sync_folder(folder)

    def _measure(self, db: sqlite3.Connection) -> None:
        how = {"decided_until": self.decided_until}
        self.live, self.backlog, self.undecided = (
            Lines(*db.execute(_MEASURE + kind, how).fetchone()) for kind in (_LIVE, _BACKLOG, _UNDECIDED)
        )
        self.size_bytes = self.live.size_bytes + self.backlog.size_bytes + self.undecided.size_bytes

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
