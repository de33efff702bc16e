"""What the calls that write share: entries are checked, submitted, and answered once they are durable."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar, cast

from msgspec import UNSET, Struct

from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, digest_of, key_of_request
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Erased, Late
from twincast.core.rights import Principal
from twincast.errors import TooLarge, Truncated, TwincastError
from twincast.transports.answer import Answer
from twincast.transports.documents.parameters import IDEMPOTENCY_KEY
from twincast.transports.operation import Call
from twincast.transports.parts import Parts
from twincast.wire.checks import check_value_sizes
from twincast.wire.messages import encode
from twincast.wire.requests import may_claim

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
        """Store an entry that stays as it is.

        Returns:
            The entry as it is in the log, and whether it was stored before, under the same key.

        Raises:
            TwincastError: it is not stored.
        """
        if not call.caller.principal.is_unbounded:
            require_all(call.caller.principal, [entry])
        seq, replayed = await self.store([entry], call)
        return (cast("OneEntry", await self._stored_before(seq)) if replayed else entry), replayed

    async def store_reading(self, reading: DataUpdate, call: Call) -> tuple[DataUpdate | Late, bool]:
        """Store a reading, which may turn out to be late. Returns and raises what `store_one` does."""
        if not call.caller.principal.is_unbounded:
            require_all(call.caller.principal, [reading])
        seq, replayed = await self.store([reading], call)
        if replayed:
            return cast("DataUpdate | Late", await self._stored_before(seq)), True
        if reading.measured_at_utc is UNSET:
            return reading, False
        return cast("DataUpdate | Late", await self._stored_now(seq)), False

    async def store(self, entries: Sequence[Entry], call: Call) -> tuple[int, bool]:
        """Store entries whose rights are checked; all or none.

        Returns:
            The seq of the last one, and whether they were stored before, under the same key.

        Raises:
            TwincastError: they are not stored.
        """
        hub, admission = self._parts.hub, self._parts.admission
        principal = call.caller.principal
        body_max_bytes = self._parts.stored_body_max_bytes
        if body_max_bytes is not None and len(call.body) > body_max_bytes:
            raise TooLarge(
                f"a body here must be at most {body_max_bytes} bytes, for it is stored whole, and NATS takes no larger"
                " messages; send it in parts"
            )
        if len(call.body) > hub.sizes.value_max_bytes:
            check_value_sizes(entries, hub.sizes.value_max_bytes)
        if principal.rate is not None:
            admission.limits.spend(principal, len(entries))
        if not hub.intake.has_room:
            await hub.intake.room()
        admission.recheck(principal)  # the body may have taken half a minute to come in
        stored: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        idempotency_key = None
        if call.key is not None:
            key = key_of_request(call.key, principal.identity)
            idempotency_key = IdempotencyKey(key, digest_of(entries), partial(_settle_again, stored))
        first, done = entries[0], partial(_settle, stored)
        actor = None if first.audited_as is None else call.caller.actor
        if len(entries) == 1:  # the shorter way
            hub.submit(first, len(call.body), done, idempotency_key, actor, identity=principal.identity)
        else:
            hub.submit_all(
                *(entries, len(call.body), done, idempotency_key, actor),
                identity=principal.identity,
                are_plain=not may_claim(call.body),
            )
        return await stored

    async def _stored_before(self, seq: int) -> Entry:
        with suppress(Truncated):
            entry = await self._parts.hub.read_one(seq)
            if not isinstance(entry, Erased):
                return entry
        raise Truncated(
            f"this was stored before, under the same key, as entry {seq}; it is not stored again, and what was"
            " answered then is no longer kept"
        )

    async def _stored_now(self, seq: int) -> Entry:
        try:
            return await self._parts.hub.read_one(seq)
        except Truncated:
            raise Truncated(f"this was stored as entry {seq}, and is no longer kept") from None


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
