"""The keys, the codes and the audit trail in a server's copy of a shared log: the tables of an SQLite journal.

They are written from the stream alone, in the transaction that moves the copy's place in it. `keyring_version` is one
more than the place of the last change: a new file has 1, for none.
"""

from collections.abc import Iterator
from typing import Any

import apsw
import msgspec

from twincast.core.keys import Key, Pairing
from twincast.journal.jetstream.key_changes import Code, KeyChange, KeyRows, KeyTable, step_of
from twincast.journal.sqlite import pairing
from twincast.journal.sqlite.key_tables import insert, keyring_version, note, read_key, read_keys

_decode_grants = msgspec.json.Decoder(dict[str, list[str]]).decode


def store_change(db: apsw.Connection, change: KeyChange, stream_seq: int, at_utc: str) -> None:
    """Apply a change to the tables as `KeyTable.apply` does to itself, within a transaction that is open.

    Args:
        db: the connection.
        change: it.
        stream_seq: its place in the stream.
        at_utc: its time, which is the stream's.

    Raises:
        JournalUnusable: it does not follow from what is stored.
        apsw.Error: the disk does not take it.
    """
    step = step_of(change, at_utc, _StoredTables(db))
    if step.clear:
        db.execute("delete from access_key")
    if step.revoke is not None:
        db.execute("update access_key set revoked_at_utc = ? where id = ?", (at_utc, step.revoke))
    db.executemany("delete from pairing where digest = ?", [(digest,) for digest in step.forget])
    if step.code is not None:
        pairing.insert(db, step.code.pairing, step.code.who)
    if step.used is not None:
        pairing.use(db, step.used)
    if step.add is not None:
        insert(db, step.add)
    for key in step.carried.keys:
        insert(db, key)
        if key.revoked_at_utc is not None:
            db.execute("update access_key set revoked_at_utc = ? where id = ?", (key.revoked_at_utc, key.id))
    for code in step.carried.codes:
        pairing.insert(db, code.pairing, code.who)
        if code.is_used:
            pairing.use(db, code.pairing.digest)
    note(db, step.records, version=stream_seq + 1)


def load(db: apsw.Connection) -> KeyTable:
    """Return what is stored as the table that further changes are applied to.

    Raises:
        JournalUnavailable: the file is damaged.
        apsw.Error: the disk does not return it.
    """
    return KeyTable.of(KeyRows(keyring_version(db) - 1, tuple(read_keys(db)), tuple(_StoredTables(db).codes())))


class _StoredTables:
    """See Tables."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def key(self, key_id: str) -> Key | None:
        return read_key(self._db, key_id)

    def has_digest(self, digest: str) -> bool:
        return bool(self._db.execute("select count(*) from access_key where digest = ?", (digest,)).get)

    def codes(self) -> Iterator[Code]:
        rows: list[Any] = self._db.execute(
            "select digest, name, grants, rate_per_s, lives_s, until_s, who, is_used from pairing"
        ).fetchall()
        for digest, name, grants, rate_per_s, lives_s, until_s, who, is_used in rows:
            made = Pairing(digest, name, _decode_grants(grants), rate_per_s, lives_s, until_s)
            yield Code(made, who, bool(is_used))
