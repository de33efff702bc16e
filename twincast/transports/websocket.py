"""The portable WebSocket edge: an ASGI endpoint, for any ASGI server.

ASGI gives no view of the socket's buffer, only a `send` that waits while it is full. So this edge holds a buffer of
its own, as large as one client's outbox, and tells the session when it is full and when it has drained.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from twincast.core.cast import Cast
from twincast.core.door import Door
from twincast.core.session import Limits, Session
from twincast.errors import Forbidden, TooLarge, UnsupportedMedia
from twincast.hub import Hub

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Buffer:
    """What a session has written and `send` has not taken."""

    def __init__(self, max_bytes: int, end: Callable[[], None]) -> None:
        self._end = end
        self._messages: deque[bytes] = deque()
        self._size_bytes = 0
        self._max_bytes = max_bytes
        self._filled = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self.session: Session

    def write(self, cast: Cast) -> None:
        self._messages.extend(cast.messages)
        self._size_bytes += sum(map(len, cast.messages))
        self._filled.set()
        if self._size_bytes > self._max_bytes:
            self.session.pause()

    def close(self, code: int, reason: str) -> None:
        self._closing = (code, reason)
        self._filled.set()
        self._end()

    async def drain_to(self, send: Send) -> None:
        """Send until the session closes."""
        low_bytes = self._max_bytes // 4
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._messages:
                message = self._messages.popleft()
                await send({"type": "websocket.send", "text": message.decode()})
                was_above = self._size_bytes > low_bytes
                self._size_bytes -= len(message)
                if was_above and self._size_bytes <= low_bytes:
                    self.session.resume()
            if self._closing:
                code, reason = self._closing
                reason = reason.encode()[:123].decode(errors="ignore")  # RFC 6455, 5.5
                await send({"type": "websocket.close", "code": code, "reason": reason})
                return


class WebSocketEndpoint:
    """The ASGI application behind `/ws`."""

    def __init__(self, hub: Callable[[], Hub], door: Door, limits: Limits) -> None:
        """Make the endpoint; `hub` is asked for at each connection, for it opens after the routes exist."""
        self._hub = hub
        self._door = door
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        headers = dict(scope["headers"])
        try:
            self._door.check(_header(headers, b"host"), _header(headers, b"origin"))
        except Forbidden:
            await send({"type": "websocket.close", "code": 1008})  # before the handshake: the server answers 403
            return
        await send({"type": "websocket.accept"})
        hub = self._hub()
        deadline = asyncio.timeout(None)

        def end() -> None:
            hub.leave(session)
            deadline.reschedule(asyncio.get_running_loop().time() + self._limits.close_timeout_s)

        buffer = _Buffer(self._limits.outbox_max_bytes, end)
        session = buffer.session = Session(buffer, hub, outbox_max_bytes=self._limits.outbox_max_bytes)
        session.greet()
        hub.join(session)
        try:
            async with deadline, asyncio.TaskGroup() as group:
                sender = group.create_task(_until_gone(buffer, send), name="websocket send")
                await self._receive(hub, session, receive)
                sender.cancel()
        except TimeoutError:
            return  # the client took neither what waited for it nor the close frame
        finally:
            session.closed = True
            hub.leave(session)

    async def _receive(self, hub: Hub, session: Session, receive: Receive) -> None:
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            text = event.get("text")
            if text is None:
                session.refuse(UnsupportedMedia("messages are JSON text; binary ones are not taken"))
                continue
            payload = text.encode()
            if len(payload) > self._limits.message_max_bytes:
                error = TooLarge(f"a message takes {self._limits.message_max_bytes} bytes; this one is larger")
                session.refuse(error)
                session.close(error)
                continue
            session.receive(payload)
            if not hub.has_room:
                settled = asyncio.Event()
                hub.when_settled(settled.set)
                await settled.wait()


async def _until_gone(buffer: _Buffer, send: Send) -> None:
    try:
        await buffer.drain_to(send)
    except OSError:  # uvicorn's ClientDisconnected; the receiving side learns of it as websocket.disconnect
        buffer.session.closed = True


def _header(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
