"""One REST call: as bare ASGI for speed, and as a FastAPI route for `/docs` and for mounted apps."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from itertools import chain
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from msgspec import Struct
from starlette.convertors import Convertor, register_url_convertor

from twincast.access.request import Caller, RequestFacts
from twincast.core import counters
from twincast.core.names import check_id
from twincast.delivery.feed import BYTES_A_STEP
from twincast.delivery.scheduler import Budget
from twincast.errors import (
    BadMessage,
    NotFound,
    TooLarge,
    TooSlow,
    TwincastError,
    Unavailable,
    UnsupportedMedia,
    UpgradeRequired,
)
from twincast.transports import compression
from twincast.transports.asgi import SAFE_HEADERS, Receive, Scope, Send, header, list_header, segment_below
from twincast.transports.compression import FROM_BYTES, Gzip
from twincast.transports.documents import shapes
from twincast.wire import event_stream
from twincast.wire.messages import encode

JSON, NDJSON, PROBLEM = "application/json", "application/x-ndjson", "application/problem+json"
TEXT = "text/plain"


_JSON_BYTES = JSON.encode()
_COMPRESSED = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
_IF_COMPRESSED = "+gzip"
COMPRESSED_BYTES_A_STEP = 16
"""How much of a state costs as much as a step of a search, if it is compressed: a hundred megabytes a second."""
_PLAIN = {"type": "string"}
_IS_PLAIN = re.compile(rb"[ \t,]*(identity[ \t,]*)*").fullmatch


class Call(NamedTuple):
    """What a client asks, and who it is."""

    caller: Caller
    query: str
    content_type: str
    key: str | None
    """The Idempotency-Key."""
    body: bytes
    name: str = ""
    """What stands in the path where the operation's has a name in braces."""
    known: str = ""
    """If-None-Match: the tags of what the client has."""
    takes_gzip: bool = False


class Answer(NamedTuple):
    """What it is told."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rest: Iterator[bytes] | None = None
    """What follows the body, encoded piece by piece as the client takes it; None if the body is all."""
    tag: str = ""
    """What names this very answer, so that nobody is told it twice; empty if nothing does."""
    content_type: bytes = _JSON_BYTES


@dataclass(frozen=True)
class Operation:
    """One call: where it is, what does it, and how `/docs` shows it."""

    method: str
    path: str
    run: Callable[[Call], Awaitable[Answer]]
    answers: tuple[type[Struct], ...]
    takes: dict[str, Any] = field(default_factory=dict)
    parameters: Sequence[dict[str, Any]] = ()
    body_max_bytes: int = 64 * 1024
    takes_no_credential: bool = False
    links: dict[str, Any] = field(default_factory=dict)
    """Where to go from an answer: OpenAPI link objects by name."""
    content: str = JSON
    """What the answer is."""
    stream: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None
    """Serves those who accept an event stream instead; raises only before it has sent anything."""
    identify: Callable[[Scope, RequestFacts], Caller | None] | None = None
    """Identifies a caller by other means than a credential; None, or if it returns None, the credential decides."""

    @cached_property
    def folder(self) -> str | None:
        """What stands before the name in the path; None if there is no name in it."""
        folder, brace, _ = self.path.partition("{")
        return folder if brace else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the call as an ASGI application."""
        try:
            if self.stream is not None and event_stream.is_preferred(list_header(scope, b"accept")):
                await self.stream(scope, receive, send)
                return
            call = await self._read(scope, receive)
            answer = await self.run(call)
        except TwincastError as error:
            await refuse(error, send)
            return
        await _tell(answer, call, send, is_head=scope["method"] == "HEAD")

    def describe(self, app: FastAPI) -> None:
        """Add the call to an application's routes and to its OpenAPI document."""
        path = self.path.replace("}", ":name}")
        if self.method == "GET":
            app.add_api_route(path, _Respond(self), methods=["HEAD"], include_in_schema=False)
        app.add_api_route(
            path,
            _Respond(self),
            methods=[self.method],
            response_model=None,
            summary=(self.run.__doc__ or "").partition("\n")[0].rstrip("."),
            description=(self.run.__doc__ or "").partition("\n")[2].strip(),
            operation_id=self.run.__name__,
            openapi_extra=self._extra(),
            response_class=JSONResponse if self.content == JSON else PlainTextResponse,
            responses={
                200: {
                    "description": "OK",
                    "content": {self.content: {"schema": shapes.reference(*self.answers) if self.answers else _PLAIN}},
                    **({"links": self.links} if self.links else {}),
                },
                **_refusals(*self._refused_with),
                **({304: {"description": "Not Modified"}} if self._is_conditional else {}),
            },
        )

    @property
    def _is_conditional(self) -> bool:
        return any(parameter["name"] == "If-None-Match" for parameter in self.parameters)

    @property
    def _refused_with(self) -> Sequence[int]:
        if self.method == "DELETE":
            return (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
        if self.takes:
            return (400, 401, 403, 408, 413, 415, 422, 429, 503, 507)
        return (401, 403, 410, 422, 429, 503) if self.folder is None else (401, 403, 404, 410, 422, 429, 503)

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"parameters": list(self.parameters)} if self.parameters else {}
        if self.takes_no_credential:
            extra["security"] = []
        if self.takes:
            extra["requestBody"] = {"required": True, "content": self.takes}
        return extra

    async def _read(self, scope: Scope, receive: Receive) -> Call:
        content_type, key, known, codings = "", None, "", ""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            elif name == b"idempotency-key":
                key = value.decode("latin-1").strip().strip('"')
                check_id(key, "`Idempotency-Key`")
            elif name == b"accept-encoding":
                codings += f",{value.decode('latin-1')}"
            elif name == b"if-none-match":
                known += f",{value.decode('latin-1')}"
            elif name == b"content-encoding" and not _IS_PLAIN(value.lower()):
                raise UnsupportedMedia("bodies are taken as they are, not compressed")
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                raise CodingNotTaken("bodies come as they are or in chunks, not compressed")
        if self.folder is None and b"%2F" in scope.get("raw_path", b"").upper():
            raise NotFound(f"there is nothing here: {self.path} has slashes of its own, and a %2F would be of a name")
        body = await self._read_body(receive)
        if not body:
            _check_that_nothing_was_sent(scope)
        name = "" if self.folder is None else segment_below(scope, self.folder)
        query, takes_gzip = scope["query_string"].decode("latin-1"), bool(codings) and compression.is_asked_for(codings)
        return Call(scope["caller"], query, content_type, key, body, name, known, takes_gzip)

    async def _read_body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size_bytes, more = 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise BadMessage("the client left before its body was complete")
            parts.append(event.get("body", b""))
            size_bytes += len(parts[-1])
            if size_bytes > self.body_max_bytes:
                raise TooLarge(f"a body takes {self.body_max_bytes} bytes here; this one is larger")
            more = event.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Name(Convertor[str]):
    """Matches whatever stands in a path: which part of it is the name, only the path as it was sent can tell."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        """See Convertor."""
        return value

    def to_string(self, value: str) -> str:
        """See Convertor."""
        return value


register_url_convertor("name", _Name())


class CodingNotTaken(UnsupportedMedia):
    """A transfer coding besides chunked (RFC 9112, 6.1)."""

    http_status = 501


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


def paid(state: Iterator[bytes], budget: Budget, *, is_compressed: bool) -> Iterator[bytes]:
    """Yield a state in pieces, each counted against who is told it; compressed ones cost more."""
    bytes_a_step = COMPRESSED_BYTES_A_STEP if is_compressed else BYTES_A_STEP
    for piece in state:
        budget.spend(len(piece) // bytes_a_step)
        yield piece


async def _tell(answer: Answer, call: Call, send: Send, *, is_head: bool) -> None:
    """Send an answer: whole, or piece by piece as the client takes it; compressed if it asked for that."""
    body, extra, rest, tag, content_type = answer
    if tag and _is_known(tag, call.known):
        await send({"type": "http.response.start", "status": 304, "headers": _tagged(tag, is_compressed=False)})
        await send({"type": "http.response.body", "body": b""})
        return
    gzip = Gzip() if call.takes_gzip and (rest is not None or len(body) >= FROM_BYTES) else None
    headers = [(b"content-type", content_type), *extra]
    headers += _tagged(tag, is_compressed=gzip is not None) if tag else SAFE_HEADERS
    if gzip is not None:
        headers += _COMPRESSED
        body = await (gzip.whole if rest is None else gzip.piece)(body)
    if rest is None:
        headers.append((b"content-length", b"%d" % len(body)))
    elif is_head:
        rest = iter(())
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": rest is not None})
    if rest is None:
        return
    for piece in rest:
        part = piece if gzip is None else await gzip.piece(piece)
        if part:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)  # a client that takes all at once is to hold nobody up
    await send({"type": "http.response.body", "body": b"" if gzip is None else gzip.end(), "more_body": False})


def _tagged(tag: str, *, is_compressed: bool) -> Sequence[tuple[bytes, bytes]]:
    """Return the headers of an answer that its reader may keep, if it asks each time whether it still holds.

    A tag is of the very bytes, and compressed they are others (RFC 9110, 8.8.3.3).
    """
    return (
        (b"etag", b'"%b%b"' % (tag.encode(), _IF_COMPRESSED.encode() if is_compressed else b"")),
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"authorization, accept-encoding"),
        (b"x-content-type-options", b"nosniff"),
    )


def _is_known(tag: str, known: str) -> bool:
    """Whether an If-None-Match header names a tag, or any (RFC 9110, 13.1.2)."""
    tags = (each.strip().removeprefix("W/").strip('"').removesuffix(_IF_COMPRESSED) for each in known.split(","))
    return any(each in {tag, "*"} for each in tags)


def pieces(before: bytes, state: Iterator[bytes], after: bytes) -> Answer:
    """Return an answer with a state in pieces in its midst; one that is a single piece is sent whole."""
    first, second = next(state), next(state, None)
    if second is None:
        return Answer(before + first + after)
    return Answer(before + first, rest=chain((second,), state, (after,)))


def _check_that_nothing_was_sent(scope: Scope) -> None:
    """See that a body is missing because there was none.

    Raises:
        BadMessage: uvicorn by itself loses that of a request which offers to speak another protocol.
    """
    if header(scope, b"upgrade") is None:
        return
    if header(scope, b"transfer-encoding") is not None or (header(scope, b"content-length") or "0").strip("0"):
        raise BadMessage(
            "the HTTP server in front of this application has lost the body, as uvicorn does where a request offers an"
            " Upgrade; send none, or run `twincast serve`, which takes both"
        )


async def refuse(error: TwincastError, send: Send) -> None:
    """Send an error as the whole answer."""
    body = problem(error)
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", b"%d" % len(body)), *refusing_headers(error)]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def refusing_headers(error: TwincastError) -> list[tuple[bytes, bytes]]:
    """Return the headers that an error brings with it."""
    if isinstance(error, Unavailable):
        return [*SAFE_HEADERS, (b"retry-after", b"%d" % math.ceil(error.retry_after_s))]
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        return [*SAFE_HEADERS, (b"www-authenticate", b'Bearer realm="twincast"')]
    if isinstance(error, UpgradeRequired):
        return [
            *SAFE_HEADERS,
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
        ]
    if isinstance(error, TooSlow | TooLarge):
        return [*SAFE_HEADERS, (b"connection", b"close")]  # the rest of the body is not waited for
    return [*SAFE_HEADERS]


def problem(error: TwincastError) -> bytes:
    """Encode an error as RFC 9457 problem details, and count it: it is about to be told."""
    counters.refusals[error.code] += 1
    details = {
        "type": "about:blank",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
    }
    return encode(details)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM: {"schema": shapes.reference(shapes.Problem)}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
