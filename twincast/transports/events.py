"""`GET /api/events` as a stream: the state and every change over plain HTTP, as server-sent events."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twincast.access.leases import Lease
from twincast.access.request import Caller, RequestFacts
from twincast.access.tickets import TicketUse
from twincast.core.model import Position
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.delivery.scheduler import Budget
from twincast.errors import Stopping, TwincastError, ValidationFailed
from twincast.hub.hub import Hub
from twincast.transports.asgi import SAFE_HEADERS, Receive, Scope, Send, header
from twincast.transports.buffer import Buffer, Idle
from twincast.transports.parts import Parts
from twincast.wire import event_stream
from twincast.wire.query import StreamQuery, decode_stream_query, ticket_of

logger = logging.getLogger("twincast.events")

RETRY_MS = 2_000
"""How long a browser waits before it reconnects."""
HEARTBEAT_S = 15.0
"""Shorter than the minute after which most proxies end a silent connection."""

_HEADERS = (
    (b"content-type", event_stream.CONTENT_TYPE.encode()),
    *SAFE_HEADERS,
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back until they fill a page
)


class EventStreams:
    """Serves event streams, and remembers those that are open."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._admission = parts.admission

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream of server-sent events.

        Raises:
            TwincastError: it cannot be; nothing was sent.
        """
        caller = scope["caller"]
        caller.principal.require_at_all("read")
        query = scope["query_string"].decode("latin-1")
        hub, budget = self._parts.hub, self._admission.limits.budget(caller)
        await hub.reads.turn(len(query), budget)
        self._admission.recheck(caller.principal)  # its turn may have been long in coming
        stream_query = decode_stream_query(query, header(scope, b"last-event-id") or "")
        subscription = stream_query.subscription.inside(caller.principal.readable)
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": b""})
            return
        limits = self._parts.limits
        connection = _EventStream(send, hub, budget, limits.outbox_max_bytes, limits.close_timeout_s)
        with self._held(ticket_of(query), connection):
            lease = self._admission.admit(caller, connection.cut_off)
            connection.leave = lease.release
            await self._serve(connection, lease, stream_query._replace(subscription=subscription), receive)

    def ticket_holder(self, scope: Scope, facts: RequestFacts) -> Caller | None:
        """Return the caller whose ticket a request has in its address; None if it has none.

        Raises:
            TwincastError: what Admission.identify raises.
        """
        ticket = self._ticket_in(scope)
        return None if ticket is None else self._admission.identify(facts, ticket=ticket)

    def _ticket_in(self, scope: Scope) -> TicketUse | None:
        """Return the ticket in a request's address, and what it is used for; None if it has none."""
        query = scope["query_string"].decode("latin-1")
        ticket = ticket_of(query) if query else None
        if ticket is None:
            return None
        is_stream = scope["method"] == "GET" and event_stream.CONTENT_TYPE in (header(scope, b"accept") or "")
        return TicketUse(ticket, query, is_stream, self._is_ours(header(scope, b"last-event-id")))

    def _is_ours(self, position: str | None) -> bool:
        try:
            return position is not None and self._parts.hub.is_of_this_log(Position.parse(position))
        except ValidationFailed:
            return False

    @contextmanager
    def _held(self, ticket: str | None, connection: "_EventStream") -> Iterator[None]:
        """End a stream when its ticket opens it anew, and let the ticket open it again for a while after its end."""
        if ticket is None:
            yield
            return
        tickets, end = self._admission.tickets, connection.be_replaced
        tickets.stream_began(ticket, end)
        try:
            yield
        finally:
            tickets.stream_ended(ticket, end)

    async def _serve(
        self, connection: "_EventStream", lease: Lease, stream_query: StreamQuery, receive: Receive
    ) -> None:
        self._parts.open_responses.add(connection.end)
        self._parts.event_feeds.add(connection.feed)
        try:
            async with connection.deadline, asyncio.TaskGroup() as group:
                leaving = group.create_task(_until_left(receive, connection), name="event stream listens")
                await connection.serve(stream_query)
                leaving.cancel()
        except TimeoutError:  # the response stays unfinished, for which the server ends the connection
            logger.info("the event stream of %s did not take its end", lease.actor.who)
        finally:
            self._parts.open_responses.discard(connection.end)
            self._parts.event_feeds.discard(connection.feed)
            connection.feed.close()
            lease.release()


class _EventStream(Buffer):
    """One client's response, as its feed sees it."""

    def __init__(self, send: Send, hub: Hub, budget: Budget, max_bytes: int, close_timeout_s: float) -> None:
        super().__init__(max_bytes)
        self._send = send
        self._close_timeout_s = close_timeout_s
        self._has_begun = False
        self.deadline = asyncio.timeout(None)
        self.feed = Feed(self.write, hub, self.cut_off, budget=budget, outbox_max_bytes=max_bytes)
        self.flow = self.feed.sender
        self.leave: Callable[[], None]

    async def serve(self, stream_query: StreamQuery) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        self._has_begun = True
        await self._send_body(event_stream.retry(RETRY_MS))
        if not self.feed.is_closed:  # it may have been cut off while the client did not read an earlier response
            self.feed.begin(stream_query.subscription, since=stream_query.since, page_size=stream_query.page_size)
        await self.drain_to(self._send_events, idle=Idle(HEARTBEAT_S, self._beat))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def be_replaced(self) -> None:
        """End the stream: its client has opened it anew by another connection."""
        self.cut_off(Stopping("the same ticket opened it anew"))

    def cut_off(self, error: TwincastError) -> None:
        """End the stream. The browser reconnects with its last position, and gets what it missed, or why it cannot."""
        del error
        self.leave()
        self.feed.close()
        if self._has_begun:  # else no response is unfinished; the one before it has a deadline of its own
            self.deadline.reschedule(asyncio.get_running_loop().time() + self._close_timeout_s)
        self.end()

    async def _send_events(self, cast: Cast) -> None:
        await self._send_body(cast.encoded[event_stream.encode])

    async def _beat(self) -> None:
        await self._send_body(event_stream.heartbeat(str(self.feed.position or "")))

    async def _send_body(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})


async def _until_left(receive: Receive, connection: _EventStream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    connection.end()
