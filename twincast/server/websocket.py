"""The fast WebSocket edge: picows parses frames and runs inside uvicorn, on uvicorn's own connections.

uvicorn makes one protocol object per upgrade and replays the request's head into it; picows reads into a buffer of its
own. `PicowsEdge` joins the two. That class is not part of picows' documented API, so its minor version is pinned, and
tests/server/test_websocket.py holds what is assumed here.
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
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub shows only the documented names
from uvicorn.server import ServerState

from twincast.access.request import RequestFacts
from twincast.delivery.session import Limits
from twincast.errors import NotFound, NotReady, Stopping, TwincastError
from twincast.server import head
from twincast.server.conversation import AHEAD_READ_BYTES, Conversation, Dismissal
from twincast.server.pings import Pings
from twincast.transports.asgi import without_prefix
from twincast.transports.parts import PICOWS, parts_in
from twincast.transports.refusal import PROBLEM, problem, refusing_headers
from twincast.wire.query import wants_to_log_in

# An adapter, because picows makes a logger of its own for every connection when it is given a plain one.
logger = logging.LoggerAdapter(logging.getLogger("twincast.picows"), {})

IN_STATE = "twincast picows"
"""Under this name what the connections of this edge share is in the lifespan's state."""
READ_BUFFER_BYTES = 2_048  # picows' smallest; it grows with the messages, and idle clients are many

_get_buffer: Callable[[WSProtocol, int], memoryview] = WSProtocol.get_buffer
_buffer_updated: Callable[[WSProtocol, int], None] = WSProtocol.buffer_updated
# Each read calls them, and `super()` would cost as much as they do.


class PicowsEdge(WSProtocol):  # type: ignore[misc]
    """What uvicorn makes for each upgrade when it is run with `ws=PicowsEdge`."""

    __slots__ = ("_connections", "_conversation", "_headers", "_parts", "_pings")

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._parts = parts_in(app_state)
        self._parts.edge.name = PICOWS
        limits = self._parts.limits
        self._pings = _pings_in(app_state, limits)
        self._connections = server_state.connections
        self._conversation: Conversation | Dismissal | None = None  # once the hands are shaken
        self._headers: head.Headers = config.encoded_headers
        super().__init__(
            None,  # host_port and
            None,  # ws_path are a client's
            False,  # is_client_side
            self._answer_upgrade,
            logger,
            True,  # disconnect_on_exception
            limits.handshake_timeout_s,
            False,  # enable_auto_ping, which takes a task for each connection,
            None,  # auto_ping_idle_timeout,
            None,  # auto_ping_reply_timeout
            WSAutoPingStrategy.PING_WHEN_IDLE,  # and auto_ping_strategy: see server/pings
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
        buffer = _get_buffer(self, size_hint_bytes)
        conversation = self._conversation
        return buffer if conversation is None or not conversation.is_ahead else buffer[:AHEAD_READ_BYTES]

    def buffer_updated(self, size_bytes: int) -> None:
        """See asyncio.BufferedProtocol."""
        conversation = self._conversation
        if conversation is None:
            self._shake_hands(size_bytes)
        else:
            _buffer_updated(self, size_bytes)
            conversation.on_read()

    def _shake_hands(self, size_bytes: int) -> None:
        """Read a part of the request's head, and of what stands behind it."""
        try:
            _buffer_updated(self, size_bytes)
        except UnicodeEncodeError:  # picows cannot answer a head that is wrong where it is not ASCII
            response = WSUpgradeResponse.create_error_response(HTTPStatus.BAD_REQUEST, b"the request is not HTTP")
            self.transport.underlying_transport.write(response.to_bytes())
            self.transport.disconnect()
        if self.listener is None:
            self._end_in_time()
        elif not self.listener.is_open:  # picows looks at the rest of the head after it has asked for the listener
            self.listener.on_broken_frame()
            self._end_in_time()
        else:
            self._conversation = self.listener
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
        else:
            self.listener.stop(Stopping("the server is restarting"))

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
            peer = self.transport.underlying_transport.get_extra_info("peername")
            facts = RequestFacts.of(str(peer[0]) if peer else None, headers)
            conversation = self._conversation_of(facts, query)
        except TwincastError as error:
            return self._refuse(error)
        if not self._headers:
            return conversation
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(_as_text(self._headers)), conversation
        )

    def _conversation_of(self, facts: RequestFacts, query: str) -> Conversation | Dismissal:
        parts = self._parts
        admit = partial(parts.admission.admit_websocket, facts, wants_to_log_in=wants_to_log_in(query))
        try:
            return Conversation(self.transport, parts, self._pings, query, admit)
        except NotReady as error:
            parts.admission.check_upgrade(facts)
            return Dismissal(error, parts.limits.close_timeout_s)

    def _refuse(self, error: TwincastError) -> WSUpgradeResponseWithListener:
        headers = {"Content-Type": PROBLEM, **_as_text([*refusing_headers(error), *self._headers])}
        response = WSUpgradeResponse.create_error_response(error.http_status, problem(error), headers)
        return WSUpgradeResponseWithListener(response, None)


def _pings_in(app_state: dict[str, Any], limits: Limits) -> Pings:
    """Return what pings the connections of one server."""
    pings = app_state.get(IN_STATE)
    if pings is None:
        pings = app_state[IN_STATE] = Pings(asyncio.get_running_loop(), limits.ping_interval_s, limits.pong_timeout_s)
    assert isinstance(pings, Pings)
    return pings


def _as_bytes(text: str) -> bytes:
    """Return a header's text as it came: picows decodes bytes above ASCII to lone surrogates."""
    return text.encode("ascii", "surrogateescape")


def _as_text(headers: head.Headers) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
