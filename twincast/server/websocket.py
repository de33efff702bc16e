"""The fast WebSocket edge: picows parses frames and runs inside uvicorn, on uvicorn's own connections.

uvicorn makes one protocol object per upgrade and replays the request's head into it; picows reads into a buffer of its
own. `PicowsEdge` joins the two. That class is not part of picows' documented API, so its minor version is pinned, and
tests/server/test_websocket.py holds what is assumed here.
"""

import asyncio
import logging
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
from twincast.errors import NotFound, Stopping, TwincastError
from twincast.server import head
from twincast.server.conversation import AHEAD_READ_BYTES, Conversation
from twincast.transports.asgi import without_prefix
from twincast.transports.parts import PICOWS, parts_in
from twincast.transports.refusal import PROBLEM, problem, refusing_headers
from twincast.wire.query import wants_to_log_in

# An adapter, because picows makes a logger of its own for every connection when it is given a plain one.
logger = logging.LoggerAdapter(logging.getLogger("twincast.picows"), {})

READ_BUFFER_BYTES = 2_048  # picows' smallest; it grows with the messages, and idle clients are many


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
