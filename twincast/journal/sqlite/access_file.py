"""The keys in an SQLite journal's file, for the commands that change them.

A server may have the file open. The server holds the lock that makes it the only process that appends to the log; a
change of keys is a short transaction of its own beside it.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from stat import S_ISDIR
from types import TracebackType
from typing import Self, TypeVar

import apsw

from twincast.core.audit import Actor, AuditRecord
from twincast.core.keys import Key, Pairing
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.key_rules import key_in_use, refuse_name_in_use, said_of
from twincast.journal.sqlite import pairing as sqlite_pairing
from twincast.journal.sqlite.failing import in_words, unavailable_if_failing
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.key_tables import (
    AFTER_ALL,
    changing,
    insert,
    note,
    prepared,
    read_audit,
    read_keys,
)
from twincast.journal.sqlite.lock import serves_the_file, serves_the_name
from twincast.journal.sqlite.reserve import Reserve
from twincast.journal.sqlite.schema import COPY_OF, MOVED_TO
from twincast.journal.sqlite.wal import open_with_its_wal, refuse_lonely_wal

T = TypeVar("T")


class AccessFile:
    """The keys in a journal's file, to be changed; beside a server that runs on it, or without. Use as a context."""

    def __init__(self, path: str, *, make: bool = False, is_urgent: bool = False, has_codes: bool = False) -> None:
        """Open the journal.

        Args:
            path: its file.
            make: make one if there is none. Otherwise a mistyped path leaves nothing behind.
            has_codes: codes are to be stored: a file of an older schema, without a table for them, is migrated.
            is_urgent: keys are to be ended: a full disk, on which it cannot even be opened, gives up its reserve.

        Raises:
            JournalUnusable: it is not there, not a journal, or cannot be written; the message says why.
        """
        real = os.path.realpath(path)
        is_served = serves_the_file(real)
        if not is_served:
            _refuse_strange_files(real)
        self.is_new = not _is_there(path)
        """Whether this made the file."""
        if self.is_new and not make:
            raise JournalUnusable(
                f"there is no journal at {os.path.abspath(path)}; --journal or TWINCAST_JOURNAL names the server's"
            )
        self._reserve = Reserve(real)
        self._has_released = False
        try:
            self._db = _connect(real, is_served=is_served, table="pairing" if has_codes else "access_key")
        except (JournalUnusable, JournalUnavailable):
            if not is_urgent or is_served or not self._reserve.is_needed:
                raise
            self._release()
            self._db = prepared(lambda: open_with_its_wal(real, makes_shm=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._has_released:  # the room is for keys, not for bringing the -wal into the file
            self._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._db.close(True)
        if self._has_released:
            with suppress(JournalUnavailable):  # what there is of it is kept
                self._reserve.fill()

    def keys(self) -> Sequence[Key]:
        """Return all keys that were ever added, by name."""
        with unavailable_if_failing():
            return read_keys(self._db)

    def add(self, key: Key, actor: Actor) -> None:
        """Add a key, and note who did.

        Raises:
            ValidationFailed: a key of that name is in use.
        """
        with self._change():
            self._reserve.fill()  # what is left of a full disk is for ending keys
            refuse_name_in_use(read_keys(self._db), key.name)
            insert(self._db, key)
            self._changed(key.created_at_utc, actor, "keys add", f"key:{key.id}", f"{key.name} {said_of(key.grants)}")

    def pair(self, pairing: Pairing, now_utc: str, actor: Actor, *, life_s: int, waiting_max: int) -> None:
        """Add a pairing code, and note who did; see pairing.

        Raises:
            ValidationFailed: a key of that name is in use, or too many codes wait.
        """
        with self._change():
            self._reserve.fill()
            refuse_name_in_use(read_keys(self._db), pairing.name)
            sqlite_pairing.put(self._db, pairing, actor, life_s=life_s, waiting_max=waiting_max)
            self._changed(now_utc, actor, "pair", "", f"{pairing.name} {said_of(pairing.grants)}")

    def revoke(self, name_or_id: str, now_utc: str, actor: Actor) -> Key:
        """End a key, and note who did.

        Raises:
            ValidationFailed: no key that is in use has that name or id.
        """
        return self._urgently(lambda: self._revoke(name_or_id, now_utc, actor))

    def clear(self, now_utc: str, actor: Actor) -> int:
        """Forget all keys, so that no login is asked for at the next start, and note who did. Returns how many."""
        return self._urgently(lambda: self._clear(now_utc, actor))

    def audit(self, limit: int) -> list[AuditRecord]:
        """Return the newest records of the audit trail, newest first."""
        return [record for _, record in read_audit(self._db, limit, AFTER_ALL)]

    def _revoke(self, name_or_id: str, now_utc: str, actor: Actor) -> Key:
        key = key_in_use(read_keys(self._db), name_or_id)
        self._db.execute("update access_key set revoked_at_utc = ? where id = ?", (now_utc, key.id))
        self._changed(now_utc, actor, "keys revoke", f"key:{key.id}", key.name)
        return key

    def _clear(self, now_utc: str, actor: Actor) -> int:
        count = len(read_keys(self._db))
        self._db.execute("delete from access_key")
        self._changed(now_utc, actor, "keys clear", "", f"{count} keys forgotten")
        return count

    def _urgently(self, change: Callable[[], T]) -> T:
        """Do what ends keys; on a full disk in the room of the reserve."""
        try:
            with self._change():
                return change()
        except JournalUnavailable as failure:
            if not isinstance(failure.__cause__, apsw.FullError | apsw.IOError):
                raise
        with self._change():
            self._release()  # now, when nobody else may write into the room
            return change()

    def _release(self) -> None:
        self._has_released = True
        self._reserve.release()

    def _change(self) -> AbstractContextManager[None]:
        _refuse_copy(self._db)
        return changing(self._db)

    def _changed(self, now_utc: str, actor: Actor, action: str, target: str, detail: str) -> None:
        note(self._db, [AuditRecord(now_utc, *actor, action, target, detail)])


def _connect(path: str, *, is_served: bool, table: str) -> apsw.Connection:
    """Connect to a file that has a table, once it does."""
    if is_served:
        db = prepared(lambda: apsw.Connection(path))
        if _has(db, table):
            return db
        db.close(True)
        raise JournalUnusable(f"the server that runs on {path} is of an older version, without this; start it again")
    if not _is_prepared(path, table):
        SqliteFile(path).close()
    return prepared(lambda: open_with_its_wal(path))


def has_keys(path: str) -> bool:
    """Whether a journal's file holds a key, or ever did; a file that does not exist holds none.

    Raises:
        JournalUnusable: it cannot be read.
    """
    if not Path(path).exists():
        return False
    try:
        db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
        try:
            tables = db.execute("select count(*) from sqlite_schema where name = 'access_key'").get
            return bool(tables and db.execute("select count(*) from access_key").get)
        finally:
            db.close(True)
    except apsw.Error as error:
        raise JournalUnusable(f"the journal {path} cannot be read: {in_words(error)}") from None


def _refuse_strange_files(path: str) -> None:
    """Refuse a path whose file is not the one that a running, or a killed, server has used."""
    if serves_the_name(path):
        raise JournalUnusable(
            f"a server runs that was started on {path}, but its file is no longer there, or is another one. End that"
            " server, see to the journal, and start it again"
        )
    refuse_lonely_wal(path)


def _refuse_copy(db: apsw.Connection) -> None:
    """Refuse to change what follows from another log, or goes on there: it would be changed here alone."""
    with unavailable_if_failing():
        meta = dict(db.execute("select name, value from meta"))
    if (moved_to := meta.get(MOVED_TO)) is not None:
        raise JournalUnusable(f"the log of {db.filename} was moved to {moved_to}: its keys are changed there")
    if (shared := meta.get(COPY_OF)) is not None:
        raise JournalUnusable(
            f"{db.filename} is a server's copy of the shared log {shared!r}: its keys are changed in the log, by"
            f" --journal nats://HOST:PORT/{shared}"
        )


def _is_there(path: str) -> bool:
    """Whether a journal's path leads to a file.

    Raises:
        JournalUnusable: it leads to something else, or nowhere that may be looked at.
    """
    try:
        if S_ISDIR(os.stat(path).st_mode):
            raise JournalUnusable(f"the journal {path} is a directory; name a file, such as one in it")
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise JournalUnusable(f"the journal {path!r} cannot be opened: {_reason(error)}") from None
    return True


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "its path is not one in UTF-8"


def _is_prepared(path: str, table: str) -> bool:
    try:
        has_keys(path)
        db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    except (apsw.Error, JournalUnusable):
        return False
    try:
        return _has(db, table)
    finally:
        db.close(True)


def _has(db: apsw.Connection, table: str) -> bool:
    with unavailable_if_failing():
        return bool(db.execute("select count(*) from sqlite_schema where name = ?", (table,)).get)
