"""One REST call as a bare ASGI application, for speed; transports/routes makes it a route of the framework as well."""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import Struct

from twincast.access.request import Caller, RequestFacts
from twincast.core.names import check_id
from twincast.core.opening import Opening
from twincast.delivery.scheduler import Budget
from twincast.errors import BadMessage, NotFound, TooLarge, TwincastError, UnsupportedMedia
from twincast.transports import compression
from twincast.transports.answer import JSON, Answer, send_answer
from twincast.transports.asgi import Receive, Scope, Send, header, list_header, of_head, segment_below
from twincast.transports.refusal import refuse
from twincast.wire import event_stream
from twincast.wire.problem import Problem

BODY_MAX_BYTES = 64 * 1024
"""Of the calls that set no limit of their own."""
_IS_PLAIN = re.compile(rb"[ \t,]*(identity[ \t,]*)*").fullmatch


class Call(NamedTuple):
    """One request to an operation."""

    caller: Caller
    query: str
    content_type: str
    key: str | None
    """The Idempotency-Key."""
    body: bytes
    name: str = ""
    """The part of the path where the operation's path has a name in braces."""
    known: str = ""
    """If-None-Match: the tags of the answers that the client has."""
    takes_gzip: bool = False
    accepts: str = ""
    """The header Accept; empty if there is none."""
    budget: Budget | None = None
    """What it is charged to, if a program in this process asks: it needs no login. None for the caller's account."""

    def require_type(self, *content_types: str) -> None:
        """Do nothing if the body is of one of these types. A page of another site cannot send them without asking.

        Raises:
            UnsupportedMedia: it is of another type.
        """
        if self.content_type not in content_types:
            expected = " or ".join(content_types)
            raise UnsupportedMedia(f"expected Content-Type {expected}, not {self.content_type or 'none'}")


class _Said(NamedTuple):
    """What the head of a request says of the fields of a Call."""

    content_type: str
    key: str | None
    query: str
    name: str
    known: str
    takes_gzip: bool
    accepts: str


@dataclass(frozen=True)
class Operation:
    """One call: where it is, what runs it, and how the OpenAPI document describes it."""

    method: str
    path: str
    run: Callable[[Call], Awaitable[Answer]]
    answers: tuple[type[Struct], ...]
    """The shapes of the answer; none if it is text."""
    bodies: Mapping[str, Any] = field(default_factory=dict)
    """The request's body by content type: OpenAPI media type objects."""
    body_shapes: tuple[type[Struct], ...] = ()
    """The structs that `bodies` refers to."""
    parameters: Sequence[Mapping[str, Any]] = ()
    body_max_bytes: int = BODY_MAX_BYTES
    needs_credential: bool = True
    links: Mapping[str, Any] = field(default_factory=dict)
    """Which calls may follow: OpenAPI link objects by name."""
    details: str = ""
    """What the OpenAPI document says beside the docstring of `run`: the limits, as they are."""
    answer_type: str = JSON
    is_between_servers: bool = False
    """Whether only other servers call it: the OpenAPI document, which is for clients, leaves it out."""
    stream: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None
    """Serves clients that accept an event stream instead; raises only before it has sent anything."""
    unready: Callable[[RequestFacts, Opening], Struct] | None = None
    """What it says while the server is not ready: problem details and more; None for these alone."""
    unready_shape: type[Struct] = Problem
    identify: Callable[[Scope, RequestFacts], Caller | None] | None = None
    """Identifies a caller by other means than a credential; None, or if it returns None, the credential decides."""

    success: int = 200
    """The status of its answer."""
    other_types: Sequence[str] = ()
    """The content types that a client can have instead of `answer_type`."""

    @cached_property
    def folder(self) -> str | None:
        """What precedes the name in the path; None if there is no name in it."""
        folder, brace, _ = self.path.partition("{")
        return folder if brace else None

    @cached_property
    def below(self) -> str:
        """What follows the name in the path; empty if it ends with the name, or has none."""
        return self.path.partition("}")[2]

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
        is_head = scope["method"] == "HEAD"
        await send_answer(answer, send, known=call.known, takes_gzip=call.takes_gzip, is_head=is_head)

    async def _read(self, scope: Scope, receive: Receive) -> Call:
        said = of_head(scope, "said", self._said)
        event = await receive()
        body = event.get("body", b"")
        if event["type"] == "http.disconnect" or event.get("more_body") or len(body) > self.body_max_bytes:
            body = await self._read_body(event, receive)
        if not body:
            _check_that_no_body_was_lost(scope)
        return Call(
            *(scope["caller"], said.query, said.content_type, said.key, body),
            *(said.name, said.known, said.takes_gzip, said.accepts),
        )

    def _said(self, scope: Scope) -> "_Said":
        content_type, key, known, codings, accepts = "", None, "", "", ""
        for name, value in scope["headers"]:
            if name == b"content-type":
                content_type = value.decode("latin-1").partition(";")[0].strip().lower()
            elif name == b"idempotency-key":
                key = value.decode("latin-1").strip().strip('"')
                check_id(key, "`Idempotency-Key`")
            elif name == b"accept-encoding":
                codings += f",{value.decode('latin-1')}"
            elif name == b"accept":
                accepts += f",{value.decode('latin-1')}"
            elif name == b"if-none-match":
                known += f",{value.decode('latin-1')}"
            elif name == b"content-encoding" and not _IS_PLAIN(value.lower()):
                raise UnsupportedMedia("a body must be sent as it is, not compressed")
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                raise CodingNotTaken("a body must be sent as it is or in chunks, not compressed")
        if self.folder is None and b"%2F" in scope.get("raw_path", b"").upper():
            raise NotFound(f"there is nothing here: {self.path} has slashes of its own, and a %2F would be of a name")
        name = "" if self.folder is None else segment_below(scope, self.folder, self.below)
        query, takes_gzip = scope["query_string"].decode("latin-1"), bool(codings) and compression.is_asked_for(codings)
        return _Said(content_type, key, query, name, known, takes_gzip, accepts)

    async def _read_body(self, event: MutableMapping[str, Any], receive: Receive) -> bytes:
        """Read on from the first event, up to the end of the body."""
        parts: list[bytes] = []
        size_bytes = 0
        while event["type"] != "http.disconnect":
            parts.append(event.get("body", b""))
            size_bytes += len(parts[-1])
            if size_bytes > self.body_max_bytes:
                raise TooLarge(f"a body here must be at most {self.body_max_bytes} bytes; this one is larger")
            if not event.get("more_body"):
                return b"".join(parts)
            event = await receive()
        raise BadMessage("the client left before its body was complete")


class CodingNotTaken(UnsupportedMedia):
    """A transfer coding besides chunked (RFC 9112, 6.1)."""

    http_status = 501


def _check_that_no_body_was_lost(scope: Scope) -> None:
    """Do nothing if a request that has no body was sent without one.

    Raises:
        BadMessage: it had one. uvicorn by itself loses the body of a request that offers another protocol.
    """
    if header(scope, b"upgrade") is None:
        return
    if header(scope, b"transfer-encoding") is not None or (header(scope, b"content-length") or "0").strip("0"):
        raise BadMessage(
            "the HTTP server in front of this application has lost the body, as uvicorn does where a request offers an"
            " Upgrade; send none, or run `twincast serve`, which accepts both"
        )
