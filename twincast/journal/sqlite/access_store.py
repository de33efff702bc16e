"""The keys and the audit trail of an SQLite journal, for the server that has the journal open."""

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import apsw
import msgspec

from twincast.core.audit import AuditRecord
from twincast.core.keys import Key, Keyring, Pairing
from twincast.errors import JournalUnavailable
from twincast.journal.key_rules import refuse_name_in_use, said_of
from twincast.journal.sqlite import pairing as sqlite_pairing
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.key_tables import (
    AFTER_ALL,
    changing,
    insert,
    keyring_version,
    note,
    prepared,
    read_audit,
    read_keys,
)
from twincast.journal.sqlite.reserve import Reserve
from twincast.journal.sqlite.worker import Worker

logger = logging.getLogger("twincast.journal")


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
            version = keyring_version(self._db)
            if version == unless_version:
                return None
            try:
                return Keyring(version, read_keys(self._db))
            except (msgspec.MsgspecError, ValueError, TypeError):
                raise JournalUnavailable("the keys in the journal were not written by twincast") from None

    def audit(self, limit: int, before: int | None = None) -> list[tuple[int, AuditRecord]]:
        """See AccessStore.audit."""
        return read_audit(self._db, limit, AFTER_ALL if before is None else before)

    def check_code(self, digest: str, now_s: float, *, life_s: int) -> None:
        """Raise what `use_code` would of a code that is not good, without waiting for those who write."""
        with unavailable_if_failing():
            sqlite_pairing.find(self._db, digest, now_s, life_s=life_s)

    def close(self) -> None:
        """Close the file. Raises JournalUnavailable if the disk fails meanwhile."""
        with unavailable_if_failing():
            self._db.close(True)


def use_code(path: str, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int) -> Key:
    """See AccessStore.pair. The connection that writes is open only meanwhile: seconds on a slow disk."""
    db = prepared(lambda: apsw.Connection(path))
    try:
        with changing(db):
            Reserve(path).fill()
            key, who = sqlite_pairing.take(db, digest, now_s, make, life_s=life_s)
            refuse_name_in_use(read_keys(db), key.name)
            insert(db, key)
            identity, said = f"key:{key.id}", f"{key.name} {said_of(key.grants)}, by a code of {who}"
            note(db, [AuditRecord(key.created_at_utc, identity, address, "paired", identity, said)])
        return key
    finally:
        db.close(True)
