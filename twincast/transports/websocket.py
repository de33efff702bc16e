"""The portable WebSocket edge: an ASGI endpoint, for any ASGI server."""

import asyncio
from collections.abc import Callable
from functools import partial

from twincast.core import counters
from twincast.delivery.cast import Cast
from twincast.delivery.session import Limits, Session
from twincast.errors import NotReady, TwincastError
from twincast.hub.hub import Hub
from twincast.transports.asgi import Receive, Scope, Send, facts_of
from twincast.transports.buffer import Buffer
from twincast.transports.parts import PORTABLE, Parts
from twincast.transports.refusal import PROBLEM, problem, refusing_headers
from twincast.wire.assembler import not_text, too_large
from twincast.wire.query import wants_to_log_in


class _Connection(Buffer):
    """One client's socket, as its session sees it."""

    def __init__(self, send: Send, limits: Limits) -> None:
        super().__init__(limits.outbox_max_bytes)
        self._send = send
        self._limits = limits
        self._closing: tuple[int, str] = (1000, "")
        self.deadline = asyncio.timeout(None)
        self.leave: Callable[[], None]

    def close(self, code: int, reason: str) -> None:
        """See Connection in delivery/session."""
        self.leave()
        self._closing = (code, reason)
        self.deadline.reschedule(asyncio.get_running_loop().time() + self._limits.close_timeout_s)
        self.end()

    async def drain(self) -> None:
        """Send until the session closes."""
        try:
            await self.drain_to(self._send_messages)
            code, reason = self._closing
            await self._send({"type": "websocket.close", "code": code, "reason": _fitting(reason)})
        except OSError:  # uvicorn's ClientDisconnected; the receiving side learns of it as websocket.disconnect
            return

    async def _send_messages(self, cast: Cast) -> None:
        for message in cast.messages:
            await self._send({"type": "websocket.send", "text": message.decode()})


class WebSocketEndpoint:
    """The ASGI application behind `/ws`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection from its handshake to its end."""
        await receive()  # websocket.connect
        parts = self._parts
        parts.edge.name = PORTABLE
        connection = _Connection(send, parts.limits)
        query = scope["query_string"].decode("latin-1")
        try:
            hub = parts.hub
            log_in = wants_to_log_in(query)
            admit = partial(parts.admission.admit_websocket, facts_of(scope), wants_to_log_in=log_in)
            session = Session(connection, hub, admit, outbox_max_bytes=parts.limits.outbox_max_bytes)
        except TwincastError as error:
            await _refuse(error, scope, send)
            return
        connection.flow = session
        connection.leave = partial(parts.sessions.pop, session, None)
        parts.sessions[session] = None
        try:
            async with connection.deadline, asyncio.TaskGroup() as group:
                await send({"type": "websocket.accept"})  # which may take its time; the lease may end meanwhile
                sender = group.create_task(connection.drain(), name="websocket send")
                session.begin(query)
                await self._receive(hub, session, receive)
                sender.cancel()
        except TimeoutError:
            return  # the client took neither what waited for it nor the close frame
        finally:
            session.end()
            connection.leave()

    async def _receive(self, hub: Hub, session: Session, receive: Receive) -> None:
        message_max_bytes = self._parts.limits.message_max_bytes
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return
            text = event.get("text")
            if text is None:
                session.refuse(not_text())
                continue
            payload = text.encode()
            if len(payload) > message_max_bytes:
                error = too_large(message_max_bytes)
                session.refuse(error, payload)
                session.close(error)
                continue
            session.receive(payload)
            await _let_pass(session)
            if not hub.intake.has_room:
                await hub.intake.settled()


async def _let_pass(session: Session) -> None:
    left_s = session.count(1)
    while left_s > 0:
        await asyncio.sleep(left_s)
        left_s = session.count(0)


async def turn_away(parts: Parts, scope: Scope, receive: Receive, send: Send) -> None:
    """Tell a client that the server is not ready by a close code: of an answer to the handshake no page learns."""
    await receive()  # websocket.connect
    try:
        parts.admission.check_upgrade(facts_of(scope))
        _ = parts.hub
    except NotReady as error:
        counters.closes[error.code] += 1
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": error.close_code, "reason": _fitting(error.reason)})
    except TwincastError as error:
        await _refuse(error, scope, send)


def _fitting(reason: str) -> str:
    """Return as much of a text as a close frame holds (RFC 6455, 5.5)."""
    return reason.encode()[:123].decode(errors="ignore")


async def _refuse(error: TwincastError, scope: Scope, send: Send) -> None:
    """Answer instead of the handshake; a server without the extension for that says 403 to all."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", PROBLEM.encode()), *refusing_headers(error)]
    await send({"type": "websocket.http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem(error)})
