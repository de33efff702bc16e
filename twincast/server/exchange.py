"""One request and its answer, as the ASGI application sees them: `receive` and `send` (ASGI's HTTP specification)."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from twincast.server.answer_head import AnswerHead, Framing, answer_head, chunk
from twincast.server.flow import Flow
from twincast.server.head import Headers
from twincast.transports.asgi import Receive, Scope, Send

logger = logging.getLogger("uvicorn.error")

UNTAKEN_MAX_BYTES = 64 * 1024
"""Of a body that the application has not taken: above it the connection is not read."""
JOINED_MAX_BYTES = 64 * 1024
"""A body up to this size is copied behind its head: that costs less than the system does for a second piece."""
_FAILED = b"Internal Server Error"
_FAILED_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_FAILED)),
    (b"connection", b"close"),
]


class Connection(Protocol):
    """Where an exchange takes place."""

    transport: asyncio.Transport
    flow: Flow

    def on_answer(self, *, keep_alive: bool) -> None:
        """Take note that the answer is complete; and close if it says so, once the client has it."""

    def close(self) -> None:
        """Close, once what was written is sent."""


class Exchange:
    """One request and its answer.

    The head of an answer waits for the first of the body, as ASGI asks, and both go in one write.
    """

    __slots__ = (
        "_connection",
        "_event",
        "_has_news",
        "_head",
        "_is_whole",
        "_left_bytes",
        "_own_headers",
        "_parts",
        "_size_bytes",
        "has_begun",
        "is_answered",
        "is_disconnected",
        "keep_alive",
        "scope",
        "wants_continue",
    )

    def __init__(
        self,
        scope: Scope,
        connection: Connection,
        own_headers: Headers,
        *,
        keep_alive: bool,
        wants_continue: bool,
    ) -> None:
        """Begin with a request whose head is complete.

        Args:
            scope: the request.
            connection: on which it came.
            own_headers: what the server adds to each answer.
            keep_alive: whether the connection may go on behind it.
            wants_continue: whether the client waits with the body to be told that it is wanted (RFC 9110, 10.1.1).
        """
        self.scope = scope
        self._connection = connection
        self._own_headers = own_headers
        self.keep_alive = keep_alive
        self.wants_continue = wants_continue
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self._is_whole = False
        self._has_news = False
        self._event: asyncio.Event | None = None  # most bodies are there before the application asks
        self._head: AnswerHead | None = None
        self._left_bytes = 0
        self.has_begun = False
        """Whether something of the answer was written."""
        self.is_answered = False
        """Whether all of it was."""
        self.is_disconnected = False
        """Whether nobody is there to answer any more."""

    def add(self, body: bytes) -> None:
        """Take a part of the body."""
        if self.is_answered:
            return
        self._parts.append(body)
        self._size_bytes += len(body)
        if self._size_bytes > UNTAKEN_MAX_BYTES:
            self._connection.flow.pause_reading()
        self._tell()

    def end(self) -> None:
        """Take note that the body is complete."""
        self._is_whole = True
        self._tell()

    def disconnect(self) -> None:
        """Take note that nobody is there to answer any more."""
        if not self.is_answered:
            self.is_disconnected = True
        self._tell()

    async def run(self, app: Callable[[Scope, Receive, Send], Any]) -> None:
        """Have the application answer. Whatever it raises is noted, and ends the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            logger.error("Exception in ASGI application\n", exc_info=error)
            self._fail()
        else:
            if not self.is_answered and not self.is_disconnected:
                logger.error("ASGI callable returned without completing response.")
                self._fail()

    async def receive(self) -> dict[str, Any]:
        """See ASGI."""
        if self.wants_continue and not self._connection.transport.is_closing():
            self.wants_continue = False
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._has_news and not self.is_disconnected and not self.is_answered:
            self._connection.flow.resume_reading()
            await self._news()
        self._has_news = False
        if self.is_disconnected or self.is_answered:
            return {"type": "http.disconnect"}
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size_bytes = 0
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def send(self, event: Any) -> None:
        """See ASGI."""
        if self._connection.flow.is_writing_paused and not self.is_disconnected:
            await self._connection.flow.drain()
        if self.is_disconnected:
            return
        if self.is_answered:
            raise RuntimeError(f"Unexpected ASGI message '{event['type']}' sent, after response already completed.")
        if self._head is None:
            self._begin(event)
        else:
            self._go_on(event)

    async def _news(self) -> None:
        if self._event is None:
            self._event = asyncio.Event()
        self._event.clear()
        await self._event.wait()

    def _tell(self) -> None:
        self._has_news = True
        if self._event is not None:
            self._event.set()

    def _begin(self, event: Any) -> None:
        if event["type"] != "http.response.start":
            raise _unexpected(event, "http.response.start")
        self.wants_continue = False
        scope = self.scope
        self._head = answer_head(
            event["status"],
            [*self._own_headers, *event.get("headers", ())],
            method=scope["method"],
            version=scope["http_version"],
            keep_alive=self.keep_alive,
        )
        self.keep_alive = not self._head.closes
        self._left_bytes = self._head.length

    def _go_on(self, event: Any) -> None:
        if event["type"] != "http.response.body":
            raise _unexpected(event, "http.response.body")
        assert self._head is not None
        body, is_last = event.get("body", b""), not event.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body, self._left_bytes = b"", 0
        elif self._head.framing is Framing.LENGTH:
            self._left_bytes -= len(body)
            if self._left_bytes < 0:
                raise RuntimeError("Response content longer than Content-Length")
        elif self._head.framing is Framing.CHUNKS:
            body = chunk(body, is_last=is_last)
        self._write(self._head.text, body)
        if is_last:
            if self._left_bytes:
                raise RuntimeError("Response content shorter than Content-Length")
            self._complete()

    def _write(self, head: bytes, data: bytes) -> None:
        transport = self._connection.transport
        if self.has_begun:
            transport.write(data)
        elif len(data) <= JOINED_MAX_BYTES:
            transport.write(head + data)
        else:
            transport.writelines((head, data))
        self.has_begun = True

    def _complete(self) -> None:
        self.is_answered = True
        if self._event is not None:
            self._event.set()
        self._connection.on_answer(keep_alive=self.keep_alive)

    def _fail(self) -> None:
        """Answer for the application, if it has not begun to; what it has begun cannot be mended."""
        if self.is_disconnected:
            return
        if self.has_begun:
            self._connection.close()
            return
        self._begin({"type": "http.response.start", "status": 500, "headers": _FAILED_HEADERS})
        self._go_on({"type": "http.response.body", "body": _FAILED})


def _unexpected(event: Any, expected: str) -> RuntimeError:
    return RuntimeError(f"Expected ASGI message '{expected}', but got '{event['type']}'.")
