"""HTTP under `twincast serve`: one connection, with bounds on what a client may cost before and beside its request.

uvicorn's own sets no time for a head, a body or a reader. Here each has a time, a head has a size, and connections have
a number. What a protocol of uvicorn is asked for by its server stays: `connections`, `tasks`, `shutdown`.
"""

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import uvicorn
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from twincast.access.addresses import block_of
from twincast.errors import TooManyConnections, TooSlow, TwincastError, UpgradeRequired
from twincast.server import head
from twincast.server.deadlines import Deadline, Deadlines
from twincast.server.exchange import Exchange
from twincast.server.flow import Flow
from twincast.server.idle import Room, close_longest_idle
from twincast.server.incoming import HeadTooLarge, Incoming, Phase, Unread
from twincast.transports.asgi import Scope
from twincast.transports.refusal import PROBLEM, problem, refusing_headers

LINGER_S = 0.5
"""How long a refused client has to read why."""
INTERNET = {socket.AF_INET, socket.AF_INET6}
UNSENT_BYTES = 1024 * 1024
"""What the kernel takes for a client beyond what it can send: enough for a moment's delay, of a browser too. By itself
it takes several times as much, and lets it age."""
PIPELINED_MAX = 8
"""How many requests may wait behind one that is being answered; each costs some kilobytes."""
UPGRADE_HEAD_MAX_BYTES = 12 * 1024
"""Of a head that asks for a WebSocket: picows accepts 16 KiB, counted as it is written anew here."""


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


class BoundedHttp(asyncio.Protocol):
    """One connection, until it is closed or handed to the WebSocket edge.

    It serves until it is upgraded or ended; these are left for no other:

    ```
    serving ── a WebSocket's handshake ─▶ upgraded: what still comes is the edge's
       └────── late, too large, no HTTP, too many, or a body that nobody reads ──▶ ended: what comes is thrown away
    ```

    What has come in is apart from this: see Incoming. Requests wait in `_exchanges` for those before them, and the
    first of them is being answered. A refusal in between would be taken for that request's answer, so the connection is
    then dropped without one.
    """

    open_by_address: ClassVar[dict[str, dict["BoundedHttp", None]]] = defaultdict(dict)
    """HTTP connections of all servers in this process, in the order in which they came. WebSockets are counted where
    they are admitted."""
    room: ClassVar[Room] = Room()

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._bounds: HttpBounds = app_state["http_bounds"]
        self._loop = _loop or asyncio.get_running_loop()
        self._exchanges: list[Exchange] = []
        self._counted: str | None = None
        self._is_serving = True
        bounds = self._bounds
        self._deadlines = Deadlines(
            head=Deadline(self._loop, bounds.head_timeout_s, self._head_is_late),
            body=Deadline(self._loop, bounds.body_timeout_s, self._body_is_late),
            write=Deadline(self._loop, bounds.write_timeout_s, self._reader_is_late),
            idle=Deadline(self._loop, bounds.keep_alive_timeout_s, self.close),
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = transport = cast(asyncio.Transport, transport)
        self.flow = Flow(transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # of which uvicorn asks only `shutdown`
        self._is_tls = is_ssl(transport)
        client = get_remote_addr(transport)
        connection = {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "server": get_local_addr(transport),
            "client": client,
            "scheme": "https" if self._is_tls else "http",
            "root_path": "",
            "state": self._app_state,
        }
        self._incoming = Incoming(
            connection,
            self._on_request,
            head_max_bytes=self._bounds.head_max_bytes,
            takes_websockets=self._config.ws_protocol_class is not None,
        )
        _bound_unsent(transport)
        if self._is_let_in(client[0] if client else None):
            self._deadlines.head.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._let_go()
        for each in self._exchanges:
            each.disconnect()
        self.flow.resume_writing()
        self._server_state.connections.discard(self)
        self._incoming.close()
        if exc is None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if not self._is_serving:
            return
        deadlines, incoming = self._deadlines, self._incoming
        deadlines.idle.stop()
        try:
            incoming.feed(data)
        except TwincastError as error:
            self._refuse(error)
            return
        except Unread:
            self._drop()
            return
        if incoming.is_handshake:
            self._upgrade()
        elif incoming.phase is Phase.BODY:  # most bodies come with their head, and are complete by now
            deadlines.body.start()
        elif incoming.phase is Phase.HEAD or not self._exchanges:  # or nothing began, as by empty lines
            deadlines.body.stop()
            deadlines.head.start()
        elif deadlines.body.due_s is not None:
            deadlines.body.stop()

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol. A client may send no more and still wait for its answer; then the connection ends."""
        waits = self._exchanges and not self._exchanges[0].has_begun
        if not waits or self._incoming.phase is not Phase.IDLE or self._is_tls:  # TLS knows no half of an end
            return None
        self._exchanges[-1].keep_alive = False
        return True

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self.flow.pause_writing()
        self._deadlines.write.start()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self.flow.resume_writing()
        if not self.transport.is_closing():
            self._deadlines.write.stop()

    def shutdown(self) -> None:
        """End with the answer that is due, if there is one: see uvicorn's Server."""
        if self._exchanges:
            self._exchanges[-1].keep_alive = False
        else:
            self.close()

    def close(self) -> None:
        """Close, in time also if the client never takes what is left for it."""
        self.transport.close()
        self._end_in_time()

    @property
    def idle_until_s(self) -> float | None:
        """When this ends if nothing comes; None if there is something to answer, or to read."""
        return None if self.transport.is_closing() else self._deadlines.idle.due_s

    def _is_let_in(self, address: str | None) -> bool:
        """Whether there is room for this connection; if not, it is refused."""
        bounds, connections = self._bounds, self._server_state.connections
        if len(connections) > bounds.connections_max and not self.room.make(connections, self._loop.time()):
            self._refuse(TooManyConnections(f"this server has {bounds.connections_max} connections, as many as it may"))
            return False
        if address and not bounds.is_exempt(address):
            block = block_of(address)
            others = self.open_by_address[block]
            if len(others) >= bounds.address_connections_max and not close_longest_idle(others):
                self._refuse(TooManyConnections("too many connections come from this address"))
                return False
            others[self] = None
            self._counted = block
        return True

    def _on_request(self, scope: Scope, keep_alive: bool, wants_continue: bool) -> Exchange:
        self._deadlines.stop_reading()
        exchanges = self._exchanges
        if len(exchanges) > PIPELINED_MAX:
            raise Unread
        own_headers: head.Headers = self._server_state.default_headers
        if self._is_tls and head.is_for_localhost(self._incoming.headers):
            own_headers = head.without_hsts(own_headers)
        exchange = Exchange(scope, self, own_headers, keep_alive=keep_alive, wants_continue=wants_continue)
        exchanges.append(exchange)
        if len(exchanges) == 1:
            self._start(exchange)
        else:
            self.flow.pause_reading()
        return exchange

    def _start(self, exchange: Exchange) -> None:
        tasks = self._server_state.tasks
        task = self._loop.create_task(exchange.run(self._config.loaded_app))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_answer(self, *, keep_alive: bool) -> None:
        """See Connection in server/exchange: go on with the request that is next, wait for one, or close."""
        is_unread = self._incoming.phase is Phase.BODY and len(self._exchanges) == 1
        self._server_state.total_requests += 1
        del self._exchanges[0]
        if self.transport.is_closing():
            return
        if self.flow.is_reading_paused:
            self.flow.resume_reading()
        if is_unread:
            self._linger()  # the rest of the body is not read, and would have no bound
        elif not keep_alive:
            self.close()
        elif self._exchanges:
            self._start(self._exchanges[0])
        else:
            self._deadlines.idle.start()

    def _upgrade(self) -> None:
        """Hand the connection to the WebSocket edge, as uvicorn does: by the head, encoded anew."""
        incoming = self._incoming
        if self._exchanges:
            self._drop()  # two conversations would write to one connection
            return
        if incoming.head_bytes > UPGRADE_HEAD_MAX_BYTES:
            self._refuse(HeadTooLarge(f"the head of an upgrade must be at most {UPGRADE_HEAD_MAX_BYTES} bytes"))
            return
        if head.tokens(incoming.headers, b"sec-websocket-version") != [b"13"]:
            self._refuse(UpgradeRequired("a WebSocket here is of version 13 (RFC 6455, 4.4)"))
            return
        self._let_go()
        self._is_serving = False
        self._server_state.connections.discard(self)
        edge: Any = self._config.ws_protocol_class
        protocol = edge(config=self._config, server_state=self._server_state, app_state=self._app_state)
        headers = head.with_one_offer(incoming.headers)
        protocol.connection_made(self.transport)
        protocol.data_received(head.encoded(incoming.method, incoming.target, incoming.version, headers))
        self.transport.set_protocol(protocol)
        incoming.close()

    def _head_is_late(self) -> None:
        if self.transport.is_closing():
            return
        if self._exchanges:
            self._deadlines.head.start()  # it has a request that is still being answered
        else:
            self._refuse(TooSlow(f"a request's head has {self._bounds.head_timeout_s:g} s to come in"))

    def _body_is_late(self) -> None:
        self._refuse(TooSlow(f"a body has {self._bounds.body_timeout_s:g} s to come in"))

    def _reader_is_late(self) -> None:
        self.transport.abort()

    def _refuse(self, error: TwincastError) -> None:
        """Answer instead of the application, where that cannot be taken for the answer to another request."""
        if self._exchanges:
            first = self._exchanges[0]
            if self._incoming.phase is not Phase.BODY or len(self._exchanges) > 1 or first.has_begun:
                self._drop()
                return
            first.disconnect()  # for the application, which waits for the body
        headers: head.Headers = self._config.encoded_headers
        if headers and head.is_for_localhost(self._incoming.headers):
            headers = head.without_hsts(headers)
        self.transport.write(_refusal(error, headers))
        self._linger()

    def _linger(self) -> None:
        """Close, and take nothing more.

        The client may be in the midst of sending: closed at once, the connection would be reset, and what was answered
        never read.
        """
        self._is_serving = False
        self._deadlines.stop_reading()  # late now would drop the answer that was just written
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(LINGER_S, self.close)

    def _drop(self) -> None:
        self._is_serving = False
        self.transport.abort()

    def _end_in_time(self) -> None:
        """See that a connection that is closing does not wait for its client for ever."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._deadlines.write.start()

    def _let_go(self) -> None:
        self._deadlines.cancel()
        if self._counted is not None:
            self.open_by_address[self._counted].pop(self, None)
            if not self.open_by_address[self._counted]:
                del self.open_by_address[self._counted]
            self._counted = None


def _refusal(error: TwincastError, own_headers: head.Headers) -> bytes:
    """Encode the answer to what is no request, or one that is not read."""
    body = problem(error)
    headers = [
        (b"content-type", PROBLEM.encode()),
        (b"content-length", b"%d" % len(body)),
        *refusing_headers(error),
        *own_headers,
    ]
    lines = [b"HTTP/1.1 %d %b" % (error.http_status, error.code.encode())]
    lines += [b"%b: %b" % pair for pair in headers if pair != (b"connection", b"close")]
    return b"\r\n".join([*lines, b"connection: close", b"", body])


def _bound_unsent(transport: asyncio.Transport) -> None:
    """See TCP_NOTSENT_LOWAT in Linux' tcp(7)."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in INTERNET and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
