"""The keys of a shared log, for the commands that change them: no server need run. See AccessFile, whose verbs it has.

A change is in force on every server as soon as that has read it in the log.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from twincast.core.audit import Actor, AuditRecord
from twincast.core.keys import Key, Pairing
from twincast.journal.jetstream import key_verbs
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.key_changes import KeyChange, KeyTable
from twincast.journal.jetstream.key_log import KeyLog, no_log
from twincast.journal.jetstream.link import ApiError, Link
from twincast.journal.jetstream.stream import NOT_FOUND, open_stream, stream_facts

T = TypeVar("T")


class AccessLog:
    """The keys of a shared log, to be changed. Use as a context, where no event loop runs."""

    def __init__(self, address: NatsAddress, *, make: bool = False) -> None:
        """Connect.

        Args:
            address: the log.
            make: make its stream if there is none. Otherwise a mistyped name leaves nothing behind.

        Raises:
            JournalUnusable: there is none, or it is not twincast's; the message says why.
            JournalUnavailable: NATS does not answer.
        """
        self.is_new = False
        """Whether this made the log."""
        self._runner = asyncio.Runner()
        try:
            self._link, self._log = self._run(self._open(address, make=make))
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._run(self._link.close())
        finally:
            self._runner.close()

    @property
    def version(self) -> int:
        """Of the keys as they were read or changed last; see Keyring."""
        return self._log.table.version

    def keys(self) -> Sequence[Key]:
        """Return all keys that were ever added, by name."""
        self._run(self._log.read())
        return self._log.table.keyring().keys

    def add(self, key: Key, actor: Actor) -> None:
        """Add a key, and note who did.

        Raises:
            ValidationFailed: a key of that name is in use.
            JournalUnavailable: NATS does not take it, as all that changes something here.
        """
        self._change(lambda table: key_verbs.adding(table, key, actor))

    def pair(self, pairing: Pairing, now_utc: str, actor: Actor, *, life_s: int, waiting_max: int) -> None:
        """Add a pairing code, and note who did. The time is the stream's.

        Raises:
            ValidationFailed: a key of that name is in use, or too many codes wait.
        """
        self._change(
            lambda table: key_verbs.pairing(table, pairing, actor, life_s=life_s, waiting_max=waiting_max),
        )

    def revoke(self, name_or_id: str, now_utc: str, actor: Actor) -> Key:
        """End a key, and note who did. The time is the stream's.

        Raises:
            ValidationFailed: no key that is in use has that name or id.
        """
        change = self._change(lambda table: key_verbs.revoking(table, name_or_id, actor))
        key = self._log.table.key(change.revoke or "")
        assert key is not None  # it was there, and only `clear` takes one away
        return key

    def clear(self, now_utc: str, actor: Actor) -> int:
        """Forget all keys, and note who did. The time is the stream's. Returns how many."""
        counts: list[int] = []

        def clearing(table: KeyTable) -> KeyChange:
            counts.append(len(table.keyring().keys))
            return key_verbs.clearing(table, actor)

        self._change(clearing)
        return counts[-1]

    def audit(self, limit: int) -> list[AuditRecord]:
        """Return the newest changes of the keys, newest first. Commands are not here: a copy of the log has them."""
        self._run(self._log.read())
        return self._log.records[: -limit - 1 : -1]

    def _change(self, make: Callable[[KeyTable], KeyChange]) -> KeyChange:
        made: list[KeyChange] = []

        def noted(table: KeyTable) -> KeyChange:
            made.append(make(table))
            return made[-1]

        self._run(self._log.change(noted))
        return made[-1]

    async def _open(self, address: NatsAddress, *, make: bool) -> tuple[Link, KeyLog]:
        link = await Link.connect(address, purpose="twincast keys")
        try:
            try:
                await stream_facts(link, address)
            except ApiError as error:
                if error.number != NOT_FOUND:
                    raise
                if not make:
                    raise no_log(address) from None
                await open_stream(link, address)
                self.is_new = True
        except BaseException:
            await link.close()
            raise
        return link, KeyLog(link, address)

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(what)


def has_keys(address: NatsAddress) -> bool:
    """Whether a shared log holds a key, or ever did; one that there is not holds none. Where no event loop runs.

    Raises:
        JournalUnusable: it cannot be read.
        JournalUnavailable: NATS does not answer.
    """
    return asyncio.run(_has_keys(address))


async def _has_keys(address: NatsAddress) -> bool:
    link = await Link.connect(address, purpose="twincast")
    try:
        try:
            await stream_facts(link, address)
        except ApiError as error:
            if error.number == NOT_FOUND:
                return False
            raise
        log = KeyLog(link, address)
        await log.read()
        return bool(log.table.keyring().keys)
    finally:
        await link.close()
