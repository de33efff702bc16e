"""HTTP under `twincast serve`: uvicorn's protocol, with bounds on what a client may cost before and beside its request.

uvicorn sets no time for a head, a body or a reader. Here each has a time, a head has a size, and connections have a
number.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar

import httptools
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from twincast.access.addresses import block_of
from twincast.errors import BadMessage, TooLarge, TooManyConnections, TooSlow, TwincastError, UpgradeRequired
from twincast.server import head
from twincast.server.deadlines import Deadline, Deadlines
from twincast.server.http10 import unframed
from twincast.server.idle import Room, close_longest_idle
from twincast.transports.refusal import PROBLEM, problem, refusing_headers

LINGER_S = 0.5
"""How long a refused client has to read why."""
INTERNET = {socket.AF_INET, socket.AF_INET6}
UNSENT_BYTES = 1024 * 1024
"""What the kernel takes for a client beyond what it can send: enough for a moment's delay, of a browser too. By itself
it takes several times as much, and lets it age."""
PIPELINED_MAX = 8
"""How many requests may wait behind one that is being answered; each costs some kilobytes."""
TRAILERS_MAX = 32
"""Trailers are not read here; each costs as much as a header."""
UPGRADE_HEAD_MAX_BYTES = 12 * 1024
"""Of a head that asks for a WebSocket: picows accepts 16 KiB, counted as uvicorn writes it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpBounds:
    """What HTTP may cost."""

    connections_max: int
    address_connections_max: int
    head_max_bytes: int
    head_timeout_s: float
    body_timeout_s: float
    write_timeout_s: float
    keep_alive_timeout_s: float
    is_exempt: Callable[[str], bool]
    """Whether connections from an address are not counted by themselves, as those of a proxy are not."""


class Phase(Enum):
    """What of a client a connection waits for. What it answers meanwhile is apart from this: `BoundedHttp._running`."""

    IDLE = auto()
    """Nothing of a request has come: at the beginning, and behind each one."""
    HEAD = auto()
    """A head is coming in, or an offer to upgrade is complete and not decided on yet."""
    BODY = auto()
    """A head is complete, what it announces is not; a body of nothing is complete at once."""
    UPGRADED = auto()
    """The connection belongs to the WebSocket edge."""
    REFUSED = auto()
    """Nothing is read any more: the client is left some time to read why, or the connection was dropped."""


class BoundedHttp(HttpToolsProtocol):
    """One connection, until it is closed or handed to the WebSocket edge.

    Its phases, and what takes it from one to the next:

    ```
    IDLE ── first byte ──▶ HEAD ── end of the head ──▶ BODY ── end of the message ──▶ IDLE
                           │  ▲                         │
                           │  └── an offer that is      └─────┐
                           │      ignored: the head is        │
                           │      read again without it       │
                           └── a WebSocket's handshake ─▶ UPGRADED
    IDLE, HEAD, BODY ── late, too large, no HTTP, too many, or a body that nobody reads ──▶ REFUSED
    ```

    UPGRADED and REFUSED are left for no other: bytes that still come are the edge's, or are thrown away. A request may
    be answered in IDLE, HEAD and BODY, for the next ones may come behind it; a refusal in between would be taken for
    that request's answer, so the connection is then dropped without one.
    """

    open_by_address: ClassVar[dict[str, dict["BoundedHttp", None]]] = defaultdict(dict)
    """HTTP connections of all servers in this process, in the order in which they came. WebSockets are counted where
    they are admitted."""
    room: ClassVar[Room] = Room()
    timeout_keep_alive: float  # type: ignore[assignment]  # uvicorn takes what `call_later` does

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds: HttpBounds = app_state["http_bounds"]
        self.timeout_keep_alive = self._bounds.keep_alive_timeout_s
        self._running: RequestResponseCycle | None = None
        self._counted: str | None = None
        self._read_bytes = self._body_bytes = 0  # of the message that is coming in, since the read that began it
        self._came_bytes = 0
        self._phase = Phase.IDLE
        self._is_handshake = self._is_offer = self._is_for_this_machine = False
        self._method, self._version = b"", ""
        self._deadlines = Deadlines(
            head=Deadline(self.loop, self._bounds.head_timeout_s, self._head_is_late),
            body=Deadline(self.loop, self._bounds.body_timeout_s, self._body_is_late),
            write=Deadline(self.loop, self._bounds.write_timeout_s, self._reader_is_late),
        )

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        _bound_unsent(transport)
        bounds = self._bounds
        if len(self.connections) > bounds.connections_max and not self.room.make(self.connections, self.loop.time()):
            self._refuse(TooManyConnections(f"this server has {bounds.connections_max} connections, as many as it may"))
            return
        if self.client and not bounds.is_exempt(self.client[0]):
            address = block_of(self.client[0])
            others = self.open_by_address[address]
            if len(others) >= bounds.address_connections_max and not close_longest_idle(others):
                self._refuse(TooManyConnections("too many connections come from this address"))
                return
            others[self] = None
            self._counted = address
        self._deadlines.head.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._let_go()
        if self._running is not None:
            self._running.disconnected = True  # uvicorn marks the newest of several requests, not the one under way
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._phase is Phase.REFUSED:
            return
        self._came_bytes = len(data)
        self._read_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._phase in _ENDED:
            return
        # What is neither head nor body frames chunks, or is trailers. It has a head's size, and more with a large body.
        if self._read_bytes - self._body_bytes > self._bounds.head_max_bytes + self._body_bytes:
            self._refuse_head()
        elif self._phase is Phase.BODY:  # most bodies come with their head, and are complete by now
            self._deadlines.body.start()
        elif self._phase is Phase.HEAD or self._has_no_request:
            self._deadlines.head.start()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """See asyncio.Protocol. A client may send no more and still wait for its answer; then the connection ends."""
        waits = self._running is not None and not self._running.response_started and not self.cycle.response_complete
        if not waits or self._phase is not Phase.IDLE or self.scheme == "https":  # TLS knows no half of an end
            return None
        self.cycle.keep_alive = False
        return True

    def handle_websocket_upgrade(self) -> None:
        """See HttpToolsProtocol."""
        if self._running is not None and not self._running.response_complete:
            self._drop()  # two conversations would write to one connection
            return
        if self._head_bytes() > UPGRADE_HEAD_MAX_BYTES:
            self._refuse(HeadTooLarge(f"the head of an upgrade must be at most {UPGRADE_HEAD_MAX_BYTES} bytes"))
            return
        if head.tokens(self.headers, b"sec-websocket-version") != [b"13"]:
            self._refuse(UpgradeRequired("a WebSocket here is of version 13 (RFC 6455, 4.4)"))
            return
        self._let_go()
        self._phase = Phase.UPGRADED
        self.scope["headers"] = head.with_one_offer(self.headers)
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """See HttpToolsProtocol."""
        if self._phase is not Phase.HEAD:  # else it is the same head again, without its offer
            self._phase = Phase.HEAD
            self._read_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._deadlines.head.stop()
        if len(self.pipeline) >= PIPELINED_MAX:
            self._drop()
        elif self._came_bytes > self._bounds.head_max_bytes < self._head_bytes():
            self._refuse_head()
        else:
            self._read_head()
        if self._phase is Phase.REFUSED:
            raise _Refused  # so that the parser goes no further
        if self._is_offer:
            return  # the head comes again without it
        super().on_headers_complete()
        if self._is_handshake:
            return
        if self._version == "1.0":
            self.cycle.waiting_for_100_continue = False  # such a client would take it for the answer (RFC 9110, 10.1.1)
        if self._is_for_this_machine:
            self.cycle.default_headers = head.without_hsts(self.cycle.default_headers)
        self._phase = Phase.BODY
        # The parser reports trailers as headers, to the list that the application reads. Here they are nothing.
        self.headers = _Nowhere()

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        if self._phase is not Phase.BODY:  # an offer to upgrade is not decided on yet
            return
        self._phase = Phase.IDLE
        self._deadlines.body.stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol."""
        is_unread = self._phase is Phase.BODY and self.cycle is self._running
        super().on_response_complete()
        if is_unread and not self.transport.is_closing():
            self._linger()  # the rest of the body is not read, and would have no bound

    def timeout_keep_alive_handler(self) -> None:
        """See HttpToolsProtocol."""
        super().timeout_keep_alive_handler()
        self._end_in_time()

    def send_400_response(self, msg: str) -> None:
        """See HttpToolsProtocol. A client that is cut off while it sends would not read why, and would come again."""
        if self._phase is not Phase.REFUSED:
            self._refuse(BadMessage("this is no request as RFC 9112 has it"))

    def shutdown(self) -> None:
        """See HttpToolsProtocol."""
        super().shutdown()
        self._end_in_time()

    @property
    def _has_no_request(self) -> bool:
        """Whether bytes came that began none, such as empty lines, and uvicorn's own timer was set off by them."""
        if self.transport.is_closing():
            return False
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _should_upgrade(self) -> bool:
        return self._is_handshake

    @property
    def _own_headers(self) -> head.Headers:
        """The headers of every answer, of the application or of this class."""
        headers = self.config.encoded_headers
        is_for_this_machine = self._is_for_this_machine or head.is_for_localhost(self.headers or [])
        return head.without_hsts(headers) if is_for_this_machine else headers

    @property
    def idle_until_s(self) -> float | None:
        """When this ends if nothing comes; None if there is something to answer, or to read."""
        timer = self.timeout_keep_alive_task
        return None if timer is None or self.transport.is_closing() else timer.when()

    def _parse(self, data: bytes) -> None:
        """Feed the parser, which takes every offer to upgrade for the end of HTTP and hands back what is behind it."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as end:
                if self._is_handshake:
                    self.handle_websocket_upgrade()
                    return
                data = self._without_offer() + data[end.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("")
                return

    def _without_offer(self) -> bytes:
        """Return the head that was read as it is without its offer, and begin anew with it."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return head.encoded(self._method, self.url, self._version, head.without_offer(self.headers))

    def _read_head(self) -> None:
        """Take note of what uvicorn would read otherwise, or not at all."""
        self._method, self._version = self.parser.get_method(), self.parser.get_http_version()
        is_upgrade = self.parser.should_upgrade() and self.ws_protocol_class is not None
        self._is_handshake = is_upgrade and head.asks_for_websocket(self._method, self._version, self.headers)
        self._is_offer = self.parser.should_upgrade() and not self._is_handshake
        if self._method == b"CONNECT":
            self._refuse(BadMessage("this server is no proxy"))
        elif self._version not in ("1.0", "1.1"):
            self._refuse(VersionNotTaken(f"this server speaks HTTP/1.1 and 1.0, not {self._version}"))
        elif not self.url.startswith(b"/"):
            try:
                self.url, self.headers[:] = head.in_origin_form(self.url, self.headers)
            except BadMessage as error:
                self._refuse(error)
        self._is_for_this_machine = self.scheme == "https" and head.is_for_localhost(self.headers)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """See HttpToolsProtocol. Repeated, for what uvicorn does at the end of a task has no place for more."""
        self._running = cycle
        if cycle.scope["http_version"] != "1.1":
            app = unframed(app, cycle)
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._end_in_time()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._deadlines.write.start()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._deadlines.write.stop()

    def _end_in_time(self) -> None:
        """See that a connection that is closing does, also if the client never takes what is left for it."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._deadlines.write.start()

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._running is not None and not self._running.response_complete:
            self._deadlines.head.start()  # it has a request that is still being answered
        else:
            self._refuse(TooSlow(f"a request's head has {self._bounds.head_timeout_s:g} s to come in"))

    def _body_is_late(self) -> None:
        self._refuse(TooSlow(f"a body has {self._bounds.body_timeout_s:g} s to come in"))

    def _reader_is_late(self) -> None:
        self.transport.abort()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._refuse(HeadTooLarge(f"a request's head must be at most {self._bounds.head_max_bytes} bytes"))

    def _refuse(self, error: TwincastError) -> None:
        """Answer instead of the application, where that cannot be taken for the answer to another request."""
        if self._running is not None and not self._running.response_complete:
            if self._phase is not Phase.BODY or self.cycle is not self._running or self.cycle.response_started:
                self._drop()
                return
            self.cycle.disconnected = True  # for the application, which waits for the body
            self.cycle.message_event.set()
        self._answer(error)

    def _answer(self, error: TwincastError) -> None:
        body = problem(error)
        headers = [
            (b"content-type", PROBLEM.encode()),
            (b"content-length", b"%d" % len(body)),
            *refusing_headers(error),
            *self._own_headers,
        ]
        lines = [b"HTTP/1.1 %d %b" % (error.http_status, error.code.encode())]
        lines += [b"%b: %b" % pair for pair in headers if pair != (b"connection", b"close")]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self._linger()

    def _linger(self) -> None:
        """Close, and take nothing more.

        The client may be in the midst of sending: closed at once, the connection would be reset, and what was answered
        never read.
        """
        self._phase = Phase.REFUSED
        self._deadlines.head.stop()
        self._deadlines.body.stop()  # late now would drop the answer that was just written
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._end_in_time()

    def _drop(self) -> None:
        self._phase = Phase.REFUSED
        self.transport.abort()

    def _let_go(self) -> None:
        self._deadlines.stop()
        if self._counted is not None:
            self.open_by_address[self._counted].pop(self, None)
            if not self.open_by_address[self._counted]:
                del self.open_by_address[self._counted]
            self._counted = None


_ENDED = {Phase.UPGRADED, Phase.REFUSED}


class _Refused(Exception):
    """What comes is not to be read on."""


class _Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: a list that stays empty, and does not take many."""

    def __init__(self) -> None:
        super().__init__()
        self._came = 0

    def append(self, _: tuple[bytes, bytes]) -> None:
        """Count one."""
        self._came += 1
        if self._came > TRAILERS_MAX:
            raise _Refused


class VersionNotTaken(BadMessage):
    """A request of another major version of HTTP, or of none that there is (RFC 9110, 15.6.6)."""

    http_status = 505


class HeadTooLarge(TooLarge):
    """A request's head is over its limit (RFC 6585, section 5)."""

    http_status = 431


def _bound_unsent(transport: asyncio.Transport) -> None:
    """See TCP_NOTSENT_LOWAT in Linux' tcp(7)."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in INTERNET and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
