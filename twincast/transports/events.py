"""`GET /api/events`: the stream of changes over plain HTTP, as server-sent events or by long poll."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from twincast.access.leases import Lease
from twincast.access.request import Caller, RequestFacts
from twincast.access.tickets import TicketUse
from twincast.core.model import Position
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.delivery.scheduler import Budget
from twincast.errors import Stopping, Truncated, TwincastError, ValidationFailed
from twincast.hub.hub import Hub
from twincast.transports.asgi import SAFE_HEADERS, Buffer, Idle, Receive, Scope, Send, header
from twincast.transports.documents import shapes
from twincast.transports.operation import Answer, Call, Operation, paid, pieces
from twincast.transports.parts import Parts
from twincast.wire import event_stream
from twincast.wire.messages import encode
from twincast.wire.query import StreamQuery, decode_query, decode_stream_query, rules_of_query, ticket_of, whole_number

logger = logging.getLogger("twincast.events")

RETRY_MS = 2_000
"""How long a browser waits before it comes back."""
HEARTBEAT_S = 15.0
"""Shorter than the minute after which most proxies give a silent connection up."""
LIMIT_MAX, LIMIT_DEFAULT = 10_000, 1_000
WAIT_MAX_S = 60
POLL_MAX_BYTES = 1024 * 1024
"""Of the changes in one answer, up to a block more: an answer lies in memory until its client has taken it."""

_HEADERS = (
    (b"content-type", event_stream.CONTENT_TYPE.encode()),
    *SAFE_HEADERS,
    (b"x-accel-buffering", b"no"),  # nginx would hold the events back until they fill a page
)


class EventsEndpoint:
    """The ASGI application behind `/api/events`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._admission = parts.admission
        self.operation = Operation(
            "GET",
            "/api/events",
            self.poll,
            (shapes.Events,),
            parameters=shapes.EVENTS_PARAMETERS,
            stream=self.stream,
            identify=self.holder_of_ticket,
        )

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream of server-sent events.

        Raises:
            TwincastError: it cannot be; nothing was sent.
        """
        caller = scope["caller"]
        caller.principal.require_at_all("read")
        query = scope["query_string"].decode("latin-1")
        hub, budget = self._parts.hub, self._admission.limits.budget(caller)
        await hub.make_way(len(query), budget)
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

    def holder_of_ticket(self, scope: Scope, facts: RequestFacts) -> Caller | None:
        """Return who holds the ticket that a request comes with; None if it comes with none.

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
            return position is not None and not self._parts.hub.why_not_ours(Position.parse(position))
        except ValidationFailed:
            return False

    @contextmanager
    def _held(self, ticket: str | None, connection: "_EventStream") -> Iterator[None]:
        """End a stream when its ticket opens it anew, and let it resume for a while when it has ended."""
        if ticket is None:
            yield
            return
        tickets, end = self._admission.tickets, connection.be_left
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

    async def poll(self, call: Call) -> Answer:
        """Return the changes behind a position, or stream them.

        As JSON: what there is, waiting for the first change for up to `wait_s`. With `Accept: text/event-stream`: the
        state, then every change as it comes, each as an event whose id is its position.
        """
        principal = call.caller.principal
        principal.require_at_all("read")
        names = {"since", "devices", "kinds", "limit", "wait_s", "ticket"}
        hub, budget = self._parts.hub, self._admission.limits.begin_reading(call.caller)
        await hub.make_way(len(call.query), budget)
        self._admission.recheck(principal)
        given = decode_query(call.query, names)
        since = given.get("since", [""])[-1]
        limit = whole_number(given.get("limit", [str(LIMIT_DEFAULT)])[-1], "`limit`", LIMIT_MAX)
        wait_s = whole_number(given.get("wait_s", ["0"])[-1], "`wait_s`", WAIT_MAX_S)
        subscription = Subscription(rules_of_query(given), "every").inside(principal.readable)
        poll = _Poll(hub, subscription, budget, limit or 1, is_compressed=call.takes_gzip)
        lease = self._admission.admit(call.caller, poll.refuse)
        self._parts.open_responses.add(poll.wake)
        try:
            return await poll.answer(Position.parse(since) if since else None, wait_s)
        finally:
            self._parts.open_responses.discard(poll.wake)
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
        if not self.feed.is_closed:  # it may have been cut off while an answer before this one was not read
            self.feed.begin(stream_query.subscription, since=stream_query.since, page_size=stream_query.page)
        await self.drain_to(self._send_events, idle=Idle(HEARTBEAT_S, self._beat))
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def be_left(self) -> None:
        """End the stream: its client has come back by another connection."""
        self.cut_off(Stopping("the same ticket opened it anew"))

    def cut_off(self, error: TwincastError) -> None:
        """End the stream. The browser comes back with its last position, and is told what it missed, or why not."""
        del error
        self.leave()
        self.feed.close()
        if (
            self._has_begun
        ):  # else there is nothing that could be left unfinished; the answer before it has its own time
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


class _Found(NamedTuple):
    """Changes that a poll has found, and how far it has looked."""

    messages: list[bytes]
    seq: int


class _Poll:
    """One long poll. While it waits it watches, so that only a change that it wants wakes it."""

    def __init__(
        self, hub: Hub, subscription: Subscription, budget: Budget, limit: int, *, is_compressed: bool
    ) -> None:
        self._is_compressed = is_compressed
        self._hub = hub
        self._subscription = subscription
        self._budget = budget
        self._limit = limit
        self._woken = asyncio.Event()
        self._refusal: TwincastError | None = None

    def wake(self) -> None:
        self._woken.set()

    def refuse(self, error: TwincastError) -> None:
        """End the poll with an error: whoever asked may not have the answer any more."""
        self._refusal = error
        self.wake()

    def offer(self, cast: Cast) -> None:
        del cast  # it is read back, with what came before it
        self.wake()

    is_behind = False

    def hold(self) -> None:
        """See Watcher. Nothing is held: the mode is `every`."""

    def release(self) -> None:
        """See Watcher."""

    async def answer(self, since: Position | None, wait_s: float) -> Answer:
        """Return what there is, or what comes within some seconds.

        Raises:
            TwincastError: what `refuse` was told meanwhile.
        """
        answer = await self._answer(since, wait_s)
        if self._refusal is not None:
            raise self._refusal
        return answer

    async def _answer(self, since: Position | None, wait_s: float) -> Answer:
        hub = self._hub
        reason = "" if since is None else hub.why_not_resume(since)
        if since is None or reason:
            return await self._state(reason)
        group = hub.router.join(self, self._subscription)
        try:
            found = await self._look(since.seq)
            if not found.messages:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                found = await self._look(found.seq)
        except Truncated:
            return await self._state("too_old")
        finally:
            hub.router.leave(self, group)
        return Answer(self._changes(found))

    async def _look(self, since: int) -> _Found:
        hub = self._hub
        messages: list[bytes] = []
        size_bytes = 0
        while since < hub.state.seq and len(messages) < self._limit and size_bytes < POLL_MAX_BYTES:
            block = await self._block(since)
            selected = await hub.pick(block, self._subscription, self._budget)
            since = block.entries[-1].seq
            left = self._limit - len(messages)
            messages.extend(selected.messages[:left])
            size_bytes += selected.size_bytes
            if len(selected.messages) > left:
                since = selected.entries[left - 1].seq
            await asyncio.sleep(0)  # what memory has does not wait, and others are to have their turn
        return _Found(messages, since)

    async def _block(self, since: int) -> Cast:
        taken: asyncio.Future[Cast] = asyncio.get_running_loop().create_future()
        block = self._hub.read_back(since, self._hub.state.seq, partial(_settle, taken))
        return await taken if block is None else block

    def _changes(self, found: _Found) -> bytes:
        hub = self._hub
        text = b'{"timestamp_utc":"%b","epoch":"%b","seq":%d,"resumed":true,"events":[%b],"more":%b}'
        return text % (
            hub.now_utc().encode(),
            hub.state.epoch.encode(),
            found.seq,
            b",".join(found.messages),
            encode(found.seq < hub.state.seq),
        )

    async def _state(self, reason: str) -> Answer:
        hub = self._hub
        names = await hub.select(self._subscription, self._budget)
        head = b'{"timestamp_utc":"%b","epoch":"%b","seq":%d,"resumed":false,%b"data_snapshot":' % (
            hub.now_utc().encode(),
            hub.state.epoch.encode(),
            hub.state.seq,
            b'"reason":%b,' % encode(reason) if reason else b"",
        )
        texts = hub.snapshots.texts(self._subscription, names)
        state = paid(texts, self._budget, is_compressed=self._is_compressed)
        return pieces(head, state, b',"events":[],"more":false}')


def _settle(taken: asyncio.Future[Cast], block: Cast | TwincastError) -> None:
    if taken.done():  # the client left
        return
    if isinstance(block, Cast):
        taken.set_result(block)
    else:
        taken.set_exception(block)
