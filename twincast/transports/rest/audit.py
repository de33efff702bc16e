"""REST: the audit trail."""

import asyncio
from typing import Annotated

from msgspec import Meta, Struct

from twincast.core.audit import OF_DEVICES, AuditRecord
from twincast.core.model import Epoch
from twincast.core.rights import Principal
from twincast.transports.answer import Answer
from twincast.transports.documents.parameters import parameter, whole_number_schema
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import encode
from twincast.wire.query import decode_query, whole_number

RECORDS_MAX, RECORDS_DEFAULT = 1_000, 100
BLOCK_RECORDS, LOOK_MAX_RECORDS = 1_000, 20_000
"""How many records are read at once, for others wait for the same thread; and how many for one request."""


class Audit(Struct):
    """Commands, deletions and changes of the keys, newest first."""

    epoch: Annotated[Epoch, Meta(description="of the records' seqs")]
    records: list[AuditRecord]


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the call for the audit trail."""
    limit = parameter("limit", whole_number_schema(RECORDS_MAX, default=RECORDS_DEFAULT), "how many records")
    details = f"The newest {LOOK_MAX_RECORDS:,} records are searched for them."
    return (Operation("GET", "/api/audit", _Trail(parts).audit, (Audit,), parameters=(limit,), details=details),)


class _Trail:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def audit(self, call: Call) -> Answer:
        """Return who commanded or deleted what, and who changed the keys, newest first.

        Needs the right `admin`, and shows what was done to the devices of that right; the changes of the keys only if
        it is for all devices.
        """
        principal = call.caller.principal
        principal.require_at_all("admin")
        given = decode_query(call.query, {"limit"})
        limit = whole_number(given.get("limit", [str(RECORDS_DEFAULT)])[-1], "`limit`", RECORDS_MAX)
        records = await self._visible(principal, limit)
        self._parts.admission.recheck(principal)  # a disk may take its time
        return Answer(encode(Audit(self._parts.hub.state.epoch, records)))

    async def _visible(self, principal: Principal, limit: int) -> list[AuditRecord]:
        found: list[AuditRecord] = []
        before = None
        for _ in range(0, LOOK_MAX_RECORDS, BLOCK_RECORDS):
            block = await self._parts.access.audit(BLOCK_RECORDS, before)
            found.extend(record for _, record in block if _may_see(principal, record))
            if len(found) >= limit or len(block) < BLOCK_RECORDS:
                break
            before = block[-1][0]
            await asyncio.sleep(0)  # a journal in memory does not wait, and others must have their turn
        return found[:limit]


def _may_see(principal: Principal, record: AuditRecord) -> bool:
    if record.action in OF_DEVICES:
        return principal.may("admin", record.target)
    return principal.may_everywhere("admin")
