"""Bytes to requests: what comes in on one connection is taken apart by httptools, within bounds."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

import httptools

from twincast.errors import BadMessage, TooLarge, TwincastError
from twincast.server import head
from twincast.transports.asgi import OF_HEAD

KNOWN_MAX_BYTES = 2 * 1024
"""A longer head is read anew each time."""
TRAILERS_MAX = 32
"""Trailers are not read here; each costs as much as a header."""
NO_HTTP = "this is no request as RFC 9112 has it"


class Phase(Enum):
    """What of a request has come in."""

    IDLE = auto()
    """Nothing: at the beginning, and behind each request."""
    HEAD = auto()
    """Part of a head; or all of it, and it offers an upgrade that is not decided on yet."""
    BODY = auto()
    """A head, and not all that it announces; a body of nothing is complete at once."""


class Body(Protocol):
    """Takes the body of a request."""

    def add(self, body: bytes) -> None:
        """Take a part."""

    def end(self) -> None:
        """Take note that it is complete."""


OnRequest = Callable[[dict[str, Any], bool, bool], Body]
"""Told of a request whose head is complete: its scope, as ASGI has it; whether the connection may go on behind it; and
whether its client waits with the body to be told that it is wanted. Returns what takes the body."""


class _Head(NamedTuple):
    scope: dict[str, Any]
    keep_alive: bool
    wants_continue: bool


class Unread(Exception):
    """Raised by whoever is told of a request, to have the rest of what came thrown away."""


class Incoming:
    """What comes in on one connection.

    ```
    IDLE ── first byte ──▶ HEAD ── end of the head ──▶ BODY ── end of the message ──▶ IDLE
                           │  ▲
                           └──┴─ an offer that is ignored: the head is read again without it
    ```

    A head that is a WebSocket's handshake stays in HEAD: what follows is no HTTP.

    A client that keeps its connection mostly sends the same head again. So the head of a request that came whole and
    alone is kept. A read that is these bytes, and as many behind them as that request's body had, is the same request
    with another body: the parser, which is between two messages, would find nothing else, and is not asked.
    """

    def __init__(
        self,
        connection: dict[str, Any],
        on_request: OnRequest,
        *,
        head_max_bytes: int,
        takes_websockets: bool,
    ) -> None:
        """Wait for the first request.

        Args:
            connection: what the scopes of all requests have in common.
            on_request: told of each request. It may raise Unread.
            head_max_bytes: how large a head may be.
            takes_websockets: whether handshakes of WebSockets are told apart from other offers to upgrade.
        """
        self._connection = connection
        self._on_request = on_request
        self._head_max_bytes = head_max_bytes
        self._takes_websockets = takes_websockets
        self._parser = _parser(self)
        self._body: Body | None = None
        self._read_bytes = self._body_bytes = 0  # of the message that is coming in, since the read that began it
        self._came_bytes = self._trailers = 0
        self._wants_continue = False
        self._head: _Head | None = None
        self._known, self._known_bytes = b"", -1  # the newest head, and how long its request was
        self.phase = Phase.IDLE
        self.is_handshake = False
        """Whether a WebSocket is asked for: there is no further request then."""
        self.method, self.version, self.target = b"", "", b""
        self.headers: head.Headers = []
        """Of the newest request, names in lower case."""

    def feed(self, data: bytes) -> None:
        """Take some bytes.

        Raises:
            TwincastError: they are none of HTTP, or too many.
            Unread: `on_request` raised it.
        """
        was_idle = self.phase is Phase.IDLE
        if was_idle and len(data) == self._known_bytes and data.startswith(self._known):
            self._repeat(data)
            return
        self._came_bytes = len(data)
        self._read_bytes += len(data)
        self._known_bytes = -1
        self._parse(data)
        # What is neither head nor body frames chunks, or is trailers. It has a head's size, and more with a large body.
        if self._read_bytes - self._body_bytes > self._head_max_bytes + self._body_bytes:
            raise self._too_large()
        if was_idle and self.phase is Phase.IDLE:
            self._remember(data)

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as end:  # the parser takes every offer for the end of HTTP
                if self.is_handshake:
                    return
                data = self._without_offer() + data[end.args[0] :]
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, TwincastError | Unread):
                    raise error.__context__ from None
                raise BadMessage(NO_HTTP) from None

    def _remember(self, data: bytes) -> None:
        """Keep the head of a request, if nothing else came with it."""
        end = data.find(b"\r\n\r\n", 0, KNOWN_MAX_BYTES) + 4
        if self._head is not None and self._head.keep_alive and end + self._body_bytes == len(data):
            self._known, self._known_bytes = data[:end], len(data)

    def _repeat(self, data: bytes) -> None:
        body = self._tell()
        if len(data) > len(self._known):
            body.add(data[len(self._known) :])
        body.end()

    def _tell(self) -> Body:
        """Tell of the newest head; what an application may write to is not shared."""
        assert self._head is not None
        scope, keep_alive, wants_continue = self._head
        own = {**scope, "state": scope["state"].copy(), "headers": scope["headers"].copy()}
        return self._on_request(own, keep_alive, wants_continue)

    def close(self) -> None:
        """Take nothing more. The connection is free at once, without the garbage collector."""
        self._parser = self._body = None
        self._known_bytes = -1
        self._on_request = _unasked

    @property
    def head_bytes(self) -> int:
        """The size of the newest head."""
        return len(self.target) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def on_message_begin(self) -> None:
        """See httptools."""
        if self.phase is not Phase.HEAD:  # else it is the same head again, without its offer
            self.phase = Phase.HEAD
            self._read_bytes = self._body_bytes = 0
        self._wants_continue = False
        self.target = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """See httptools. A target may come in several parts."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools, which reports trailers as headers, too. Here they are nothing."""
        if self.phase is Phase.BODY:
            self._trailers += 1
            if self._trailers > TRAILERS_MAX:
                raise BadMessage(NO_HTTP)
            return
        name = name.lower()
        self.headers.append((name, value))
        if name == b"expect":
            self._wants_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._came_bytes > self._head_max_bytes < self.head_bytes:
            raise self._too_large()
        parser = self._parser
        self.method, self.version = parser.get_method(), parser.get_http_version()
        is_offer = parser.should_upgrade()
        self.is_handshake = (
            is_offer and self._takes_websockets and head.asks_for_websocket(self.method, self.version, self.headers)
        )
        is_1_1 = self.version == "1.1"
        if not is_1_1 or not self.target.startswith(b"/"):
            self._check_line()
        if is_offer:
            return  # the head comes again without it, or is a handshake
        self.phase = Phase.BODY
        self._trailers = 0
        # A client of HTTP/1.0 would take what it is told to continue by for the answer (RFC 9110, 10.1.1).
        self._head = _Head(self._scope(), is_1_1 and parser.should_keep_alive(), is_1_1 and self._wants_continue)
        self._body = self._tell()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._body_bytes += len(body)
        assert self._body is not None
        self._body.add(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self.phase is Phase.BODY:  # else an offer to upgrade is not decided on yet
            self.phase = Phase.IDLE
            assert self._body is not None
            self._body.end()

    def _check_line(self) -> None:
        """Refuse requests that are not for an HTTP server of this version, and have the target name a path."""
        if self.method == b"CONNECT":
            raise BadMessage("this server is no proxy")
        if self.version not in ("1.0", "1.1"):
            raise VersionNotTaken(f"this server speaks HTTP/1.1 and 1.0, not {self.version}")
        if not self.target.startswith(b"/"):
            self.target, self.headers[:] = head.in_origin_form(self.target, self.headers)

    def _scope(self) -> dict[str, Any]:
        target = self.target
        if target.startswith(b"/"):
            raw_path, _, query = target.partition(b"#")[0].partition(b"?")
        else:
            url = httptools.parse_url(target)
            raw_path, query = url.path, url.query or b""
        path = raw_path.decode("ascii")
        return {
            **self._connection,
            OF_HEAD: {},
            "http_version": self.version,
            "method": self.method.decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
        }

    def _without_offer(self) -> bytes:
        """Return the head that was read as it is without its offer, and begin anew with it."""
        self._parser = _parser(self)
        return head.encoded(self.method, self.target, self.version, head.without_offer(self.headers))

    def _too_large(self) -> "HeadTooLarge":
        return HeadTooLarge(f"a request's head must be at most {self._head_max_bytes} bytes")


def _unasked(scope: dict[str, Any], keep_alive: bool, wants_continue: bool) -> Body:
    raise Unread


class VersionNotTaken(BadMessage):
    """A request of another major version of HTTP, or of none that there is (RFC 9110, 15.6.6)."""

    http_status = 505


class HeadTooLarge(TooLarge):
    """A request's head is over its limit (RFC 6585, section 5)."""

    http_status = 431


def _parser(incoming: Incoming) -> Any:
    parser = httptools.HttpRequestParser(incoming)
    # So that requests that come behind one that ends the connection are not taken for a fault in that one.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
