"""The file of the SQLite journal: append, checkpoint, trim, snapshot, close. Synchronous, in one thread.

Other programs may read it while the server runs; its schema is in journal/sqlite/schema.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import apsw
from msgspec import Raw

from twincast.core.batch import Batch, Committed
from twincast.core.counters import SECONDS, Histogram
from twincast.core.idempotency import KEYS_MAX, WINDOW_ENTRIES, IdempotencyRecord
from twincast.core.lineage import GENERATIONS_MAX, Generation, Lineage
from twincast.core.model import Snapshot, Twin
from twincast.core.producers import ProducerMark
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import producers as sqlite_producers
from twincast.journal.sqlite import schema as sqlite_schema
from twincast.journal.sqlite.entries import append_sql, audit_sql
from twincast.journal.sqlite.foreign_rows import FOREIGN_ROWS, accept
from twincast.journal.sqlite.guard import Guard
from twincast.journal.sqlite.lock import ServerLock, why_not_usable
from twincast.journal.sqlite.reader import in_words, unavailable_if_failing
from twincast.journal.sqlite.reserve import Reserve
from twincast.journal.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION
from twincast.journal.sqlite.trim import LogTrim, Look
from twincast.journal.sqlite.wal import open_with_its_wal, refuse_lonely_wal
from twincast.wire.messages import encode, encode_all

BUSY_TIMEOUT_MS = 10_000
"""How long to wait for another program that writes: `twincast keys` locks the file for the length of a commit."""
CHECKPOINT_ENTRIES = 20_000
"""How many entries of the log one slice folds into the checkpoint: about 20 ms of work, and as long to replay."""

_NEWEST = "select coalesce(max(seq), 0) from log"

_APPEND_KEYS = """
insert into receipt select value ->> 1, value ->> 2, value ->> 0, value ->> 3 from jsonb_each(?)
"""

_CHECKPOINT = """
insert or replace into checkpoint
select device_id, value, timestamp_utc, source, seq from log where type = 'data_update' and seq in (
    select max(seq) from log where seq > ?1 and seq <= ?2 and type in ('data_update', 'deleted') group by device_id
)
"""

# Runs before the checkpoint takes the newest readings: it removes all deleted devices, also those that came again.
_CHECKPOINT_DELETED = """
delete from checkpoint where device_id in (
    select device_id from log where seq > ?1 and seq <= ?2 and type = 'deleted'
)
"""


class SqliteFile:
    """An open journal file, locked against a second server. All methods must be called in one thread."""

    def __init__(
        self, path: str, *, retention: Retention = KEEP_ALL, vfs: str | None = None, synchronous: str = "full"
    ) -> None:
        """Open or create.

        Args:
            path: the file. `-wal`, `-shm` and `-lock` files stand beside it while it is open.
            retention: what of the log is kept.
            vfs: another SQLite file layer than the system's; tests cut the power with it.
            synchronous: SQLite's pragma. Anything below "full" breaks the promise of `append`, as a test shows.

        Raises:
            JournalUnusable: the message says why, for the person who started the server.
        """
        self.epoch: str
        self.lineage: Lineage
        self._unstored: Generation | None = None
        self.seq: int
        self._checkpoint_seq: int
        self._has_passed_marks = True
        self._synchronous = synchronous
        self._append_sql, self._audit_sql = append_sql(), audit_sql()
        self.sync_s = Histogram(SECONDS)
        """How long SQLite's COMMIT of an append took: it writes the -wal and syncs it."""
        self.appended_bytes = 0
        """How much text was appended since this was opened."""
        self._path = os.path.realpath(path)
        with ExitStack() as undo:
            refuse_lonely_wal(self._path)
            self._lock = ServerLock(self._path)
            undo.callback(self._lock.release)
            try:
                self._db = open_with_its_wal(self._path, vfs=vfs)
                undo.callback(self._db.close, True)
                self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
                self._prepare(synchronous)
                self._trim = LogTrim(self._db, retention)
            except apsw.Error as error:
                raise JournalUnusable(_why_unusable(self._path, error)) from None
            try:
                self._lock.shield()
                undo.callback(self._lock.unshield)
                self.guard = Guard(path, self._path)
                """Whether what is appended will be found again. To be asked before each append."""
            except OSError as error:
                raise JournalUnusable(f"the journal {path} cannot be opened: {in_words(error)}") from None
            undo.pop_all()
        self._reserve = Reserve(self._path)
        with suppress(JournalUnavailable):  # a full disk may be read, and says so with the first append
            self._reserve.fill()
        self._is_reserve_short = not self._reserve.is_whole

    def look_at_reserve(self) -> None:
        """See whether a change of keys used the reserve. To be called before each append, from any thread."""
        if not self._reserve.is_whole:
            self._is_reserve_short = True

    @property
    def checkpoint_seq(self) -> int:
        """Up to where the checkpoint has everything."""
        return self._checkpoint_seq

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the log has run ahead of the checkpoint by a slice."""
        return self.seq - self._checkpoint_seq >= CHECKPOINT_ENTRIES

    def append(self, batch: Batch) -> Committed:
        """Store a batch after the newest entry, in one transaction that is on disk when this returns.

        Entries that another program wrote behind the newest one come before the batch. What is stored of an entry is
        taken by SQLite from the very text that goes out to clients, so each is encoded once.

        Raises:
            JournalUnavailable: nothing of the batch was stored.
        """
        first = self.seq + 1
        with self._transaction(self.sync_s):
            if self._is_reserve_short:
                self._reserve.fill()
            if self._unstored is not None:
                self._store_generation(self._unstored)
            # Not in the statement below: one that reads the table that it adds to keeps all rows in a temporary one.
            if self._db.execute(_NEWEST).get != self.seq:
                with closing(self._db.execute(FOREIGN_ROWS, (self.seq,))) as rows:
                    first = accept(rows, self.seq) + 1
            batch.place(first, self.lineage.epoch)
            texts = encode_all(batch.entries)
            text = f"[{b','.join(texts).decode()}]"
            committed = Committed(batch.entries, batch.keys, batch.marks, texts)
            self._db.execute(self._append_sql, (first, text))
            if committed.keys:
                self._db.execute(_APPEND_KEYS, (encode(committed.keys).decode(),))
            if origins := batch.origins:
                self._db.execute(self._audit_sql, (encode(origins).decode(),))
            if committed.marks:
                sqlite_producers.append(self._db, committed.marks)
                self._has_passed_marks = True
        self._unstored = None
        self._is_reserve_short = False
        self.seq = committed.seqs[-1]
        self.appended_bytes += len(text)
        return committed

    def look(self, now_utc: str) -> Look:
        """Return how full the file is, and up to which position the next slice of the log should be trimmed.

        Args:
            now_utc: the clock that entries are stamped by.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            return self._trim.look(self.seq, self.appended_bytes, now_utc)

    def trim(self, until: int) -> None:
        """Take the oldest entries off the log, up to a position that `look` has found; never what no checkpoint has.

        Not synced: a power cut brings some of them back, and nothing else. The next append syncs what comes before it.

        Raises:
            JournalUnavailable: the log is as it was.
        """
        if until > self._checkpoint_seq:
            self.checkpoint(until)
        self._db.pragma("synchronous", "normal" if self._synchronous == "full" else self._synchronous)
        try:
            with self._transaction():
                if self._is_reserve_short:
                    self._reserve.fill()
                took = self._trim.take(min(until, self._checkpoint_seq))
        finally:
            self._db.pragma("synchronous", self._synchronous)
        self._is_reserve_short = False
        self._trim.took(took)

    def checkpoint(self, until: int | None = None) -> None:
        """Fold the next slice of the log into the checkpoint, up to a position if one is given.

        Raises:
            JournalUnavailable: the checkpoint stays where it was; nothing is lost.
        """
        until = min(self.seq if until is None else until, self._checkpoint_seq + CHECKPOINT_ENTRIES)
        with self._transaction():
            self._db.execute(_CHECKPOINT_DELETED, (self._checkpoint_seq, until))
            self._db.execute(_CHECKPOINT, (self._checkpoint_seq, until))
            self._db.execute("update meta set value = ? where name = 'checkpoint_seq'", (str(until),))
            self._db.execute("delete from receipt where first_seq <= ?", (until - WINDOW_ENTRIES,))
            if self._has_passed_marks:
                sqlite_producers.clear(self._db)
        self._has_passed_marks = False
        self._checkpoint_seq = until

    def idempotency_keys(self) -> list[IdempotencyRecord]:
        """Return the idempotency keys that still count, oldest first.

        Raises:
            JournalUnavailable: the disk does not give them.
        """
        with unavailable_if_failing():
            rows = self._db.execute(
                "select key, first_seq, last_seq, digest from receipt"
                " where first_seq > ? order by first_seq desc limit ?",
                (self.seq - WINDOW_ENTRIES, KEYS_MAX),
            ).fetchall()
        return [IdempotencyRecord(*row) for row in reversed(rows)]

    def marks(self) -> list[ProducerMark]:
        """Return up to where the lines of the producers that wrote last are stored, in the order of seq.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            return sqlite_producers.read(self._db)

    def snapshot(self) -> Snapshot:
        """Return the state as of the newest entry.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            rows = self._db.execute("select device_id, value, updated_at_utc, seq, source from twin")
            twins = {device: Twin(Raw(value.encode()), at, seq, source) for device, value, at, seq, source in rows}
        return Snapshot(self.lineage.epoch, self.seq, twins)

    def settle(self) -> None:
        """Bring what was appended from the -wal into the database that is open, wherever that is by now.

        For a journal whose files are not those that were opened any more: a renamed one then has all that it promised.

        Raises:
            JournalUnavailable: the disk failed.
        """
        with unavailable_if_failing():
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def close(self) -> None:
        """Bring the checkpoint up to date and close the file, which then stands alone.

        Raises:
            JournalUnavailable: the disk failed; everything that was appended is in the log all the same.
        """
        try:
            self.guard.check()
            while self._checkpoint_seq < self.seq:
                self.checkpoint()
        finally:
            try:
                self._let_go()
            finally:
                self.guard.close()
                self._lock.release()

    def _let_go(self) -> None:
        with unavailable_if_failing():
            self._lock.unshield()
            try:
                if not self.guard.owns_what_is_beside():
                    # SQLite removes -wal and -shm by their names; what is there is not ours.
                    self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                    self.settle()
                elif self.guard.has_only_moved():
                    self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                self._db.close()

    def _prepare(self, synchronous: str) -> None:
        db = self._db
        if db.readonly("main"):
            raise JournalUnusable(f"the journal {self._path} is read-only; the server must be able to write it")
        kind, version = db.pragma("application_id"), db.pragma("user_version")
        if kind != APPLICATION_ID and db.execute("select count(*) from sqlite_schema").get:
            raise JournalUnusable(f"{self._path} is an SQLite database, but not a twincast journal")
        if version > SCHEMA_VERSION:
            raise JournalUnusable(
                f"the journal {self._path} is of version {version}, written by a newer twincast; "
                f"this one reads version {SCHEMA_VERSION}"
            )
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", synchronous)
        if kind != APPLICATION_ID:
            sqlite_schema.create(db, secrets.token_hex(4))
        elif version < SCHEMA_VERSION:
            sqlite_schema.upgrade(db, version)
        meta = dict(db.execute("select name, value from meta"))
        self.epoch = meta["epoch"]
        self.seq = db.execute("select coalesce(max(seq), 0) from log").get
        self._checkpoint_seq = int(meta["checkpoint_seq"])
        self.lineage = Lineage(self.epoch, self._begin_generation())

    def _begin_generation(self) -> list[Generation]:
        """Note for good that a run begins here; return the runs that are known, oldest first.

        A disk that takes nothing now gets the note with the first entries: they must not stand in the log without it,
        for they would count as of the run before. Only the oldest runs are forgotten: without one between two others,
        the end of the one before it would be wrong.
        """
        rows = self._db.execute("select name, begin_seq from generation order by id")
        generations = [Generation(*row) for row in rows]
        taken = {generation.name for generation in generations}
        while (name := secrets.token_hex(4)) in taken:
            pass
        generations.append(Generation(name, self.seq))
        try:
            with self._atomically():
                self._store_generation(generations[-1])
        except (apsw.FullError, apsw.IOError):
            self._unstored = generations[-1]
        return generations[-GENERATIONS_MAX:]

    def _store_generation(self, generation: Generation) -> None:
        self._db.execute(
            "insert into generation (name, begin_seq, began_at_utc)"
            " values (?, ?, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))",
            generation,
        )
        self._db.execute("delete from generation where id <= (select max(id) from generation) - ?", (GENERATIONS_MAX,))

    @contextmanager
    def _transaction(self, sync_s: Histogram | None = None) -> Iterator[None]:
        with unavailable_if_failing(), self._atomically(sync_s):
            yield

    @contextmanager
    def _atomically(self, sync_s: Histogram | None = None) -> Iterator[None]:
        try:
            self._db.execute("begin immediate")
            yield
            began_s = time.perf_counter()
            self._db.execute("commit")
            if sync_s is not None:
                sync_s.add(time.perf_counter() - began_s)
        except BaseException:
            self._is_reserve_short = True  # perhaps: the room that the next one finds may be a reserve in use
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise


def _why_unusable(path: str, error: apsw.Error) -> str:
    if isinstance(error, apsw.NotADBError):
        return f"{path} is not a journal: the file is something else"
    if isinstance(error, apsw.CantOpenError | apsw.PermissionsError) and (why := why_not_usable(path)):
        return f"the journal {path} cannot be opened: {why}"
    if isinstance(error, apsw.ReadOnlyError):
        return f"the journal {path} is read-only; the server must be able to write it"
    if isinstance(error, apsw.FullError):
        return f"the disk of the journal {path} is full"
    return f"the journal {path} cannot be opened: {in_words(error)}"
