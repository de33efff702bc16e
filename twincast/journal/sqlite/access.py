"""The keys and the audit trail in an SQLite journal, for the server that reads them and the command that changes them.

Both may have the file open at once. The server keeps the lock that makes it the only one who appends to the log; a
change of keys is a short transaction of its own beside it.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from types import TracebackType
from typing import Any, Self, TypeVar

import apsw
import msgspec

from twincast.core.audit import Actor, AuditRecord
from twincast.core.keys import Key, Keyring, Pairing
from twincast.errors import JournalUnavailable, JournalUnusable, ValidationFailed
from twincast.journal.sqlite import pairing as sqlite_pairing
from twincast.journal.sqlite.file import BUSY_TIMEOUT_MS, SqliteFile
from twincast.journal.sqlite.lock import serves_the_file, serves_the_name
from twincast.journal.sqlite.reader import in_words, unavailable_if_failing
from twincast.journal.sqlite.reserve import Reserve
from twincast.journal.sqlite.wal import open_with_its_wal, refuse_lonely_wal
from twincast.journal.sqlite.worker import Worker
from twincast.wire.messages import encode

logger = logging.getLogger("twincast.journal")
T = TypeVar("T")

_KEYS = "select id, name, digest, grants, created_at_utc, rate_per_s, expires_s, revoked_at_utc from access_key"
_AUDIT = "select id, at_utc, who, address, action, target, detail, seq from audit where id < ? order by id desc limit ?"
_AFTER_ALL = (1 << 63) - 1
"""More than any id of SQLite that is given out in order."""
_decode_grants = msgspec.json.Decoder(dict[str, list[str]]).decode


class SqliteAccessStore:
    """The keys and the audit trail in a journal's file, for the server that has the journal open."""

    def __init__(self, reader: "AccessReader", worker: Worker, check_files: Callable[[], None]) -> None:
        self._reader = reader
        self._check_files = check_files
        # Not the journal's own, so that a revoked key is noticed in time, whatever is read of the log.
        self._worker = worker
        # One that waits for other programs that write, as the key of a pairing code does.
        self._pairing_worker = Worker("journal pairing")
        self.problem: JournalUnavailable | None = None
        """See AccessStore.problem."""

    @classmethod
    async def open(cls, path: str, *, check_files: Callable[[], None]) -> Self:
        """Open beside an SqliteJournal, which must stay open for as long as this is.

        Args:
            path: its file.
            check_files: raises JournalUnavailable where the file is no longer the one that the path leads to.

        Raises:
            JournalUnavailable: the disk does not return it.
        """
        worker = Worker("journal keys")
        try:
            return cls(await worker.do(AccessReader, path), worker, check_files)
        except BaseException:
            worker.abandon()
            raise

    async def keyring(self, unless_version: int = -1) -> Keyring | None:
        """See AccessStore.keyring."""
        try:
            self._check_files()  # other files would have other keys
            keyring = await self._worker.do(self._reader.keyring, unless_version)
        except JournalUnavailable as failure:
            self.problem = failure
            raise
        self.problem = None
        return keyring

    async def audit(self, limit: int, before: int | None = None) -> Sequence[tuple[int, AuditRecord]]:
        """See AccessStore.audit."""
        return await self._worker.do(self._reader.audit, limit, before)

    async def pair(
        self, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int
    ) -> Key:
        """See AccessStore.pair."""
        self._check_files()
        check = partial(self._reader.check_code, digest, now_s, life_s=life_s)
        await self._worker.do(check)  # what anybody may send waits for no program that writes
        use = partial(use_code, self._reader.path, digest, now_s, make, address, life_s=life_s)
        return await self._pairing_worker.do(use)

    async def close(self) -> None:
        """See AccessStore.close."""
        await self._pairing_worker.close()
        try:
            await self._worker.close(self._reader.close)
        except JournalUnavailable as error:
            logger.warning("the keys were closed on a failing disk: %s", error)


class AccessReader:
    """A read-only connection to an open journal. Every method runs in one and the same thread at a time."""

    def __init__(self, path: str) -> None:
        """Open beside the SqliteFile, which must stay open for as long as this is used.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        self.path = os.path.realpath(path)
        with unavailable_if_failing():
            self._db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(1_000)

    def keyring(self, unless_version: int = -1) -> Keyring | None:
        """See AccessStore.keyring."""
        with unavailable_if_failing():
            version = _version(self._db)
            if version == unless_version:
                return None
            try:
                return Keyring(version, _keys(self._db))
            except (msgspec.MsgspecError, ValueError, TypeError):
                raise JournalUnavailable("the keys in the journal are not such as twincast writes") from None

    def audit(self, limit: int, before: int | None = None) -> list[tuple[int, AuditRecord]]:
        """See AccessStore.audit."""
        return _audit(self._db, limit, _AFTER_ALL if before is None else before)

    def check_code(self, digest: str, now_s: float, *, life_s: int) -> None:
        """Raise what `use_code` would of a code that is not good, without waiting for those who write."""
        with unavailable_if_failing():
            sqlite_pairing.find(self._db, digest, now_s, life_s=life_s)

    def close(self) -> None:
        """Let go of the file. Raises JournalUnavailable if the disk fails amid that."""
        with unavailable_if_failing():
            self._db.close(True)


def use_code(path: str, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int) -> Key:
    """See AccessStore.pair. The connection that writes is open for as long as that: seconds on a slow disk."""
    db = _prepared(lambda: apsw.Connection(path))
    try:
        with _changing(db):
            Reserve(path).fill()
            key, who = sqlite_pairing.take(db, digest, now_s, make, life_s=life_s)
            _refuse_name_in_use(db, key.name)
            _insert(db, key)
            identity, said = f"key:{key.id}", f"{key.name} {_said(key.grants)}, by a code of {who}"
            _note(db, AuditRecord(key.created_at_utc, identity, address, "paired", identity, said))
        return key
    finally:
        db.close(True)


class AccessFile:
    """The keys in a journal's file, to be changed; beside a server that runs on it, or without. Use as a context."""

    def __init__(self, path: str, *, make: bool = False, is_urgent: bool = False, has_codes: bool = False) -> None:
        """Open the journal.

        Args:
            path: its file.
            make: make one if there is none. Otherwise a mistyped path leaves nothing behind.
            has_codes: codes are to be stored: a file of an older schema, without a place for them, is brought to this.
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
            self._db = _prepared(lambda: open_with_its_wal(real, makes_shm=False))

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
            return _keys(self._db)

    def add(self, key: Key, actor: Actor) -> None:
        """Add a key, and note who did.

        Raises:
            ValidationFailed: a key of that name is in use.
        """
        with self._change():
            self._reserve.fill()  # what is left of a full disk is for ending keys
            _refuse_name_in_use(self._db, key.name)
            _insert(self._db, key)
            self._changed(key.created_at_utc, actor, "keys add", f"key:{key.id}", f"{key.name} {_said(key.grants)}")

    def pair(self, pairing: Pairing, now_utc: str, actor: Actor, *, life_s: int, waiting_max: int) -> None:
        """Add a code by which somebody gets a key, and note who did; see sqlite_pairing.

        Raises:
            ValidationFailed: a key of that name is in use, or too many codes wait.
        """
        with self._change():
            self._reserve.fill()
            _refuse_name_in_use(self._db, pairing.name)
            sqlite_pairing.put(self._db, pairing, actor, life_s=life_s, waiting_max=waiting_max)
            self._changed(now_utc, actor, "pair", "", f"{pairing.name} {_said(pairing.grants)}")

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
        return [record for _, record in _audit(self._db, limit, _AFTER_ALL)]

    def _revoke(self, name_or_id: str, now_utc: str, actor: Actor) -> Key:
        for key in _keys(self._db):
            if name_or_id in {key.id, f"key:{key.id}", key.name} and key.revoked_at_utc is None:
                self._db.execute("update access_key set revoked_at_utc = ? where id = ?", (now_utc, key.id))
                self._changed(now_utc, actor, "keys revoke", f"key:{key.id}", key.name)
                return key
        raise ValidationFailed(f"no key in use has the name or id {name_or_id[:80]!r}; `twincast keys list` shows them")

    def _clear(self, now_utc: str, actor: Actor) -> int:
        count = len(_keys(self._db))
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
        return _changing(self._db)

    def _changed(self, now_utc: str, actor: Actor, action: str, target: str, detail: str) -> None:
        _note(self._db, AuditRecord(now_utc, *actor, action, target, detail))


@contextmanager
def _changing(db: apsw.Connection) -> Iterator[None]:
    with unavailable_if_failing():
        db.execute("begin immediate")
        try:
            yield
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise


def _note(db: apsw.Connection, record: AuditRecord) -> None:
    """Note a change of the keys: in the audit trail, and for the server that looks whether there was one."""
    db.execute("update meta set value = value + 1 where name = 'keyring_version'")
    db.execute(
        "insert into audit (at_utc, who, address, action, target, detail) values (?, ?, ?, ?, ?, ?)",
        (record.at_utc, record.who, record.address, record.action, record.target, record.detail),
    )


def _refuse_name_in_use(db: apsw.Connection, name: str) -> None:
    if any(other.name == name and other.revoked_at_utc is None for other in _keys(db)):
        raise ValidationFailed(f"there is a key named {name!r} already; `twincast keys revoke` ends it")


def _insert(db: apsw.Connection, key: Key) -> None:
    values = (key.id, key.name, key.digest, encode(key.grants).decode())
    more = (key.created_at_utc, key.rate_per_s, key.expires_s)
    db.execute("insert into access_key values (?, ?, ?, ?, ?, ?, ?, null)", (*values, *more))


def _connect(path: str, *, is_served: bool, table: str) -> apsw.Connection:
    """Connect to a file that has a table, once it does."""
    if is_served:
        db = _prepared(lambda: apsw.Connection(path))
        if _has(db, table):
            return db
        db.close(True)
        raise JournalUnusable(f"the server that runs on {path} is of an older version, without this; start it again")
    if not _is_prepared(path, table):
        SqliteFile(path).close()
    return _prepared(lambda: open_with_its_wal(path))


def _prepared(connect: Callable[[], apsw.Connection]) -> apsw.Connection:
    with unavailable_if_failing():
        db = connect()
        try:
            db.set_busy_timeout(3 * BUSY_TIMEOUT_MS)
            db.pragma("synchronous", "full")
            db.wal_autocheckpoint(0)  # a server that runs does that
            _version(db)  # the first read makes a -shm, for which there may be no room
            if db.readonly("main"):
                raise JournalUnusable(f"the journal {db.filename} is read-only")
        except BaseException:
            db.close(True)
            raise
    return db


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
    """Refuse what a server that runs on this path, or one that was killed, would not know as its own."""
    if serves_the_name(path):
        raise JournalUnusable(
            f"a server runs that was started on {path}, but its file is no longer there, or is another one. End that"
            " server, see to the journal, and start it again"
        )
    refuse_lonely_wal(path)


def _is_there(path: str) -> bool:
    """Whether a journal's path leads to a file.

    Raises:
        JournalUnusable: it leads to something else, or nowhere that may be looked at.
    """
    try:
        if S_ISDIR(os.stat(path).st_mode):
            raise JournalUnusable(f"the journal {path} is a directory; it takes a file, such as one in it")
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


def _version(db: apsw.Connection) -> int:
    version = db.execute("select cast(value as integer) from meta where name = 'keyring_version'").get
    if version is None:
        raise JournalUnavailable("the journal has lost its keyring_version, which another program must have deleted")
    return int(version)


def _audit(db: apsw.Connection, limit: int, before: int) -> list[tuple[int, AuditRecord]]:
    with unavailable_if_failing():
        return [(number, AuditRecord(*row)) for number, *row in db.execute(_AUDIT, (before, limit))]


def _keys(db: apsw.Connection) -> list[Key]:
    return [_key(row) for row in db.execute(_KEYS + " order by name, created_at_utc")]


def _key(row: tuple[Any, ...]) -> Key:
    key_id, name, digest, grants, *rest = row
    return Key(key_id, name, digest, _decode_grants(grants), *rest)


def _said(grants: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{action} {' '.join(patterns)}" for action, patterns in sorted(grants.items()))
