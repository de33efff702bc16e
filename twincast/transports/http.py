"""HTTP under `twincast serve`: uvicorn's protocol, with bounds on what a client may cost before and beside its request.

uvicorn waits for a head, a body or a reader as long as they like to take. Here each has a time, a head has a size,
and connections have a number.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from twincast.access.addresses import block_of
from twincast.errors import BadMessage, TooLarge, TooManyConnections, TooSlow, TwincastError
from twincast.transports.operation import PROBLEM, problem, refusing_headers

LINGER_S = 0.5
"""How long a refused client has to read why."""
UNSENT_BYTES = 1024 * 1024
"""What the kernel takes for a client beyond what it can send: enough for a moment's delay, of a browser too. By itself
it takes several times as much, and lets it age."""
PIPELINED_MAX = 8
"""How many requests may wait behind one that is being answered; each costs some kilobytes."""
TRAILERS_MAX = 32
"""Nobody here reads any; each costs as much as a header."""
UPGRADE_HEAD_MAX_BYTES = 12 * 1024
"""Of a head that asks for a WebSocket: picows takes 16 KiB, counted as uvicorn writes it anew."""


class HttpBounds(NamedTuple):
    """What HTTP may cost."""

    connections_max: int
    address_connections_max: int
    head_max_bytes: int
    head_timeout_s: float
    body_timeout_s: float
    write_timeout_s: float
    is_exempt: Callable[[str], bool]
    """Whether connections from an address are not counted by themselves, as those of a proxy are not."""


class BoundedHttp(HttpToolsProtocol):
    """One connection, until it is closed or handed to the WebSocket edge."""

    open_by_address: ClassVar[Counter[str]] = Counter()
    """HTTP connections of all servers in this process; WebSockets are counted where they are let in."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._bounds: HttpBounds = app_state["http_bounds"]
        self._running: RequestResponseCycle | None = None
        self._counted: str | None = None
        self._read_bytes = self._body_bytes = 0  # of the message that is coming in, since the read that began it
        self._came_bytes = 0
        self._is_in_head = self._is_in_body = self._is_handed_over = self._is_refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        _bound_unsent(transport)
        bounds = self._bounds
        if len(self.connections) > bounds.connections_max:
            self._refuse(TooManyConnections(f"this server has {bounds.connections_max} connections, as many as it may"))
            return
        if self.client and not bounds.is_exempt(self.client[0]):
            address = block_of(self.client[0])
            if self.open_by_address[address] >= bounds.address_connections_max:
                self._refuse(TooManyConnections("too many connections come from this address"))
                return
            self.open_by_address[address] += 1
            self._counted = address
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._let_go()
        if self._running is not None:
            self._running.disconnected = True  # uvicorn marks the newest of several requests, not the one under way
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._is_refused:
            return
        self._came_bytes = len(data)
        self._read_bytes += len(data)
        super().data_received(data)
        if self._is_refused or self._is_handed_over:
            return
        # What is neither head nor body frames chunks, or is trailers. It has a head's size, and more with a large body.
        if self._read_bytes - self._body_bytes > self._bounds.head_max_bytes + self._body_bytes:
            self._refuse_head()
        elif self._is_in_body:  # which most bodies are not: they come with their head
            if self._body_timer is None:
                self._body_timer = self.loop.call_later(self._bounds.body_timeout_s, self._body_is_late)
        elif self._head_timer is None and (self._is_in_head or self._has_no_request):
            self._wait_for_head()

    def handle_websocket_upgrade(self) -> None:
        """See HttpToolsProtocol."""
        if self._running is not None and not self._running.response_complete:
            self._drop()  # two conversations would write to one connection
            return
        if self._head_bytes() > UPGRADE_HEAD_MAX_BYTES:
            self._refuse(HeadTooLarge(f"the head of an upgrade takes {UPGRADE_HEAD_MAX_BYTES} bytes"))
            return
        self._let_go()
        self._is_handed_over = True
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """See HttpToolsProtocol."""
        self._is_in_head = True
        self._read_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._is_in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if len(self.pipeline) >= PIPELINED_MAX:
            self._drop()
        elif self._came_bytes > self._bounds.head_max_bytes < self._head_bytes():
            self._refuse_head()
        if self._is_refused:
            raise _Refused  # so that the parser goes no further
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self._is_in_body = True
            # The parser reports trailers as headers, to the list that the application reads. Here they are nothing.
            self.headers = _Nowhere()

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._is_in_body = False
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See HttpToolsProtocol."""
        is_unread = self._is_in_body and self.cycle is self._running
        super().on_response_complete()
        if is_unread and not self.transport.is_closing():
            self._linger()  # nobody reads the rest of the body, and nobody would bound it

    def timeout_keep_alive_handler(self) -> None:
        """See HttpToolsProtocol."""
        super().timeout_keep_alive_handler()
        self._end_in_time()

    def send_400_response(self, msg: str) -> None:
        """See HttpToolsProtocol. Whoever is thrown out in the midst of sending would not read why, and come again."""
        if not self._is_refused:
            self._refuse(BadMessage("this is no request as RFC 9112 has it"))

    def shutdown(self) -> None:
        """See HttpToolsProtocol."""
        super().shutdown()
        self._end_in_time()

    @property
    def _has_no_request(self) -> bool:
        """Whether bytes came that began none, such as empty lines, and uvicorn's own timer was set off by them."""
        if self._is_handed_over or self.transport.is_closing():
            return False
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """See HttpToolsProtocol. Repeated, for what uvicorn does at the end of a task has no place for more."""
        self._running = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._end_in_time()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._bounds.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _end_in_time(self) -> None:
        """See that a connection that is closing does, also if the client never takes what is left for it."""
        if self.transport.is_closing() and self._write_timer is None and self.transport.get_write_buffer_size():
            self._write_timer = self.loop.call_later(self._bounds.write_timeout_s, self.transport.abort)

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self._bounds.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._running is not None and not self._running.response_complete:
            self._wait_for_head()  # it has a request that is still being answered
        else:
            self._refuse(TooSlow(f"a request's head has {self._bounds.head_timeout_s:g} s to come in"))

    def _body_is_late(self) -> None:
        self._body_timer = None
        self._refuse(TooSlow(f"a body has {self._bounds.body_timeout_s:g} s to come in"))

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _refuse_head(self) -> None:
        self._refuse(HeadTooLarge(f"a request's head takes {self._bounds.head_max_bytes} bytes"))

    def _refuse(self, error: TwincastError) -> None:
        """Answer instead of the application, where that cannot be taken for the answer to another request."""
        if self._running is not None and not self._running.response_complete:
            if not self._is_in_body or self.cycle is not self._running or self.cycle.response_started:
                self._drop()
                return
            self.cycle.disconnected = True  # for whoever waits for the body
            self.cycle.message_event.set()
        self._answer(error)

    def _answer(self, error: TwincastError) -> None:
        body = problem(error)
        headers = [
            (b"content-type", PROBLEM.encode()),
            (b"content-length", b"%d" % len(body)),
            *refusing_headers(error),
        ]
        lines = [b"HTTP/1.1 %d %b" % (error.http_status, error.code.encode())]
        lines += [b"%b: %b" % pair for pair in headers if pair[0] != b"connection"]
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self._linger()

    def _linger(self) -> None:
        """Close, and take nothing more.

        The client may be in the midst of sending: closed at once, the connection would be reset, and what was answered
        never read.
        """
        self._is_refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._end_in_time()

    def _drop(self) -> None:
        self._is_refused = True
        self.transport.abort()

    def _let_go(self) -> None:
        for timer in (self._head_timer, self._body_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = self._write_timer = None
        if self._counted is not None:
            self.open_by_address[self._counted] -= 1
            if self.open_by_address[self._counted] <= 0:
                del self.open_by_address[self._counted]
            self._counted = None


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


class HeadTooLarge(TooLarge):
    """A request's head is over its limit (RFC 6585, section 5)."""

    http_status = 431


def _bound_unsent(transport: asyncio.Transport) -> None:
    """See TCP_NOTSENT_LOWAT in Linux' tcp(7)."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
