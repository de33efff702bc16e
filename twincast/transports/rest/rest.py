"""REST: how the server is, the newest state, readings and commands, tickets and the audit trail."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from twincast.access.tickets import TICKET_S
from twincast.core.audit import OF_DEVICES, AuditRecord
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, digest_of, key_of_request
from twincast.core.model import Entry, Position
from twincast.core.names import check_id
from twincast.core.rights import Principal
from twincast.core.subscription import Subscription
from twincast.delivery.feed import BYTES_A_STEP
from twincast.errors import NotFound, NotYet, Truncated, TwincastError, UnknownEpoch, UnsupportedMedia, ValidationFailed
from twincast.hub.hub import EVERYTHING
from twincast.transports.documents import shapes
from twincast.transports.operation import JSON, NDJSON, Answer, Call, Operation, paid, pieces
from twincast.transports.parts import Parts
from twincast.wire import requests
from twincast.wire.checks import check_value_sizes
from twincast.wire.messages import encode
from twincast.wire.query import decode_query, rules_of_query, whole_number

REACH_S = 5.0
"""How long a read waits for the position that it asks for."""
AUDIT_MAX, AUDIT_DEFAULT = 1_000, 100
AUDIT_BLOCK, AUDIT_LOOK_MAX = 1_000, 20_000
"""How many records are read at once, for others wait for the same thread; and how many for one request."""
REPLAYED = ((b"idempotency-replayed", b"true"),)


class Rest:
    """The operations on a hub, which opens after the routes exist and so is asked for at each call."""

    def __init__(self, parts: Parts, *, version: str, journal: str) -> None:
        """Make the operations; `version` and `journal` are for the status."""
        self._parts = parts
        self._admission = parts.admission
        self._version = version
        self._journal = journal
        body_max_bytes = parts.request_limits.body_max_bytes
        self.operations = (
            Operation("GET", "/api/status", self.status, (shapes.Status,)),
            Operation("GET", "/api/data", self.data, (shapes.Data,), parameters=shapes.DATA_PARAMETERS),
            Operation(
                "GET",
                "/api/data/{device_id}",
                self.device,
                (shapes.Device,),
                parameters=(shapes.DEVICE_IN_PATH, *shapes.DEVICE_PARAMETERS),
            ),
            Operation(
                "DELETE",
                "/api/data",
                self.delete_data,
                (shapes.Deletion,),
                parameters=(shapes.DEVICE_IN_QUERY, *shapes.WRITE_PARAMETERS),
            ),
            Operation(
                "DELETE",
                "/api/data/{device_id}",
                self.delete_device,
                (shapes.Deletion,),
                parameters=(shapes.DEVICE_IN_PATH, *shapes.WRITE_PARAMETERS),
            ),
            Operation(
                "POST",
                "/api/data",
                self.post_data,
                (shapes.Stored, shapes.StoredBatch),
                {JSON: shapes.READINGS, NDJSON: shapes.READING_LINES},
                shapes.WRITE_PARAMETERS,
                body_max_bytes,
                links=shapes.READ_BACK,
            ),
            Operation(
                "POST",
                "/api/control",
                self.post_control,
                (shapes.Dispatched,),
                {JSON: shapes.ORDER},
                shapes.WRITE_PARAMETERS,
                body_max_bytes,
            ),
            Operation(
                "POST",
                "/api/tickets",
                self.post_ticket,
                (shapes.Ticket,),
                {JSON: shapes.NOTHING},
                links=shapes.USE_TICKET,
            ),
            Operation("GET", "/api/audit", self.audit, (shapes.Audit,), parameters=shapes.AUDIT_PARAMETERS),
        )

    async def status(self, call: Call) -> Answer:
        """Say how the server is, and what you may do."""
        hub = self._parts.hub
        principal = call.caller.principal
        devices = await hub.count(EVERYTHING.inside(principal.readable), self._admission.limits.budget(call.caller))
        self._admission.recheck(principal)
        problem = self._parts.problem
        status: dict[str, Any] = {
            "ok": problem is None,
            "devices_known": devices,
            "websocket_clients_connected": len(self._parts.sessions),
            "timestamp_utc": hub.now_utc(),
            "epoch": hub.state.epoch,
            "seq": hub.state.seq,
            "uptime_s": round(hub.uptime_s, 3),
            "version": self._version,
            "edge": self._parts.edge.name,
            "identity": principal.id,
            "rights": principal.rights.described(),
        }
        if principal.may_at_all("admin"):
            status["journal"] = self._journal
            status["space"] = hub.space()
        if problem is not None:
            status["problem"] = problem.message
        return Answer(encode(status))

    async def data(self, call: Call) -> Answer:
        """Return the newest state of every device, or of those that are asked for."""
        hub = self._parts.hub
        principal = call.caller.principal
        principal.require_at_all("read")
        budget = self._admission.limits.begin_reading(call.caller)
        subscription = EVERYTHING.inside(principal.readable)
        if call.query:
            await hub.make_way(len(call.query), budget)
            given = decode_query(call.query, {"devices", "min_seq"})
            subscription = Subscription(rules_of_query(given)).inside(principal.readable)
            await self._reach(given)
        names = await hub.select(subscription, budget)
        self._admission.recheck(principal)  # its turn may have been long in coming
        epoch, seq = hub.state.epoch, hub.state.seq
        head = b'{"timestamp_utc":"%b","epoch":"%b","seq":%d,"data":' % (hub.now_utc().encode(), epoch.encode(), seq)
        texts = hub.snapshots.texts(subscription, names)
        return pieces(head, paid(texts, budget, is_compressed=call.takes_gzip), b"}")

    async def device(self, call: Call) -> Answer:
        """Return the newest state of one device.

        The name is one segment of the path, percent-encoded: a `/` in it is written `%2F`. The answer's `ETag` is the
        position of the reading; whoever sends it back as `If-None-Match` is told 304 as long as there is no newer one.
        """
        hub = self._parts.hub
        principal = call.caller.principal
        principal.require_at_all("read")
        budget = self._admission.limits.begin_reading(call.caller)
        await self._reach(decode_query(call.query, {"min_seq"}))
        self._admission.recheck(principal)
        check_id(call.name, "`device_id`")
        newest = hub.state.newest(call.name)
        if newest is None or not principal.may("read", call.name):
            raise NotFound(f"there is no device {call.name!r}")
        budget.spend(len(newest.value) // BYTES_A_STEP)
        text = b'{"device_id":%b,"value":%b,"updated_at_utc":"%b","source":"%b","seq":%d,"epoch":"%b"}'
        return Answer(
            text
            % (
                encode(newest.device_id),
                newest.value,
                newest.timestamp_utc.encode(),
                newest.source.encode(),
                newest.seq,
                newest.epoch.encode(),
            ),
            tag=f"{newest.epoch}:{newest.seq}",
        )

    async def post_data(self, call: Call) -> Answer:
        """Store one reading, or many.

        A single reading is answered with its event. An array, or NDJSON, of up to 10,000 readings is stored all or
        nothing. The answer comes once it is on disk.
        """
        content_type, body = call.content_type, call.body
        if content_type == NDJSON:
            entries = requests.decode_reading_lines(body, "rest", self._parts.request_limits.updates_max)
        elif content_type != JSON:
            raise UnsupportedMedia(f"expected Content-Type {JSON} or {NDJSON}, not {content_type or 'none'}")
        elif body.lstrip()[:1] == b"[":
            entries = requests.decode_readings(body, "rest", self._parts.request_limits.updates_max)
        else:
            return await self._store_one(requests.decode_reading(body, "rest"), call, b"stored")
        _require_publish(call.caller.principal, entries)
        last_seq, replayed = await self._store(entries, call)
        epoch, count = self._parts.hub.state.epoch, len(entries)
        text = b'{"ok":true,"stored":%d,"epoch":"%b","seq":%d,"first_seq":%d,"last_seq":%d}'
        return Answer(
            text % (count, epoch.encode(), last_seq, last_seq - count + 1, last_seq), REPLAYED if replayed else ()
        )

    async def delete_device(self, call: Call) -> Answer:
        """Delete a device.

        Its newest state goes, and everyone who watches is told. What it said before stays in the log, and a later
        reading makes it anew. The name is one segment of the path, percent-encoded: a `/` in it is written `%2F`.
        """
        if call.query:
            raise ValidationFailed("the device stands in the path; this address takes no parameters")
        return await self._store_one(requests.draft_deletion(call.name, "rest"), call, b"deleted")

    async def delete_data(self, call: Call) -> Answer:
        """Delete the one device that the query names.

        The same as `DELETE /api/data/{device_id}`, for names that browsers and proxies change in a path, as `..` is.
        """
        names = decode_query(call.query, {"device_id"}).get("device_id", [])
        if len(names) != 1:
            raise ValidationFailed(f"`device_id` names the one device that is deleted; this address has {len(names)}")
        return await self._store_one(requests.draft_deletion(names[0], "rest"), call, b"deleted")

    async def post_control(self, call: Call) -> Answer:
        """Dispatch a command to everyone who watches.

        The answer comes once the command is on disk and on its way.
        """
        if call.content_type != JSON:
            raise UnsupportedMedia(f"expected Content-Type {JSON}, not {call.content_type or 'none'}")
        return await self._store_one(requests.decode_command(call.body, "rest"), call, b"dispatched")

    async def post_ticket(self, call: Call) -> Answer:
        """Give a ticket for an event stream.

        A browser's EventSource can send no credential. `/api/events?ticket=…` opens one stream, once, within 30
        seconds, with the rights of whoever asked for the ticket; and the same one again within 60 seconds of its end.
        """
        if call.content_type != JSON:  # a page elsewhere can not send this without asking first
            raise UnsupportedMedia(f"expected Content-Type {JSON}, not {call.content_type or 'none'}")
        call.caller.principal.require_at_all("read")
        ticket = self._admission.issue_ticket(call.caller)
        return Answer(encode({"ticket": ticket, "expires_in_s": TICKET_S}))

    async def audit(self, call: Call) -> Answer:
        """Return who commanded or deleted what, and who changed the keys, newest first.

        Takes the right `admin`, and shows what was done to its devices among the newest 20,000 records; the changes of
        the keys only if it is for all devices.
        """
        principal = call.caller.principal
        principal.require_at_all("admin")
        given = decode_query(call.query, {"limit"})
        limit = whole_number(given.get("limit", [str(AUDIT_DEFAULT)])[-1], "`limit`", AUDIT_MAX)
        records = await self._audited(principal, limit)
        return Answer(encode({"epoch": self._parts.hub.state.epoch, "records": records}))

    async def _audited(self, principal: Principal, limit: int) -> list[AuditRecord]:
        found: list[AuditRecord] = []
        before = None
        for _ in range(0, AUDIT_LOOK_MAX, AUDIT_BLOCK):
            block = await self._parts.access.audit(AUDIT_BLOCK, before)
            found.extend(record for _, record in block if _may_see(principal, record))
            if len(found) >= limit or len(block) < AUDIT_BLOCK:
                break
            before = block[-1][0]
            await asyncio.sleep(0)  # a journal in memory does not wait, and others are to have their turn
        self._admission.recheck(principal)  # a disk may take its time
        return found[:limit]

    async def _store_one(self, entry: Entry, call: Call, done: bytes) -> Answer:
        kind, name = entry.topic
        if kind == "control":
            call.caller.principal.require("command", name)
        else:
            _require_publish(call.caller.principal, [entry])
        seq, replayed = await self._store([entry], call)
        if replayed:  # the event is the one of the first time
            entry = await self._stored_before(seq)
        return Answer(b'{"ok":true,"%b":true,"event":%b}' % (done, encode(entry)), REPLAYED if replayed else ())

    async def _stored_before(self, seq: int) -> Entry:
        try:
            (entry,) = await self._parts.hub.read(seq - 1, 1)
        except Truncated:
            raise Truncated(
                f"this was stored before, under the same key, as change {seq}; it is not stored again, and what was"
                " answered then is no longer kept"
            ) from None
        return entry

    async def _store(self, entries: Sequence[Entry], call: Call) -> tuple[int, bool]:
        """Store entries; return the seq of the last one, and whether that was before this call."""
        hub = self._parts.hub
        principal = call.caller.principal
        if len(call.body) > hub.sizes.value_max_bytes:
            check_value_sizes(entries, hub.sizes.value_max_bytes)
        self._admission.limits.spend(principal, len(entries))
        await hub.intake.room()
        self._admission.recheck(principal)  # the body may have taken half a minute to come in
        stored: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        idempotency_key = None
        if call.key is not None:
            key = key_of_request(call.key, principal.identity)
            idempotency_key = IdempotencyKey(key, digest_of(entries), partial(_settle_again, stored))
        actor = None if entries[0].topic[0] == "data_update" else call.caller.actor
        hub.submit_all(
            entries, len(call.body), partial(_settle, stored), idempotency_key, actor, identity=principal.identity
        )
        return await stored

    async def _reach(self, given: dict[str, list[str]]) -> None:
        """Wait for the position that a read asks for, if it does."""
        if "min_seq" not in given:
            return
        hub, min_seq = self._parts.hub, given["min_seq"][-1]
        if ":" in min_seq:
            position = Position.parse(min_seq)
            if hub.why_not_ours(position) == "epoch":
                raise UnknownEpoch(
                    f"{min_seq[:80]!r} is of another log, or of a past that this one, {hub.state.epoch}, does not "
                    "share; read without `min_seq`, and go on from what is answered"
                )
            seq = position.seq
        else:
            seq = whole_number(min_seq, "`min_seq`", 1 << 62)
        reached = asyncio.Event()
        forget = hub.when_reached(seq, reached.set)
        try:
            async with asyncio.timeout(REACH_S):
                await reached.wait()
        except TimeoutError:
            raise NotYet(f"the log is at {hub.state.seq}, not yet at {seq}") from None
        finally:
            forget()


def _require_publish(principal: Principal, entries: Sequence[Entry]) -> None:
    if not principal.is_unbounded:
        for entry in entries:
            principal.require("publish", entry.topic[1])


def _may_see(principal: Principal, record: AuditRecord) -> bool:
    if record.action in OF_DEVICES:
        return principal.may("admin", record.target)
    return principal.may_everywhere("admin")


def _settle(stored: asyncio.Future[tuple[int, bool]], error: TwincastError | None, last_seq: int) -> None:
    if stored.done():  # the client left, and its request was cancelled
        return
    if error is None:
        stored.set_result((last_seq, False))
    else:
        stored.set_exception(error)


def _settle_again(stored: asyncio.Future[tuple[int, bool]], receipt: IdempotencyRecord) -> None:
    if not stored.done():
        stored.set_result((receipt.last_seq, True))
