"""The tables of the keys and of the audit trail, on a connection that a server or a command has open."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw
import msgspec

from twincast.core.audit import AuditRecord
from twincast.core.keys import Key
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.transactions import BUSY_TIMEOUT_MS
from twincast.wire.messages import encode

_KEYS = "select id, name, digest, grants, created_at_utc, rate_per_s, expires_s, revoked_at_utc from access_key"
_AUDIT = """
select id, at_utc, who, address, action, target, detail, seq, {server} from audit where id < ? order by id desc limit ?
"""
AFTER_ALL = (1 << 63) - 1
"""More than any id of SQLite that is given out in order."""
SERVER_SCHEMA = 7
"""The version of the schema from which on the audit trail names servers."""
_decode_grants = msgspec.json.Decoder(dict[str, list[str]]).decode


def prepared(connect: Callable[[], apsw.Connection]) -> apsw.Connection:
    """Return a connection that may change the keys, also beside a server that runs.

    Raises:
        JournalUnusable: the file is read-only.
        JournalUnavailable: the disk does not give it.
    """
    with unavailable_if_failing():
        db = connect()
        try:
            db.set_busy_timeout(3 * BUSY_TIMEOUT_MS)
            db.pragma("synchronous", "full")
            db.wal_autocheckpoint(0)  # a server that runs does that
            keyring_version(db)  # the first read makes a -shm, for which there may be no room
            if db.readonly("main"):
                raise JournalUnusable(f"the journal {db.filename} is read-only")
        except BaseException:
            db.close(True)
            raise
    return db


@contextmanager
def changing(db: apsw.Connection) -> Iterator[None]:
    """Make one transaction of what is done within."""
    with unavailable_if_failing():
        db.execute("begin immediate")
        try:
            yield
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise


def keyring_version(db: apsw.Connection) -> int:
    """Return the number that changes with the keys. Raises JournalUnavailable if there is none."""
    version = db.execute("select cast(value as integer) from meta where name = 'keyring_version'").get
    if version is None:
        raise JournalUnavailable("the journal has lost its keyring_version, which another program must have deleted")
    return int(version)


def read_keys(db: apsw.Connection) -> list[Key]:
    """Return all keys that were ever added, by name."""
    return [_key(row) for row in db.execute(_KEYS + " order by name, created_at_utc, id")]


def read_key(db: apsw.Connection, key_id: str) -> Key | None:
    """Return the key with an id."""
    row: Any = db.execute(_KEYS + " where id = ?", (key_id,)).fetchone()
    return None if row is None else _key(row)


def _key(row: tuple[Any, ...]) -> Key:
    key_id, name, digest, grants, *rest = row
    return Key(key_id, name, digest, _decode_grants(grants), *rest)


def insert(db: apsw.Connection, key: Key) -> None:
    """Store a key."""
    values = (key.id, key.name, key.digest, encode(key.grants).decode())
    more = (key.created_at_utc, key.rate_per_s, key.expires_s)
    db.execute("insert into access_key values (?, ?, ?, ?, ?, ?, ?, null)", (*values, *more))


def note(db: apsw.Connection, records: Sequence[AuditRecord], *, version: int | None = None) -> None:
    """Note a change of the keys: in the audit trail, and for the server that looks whether there was one.

    Args:
        db: the connection.
        records: of the audit trail.
        version: of the keys from now on; None for the next number.
    """
    db.execute("update meta set value = coalesce(?, value + 1) where name = 'keyring_version'", (version,))
    for record in records:
        db.execute(
            "insert into audit (at_utc, who, address, action, target, detail) values (?, ?, ?, ?, ?, ?)",
            (record.at_utc, record.who, record.address, record.action, record.target, record.detail),
        )
        if record.server:  # apart, for a file of an older schema has no column for it, and no such record
            db.execute("update audit set server = ? where id = last_insert_rowid()", (record.server,))


def read_audit(db: apsw.Connection, limit: int, before: int) -> list[tuple[int, AuditRecord]]:
    """Return up to `limit` records of the audit trail that are older than a number, newest first."""
    with unavailable_if_failing():
        # A server of an older version may have the file open, in its schema.
        server = "coalesce(server, '')" if db.pragma("user_version") >= SERVER_SCHEMA else "''"
        rows = db.execute(_AUDIT.format(server=server), (before, limit))
        return [(number, AuditRecord(*row)) for number, *row in rows]
