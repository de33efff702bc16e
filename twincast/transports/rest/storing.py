"""What the calls that write share: entries are checked, submitted, and answered once they are durable."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TypeVar, cast

from msgspec import Struct

from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, digest_of, key_of_request
from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.core.rights import Principal
from twincast.errors import Truncated, TwincastError
from twincast.transports.answer import Answer
from twincast.transports.documents.parameters import IDEMPOTENCY_KEY
from twincast.transports.operation import Call
from twincast.transports.parts import Parts
from twincast.wire.checks import check_value_sizes
from twincast.wire.messages import encode

PARAMETERS = (IDEMPOTENCY_KEY,)
OneEntry = TypeVar("OneEntry", DataUpdate, Control, Deleted)
_REPLAYED = ((b"idempotency-replayed", b"true"),)


def answered(answer: Struct, *, replayed: bool) -> Answer:
    """Return the answer to a call that has written; `replayed` if that was done before, under the same key."""
    return Answer(encode(answer), _REPLAYED if replayed else ())


class Storing:
    """Stores the entries of calls."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def store_one(self, entry: OneEntry, call: Call) -> tuple[OneEntry, bool]:
        """Store an entry.

        Returns:
            The entry as it is in the log, and whether it was stored before, under the same key.

        Raises:
            TwincastError: it is not stored.
        """
        require_all(call.caller.principal, [entry])
        seq, replayed = await self.store([entry], call)
        return (cast("OneEntry", await self._stored_before(seq)) if replayed else entry), replayed

    async def store(self, entries: Sequence[Entry], call: Call) -> tuple[int, bool]:
        """Store entries whose rights are checked; all or none.

        Returns:
            The seq of the last one, and whether they were stored before, under the same key.

        Raises:
            TwincastError: they are not stored.
        """
        hub, admission = self._parts.hub, self._parts.admission
        principal = call.caller.principal
        if len(call.body) > hub.sizes.value_max_bytes:
            check_value_sizes(entries, hub.sizes.value_max_bytes)
        admission.limits.spend(principal, len(entries))
        await hub.intake.room()
        admission.recheck(principal)  # the body may have taken half a minute to come in
        stored: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        idempotency_key = None
        if call.key is not None:
            key = key_of_request(call.key, principal.identity)
            idempotency_key = IdempotencyKey(key, digest_of(entries), partial(_settle_again, stored))
        actor = None if entries[0].audited_as is None else call.caller.actor
        hub.submit_all(
            entries, len(call.body), partial(_settle, stored), idempotency_key, actor, identity=principal.identity
        )
        return await stored

    async def _stored_before(self, seq: int) -> Entry:
        try:
            (entry,) = await self._parts.hub.read(seq - 1, 1)
        except Truncated:
            raise Truncated(
                f"this was stored before, under the same key, as entry {seq}; it is not stored again, and what was"
                " answered then is no longer kept"
            ) from None
        return entry


def require_all(principal: Principal, entries: Sequence[Entry]) -> None:
    """Do nothing if a principal may send entries.

    Raises:
        NotPermitted: it has no right to one of them.
    """
    if not principal.is_unbounded:
        for entry in entries:
            principal.require(entry.right, entry.subject)


def _settle(stored: asyncio.Future[tuple[int, bool]], error: TwincastError | None, last_seq: int) -> None:
    if stored.done():  # the client left, and its request was cancelled
        return
    if error is None:
        stored.set_result((last_seq, False))
    else:
        stored.set_exception(error)


def _settle_again(stored: asyncio.Future[tuple[int, bool]], record: IdempotencyRecord) -> None:
    if not stored.done():
        stored.set_result((record.last_seq, True))
