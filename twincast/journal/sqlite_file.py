"""The file of the SQLite journal: its schema, and the five things that are done to it. Synchronous, one thread.

The schema is public (docs/journal.md): other programs may read it while the server runs.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import apsw
from msgspec import Raw

from twincast.core.keys import Deed
from twincast.core.messages import encode
from twincast.core.model import Entry, Snapshot, Twin
from twincast.core.retries import KEYS_MAX, WINDOW_ENTRIES, Receipt
from twincast.errors import JournalUnusable
from twincast.journal.sqlite_reader import unavailable_if_failing

APPLICATION_ID = 0x5457494E  # "TWIN", where `file` and SQLite look for a file's kind
SCHEMA_VERSION = 3
BUSY_TIMEOUT_MS = 10_000
"""How long to wait for another program that writes: `twincast keys` holds the file for a commit's length."""
CHECKPOINT_ENTRIES = 20_000
"""How many entries of the log one slice folds into the checkpoint: about 20 ms of work, replayed in as long."""

_RECEIPTS = """
create table receipt (                  -- the keys of updates that may come again
    first_seq integer primary key,      -- the entries that were stored under the key
    last_seq  integer not null,
    key       text not null,
    digest    integer not null          -- CRC-32 of what they say
);
"""

_ACCESS = """
create table access_key (               -- API keys; a revoked one stays, so that a login stays asked for
    id             text primary key,
    name           text not null,
    digest         text not null unique, -- SHA-256 of the secret, in hexadecimal
    grants         text not null,       -- JSON: patterns by action
    created_at_utc text not null,
    rate_per_s     real,                -- updates a second; null for the server's setting
    expires_s      integer,             -- seconds since 1970
    revoked_at_utc text
) without rowid;
create table audit (                    -- who did what
    id      integer primary key,
    at_utc  text not null,
    who     text not null,              -- key:ID, jwt:SUBJECT, anonymous, or local:USER
    address text not null,
    action  text not null,              -- command, keys add, keys revoke, keys clear
    target  text not null,
    detail  text not null,
    seq     integer                     -- of a command: where it is in the log
);
insert into meta values ('keyring_version', '1');
"""

_SCHEMA = (
    f"""
pragma application_id = {APPLICATION_ID};
pragma user_version = {SCHEMA_VERSION};
create table meta (name text primary key, value text not null) without rowid;
create table log (
    seq           integer primary key,  -- 1, 2, 3, ... without gaps
    type          text not null,        -- data_update or control
    device_id     text not null,        -- of a control: its target
    value         text not null,        -- JSON; of a control: its args
    command       text,                 -- of a control only
    timestamp_utc text not null,        -- ISO 8601
    source        text not null         -- rest or websocket
);
create table checkpoint (               -- the state as of meta 'checkpoint_seq'
    device_id      text primary key,
    value          text not null,
    updated_at_utc text not null,
    source         text not null,
    seq            integer not null
) without rowid;
create view twin as                     -- the state now: the checkpoint and what the log has since
    select device_id, value, updated_at_utc, source, max(seq) as seq from (
        select device_id, value, updated_at_utc, source, seq from checkpoint
        union all
        select device_id, value, timestamp_utc, source, seq from log
        where type = 'data_update'
          and seq > (select cast(value as integer) from meta where name = 'checkpoint_seq')
    ) group by device_id;
"""
    + _RECEIPTS
    + _ACCESS
)
_MIGRATIONS = {1: _RECEIPTS, 2: _ACCESS}
"""What each version lacks that the next one has."""

# One statement a batch: SQLite takes the batch apart itself, so the interpreter lock is not asked for at each row.
_APPEND = """
insert into log
select ?1 + key, value ->> 'type', coalesce(value ->> 'device_id', value ->> 'target'),
       coalesce(value -> 'value', value -> 'args'), value ->> 'command', value ->> 'timestamp_utc', value ->> 'source'
from jsonb_each(?2)
"""

_APPEND_RECEIPTS = """
insert into receipt
select ?1 + (value ->> 1), ?1 + (value ->> 2), value ->> 0, value ->> 3 from jsonb_each(?2)
"""

_APPEND_DEEDS = """
insert into audit (at_utc, who, address, action, target, detail, seq)
select timestamp_utc, deed.value ->> 1, deed.value ->> 2, 'command', device_id, command, seq
from jsonb_each(?2) as deed join log on seq = ?1 + (deed.value ->> 0)
order by seq
"""

_CHECKPOINT = """
insert or replace into checkpoint
select device_id, value, timestamp_utc, source, seq from log where seq in (
    select max(seq) from log where seq > ?1 and seq <= ?2 and type = 'data_update' group by device_id
)
"""


class SqliteFile:
    """An open journal file, locked against a second server. Every method runs in one and the same thread."""

    def __init__(self, path: str, *, vfs: str | None = None, synchronous: str = "full") -> None:
        """Open or create.

        Args:
            path: the file. `-wal`, `-shm` and `-lock` files stand beside it while it is open.
            vfs: another SQLite file layer than the system's; tests cut the power with it.
            synchronous: SQLite's pragma. Anything below "full" breaks the promise of `append`, as a test shows.

        Raises:
            JournalUnusable: the message says why, for the person who started the server.
        """
        self.epoch: str
        self.seq: int
        self.oldest_since: int
        self._checkpoint_seq: int
        self._path = path
        self._lock = _lock(path)
        _make_private(path)
        try:
            self._db = apsw.Connection(path, vfs=vfs)
            self._db.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._prepare(synchronous)
        except apsw.Error as error:
            os.close(self._lock)
            raise JournalUnusable(_why_unusable(path, error)) from None
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the log has run ahead of the checkpoint by a slice."""
        return self.seq - self._checkpoint_seq >= CHECKPOINT_ENTRIES

    def append(self, batch: Sequence[Entry], keys: Sequence[Receipt] = (), deeds: Sequence[Deed] = ()) -> int:
        """Store a batch after the newest entry, in one transaction that is on disk when this returns.

        Args:
            batch: the entries.
            keys: receipts that are stored with them; their seqs count from the batch's first entry, 0.
            deeds: who sent which of the commands among them.

        Returns:
            The seq of the batch's first entry.

        Raises:
            JournalUnavailable: nothing of the batch was stored.
        """
        first = self.seq + 1
        with self._transaction():
            self._db.execute(_APPEND, (first, encode(batch).decode()))
            if keys:
                self._db.execute(_APPEND_RECEIPTS, (first, encode(keys).decode()))
            if deeds:
                self._db.execute(_APPEND_DEEDS, (first, encode(deeds).decode()))
        self.seq += len(batch)
        return first

    def checkpoint(self) -> None:
        """Fold the next slice of the log into the checkpoint.

        Raises:
            JournalUnavailable: the checkpoint stays where it was; nothing is lost.
        """
        until = min(self.seq, self._checkpoint_seq + CHECKPOINT_ENTRIES)
        with self._transaction():
            self._db.execute(_CHECKPOINT, (self._checkpoint_seq, until))
            self._db.execute("update meta set value = ? where name = 'checkpoint_seq'", (str(until),))
            self._db.execute("delete from receipt where first_seq <= ?", (until - WINDOW_ENTRIES,))
        self._checkpoint_seq = until

    def receipts(self) -> list[Receipt]:
        """Return the keys that still count, oldest first.

        Raises:
            JournalUnavailable: the disk does not give them.
        """
        with unavailable_if_failing():
            rows = self._db.execute(
                "select key, first_seq, last_seq, digest from receipt"
                " where first_seq > ? order by first_seq desc limit ?",
                (self.seq - WINDOW_ENTRIES, KEYS_MAX),
            ).fetchall()
        return [Receipt(*row) for row in reversed(rows)]

    def snapshot(self) -> Snapshot:
        """Return the state as of the newest entry.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        with unavailable_if_failing():
            rows = self._db.execute("select device_id, value, updated_at_utc, seq, source from twin")
            twins = {device: Twin(Raw(value.encode()), at, seq, source) for device, value, at, seq, source in rows}
        return Snapshot(self.epoch, self.seq, twins)

    def close(self) -> None:
        """Bring the checkpoint up to date and close the file, which then stands alone.

        Raises:
            JournalUnavailable: the disk failed; everything that was appended is in the log all the same.
        """
        try:
            while self._checkpoint_seq < self.seq:
                self.checkpoint()
        finally:
            try:
                with unavailable_if_failing():
                    self._db.close()
            finally:
                os.close(self._lock)

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
            self._create()
        elif version < SCHEMA_VERSION:
            missing = "".join(_MIGRATIONS[older] for older in range(version, SCHEMA_VERSION))
            with self._db:
                self._db.execute(f"{missing} pragma user_version = {SCHEMA_VERSION};")
        meta = dict(db.execute("select name, value from meta"))
        self.epoch = meta["epoch"]
        self.seq = db.execute("select coalesce(max(seq), 0) from log").get
        self.oldest_since = db.execute("select coalesce(min(seq) - 1, 0) from log").get
        self._checkpoint_seq = int(meta["checkpoint_seq"])

    def _create(self) -> None:
        with self._db:
            self._db.execute(_SCHEMA)
            self._db.execute(
                "insert into meta values ('epoch', ?), ('checkpoint_seq', '0'),"
                " ('created_at_utc', strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))",
                (secrets.token_hex(4),),
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with unavailable_if_failing():
            try:
                self._db.execute("begin immediate")
                yield
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise


def _lock(path: str) -> int:
    """Keep a second server off the file: two would give out the same positions. Returns the lock's descriptor.

    It is a file of its own, because closing any descriptor of the database would drop SQLite's own locks on it.
    """
    try:
        descriptor = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalUnusable(f"the journal {path} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise JournalUnusable(f"the journal {path} is in use by another server") from None
    return descriptor


def _make_private(path: str) -> None:
    """Make the file if there is none, for its owner alone; SQLite gives its -wal and -shm the same mode.

    It holds all that was ever said, and who writes it can let himself in. A file that is there keeps its mode.
    """
    with suppress(OSError):  # SQLite will say what is wrong
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _why_unusable(path: str, error: apsw.Error) -> str:
    if isinstance(error, apsw.NotADBError):
        return f"{path} is not a journal: the file is something else"
    if isinstance(error, apsw.ReadOnlyError):
        return f"the journal {path} is read-only; the server must be able to write it"
    if isinstance(error, apsw.FullError):
        return f"the disk of the journal {path} is full"
    return f"the journal {path} cannot be opened: {error}"
