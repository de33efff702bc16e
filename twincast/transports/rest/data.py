"""REST: the newest state of the devices, their readings, and deletions."""

import asyncio
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from twincast.core.model import (
    Clock,
    DataUpdate,
    Deleted,
    DeviceId,
    Epoch,
    Late,
    MeasuredAt,
    Position,
    Seq,
    Snapshot,
    Source,
    TimeUtc,
    Value,
)
from twincast.core.names import check_id
from twincast.core.pattern import PatternSet
from twincast.core.state import State
from twincast.core.subscription import EVERYTHING, Subscription, subscription_to
from twincast.delivery.feed import BYTES_A_STEP
from twincast.errors import NotFound, NotYet, UnknownEpoch, ValidationFailed
from twincast.history.answers import here, state_json
from twincast.transports.answer import JSON, NDJSON, STATE_HERE, Answer, metered, whole_if_small, with_state
from twincast.transports.documents import history, parameters, shapes
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.transports.rest import storing
from twincast.transports.rest.asking import Asking, budget_of, exactly, recheck
from twincast.transports.rest.storing import Storing, answered, require_all
from twincast.wire import requests
from twincast.wire.messages import Twins, encode
from twincast.wire.query import decode_query, rules_of_query, whole_number
from twincast.wire.requests import Reading

REACH_S = 5.0
"""How long a read waits for the position that it asks for."""
SEQ_MAX = 1 << 62


class Data(Struct):
    """The newest state of every device."""

    timestamp_utc: TimeUtc
    epoch: Epoch
    seq: Seq
    data: Twins


class Device(Struct):
    """The newest state of one device."""

    device_id: DeviceId
    value: Value
    updated_at_utc: TimeUtc
    source: Source
    seq: Seq
    epoch: Epoch
    measured_at_utc: MeasuredAt | UnsetType = UNSET
    clock: Clock | UnsetType = UNSET


class Stored(Struct):
    """The answer to one reading, once it is durable."""

    ok: bool
    stored: bool
    event: DataUpdate | Late


class StoredBatch(Struct):
    """The answer to a batch, once all of it is durable."""

    ok: bool
    stored: Annotated[int, Meta(description="how many readings")]
    epoch: Epoch
    seq: Annotated[int, Meta(description="the same as last_seq")]
    first_seq: Seq
    last_seq: Seq


class Deletion(Struct):
    """The answer to a deletion, once it is durable and sent to everyone who watches."""

    ok: bool
    deleted: bool
    event: Deleted


_READINGS: dict[str, Any] = {
    "schema": {"anyOf": [shapes.reference(Reading), {"type": "array", "items": shapes.reference(Reading)}]},
    "examples": {
        "one": {"summary": "one reading", "value": {"device_id": "lab/thermometer", "value": 21.5}},
        "many": {
            "summary": "many, all or nothing",
            "value": [{"device_id": "lab/thermometer", "value": 21.5}, {"device_id": "lab/door", "value": "open"}],
        },
    },
}
_READING_LINES: dict[str, Any] = {
    "schema": {"type": "string", "description": "one reading a line"},
    "example": '{"device_id":"lab/thermometer","value":21.5}\n{"device_id":"lab/door","value":"open"}\n',
}
_LINKS = {
    "read_back": {
        "operationId": "data",
        "parameters": {"min_seq": "$response.body#/event/seq"},
        "description": "the state that has the reading",
    },
    "read_batch_back": {
        "operationId": "data",
        "parameters": {"min_seq": "$response.body#/last_seq"},
        "description": "the state that has all of the batch",
    },
    "delete": {
        "operationId": "delete_device",
        "parameters": {"device_id": "$response.body#/event/device_id"},
        "description": "the end of the device",
    },
}
_MIN_SEQ = parameters.parameter(
    "min_seq",
    parameters.TEXT,
    f"`SEQ` or `EPOCH:SEQ`: answer from this position or a later one, within {REACH_S:g} s or not at all (503); 410 if"
    " the log does not know the epoch, or has another past",
)
_IF_NONE_MATCH = parameters.parameter(
    "If-None-Match", parameters.TEXT, "the `ETag` of what you have: 304 if it is still the newest", where="header"
)


def operations(parts: Parts) -> tuple[Operation, ...]:
    """Return the calls for the state and for readings."""
    reading, writing = _Reading(parts), _Writing(parts)
    in_path, in_query = parameters.DEVICE_IN_PATH, parameters.DEVICE_IN_QUERY
    one_path = "/api/data/{device_id}"
    return (
        Operation("GET", "/api/data", reading.data, (Data,), parameters=(parameters.DEVICES, _MIN_SEQ, history.AT)),
        Operation(
            "GET", one_path, reading.device, (Device,), parameters=(in_path, _MIN_SEQ, history.AT, _IF_NONE_MATCH)
        ),
        Operation("DELETE", "/api/data", writing.delete_data, (Deletion,), parameters=(in_query, *storing.PARAMETERS)),
        Operation("DELETE", one_path, writing.delete_device, (Deletion,), parameters=(in_path, *storing.PARAMETERS)),
        Operation(
            "POST",
            "/api/data",
            writing.post_data,
            (Stored, StoredBatch),
            {JSON: _READINGS, NDJSON: _READING_LINES},
            (Reading,),
            storing.PARAMETERS,
            parts.request_limits.body_max_bytes,
            links=_LINKS,
            details=f"A request must have at most {parts.request_limits.updates_max:,} readings.",
        ),
    )


class _Reading:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._admission = parts.admission

    async def data(self, call: Call) -> Answer:
        """Return the newest state of every device, or of those that are asked for; or the state at another time.

        With `at`, the state is the one that the log tells of that time or position, exactly: `seq` says which that was,
        and what followed comes with `since=EPOCH:SEQ`.
        """
        hub = self._parts.hub
        principal = call.caller.principal
        principal.require_at_all("read")
        budget = budget_of(call, self._parts)
        subscription = EVERYTHING.inside(principal.readable)
        if call.query:
            await hub.reads.turn(len(call.query), budget)
            given = decode_query(call.query, {"devices", "min_seq", "at"})
            subscription = subscription_to(rules_of_query(given)).inside(principal.readable)
            if "at" in given:
                return await self._data_at(call, given, subscription)
            await self._reach(given)
        names = await hub.reads.select(subscription, budget)
        recheck(call, self._parts)  # its turn may have been long in coming
        answer = Data(hub.now_utc(), hub.state.epoch, hub.state.seq, STATE_HERE)
        texts = hub.snapshots.texts(subscription, names)
        return with_state(answer, metered(texts, budget, is_compressed=call.takes_gzip))

    async def _data_at(self, call: Call, given: dict[str, list[str]], subscription: Subscription) -> Answer:
        asking = Asking(self._parts, call)
        snapshot = await self._snapshot_at(asking, given, subscription.wanted.names("data_update"))
        answer = Data(asking.hub.now_utc(), asking.hub.state.epoch, snapshot.seq, here())
        pieces = state_json(answer, snapshot)
        return Answer(whole_if_small(metered(pieces, asking.budget, is_compressed=call.takes_gzip)))

    async def _snapshot_at(self, asking: Asking, given: dict[str, list[str]], wanted: PatternSet) -> Snapshot:
        if "min_seq" in given:
            raise ValidationFailed("`at` and `min_seq` ask for two states; an address has one of them")
        names = asking.names(wanted)
        seq = await asking.position_of(given["at"][-1], names)
        snapshot = await asking.of(lambda history: history.state_at(seq, names))
        asking.recheck()
        return snapshot

    async def device(self, call: Call) -> Answer:
        """Return the newest state of one device.

        The name is one segment of the path, percent-encoded: a `/` in it is written `%2F`. The answer's `ETag` is the
        position of the reading; a client that sends it back as `If-None-Match` gets 304 as long as there is no newer
        one.
        """
        hub = self._parts.hub
        principal = call.caller.principal
        principal.require_at_all("read")
        budget = self._admission.limits.begin_reading(call.caller)
        given = decode_query(call.query, {"min_seq", "at"})
        check_id(call.name, "`device_id`")
        if "at" in given:
            return await self._device_at(call, given)
        await self._reach(given)
        self._admission.recheck(principal)
        newest = hub.state.newest(call.name)
        if newest is None or not principal.may("read", call.name):
            raise NotFound(f"there is no device {call.name!r}")
        budget.spend(len(newest.value) // BYTES_A_STEP)
        return Answer(encode(_device(newest, newest.epoch)), tag=f"{newest.epoch}:{newest.seq}")

    async def _device_at(self, call: Call, given: dict[str, list[str]]) -> Answer:
        asking = Asking(self._parts, call)
        snapshot = await self._snapshot_at(asking, given, exactly(call.name))
        newest = State(snapshot).newest(call.name)
        if newest is None:
            raise NotFound(f"there was no device {call.name!r} at position {snapshot.seq}")
        asking.budget.spend(len(newest.value) // BYTES_A_STEP)
        return Answer(encode(_device(newest, asking.hub.state.epoch)))

    async def _reach(self, given: dict[str, list[str]]) -> None:
        """Wait for the position that a read asks for, if it asks for one."""
        if "min_seq" not in given:
            return
        hub, seq = self._parts.hub, self._seq_in(given["min_seq"][-1])
        reached = asyncio.Event()
        forget = hub.when_reached(seq, reached.set)
        try:
            async with asyncio.timeout(REACH_S):
                await reached.wait()
        except TimeoutError:
            raise NotYet(f"the log is at {hub.state.seq}, not yet at {seq}") from None
        finally:
            forget()

    def _seq_in(self, min_seq: str) -> int:
        if ":" not in min_seq:
            return whole_number(min_seq, "`min_seq`", SEQ_MAX)
        hub, position = self._parts.hub, Position.parse(min_seq)
        if hub.why_not_ours(position) == "epoch":
            raise UnknownEpoch(
                f"{min_seq[:80]!r} is of another log, or of a past that this one, {hub.state.epoch}, does not "
                "share; read without `min_seq`, and go on from what is answered"
            )
        return position.seq


def _device(newest: DataUpdate, epoch: str) -> Device:
    return Device(
        *(newest.device_id, newest.value, newest.timestamp_utc, newest.source, newest.seq, epoch),
        measured_at_utc=newest.measured_at_utc,
        clock=newest.clock,
    )


class _Writing:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._storing = Storing(parts)

    async def post_data(self, call: Call) -> Answer:
        """Store one reading, or many.

        A single reading is answered with its event. An array of readings, or NDJSON, is stored all or nothing. The
        answer comes once it is on disk. A reading may say when it was measured; one that is older than what the device
        sent last is stored as `late`, and does not become its newest state.
        """
        call.require_type(JSON, NDJSON)
        body, updates_max = call.body, self._parts.request_limits.updates_max
        if call.content_type == NDJSON:
            entries = requests.decode_reading_lines(body, "rest", updates_max)
        elif body.lstrip()[:1] == b"[":
            entries = requests.decode_readings(body, "rest", updates_max)
        else:
            event, replayed = await self._storing.store_reading(requests.decode_reading(body, "rest"), call)
            return answered(Stored(ok=True, stored=True, event=event), replayed=replayed)
        require_all(call.caller.principal, entries)
        last_seq, replayed = await self._storing.store(entries, call)
        epoch, count = self._parts.hub.state.epoch, len(entries)
        answer = StoredBatch(
            ok=True, stored=count, epoch=epoch, seq=last_seq, first_seq=last_seq - count + 1, last_seq=last_seq
        )
        return answered(answer, replayed=replayed)

    async def delete_device(self, call: Call) -> Answer:
        """Delete a device.

        Its newest state goes, and everyone who watches gets the deletion. Its readings stay in the log, and a later
        reading creates it again. The name is one segment of the path, percent-encoded: a `/` in it is written `%2F`.
        """
        if call.query:
            raise ValidationFailed("the device stands in the path; this address has no parameters")
        return await self._delete(call.name, call)

    async def delete_data(self, call: Call) -> Answer:
        """Delete the one device that the query names.

        The same as `DELETE /api/data/{device_id}`, for names that browsers and proxies change in a path, as `..` is.
        """
        names = decode_query(call.query, {"device_id"}).get("device_id", [])
        if len(names) != 1:
            raise ValidationFailed(f"`device_id` names the one device that is deleted; this address has {len(names)}")
        return await self._delete(names[0], call)

    async def _delete(self, name: str, call: Call) -> Answer:
        event, replayed = await self._storing.store_one(requests.draft_deletion(name, "rest"), call)
        return answered(Deletion(ok=True, deleted=True, event=event), replayed=replayed)
