"""A journal's file as what is moved elsewhere: all of it, in order, while nobody else can write to it.

Its log stays as it is. In the end it gets a mark, with which no server starts on it by mistake.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, NamedTuple, Self

import apsw
import msgspec

from twincast.core.audit import AuditRecord, CommandOrigin
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.keys import Key, Pairing
from twincast.core.model import Entry
from twincast.core.producers import ProducerMark
from twincast.errors import JournalUnusable
from twincast.journal.sqlite import idempotency as sqlite_idempotency
from twincast.journal.sqlite import producers as sqlite_producers
from twincast.journal.sqlite.entries import LOG_COLUMNS, entry_of
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import reading, refuse_others
from twincast.journal.sqlite.history.catalog import reaches_back_to
from twincast.journal.sqlite.history.files import OpenPartitions, found
from twincast.journal.sqlite.history.layout import newest_stored
from twincast.journal.sqlite.key_tables import read_keys
from twincast.journal.sqlite.lock import ServerLock
from twincast.journal.sqlite.schema import COPY_OF, MOVED_TO, SCHEMA_VERSION
from twincast.journal.sqlite.transactions import BUSY_TIMEOUT_MS
from twincast.journal.sqlite.wal import open_with_its_wal, refuse_lonely_wal

STRETCH_ENTRIES, STRETCH_BYTES = 5_000, 512 << 10
"""A stretch has at most so many entries, and about so much text."""
_TWINS_BEFORE = "select device_id, value, updated_at_utc, source, seq, measured_at_utc from twin_before"
_CODES = "select digest, name, grants, rate_per_s, lives_s, until_s, who, is_used from pairing order by digest"
_AUDIT = "select seq, at_utc, who, address, action, target, detail, null, coalesce(server, '') from audit order by id"
_ORIGINS = "select seq, who, address, coalesce(server, '') from audit where seq is not null order by id"
_decode_grants = msgspec.json.Decoder(dict[str, list[str]]).decode


class Stretch(NamedTuple):
    """Neighbouring entries, and who sent which of the commands among them."""

    entries: Sequence[Entry]
    origins: Sequence[CommandOrigin]


TwinRow = tuple[str, str, str, str, int, str | None]
"""A device, its value, time and source, its position, and when it claims to have been measured."""


class JournalSource:
    """The journal, held: no server starts on it, and no command changes its keys. Use as a context."""

    def __init__(self, path: str, target: str) -> None:
        """Take the journal.

        Args:
            path: its file.
            target: where it is moved; one that was moved there already may be moved again.

        Raises:
            JournalUnusable: there is none, a server runs on it, it is a copy, was moved elsewhere, or is not whole.
        """
        self._path = os.path.realpath(path)
        self._target = target
        self._open = OpenPartitions(self._path)
        with reading(self._path) as db:  # which says in words what cannot be moved
            meta = dict(db.execute("select name, value from meta"))
            version = db.pragma("user_version")
        self._refuse(meta)
        if version < SCHEMA_VERSION:
            SqliteFile(self._path).close()
        with ExitStack() as undo:
            refuse_lonely_wal(self._path)
            undo.callback(ServerLock(self._path).release)
            undo.callback(self._open.close)
            try:
                self._db = undo.enter_context(closing(open_with_its_wal(self._path)))
                self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
                self._db.pragma("synchronous", "full")
                refuse_others(self._db, self._path)
                self._db.execute("begin immediate")
                self._measure()
            except apsw.Error as error:
                raise JournalUnusable(f"the journal {self._path} cannot be used: {in_words(error)}") from None
            self._undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._db.in_transaction:
            self._db.execute("rollback")
        self._undo.close()

    def _refuse(self, meta: dict[str, str]) -> None:
        if (shared := meta.get(COPY_OF)) is not None:
            raise JournalUnusable(
                f"{self._path} is a server's copy of the shared log {shared!r}: it can be moved to a journal of its"
                " own, sqlite:OTHER.db, and that one to another log"
            )
        if meta.get(MOVED_TO, self._target) != self._target:
            raise JournalUnusable(f"the log of {self._path} was moved to {meta[MOVED_TO]}, and goes on there")

    def _measure(self) -> None:
        self._refuse(dict(self._db.execute("select name, value from meta")))
        count, oldest, newest = self._db.execute("select count(*), min(seq), max(seq) from log").get
        self._parts = found(self._db, self._path)
        checkpoint_seq = self._db.execute("select cast(value as integer) from meta where name = 'checkpoint_seq'").get
        self.since: int = oldest - 1 if count else checkpoint_seq
        """The position before the oldest entry."""
        self.newest: int = newest or self.since
        """The position of the newest entry."""
        if count != self.newest - self.since or checkpoint_seq < self.since:
            raise JournalUnusable(f"the log of {self._path} is not whole; `twincast journal check` says what is wrong")
        self._hot_since = self.since
        self.since = reaches_back_to(self._parts, self.since)
        latest = self._db.execute("select seq, timestamp_utc from log order by timestamp_utc desc limit 1").fetchone()
        self.latest: tuple[int, str] | None = None if latest is None else (int(latest[0]), str(latest[1]))
        for part in self._parts:
            if part.first_seq > self.since and (self.latest is None or part.newest_at_utc > self.latest[1]):
                self.latest = newest_stored(self._open.get(part), part.stored_max_us), part.newest_at_utc
        """The entry of the newest time, by its position, and that time."""

    def twins(self) -> list[TwinRow]:
        """Return what of the state it takes to fold the log: twins from before its oldest entry."""
        if self.since < self._hot_since:
            oldest = next(part for part in self._parts if part.first_seq == self.since + 1)
            before: list[Any] = self._open.get(oldest).execute(_TWINS_BEFORE).fetchall()
            return before
        rows: list[Any] = self._db.execute(
            "select device_id, value, updated_at_utc, source, seq, measured_at_utc from checkpoint where seq <= ?",
            (self.since,),
        ).fetchall()
        return rows

    def deletions(self) -> list[tuple[str, str, int]]:
        """Return when devices were deleted before its oldest entry, with the position; in the order of that."""
        rows: list[Any] = self._db.execute(
            "select device_id, deleted_at_utc, seq from deletion where seq <= ? order by seq", (self.since,)
        ).fetchall()
        return rows

    def idempotency_keys(self) -> list[IdempotencyRecord]:
        """Return the idempotency keys that still count, oldest first."""
        return sqlite_idempotency.read(self._db, self.newest)

    def marks(self) -> list[ProducerMark]:
        """Return up to where the lines of producers are stored, in the order of seq."""
        return sqlite_producers.read(self._db)

    def keys(self) -> list[Key]:
        """Return all API keys that were ever added."""
        return read_keys(self._db)

    def codes(self) -> list[tuple[Pairing, str, bool]]:
        """Return all pairing codes, each with who made it and whether it was used."""
        rows: list[Any] = self._db.execute(_CODES).fetchall()
        return [
            (Pairing(digest, name, _decode_grants(grants), rate_per_s, lives_s, until_s), who, bool(is_used))
            for digest, name, grants, rate_per_s, lives_s, until_s, who, is_used in rows
        ]

    def log(self) -> Iterator[Stretch | Sequence[AuditRecord]]:
        """Return the log in stretches, and between them the records of the keys, in the order of the audit trail.

        Raises:
            JournalUnusable: an entry is none.
        """
        origins = _Origins(self._db)
        since = self.since
        for until, records in [*self._records(), (self.newest, [])]:
            while since < until:
                entries = self._entries(since, min(until, since + STRETCH_ENTRIES))
                since = entries[-1].seq
                yield Stretch(entries, origins.of(entries))
            if records:
                yield records

    def note_moved(self) -> None:
        """Store the mark: what was read here goes on elsewhere."""
        self._db.execute("replace into meta values (?, ?)", (MOVED_TO, self._target))
        self._db.execute("commit")

    def _entries(self, since: int, until: int) -> list[Entry]:
        entries: list[Entry] = []
        size_bytes = 0
        db = self._db
        if since < self._hot_since:
            part = next(part for part in self._parts if part.first_seq <= since + 1 <= part.last_seq)
            db, until = self._open.get(part), min(until, part.last_seq)
        sql = f"select {LOG_COLUMNS} from log where seq > ? and seq <= ? order by seq"
        with closing(db.execute(sql, (since, until))) as rows:
            for row in rows:
                try:
                    entries.append(entry_of(row, ""))
                except (KeyError, AttributeError, TypeError):
                    raise JournalUnusable(f"entry {row[0]} of {self._path} is none of a kind that is known") from None
                size_bytes += len(entries[-1].payload) + len(entries[-1].subject)
                if size_bytes >= STRETCH_BYTES:
                    break
        return entries

    def _records(self) -> list[tuple[int, list[AuditRecord]]]:
        """Return the records of the keys, each group with the position of the last command before it."""
        groups: list[tuple[int, list[AuditRecord]]] = []
        after = self.since
        for seq, *record in self._db.execute(_AUDIT):
            if seq is not None:
                after = max(after, min(int(seq), self.newest))
                continue
            if not groups or groups[-1][0] != after:
                groups.append((after, []))
            groups[-1][1].append(AuditRecord(*record))
        return groups


class _Origins:
    """Who sent the commands, as far as the audit trail says it: its records stand in the order of their entries."""

    def __init__(self, db: apsw.Connection) -> None:
        self._rows: Iterator[Any] = iter(db.execute(_ORIGINS))
        self._next: CommandOrigin | None = None

    def of(self, entries: Sequence[Entry]) -> list[CommandOrigin]:
        """Return those of neighbouring entries, which follow those of the last call."""
        found: list[CommandOrigin] = []
        first, last, seen = entries[0].seq, entries[-1].seq, 0
        while (origin := self._next or self._read()) is not None and origin.seq <= last:
            self._next = None
            if origin.seq >= first and origin.seq > seen and entries[origin.seq - first].audited_as is not None:
                found.append(origin)
                seen = origin.seq
        self._next = origin
        return found

    def _read(self) -> CommandOrigin | None:
        row = next(self._rows, None)
        return None if row is None else CommandOrigin(*row)
