"""The keys and the audit trail of a shared log, for a server on it.

The keys are those of the fold, which every message passes in its place: a revocation is in force before anything that
came after it. The audit trail is in the server's copy.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, Self

from twincast.core.audit import AuditRecord
from twincast.core.keys import Key, Keyring, Pairing
from twincast.errors import JournalUnavailable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.key_changes import KeyTable
from twincast.journal.jetstream.key_log import CHANGE_S, store_change
from twincast.journal.jetstream.key_verbs import using
from twincast.journal.jetstream.link import Link
from twincast.journal.sqlite.access_store import AccessReader
from twincast.journal.sqlite.worker import Worker

logger = logging.getLogger("twincast.journal")


class FoldedKeys(Protocol):
    """What the store takes of the journal that folds the log."""

    @property
    def link(self) -> Link:
        """The connection."""

    @property
    def address(self) -> NatsAddress:
        """The log."""

    @property
    def key_table(self) -> KeyTable:
        """The keys as of the newest message."""

    @property
    def server_name(self) -> str:
        """What this server is called in the audit trail."""

    async def when_keys_change(self, version: int) -> None:
        """Wait until the table's version is another one."""

    async def when_stored(self) -> None:
        """Wait until the copy has what was folded by now."""


class SharedAccessStore:
    """See AccessStore. Lives on one event loop."""

    problem: JournalUnavailable | None = None
    """See AccessStore.problem. While NATS is away the keys are those of what is served: as old, and not older."""

    def __init__(self, folded: FoldedKeys, reader: AccessReader, worker: Worker) -> None:
        self._folded, self._reader, self._worker = folded, reader, worker

    @classmethod
    async def open(cls, folded: FoldedKeys) -> Self:
        """Open beside a journal that is open, and must stay so for as long as this is.

        Raises:
            JournalUnavailable: the disk does not return the copy.
        """
        worker = Worker("journal keys")
        try:
            return cls(folded, await worker.do(AccessReader, folded.address.copy), worker)
        except BaseException:
            worker.abandon()
            raise

    async def keyring(self, unless_version: int = -1) -> Keyring | None:
        """See AccessStore.keyring."""
        table = self._folded.key_table
        return None if table.version == unless_version else table.keyring()

    async def audit(self, limit: int, before: int | None = None) -> Sequence[tuple[int, AuditRecord]]:
        """See AccessStore.audit."""
        await self._folded.when_stored()
        return await self._worker.do(self._reader.audit, limit, before)

    async def pair(
        self, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int
    ) -> Key:
        """See AccessStore.pair. Returns once this server knows the key; others know it when they have read as far.

        Raises also:
            JournalUnavailable: it is not known whether the key was stored; the message says so.
        """
        loop, folded = asyncio.get_running_loop(), self._folded
        until_s, made = loop.time() + CHANGE_S, list[Key]()

        def make_once(pairing: Pairing) -> Key:
            if not made:
                made.append(make(pairing))
            return made[0]

        while True:
            table = folded.key_table
            change = using(table, digest, now_s, make_once, address, life_s=life_s, server=folded.server_name)
            after = table.version
            await store_change(folded.link, folded.address, change.encoded(), after, until_s)
            await self._moved(after, until_s)
            key = folded.key_table.key(made[0].id)
            if key is not None:
                return key

    async def close(self) -> None:
        """See AccessStore.close."""
        try:
            await self._worker.close(self._reader.close)
        except JournalUnavailable as error:
            logger.warning("the keys were closed on a failing disk: %s", error)

    async def _moved(self, version: int, until_s: float) -> None:
        try:
            async with asyncio.timeout_at(until_s):
                await self._folded.when_keys_change(version)
        except TimeoutError:
            raise JournalUnavailable(
                "the log does not come back from NATS; whether the key was stored is not known: revoke it, if"
                " `twincast keys list` shows it"
            ) from None
