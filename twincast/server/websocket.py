"""The fast WebSocket edge: picows parses frames and runs inside uvicorn, on uvicorn's own connections.

uvicorn makes one protocol object per upgrade and replays the request's head into it; picows reads into a buffer of its
own. `PicowsEdge` joins the two. That class is not part of picows' documented API, so its minor version is pinned, and
tests/server/test_websocket.py holds what is assumed here.

picows reads single frames. `Assembler` joins them to messages as RFC 6455 asks; `Conversation` adds pongs and the
closing handshake (7.1).
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import uvicorn
from picows import (
    WSAutoPingStrategy,
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub shows only the documented names
from uvicorn.server import ServerState

from twincast.access.leases import End, Lease
from twincast.access.request import RequestFacts
from twincast.delivery.cast import Cast
from twincast.delivery.session import Session
from twincast.errors import NotFound, Stopping, TooLarge, TwincastError, UnsupportedMedia
from twincast.server import head
from twincast.transports.asgi import without_prefix
from twincast.transports.parts import PICOWS, Parts, parts_in
from twincast.transports.refusal import PROBLEM, problem, refusing_headers
from twincast.wire import frames
from twincast.wire.assembler import Assembler, Violation, close_code_of
from twincast.wire.query import wants_to_log_in

# An adapter, because picows makes a logger of its own for every connection when it is given a plain one.
logger = logging.LoggerAdapter(logging.getLogger("twincast.picows"), {})

READ_BUFFER_BYTES = 2_048  # picows' smallest; it grows with the messages, and idle clients are many
AHEAD_READ_BYTES = 128
"""What is read at once from a client that is above its rate, so that other clients need not wait for it: each answer is
a write of its own, and costs tens of microseconds."""
AHEAD_READ_FRAMES = AHEAD_READ_BYTES // 32
"""Estimated frames per read: charged in advance, corrected after the read."""
WRITE_BUFFER_BYTES = 16 * 1024
"""What waits for one client above the system's own buffer, where many small writes cost several times their size; the
rest waits in its outbox, where it can merge."""
_TEXT, _PING, _CLOSE = WSMsgType.TEXT, WSMsgType.PING, WSMsgType.CLOSE


class Conversation(WSListener):
    """One client on this edge: frames to messages for its session, and its session's casts to the socket."""

    __slots__ = (
        "_assembler",
        "_frames",
        "_hub",
        "_limits",
        "_query",
        "_sessions",
        "_transport",
        "_websocket",
        "is_ahead",
        "is_held",
        "is_open",
        "session",
    )

    def __init__(self, websocket: WSTransport, parts: Parts, query: str, enter: Callable[[End], Lease]) -> None:
        hub = self._hub = parts.hub
        self._sessions = parts.sessions
        self._query = query
        limits = self._limits = parts.limits
        self._websocket = websocket
        self._transport = websocket.underlying_transport
        self._assembler = Assembler(limits.message_max_bytes)
        self._frames = 0
        self.is_open = False
        """Whether the handshake is done."""
        self.is_ahead = False
        """Whether the client has sent more than its rates allow, and is read in small pieces."""
        self.is_held = False
        """Whether reading from the client is paused."""
        self.session = Session(self, hub, enter, outbox_max_bytes=limits.outbox_max_bytes)

    def write(self, cast: Cast) -> None:
        """Send a cast in one piece."""
        self._transport.write(cast.encoded[frames.encode])

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; the client's own, or a deadline, ends the connection."""
        self._sessions.discard(self.session)
        if not self.is_open:  # the handshake is not answered yet, so the client cannot read frames
            self._transport.abort()
            return
        # Sent by picows, which would otherwise send pings and a close frame of its own behind this one.
        self._websocket.send_close(cast("WSCloseCode", code), frames.close_reason(reason))
        self._read()
        self.abort_later()

    def abort_later(self) -> None:
        """Abort the connection after a time if the client does not read what was written for it."""
        asyncio.get_running_loop().call_later(self._limits.close_timeout_s, self._transport.abort)

    def on_ws_connected(self, _transport: WSTransport) -> None:
        """Send the initial state, and then what follows."""
        self.is_open = True
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._sessions.add(self.session)
        self.session.begin(self._query)

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """End the session."""
        self._leave()

    def on_broken_frame(self) -> None:
        """End the conversation: picows could not read a frame and has sent a close frame itself."""
        self._leave()

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self.session.pause()

    def resume_writing(self) -> None:
        """The socket's buffer has drained."""
        self.session.resume()

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        """Take one frame; most are whole text messages."""
        kind: Any = frame.msg_type  # an IntEnum, made into a Python object at each access
        self._frames += 1
        if self.session.closed:
            if kind is _CLOSE:
                self._transport.close()
            return
        if self._websocket.is_close_frame_sent:
            self._leave()  # picows reads a frame ahead; that one was broken, and nothing may follow the close frame
            return
        payload = frame.get_payload_as_bytes()
        try:
            message = self._assembler.take(kind, frame.fin, payload, frame.rsv1 or frame.rsv2 or frame.rsv3)
        except Violation as violation:
            self._fail(violation.code, violation.reason)
        except TooLarge as error:
            is_whole = kind is _TEXT and frame.fin  # else the id would be looked for in a part
            self.session.refuse(error, payload if is_whole else b"")
            self._fail(error.close_code, f"{error.code}: {error.message}")
        except UnsupportedMedia as error:
            self.session.refuse(error)
        else:
            if message is not None:
                self.session.receive(message)
            elif kind is _PING:
                self._answer_ping(payload)
            elif kind is _CLOSE:
                self._answer_close(payload)

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        """Send a ping, unless reading is paused: the pong would not be seen."""
        if self.is_held:
            asyncio.get_running_loop().call_soon(transport.notify_user_specific_pong_received)
        else:
            transport.send_ping()

    def on_read(self) -> None:
        """Read on when the client's rates and the hub allow it; all frames of one read have been taken."""
        frames_read, self._frames = self._frames, 0
        left_s = self.session.count(frames_read)
        self.is_ahead = left_s > 0
        if self.is_ahead:
            self._hold()
            asyncio.get_running_loop().call_later(left_s, self._read_on)
        elif not self._hub.intake.has_room and not self.session.closed:
            self._hold()
            self._hub.intake.when_settled(self._read)

    def _hold(self) -> None:
        self.is_held = True
        self._transport.pause_reading()
        self._websocket.notify_user_specific_pong_received()  # a pong that is on its way is not read meanwhile

    def _read(self) -> None:
        self.is_held = False
        self._transport.resume_reading()

    def _read_on(self) -> None:
        left_s = self.session.count(0)
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._read_on)
            return
        # Charged in advance, so that the other connections of this identity do not all read at the same moment.
        self._frames -= AHEAD_READ_FRAMES
        self.session.count(AHEAD_READ_FRAMES)
        self._read()

    def _answer_ping(self, payload: bytes) -> None:
        # No pongs to a client that does not read: a flood of pings would fill its buffer without bound.
        if self._transport.get_write_buffer_size() < WRITE_BUFFER_BYTES:
            self._transport.write(frames.pong(payload))

    def _answer_close(self, payload: bytes) -> None:
        self._leave()
        self._transport.write(frames.close(close_code_of(payload)))
        self._transport.close()
        self.abort_later()

    def _fail(self, code: int, reason: str) -> None:
        self._leave()
        self.close(code, reason)

    def _leave(self) -> None:
        self.session.end()
        self._sessions.discard(self.session)


class PicowsEdge(WSProtocol):  # type: ignore[misc]
    """What uvicorn makes for each upgrade when it is run with `ws=PicowsEdge`."""

    __slots__ = ("_connections", "_headers", "_parts", "_peer")

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._parts = parts_in(app_state)
        self._parts.edge.name = PICOWS
        limits = self._parts.limits
        self._connections = server_state.connections
        self._headers: head.Headers = config.encoded_headers
        self._peer: str | None = None
        super().__init__(
            None,  # host_port and
            None,  # ws_path are a client's
            False,  # is_client_side
            self._answer_upgrade,
            logger,
            True,  # disconnect_on_exception
            limits.handshake_timeout_s,
            True,  # enable_auto_ping
            limits.ping_interval_s,
            limits.pong_timeout_s,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: the conversation answers pings itself, within bounds
            2 * limits.message_max_bytes,  # max_frame_size: above our own limit, so that our answer can say the limit
            None,  # extra_headers
            READ_BUFFER_BYTES,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._connections.add(self)
        # uvicorn does this after its replay; by then a large initial state may have filled the connection, and
        # `pause_writing` would have been called on the wrong protocol.
        cast(asyncio.Transport, transport).set_protocol(self)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else None
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._connections.discard(self)
        super().connection_lost(exc)
        if self.listener is not None:  # picows does not call it if the upgrade failed after it was made
            self.listener.on_broken_frame()

    def data_received(self, data: bytes) -> None:
        """Read the request's head that uvicorn has read already."""
        while data:
            buffer = self.get_buffer(len(data))
            part, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(part)] = part
            self.buffer_updated(len(part))

    def get_buffer(self, size_hint_bytes: int) -> memoryview:
        """See asyncio.BufferedProtocol."""
        buffer: memoryview = super().get_buffer(size_hint_bytes)
        return buffer if self.listener is None or not self.listener.is_ahead else buffer[:AHEAD_READ_BYTES]

    def buffer_updated(self, size_bytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        try:
            super().buffer_updated(size_bytes)
        except UnicodeEncodeError:  # picows cannot answer a head that is wrong where it is not ASCII
            response = WSUpgradeResponse.create_error_response(HTTPStatus.BAD_REQUEST, b"the request is not HTTP")
            self.transport.underlying_transport.write(response.to_bytes())
            self.transport.disconnect()
        if self.listener is None:
            self._end_in_time()
        elif not self.listener.is_open:  # picows looks at the rest of the head after it has asked for the listener
            self.listener.on_broken_frame()
            self._end_in_time()
        elif self.transport.is_close_frame_sent:
            self.listener.on_broken_frame()
        else:
            self.listener.on_read()

    def _end_in_time(self) -> None:
        """End a refused upgrade, also if the client does not read the answer."""
        transport = self.transport.underlying_transport
        if transport.is_closing() and transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(self._parts.limits.close_timeout_s, transport.abort)

    def shutdown(self) -> None:
        """End the conversation when the server stops: send the answers that are due, then close code 1012."""
        if self.listener is None:
            self.transport.disconnect()
            return
        self.transport.underlying_transport.pause_reading()
        session = self.listener.session
        self._parts.hub.intake.when_settled(lambda: session.stop(Stopping("the server is restarting")))

    def _answer_upgrade(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        path, _, query = request.path.decode("latin-1").partition("?")
        if self._headers and head.is_for_localhost(
            [(b"host", request.headers.get("host", "").encode("latin-1", "replace"))]
        ):
            self._headers = head.without_hsts(self._headers)
        try:
            if without_prefix(unquote(path), self._parts.root_path) != "/ws":
                raise NotFound("the WebSocket is at /ws")
            headers = ((_as_bytes(name.lower()), _as_bytes(value)) for name, value in request.headers.items())
            facts = RequestFacts.of(self._peer, headers)
            log_in = wants_to_log_in(query)
            admit = partial(self._parts.admission.admit_websocket, facts, wants_to_log_in=log_in)
            conversation = Conversation(self.transport, self._parts, query, admit)
        except TwincastError as error:
            return self._refuse(error)
        if not self._headers:
            return conversation
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(_as_text(self._headers)), conversation
        )

    def _refuse(self, error: TwincastError) -> WSUpgradeResponseWithListener:
        headers = {"Content-Type": PROBLEM, **_as_text([*refusing_headers(error), *self._headers])}
        response = WSUpgradeResponse.create_error_response(error.http_status, problem(error), headers)
        return WSUpgradeResponseWithListener(response, None)


def _as_bytes(text: str) -> bytes:
    """Return a header's text as it came: picows decodes bytes above ASCII to lone surrogates."""
    return text.encode("ascii", "surrogateescape")


def _as_text(headers: head.Headers) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
