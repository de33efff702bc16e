"""REST: four operations, as bare ASGI for speed and as FastAPI routes for `/docs` and for mounted apps."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from twincast.core import protocol
from twincast.core.model import Entry
from twincast.errors import BadMessage, TooLarge, TwincastError, UnsupportedMedia
from twincast.hub import Hub
from twincast.transports import schemas

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON, NDJSON, PROBLEM = "application/json", "application/x-ndjson", "application/problem+json"
RETRY_AFTER_S = 1
"""When to try again after a 503. A full disk takes longer, but one request a second costs nothing."""


@dataclass(frozen=True)
class Operation:
    """One call: where it is, what does it, and how `/docs` shows it."""

    method: str
    path: str
    run: Callable[[str, bytes], Awaitable[bytes]]
    """Takes the content type and the body, returns JSON."""
    answers: Any
    takes: dict[str, Any] = field(default_factory=dict)
    body_max_bytes: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the call as an ASGI application."""
        status, content_type = HTTPStatus.OK, JSON
        try:
            body = await self.run(*await self._read(scope, receive))
        except TwincastError as error:
            status, content_type, body = HTTPStatus(error.http_status), PROBLEM, problem(error)
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def describe(self, app: FastAPI) -> None:
        """Add the call to an application's routes and to its OpenAPI document."""
        app.add_api_route(
            self.path,
            _Respond(self),
            methods=[self.method],
            response_model=self.answers,
            summary=(self.run.__doc__ or "").partition("\n")[0].rstrip("."),
            description=(self.run.__doc__ or "").partition("\n")[2].strip(),
            operation_id=self.run.__name__,
            openapi_extra={"requestBody": {"required": True, "content": self.takes}} if self.takes else None,
            responses=_refusals(403, 413, 415, 422, 503) if self.takes else _refusals(403),
        )

    async def _read(self, scope: Scope, receive: Receive) -> tuple[str, bytes]:
        content_type = ""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            elif name == b"content-encoding" and value != b"identity":
                raise UnsupportedMedia("bodies are taken as they are, not compressed")
        parts: list[bytes] = []
        size_bytes, more = 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise BadMessage("the client left before its body was complete")
            parts.append(event.get("body", b""))
            size_bytes += len(parts[-1])
            if size_bytes > self.body_max_bytes > 0:
                raise TooLarge(f"a body takes {self.body_max_bytes} bytes; this one is larger")
            more = event.get("more_body", False)
        return content_type, parts[0] if len(parts) == 1 else b"".join(parts)


class _Respond:
    """The same operation for whoever reaches it through FastAPI, as an application mounted below a prefix does."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self.__name__ = operation.run.__name__

    async def __call__(self, request: Request) -> Response:
        return _Handed(self._operation)


class _Handed(Response):
    """A response that lets the operation answer by itself."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._operation(scope, receive, send)


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
            Operation("GET", "/api/status", self.status, schemas.Status),
            Operation("GET", "/api/data", self.data, schemas.Data),
            Operation(
                "POST",
                "/api/data",
                self.post_data,
                schemas.Stored | schemas.StoredBatch,
                {JSON: schemas.READINGS, NDJSON: schemas.READING_LINES},
                body_max_bytes,
            ),
            Operation(
                "POST", "/api/control", self.post_control, schemas.Dispatched, {JSON: schemas.ORDER}, body_max_bytes
            ),
        )

    async def status(self, _content_type: str, _body: bytes) -> bytes:
        """Say how the server is."""
        hub = self._hub()
        status: dict[str, Any] = {
            "ok": hub.failure is None,
            "devices_known": len(hub.state.twins),
            "websocket_clients_connected": hub.watchers_count,
            "timestamp_utc": hub.now_utc(),
            "epoch": hub.state.epoch,
            "seq": hub.state.seq,
            "uptime_s": round(hub.uptime_s, 3),
            **self._facts,
        }
        if hub.failure is not None:
            status["problem"] = hub.failure.message
        return protocol.encode(status)

    async def data(self, _content_type: str, _body: bytes) -> bytes:
        """Return the newest state of every device."""
        hub = self._hub()
        twins, epoch, seq = hub.snapshot_json(), hub.state.epoch, hub.state.seq
        return b'{"timestamp_utc":"%b","epoch":"%b","seq":%d,"data":%b}' % (
            hub.now_utc().encode(),
            epoch.encode(),
            seq,
            twins,
        )

    async def post_data(self, content_type: str, body: bytes) -> bytes:
        """Store one reading, or many.

        A single reading is answered with its event. An array, or NDJSON, of up to 10,000 readings is stored all or
        nothing. The answer comes once it is on disk.
        """
        if content_type == NDJSON:
            entries = protocol.decode_reading_lines(body, "rest", self._request_max_updates)
        elif content_type != JSON:
            raise UnsupportedMedia(f"expected Content-Type {JSON} or {NDJSON}, not {content_type or 'none'}")
        elif body.lstrip()[:1] == b"[":
            entries = protocol.decode_readings(body, "rest", self._request_max_updates)
        else:
            entry = protocol.decode_reading(body, "rest")
            await self._store([entry], len(body))
            return b'{"ok":true,"stored":true,"event":%b}' % protocol.encode(entry)
        last_seq = await self._store(entries, len(body))
        count = len(entries)
        return b'{"ok":true,"stored":%d,"first_seq":%d,"last_seq":%d}' % (count, last_seq - count + 1, last_seq)

    async def post_control(self, content_type: str, body: bytes) -> bytes:
        """Dispatch a command to everyone who watches.

        The answer comes once the command is on disk and on its way.
        """
        if content_type != JSON:
            raise UnsupportedMedia(f"expected Content-Type {JSON}, not {content_type or 'none'}")
        order = protocol.decode_order(body, "rest")
        await self._store([order], len(body))
        return b'{"ok":true,"dispatched":true,"event":%b}' % protocol.encode(order)

    async def _store(self, entries: Sequence[Entry], size_bytes: int) -> int:
        hub = self._hub()
        while not hub.has_room:
            settled = asyncio.Event()
            hub.when_settled(settled.set)
            await settled.wait()
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        hub.submit_all(entries, size_bytes, partial(_settle, stored))
        return await stored


def problem(error: TwincastError) -> bytes:
    """Encode an error as RFC 9457 problem details."""
    details = {
        "type": "about:blank",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
    }
    return protocol.encode(details)


def _settle(stored: asyncio.Future[int], error: TwincastError | None, last_seq: int) -> None:
    if stored.done():  # the client left, and its request was cancelled
        return
    if error is None:
        stored.set_result(last_seq)
    else:
        stored.set_exception(error)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM: {"schema": schemas.Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
