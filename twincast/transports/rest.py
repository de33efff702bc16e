"""REST: how the server is, the newest state, readings and commands."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twincast.core import protocol, wishes
from twincast.core.messages import encode
from twincast.core.model import Entry, Position
from twincast.core.retries import Receipt, Retry, digest_of, key_of_request
from twincast.core.subscription import Subscription
from twincast.errors import NotYet, TwincastError, UnsupportedMedia
from twincast.hub import EVERYTHING, Hub
from twincast.transports import schemas
from twincast.transports.operation import JSON, NDJSON, Answer, Call, Operation

REACH_S = 5.0
"""How long a read waits for the position that it asks for."""
REPLAYED = ((b"idempotency-replayed", b"true"),)


class Rest:
    """The operations on a hub, which opens after the routes exist and so is asked for at each call."""

    def __init__(
        self, hub: Callable[[], Hub], *, body_max_bytes: int, request_max_updates: int, facts: dict[str, str]
    ) -> None:
        """Make the operations; `facts` are the parts of the status that never change."""
        self._hub = hub
        self._request_max_updates = request_max_updates
        self._facts = facts
        self.operations = (
            Operation("GET", "/api/status", self.status, (schemas.Status,)),
            Operation("GET", "/api/data", self.data, (schemas.Data,), parameters=schemas.DATA_PARAMETERS),
            Operation(
                "POST",
                "/api/data",
                self.post_data,
                (schemas.Stored, schemas.StoredBatch),
                {JSON: schemas.READINGS, NDJSON: schemas.READING_LINES},
                schemas.WRITE_PARAMETERS,
                body_max_bytes,
            ),
            Operation(
                "POST",
                "/api/control",
                self.post_control,
                (schemas.Dispatched,),
                {JSON: schemas.ORDER},
                schemas.WRITE_PARAMETERS,
                body_max_bytes,
            ),
        )

    async def status(self, _call: Call) -> Answer:
        """Say how the server is."""
        hub = self._hub()
        status: dict[str, Any] = {
            "ok": hub.failure is None,
            "devices_known": len(hub.state.twins),
            "websocket_clients_connected": len(hub.websockets),
            "timestamp_utc": hub.now_utc(),
            "epoch": hub.state.epoch,
            "seq": hub.state.seq,
            "uptime_s": round(hub.uptime_s, 3),
            **self._facts,
        }
        if hub.failure is not None:
            status["problem"] = hub.failure.message
        return Answer(encode(status))

    async def data(self, call: Call) -> Answer:
        """Return the newest state of every device, or of those that are asked for."""
        hub = self._hub()
        subscription = EVERYTHING
        if call.query:
            given = wishes.decode_query(call.query, {"devices", "min_seq"})
            subscription = Subscription(wishes.rules_of_query(given))
            if "min_seq" in given:
                await self._reach(given["min_seq"][-1])
        twins, epoch, seq = hub.snapshot_json(subscription), hub.state.epoch, hub.state.seq
        text = b'{"timestamp_utc":"%b","epoch":"%b","seq":%d,"data":%b}'
        return Answer(text % (hub.now_utc().encode(), epoch.encode(), seq, twins))

    async def post_data(self, call: Call) -> Answer:
        """Store one reading, or many.

        A single reading is answered with its event. An array, or NDJSON, of up to 10,000 readings is stored all or
        nothing. The answer comes once it is on disk.
        """
        content_type, body = call.content_type, call.body
        if content_type == NDJSON:
            entries = protocol.decode_reading_lines(body, "rest", self._request_max_updates)
        elif content_type != JSON:
            raise UnsupportedMedia(f"expected Content-Type {JSON} or {NDJSON}, not {content_type or 'none'}")
        elif body.lstrip()[:1] == b"[":
            entries = protocol.decode_readings(body, "rest", self._request_max_updates)
        else:
            return await self._store_one(protocol.decode_reading(body, "rest"), call, b"stored")
        last_seq, replayed = await self._store(entries, call)
        epoch, count = self._hub().state.epoch, len(entries)
        text = b'{"ok":true,"stored":%d,"epoch":"%b","seq":%d,"first_seq":%d,"last_seq":%d}'
        return Answer(
            text % (count, epoch.encode(), last_seq, last_seq - count + 1, last_seq), REPLAYED if replayed else ()
        )

    async def post_control(self, call: Call) -> Answer:
        """Dispatch a command to everyone who watches.

        The answer comes once the command is on disk and on its way.
        """
        if call.content_type != JSON:
            raise UnsupportedMedia(f"expected Content-Type {JSON}, not {call.content_type or 'none'}")
        return await self._store_one(protocol.decode_order(call.body, "rest"), call, b"dispatched")

    async def _store_one(self, entry: Entry, call: Call, done: bytes) -> Answer:
        seq, replayed = await self._store([entry], call)
        if replayed:  # the event is the one of the first time
            (entry,) = await self._hub().read(seq - 1, 1)
        return Answer(b'{"ok":true,"%b":true,"event":%b}' % (done, encode(entry)), REPLAYED if replayed else ())

    async def _store(self, entries: Sequence[Entry], call: Call) -> tuple[int, bool]:
        """Store entries; return the seq of the last one, and whether that was before this call."""
        hub = self._hub()
        while not hub.has_room:
            settled = asyncio.Event()
            hub.when_settled(settled.set)
            await settled.wait()
        stored: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        retry = None
        if call.key is not None:
            key = key_of_request(call.key)
            retry = Retry(key, digest_of(entries), partial(_settle_again, stored))
        hub.submit_all(entries, len(call.body), partial(_settle, stored), retry)
        return await stored

    async def _reach(self, min_seq: str) -> None:
        hub = self._hub()
        if ":" in min_seq:
            position = Position.parse(min_seq)
            if position.epoch != hub.state.epoch:
                raise NotYet(f"this log is {hub.state.epoch}; {position.epoch} is another one")
            seq = position.seq
        else:
            seq = wishes.whole_number(min_seq, "`min_seq`", 1 << 62)
        reached = asyncio.Event()
        hub.when_reached(seq, reached.set)
        try:
            async with asyncio.timeout(REACH_S):
                await reached.wait()
        except TimeoutError:
            raise NotYet(f"the log is at {hub.state.seq}, not yet at {seq}") from None


def _settle(stored: asyncio.Future[tuple[int, bool]], error: TwincastError | None, last_seq: int) -> None:
    if stored.done():  # the client left, and its request was cancelled
        return
    if error is None:
        stored.set_result((last_seq, False))
    else:
        stored.set_exception(error)


def _settle_again(stored: asyncio.Future[tuple[int, bool]], receipt: Receipt) -> None:
    if not stored.done():
        stored.set_result((receipt.last_seq, True))
