"""The file of the SQLite journal: append, checkpoint, trim, snapshot, close. Synchronous, in one thread.

Other programs may read it while the server runs; its schema is in journal/sqlite/schema.
"""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

import apsw

from twincast.core.audit import CommandOrigin
from twincast.core.batch import Batch, Committed
from twincast.core.counters import SECONDS, Histogram
from twincast.core.erasure import Erasure, erasures_in
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.lineage import GENERATIONS_MAX, Generation, Lineage
from twincast.core.model import Entry, Snapshot
from twincast.core.producers import ProducerMark
from twincast.errors import JournalUnusable
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import checkpoint, erasures, generations
from twincast.journal.sqlite import idempotency as sqlite_idempotency
from twincast.journal.sqlite import producers as sqlite_producers
from twincast.journal.sqlite.entries import Appending, audit_sql
from twincast.journal.sqlite.failing import in_words, unavailable_if_failing
from twincast.journal.sqlite.foreign_rows import FOREIGN_ROWS, accept
from twincast.journal.sqlite.guard import Guard
from twincast.journal.sqlite.history.times import time_us
from twincast.journal.sqlite.lock import ServerLock
from twincast.journal.sqlite.opening import prepare, why_unusable
from twincast.journal.sqlite.partitions import Partitions
from twincast.journal.sqlite.reserve import Reserve
from twincast.journal.sqlite.schema import COPY_OF, MOVED_TO
from twincast.journal.sqlite.transactions import BUSY_TIMEOUT_MS, Transactions
from twincast.journal.sqlite.trim import ROW_BYTES, LogTrim, Look
from twincast.journal.sqlite.wal import open_with_its_wal, refuse_lonely_wal
from twincast.wire.messages import encode, encode_all

T = TypeVar("T")
CHECKPOINT_ENTRIES = 4_000
"""How many entries of the log one slice folds into the checkpoint: a few milliseconds, for which commits wait."""
CHECKPOINT_PART = 4
"""Where commits are larger than that, a slice takes this part of what the checkpoint lacks. So it never lacks more than
a few commits, which a start would have to replay."""

_NEWEST = "select coalesce(max(seq), 0) from log"
_ENTRY_BYTES = f"""
select avg(octet_length(value) + octet_length(device_id) + {ROW_BYTES})
from (select * from log order by seq desc limit 1000)
"""


class SqliteFile:
    """An open journal file, locked against a second server. All methods must be called in one thread."""

    _notes_deletions = True
    """Whether the checkpoint remembers when devices were deleted."""

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
        self.has_erasures = False
        """Whether the history of a device is to be erased; see `erasing`."""
        self._appending, self._audit_sql = Appending(), audit_sql()
        self.sync_s = Histogram(SECONDS)
        """How long SQLite's COMMIT of an append took: it writes the -wal and syncs it."""
        self.appended_bytes = 0
        """How much text was appended since this was opened."""
        self.path = os.path.realpath(path)
        """The file, with links resolved."""
        with ExitStack() as undo:
            refuse_lonely_wal(self.path)
            self._lock = ServerLock(self.path)
            undo.callback(self._lock.discard)
            try:
                self._open(undo, retention, vfs, synchronous)
            except apsw.Error as error:
                raise JournalUnusable(why_unusable(self.path, error)) from None
            try:
                self._lock.shield()
                undo.callback(self._lock.unshield)
                self.guard = Guard(path, self.path)
                """Whether what is appended will be found again. To be asked before each append."""
            except OSError as error:
                raise JournalUnusable(f"the journal {path} cannot be opened: {in_words(error)}") from None
            undo.pop_all()
        self._transactions.fill_reserve()

    def _open(self, undo: ExitStack, retention: Retention, vfs: str | None, synchronous: str) -> None:
        """Open the database, and see what it has. Raises what SQLite raises."""
        self._db = open_with_its_wal(self.path, vfs=vfs)
        undo.callback(self._db.close, True)
        self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._transactions = Transactions(self._db, Reserve(self.path), synchronous=synchronous)
        self._begin(prepare(self._db, self.path, synchronous=synchronous, new_name=self._new_name()))
        self._trim = LogTrim(self._db, retention, self.path, vfs=vfs)
        self.partitions = Partitions(
            *(self._db, self.path), transactions=self._transactions, trim=self._trim, check_files=self._check_files
        )
        """Those of the log that are closed."""
        self._db.execute("pragma secure_delete = fast").fetchall()
        self.has_erasures = bool(erasures.pending(self._db))

    def _check_files(self) -> None:
        self.guard.check()

    def look_at_reserve(self) -> None:
        """See whether a change of keys used the reserve. To be called before each append, from any thread."""
        self._transactions.look_at_reserve()

    @property
    def checkpoint_seq(self) -> int:
        """Up to where the checkpoint has everything."""
        return self._checkpoint_seq

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the log has run ahead of the checkpoint by a slice."""
        return self.seq - self._checkpoint_seq >= self._checkpoint_entries

    @property
    def _checkpoint_entries(self) -> int:
        return CHECKPOINT_ENTRIES

    def append(self, batch: Batch) -> Committed:
        """Store a batch after the newest entry, in one transaction that is on disk when this returns.

        Entries that another program wrote behind the newest one come before the batch. What is stored of an entry is
        taken by SQLite from the very text that goes out to clients, so each is encoded once.

        Raises:
            JournalUnavailable: nothing of the batch was stored.
        """
        first = self.seq + 1
        with self._transactions.begin(needs_reserve=True, sync_s=self.sync_s):
            if self._unstored is not None:
                generations.store(self._db, self._unstored)
            # Not in the statement below: one that reads the table that it adds to keeps all rows in a temporary one.
            if self._db.execute(_NEWEST).get != self.seq:
                with closing(self._db.execute(FOREIGN_ROWS, (self.seq,))) as rows:
                    foreign = accept(rows, self.seq)
                first = foreign.seq + 1
                batch.decide_again(foreign.newest)
            batch.place(first, self.lineage.epoch)
            texts = encode_all(batch.entries)
            committed = batch.committed(texts)
            insertion = self._appending.insertion(batch, texts)
            self._db.execute(*insertion)
            self._attach(committed, batch.origins)
            erasing = () if insertion.is_of_readings else self._note_erasures(batch.entries)
        self.has_erasures |= bool(erasing)
        self._unstored = None
        self.seq = committed.seqs[-1]
        self.appended_bytes += sum(map(len, texts))
        return committed

    def _attach(self, committed: Committed, origins: Sequence[CommandOrigin]) -> None:
        """Store what belongs to entries, in their transaction."""
        self._attach_all(committed.keys, committed.marks, origins)

    def _attach_all(
        self, keys: Sequence[IdempotencyRecord], marks: Sequence[ProducerMark], origins: Sequence[CommandOrigin]
    ) -> None:
        if keys:
            sqlite_idempotency.append(self._db, keys)
        if origins:
            self._db.execute(self._audit_sql, (encode(origins).decode(),))
        if marks:
            sqlite_producers.append(self._db, marks)
            self._has_passed_marks = True

    def _note_erasures(self, entries: Sequence[Entry], stream_seq: int | None = None) -> Sequence[Erasure]:
        """Remember which histories entries delete, in their transaction."""
        found = erasures_in(entries)
        if found:
            erasures.note(self._db, found, stream_seq)
        return found

    def erasing(self) -> list[Erasure]:
        """Return the deletions of histories that are not carried out yet.

        Raises:
            JournalUnavailable: the disk does not give them.
        """
        with unavailable_if_failing():
            found = erasures.pending(self._db)
        self.has_erasures = bool(found)
        return found

    def erasures(self) -> list[Erasure]:
        """Return the deletions of histories that are not carried out everywhere, with what still has it.

        Raises:
            JournalUnavailable: the disk does not give them.
        """
        with unavailable_if_failing():
            return erasures.held(self._db)

    def change(self, work: Callable[[apsw.Connection], T], *, is_synced: bool = False) -> T:
        """Change what is in the file, in one transaction.

        Args:
            work: changes it, by the connection.
            is_synced: whether it is on the disk when this returns; else the next append syncs what comes before it.

        Raises:
            JournalUnavailable: nothing is changed.
        """
        begin = self._transactions.synced if is_synced else self._transactions.unsynced
        with begin(needs_reserve=True):
            return work(self._db)

    def overwrite(self, *, is_all: bool) -> None:
        """Write zeros over what is deleted from now on: of whole pages too, or only where that costs nothing."""
        with unavailable_if_failing():
            self._db.execute(f"pragma secure_delete = {'on' if is_all else 'fast'}").fetchall()

    def lend(self, pages: int) -> None:
        """Count so many pages as free, although something takes them for a while."""
        self._trim.lent_pages = pages

    def empty_wal(self) -> bool:
        """Bring all of the -wal into the file, and leave nothing in it; return whether nobody was in the way.

        Raises:
            JournalUnavailable: the disk fails.
        """
        with unavailable_if_failing():
            self._db.set_busy_timeout(0)  # commits wait for this thread
            try:
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.BusyError:
                return False
            finally:
                self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
        return True

    def look(self, now_utc: str) -> Look:
        """Return how full the file is, and up to which position the next slice of the log should be trimmed.

        Args:
            now_utc: the clock that entries are stamped by.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            parts, summaries = self.partitions.parts, self.partitions.summaries
            return self._trim.look(self.seq, self.appended_bytes, now_utc, parts, summaries)

    def hot_since(self) -> int:
        """Return the position before the oldest entry that is in the journal itself.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            return self._trim.hot_since(self.seq)

    def closed_seq(self) -> int:
        """Return up to where the log is closed, or begins.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            return max(self._trim.hot_since(self.seq), self.partitions.closed_seq)

    def bytes_behind(self, seq: int) -> int:
        """Return about how much the entries behind a position take, if they are as large as the newest ones.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            return round((self.seq - seq) * (self._db.execute(_ENTRY_BYTES).get or 0))

    def is_older(self, seq: int, age_s: float, now_utc: str) -> bool:
        """Return whether an entry was stored so long ago.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            at_utc = self._db.execute("select timestamp_utc from log where seq = ?", (seq,)).get
        return at_utc is not None and time_us(now_utc) - time_us(at_utc) > age_s * 1e6

    def trim(self, until: int) -> None:
        """Take the oldest entries off the log, up to a position that `look` has found; never what no checkpoint has.

        What partitions have stays in these.

        Not synced: a power cut brings some of them back, and nothing else. The next append syncs what comes before it.

        Raises:
            JournalUnavailable: the log is as it was.
        """
        if until > self._checkpoint_seq:
            self.checkpoint(until)
        with self._transactions.unsynced(needs_reserve=True):
            until = min(until, self._checkpoint_seq)
            if self.partitions.parts:
                self.partitions.check(self._trim.hot_since(self.seq), until)
            self._trim.take(until)
            took = None if self.partitions.parts else self._trim.take_audit(until)
        if took is not None:
            self._trim.took(took)

    def checkpoint(self, until: int | None = None) -> None:
        """Fold the next slice of the log into the checkpoint, up to a position if one is given.

        Not synced: a power cut takes the checkpoint back to where it was, and the log has what it lacks then. The next
        append syncs what comes before it.

        Raises:
            JournalUnavailable: the checkpoint stays where it was; nothing is lost.
        """
        slice_entries = max(self._checkpoint_entries, (self.seq - self._checkpoint_seq) // CHECKPOINT_PART)
        until = min(self.seq if until is None else until, self._checkpoint_seq + slice_entries)
        with self._transactions.unsynced():
            checkpoint.take(self._db, self._checkpoint_seq, until, notes_deletions=self._notes_deletions)
            sqlite_idempotency.clear(self._db, until)
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
            return sqlite_idempotency.read(self._db, self.seq)

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
            twins, deletions = checkpoint.twins(self._db), checkpoint.deletions(self._db, self._checkpoint_seq)
        return Snapshot(self.lineage.epoch, self.seq, twins, deletions)

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
            self._trim.close()
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

    def _begin(self, meta: Mapping[str, str]) -> None:
        """Begin a run on the log, where that ends."""
        self._check_owner(meta)
        self.epoch = meta["epoch"]
        self.seq = self._db.execute(_NEWEST).get
        self._checkpoint_seq = int(meta[checkpoint.SEQ])
        self.lineage = Lineage(self.epoch, self._begin_generation())

    def _new_name(self) -> str:
        """Return the name of a log that begins here."""
        return secrets.token_hex(4)

    def _check_owner(self, meta: Mapping[str, str]) -> None:
        """Check that what comes into this file may come by `append`.

        Raises:
            JournalUnusable: the file is a copy of a shared log, which would no longer be one; or its log was moved, and
                goes on elsewhere.
        """
        if (moved_to := meta.get(MOVED_TO)) is not None:
            raise JournalUnusable(
                f"the log of {self.path} was moved to {moved_to}, and goes on there: serve that one. To go on here"
                f" instead, without what came since, remove the mark: delete from meta where name = '{MOVED_TO}'"
            )
        shared = meta.get(COPY_OF)
        if shared is not None:
            raise JournalUnusable(
                f"{self.path} is a server's copy of the shared log {shared!r}; a journal of its own is made of it by"
                f" `twincast journal move {self.path} sqlite:OTHER.db`"
            )

    def _begin_generation(self) -> list[Generation]:
        """Note for good that a run begins here; return the runs that are known, oldest first.

        A disk that takes nothing now gets the note with the first entries: they must not stand in the log without it,
        for they would count as of the run before.
        """
        known = generations.read(self._db)
        begun = generations.new(known, self.seq)
        try:
            with self._transactions.atomically():
                generations.store(self._db, begun)
        except (apsw.FullError, apsw.IOError):
            self._unstored = begun
        return [*known, begun][-GENERATIONS_MAX:]
