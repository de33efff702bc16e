"""A server whose WebSocket says back what it hears, as the cases for RFC 6455 want: `python -m tests.echo_server EDGE`.

Both edges are the product's own, apart from what is said on them: the session is another, and binary messages, which
the product refuses, are said back too. Prints its port, and runs until it is ended.
"""

import base64
import socket
import sys
from typing import Any

import uvicorn
from picows import WSFrame, WSMsgType, WSTransport

from twincast import app as application
from twincast.app import create_app
from twincast.delivery.cast import Cast
from twincast.delivery.session import Session
from twincast.errors import TwincastError, UnsupportedMedia
from twincast.server import conversation
from twincast.server import websocket as picows
from twincast.server.process import Server, configured
from twincast.settings import Settings
from twincast.transports import websocket
from twincast.transports.asgi import Receive, Scope, Send
from twincast.transports.websocket import WebSocketEndpoint
from twincast.wire import frames

BINARY_FRAME = 0x82
LARGEST_BYTES = 16 * 1024 * 1024
ROOM = 4  # for base64, and for what is on its way
MARK = "\0binary:"  # no case says this


class EchoSession(Session):
    """A conversation that is its own echo."""

    def begin(self, query: str = "") -> None:
        """Say nothing; these clients do not expect it."""

    def receive(self, payload: bytes) -> None:
        """Say it back."""
        if not self.closed:
            self._connection.write(Cast((payload,)))

    def refuse(self, error: TwincastError, payload: bytes = b"") -> None:
        """Say a binary message back, which the edge that knows it has kept."""
        if isinstance(error, UnsupportedMedia) and isinstance(self._connection, EchoConversation):
            self._connection.say_binary_back()


class EchoConversation(conversation.Conversation):
    """The fast edge, which keeps what came in a binary message."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._binary: list[bytes] = []

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self._binary = []
        if frame.msg_type in {WSMsgType.BINARY, WSMsgType.CONTINUATION}:
            self._binary.append(frame.get_payload_as_bytes())
        super().on_ws_frame(transport, frame)

    def say_binary_back(self) -> None:
        payload = b"".join(self._binary)
        head = frames.text([payload])[: -len(payload) or None]  # of the same length, and another kind
        self._transport.write(bytes([BINARY_FRAME]) + head[1:] + payload)


class EchoEndpoint(WebSocketEndpoint):
    """The portable edge, on which binary messages travel as texts that begin with a nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_text() -> Any:
            event = await receive()
            if event.get("bytes") is not None:
                return {**event, "bytes": None, "text": MARK + base64.b64encode(event["bytes"]).decode()}
            return event

        async def send_as_it_came(event: Any) -> None:
            if event["type"] == "websocket.send" and event["text"].startswith(MARK):
                event = {"type": "websocket.send", "bytes": base64.b64decode(event["text"].removeprefix(MARK))}
            await send(event)

        await super().__call__(scope, receive_text, send_as_it_came)


def main(edge: str) -> None:
    """Serve."""
    for module, name, substitute in (
        (conversation, "Session", EchoSession),
        (websocket, "Session", EchoSession),
        (picows, "Conversation", EchoConversation),
        (application, "WebSocketEndpoint", EchoEndpoint),
    ):
        assert hasattr(module, name)
        setattr(module, name, substitute)
    settings = Settings(
        journal="memory:", message_max_bytes=ROOM * LARGEST_BYTES, outbox_max_bytes=ROOM * LARGEST_BYTES
    )
    app = create_app(settings, edge=edge)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config: uvicorn.Config = configured(app, picows.PicowsEdge if edge == "picows" else None)
    Server(config, app).run(sockets=[listener])


if __name__ == "__main__":
    main(sys.argv[1])
