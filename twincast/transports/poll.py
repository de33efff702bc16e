"""`GET /api/events` as JSON: what changed since a position, waiting for the first change if there is none yet."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from twincast.access.request import Caller, RequestFacts
from twincast.core.model import ENTRIES, Epoch, Position, TimeUtc
from twincast.core.subscription import Subscription, subscription_to
from twincast.delivery.backlog import Backlog
from twincast.delivery.cast import Cast
from twincast.delivery.scheduler import Budget
from twincast.errors import Truncated, TwincastError
from twincast.hub.hub import Hub
from twincast.transports.answer import STATE_HERE, Answer, metered, with_state
from twincast.transports.asgi import Receive, Scope, Send
from twincast.transports.documents import parameters, shapes
from twincast.transports.operation import Call, Operation
from twincast.transports.parts import Parts
from twincast.wire.messages import Reason, Twins, encode
from twincast.wire.query import decode_query, rules_of_query, whole_number

LIMIT_MAX, LIMIT_DEFAULT = 10_000, 1_000
WAIT_MAX_S = 60
POLL_MAX_BYTES = 1024 * 1024
"""Soft limit of the changes in one answer, exceeded by one block at most; it is held in memory until sent."""
_NAMES = frozenset({"since", "devices", "kinds", "limit", "wait_s", "ticket"})
_ANY_CHANGE: dict[str, Any] = {"type": "array", "items": shapes.tagged_union(*ENTRIES)}


_PARAMETERS = (
    parameters.SINCE,
    parameters.DEVICES,
    parameters.KINDS,
    parameters.parameter(
        "limit",
        parameters.whole_number_schema(LIMIT_MAX, minimum=1, default=LIMIT_DEFAULT),
        "long poll: how many events at most",
    ),
    parameters.parameter(
        "wait_s",
        parameters.whole_number_schema(WAIT_MAX_S, default=0),
        "long poll: how long to wait for the first",
    ),
    *parameters.STREAMS,
    parameters.TICKET,
    *parameters.LAST_EVENT_ID,
)


class Events(Struct, kw_only=True):
    """Changes behind a position, or the state where they cannot be had."""

    timestamp_utc: TimeUtc
    epoch: Epoch
    seq: Annotated[int, Meta(description="the cursor for the next call")]
    resumed: bool
    reason: Reason | UnsetType = UNSET
    data_snapshot: Twins | UnsetType = UNSET
    events: Annotated[Raw, Meta(extra_json_schema=_ANY_CHANGE)]
    more: Annotated[bool, Meta(description="the limit was reached before the end")]


def operations(
    parts: Parts,
    *,
    stream: Callable[[Scope, Receive, Send], Awaitable[None]],
    identify: Callable[[Scope, RequestFacts], Caller | None],
) -> tuple[Operation, ...]:
    """Return the call for changes.

    Args:
        parts: what the edges share.
        stream: serves clients that accept an event stream instead.
        identify: identifies clients that come with a ticket.
    """
    return (
        Operation(
            "GET",
            "/api/events",
            _Polling(parts).poll,
            (Events,),
            parameters=_PARAMETERS,
            stream=stream,
            identify=identify,
        ),
    )


class _Polling:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._admission = parts.admission

    async def poll(self, call: Call) -> Answer:
        """Return the changes behind a position, or stream them.

        As JSON: what there is, waiting for the first change for up to `wait_s`. With `Accept: text/event-stream`: the
        state, then every change as it comes, each as an event whose id is its position.
        """
        principal = call.caller.principal
        principal.require_at_all("read")
        hub, budget = self._parts.hub, self._admission.limits.begin_reading(call.caller)
        await hub.reads.turn(len(call.query), budget)
        self._admission.recheck(principal)
        given = decode_query(call.query, _NAMES)
        since = given.get("since", [""])[-1]
        limit = whole_number(given.get("limit", [str(LIMIT_DEFAULT)])[-1], "`limit`", LIMIT_MAX)
        wait_s = whole_number(given.get("wait_s", ["0"])[-1], "`wait_s`", WAIT_MAX_S)
        subscription = subscription_to(rules_of_query(given), "every").inside(principal.readable)
        poll = _Poll(hub, subscription, budget, limit or 1, is_compressed=call.takes_gzip)
        lease = self._admission.admit(call.caller, poll.refuse)
        self._parts.open_responses.add(poll.wake)
        try:
            return await poll.answer(Position.parse(since) if since else None, wait_s)
        finally:
            self._parts.open_responses.discard(poll.wake)
            lease.release()


class _Found(NamedTuple):
    """Changes that a poll has found, and the seq up to which it has searched the log."""

    messages: list[bytes]
    seq: int


class _Poll:
    """One long poll. While it waits it watches, so that only a change that it selects wakes it."""

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
        """Stop waiting: there is a change, or the server stops."""
        self._woken.set()

    def refuse(self, error: TwincastError) -> None:
        """End the poll with an error: its caller may not have the answer any more."""
        self._refusal = error
        self.wake()

    def offer(self, cast: Cast) -> None:
        """See Watcher."""
        del cast  # it is read back, with what came before it
        self.wake()

    is_behind = False

    def hold(self) -> None:
        """See Watcher. Nothing is held back: the mode is `every`."""

    def release(self) -> None:
        """See Watcher."""

    def follow(self, backlog: Backlog) -> bool:
        """See Watcher. A poll queues nothing, so it is never behind."""
        del backlog
        return False

    def unfollow(self) -> None:
        """See Watcher."""

    def check_bound(self, cast: Cast) -> None:
        """See Watcher."""

    async def answer(self, since: Position | None, wait_s: float) -> Answer:
        """Return what there is, or what comes within some seconds.

        Raises:
            TwincastError: the one that `refuse` was called with meanwhile.
        """
        answer = await self._answer(since, wait_s)
        if self._refusal is not None:
            raise self._refusal
        return answer

    async def _answer(self, since: Position | None, wait_s: float) -> Answer:
        hub = self._hub
        if since is not None:
            await self._come(since)
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
        return self._changes(found)

    async def _come(self, since: Position) -> None:
        """Wait for a position that another server on the same log has given out. Raises NotYet after some seconds."""
        come: asyncio.Future[TwincastError | None] = asyncio.get_running_loop().create_future()
        forget = self._hub.when_come(since, come.set_result)
        if forget is None:
            return
        try:
            error = await come
        finally:
            forget()
        if error is not None:
            raise error

    async def _look(self, since: int) -> _Found:
        hub = self._hub
        messages: list[bytes] = []
        size_bytes = 0
        while since < hub.state.seq and len(messages) < self._limit and size_bytes < POLL_MAX_BYTES:
            block = await self._block(since)
            selected = await hub.reads.pick(block, self._subscription, self._budget)
            since = block.entries[-1].seq
            left = self._limit - len(messages)
            messages.extend(selected.messages[:left])
            size_bytes += selected.size_bytes
            if len(selected.messages) > left:
                since = selected.entries[left - 1].seq
            await asyncio.sleep(0)  # a block from memory does not wait, and others must have their turn
        return _Found(messages, since)

    async def _block(self, since: int) -> Cast:
        taken: asyncio.Future[Cast] = asyncio.get_running_loop().create_future()
        block = self._hub.read_back(since, self._hub.state.seq, partial(_settle, taken))
        return await taken if block is None else block

    def _changes(self, found: _Found) -> Answer:
        hub = self._hub
        answer = Events(
            timestamp_utc=hub.now_utc(),
            epoch=hub.state.epoch,
            seq=found.seq,
            resumed=True,
            events=Raw(b"[%b]" % b",".join(found.messages)),
            more=found.seq < hub.state.seq,
        )
        return Answer(encode(answer))

    async def _state(self, reason: str) -> Answer:
        hub = self._hub
        names = await hub.reads.select(self._subscription, self._budget)
        answer = Events(
            timestamp_utc=hub.now_utc(),
            epoch=hub.state.epoch,
            seq=hub.state.seq,
            resumed=False,
            reason=reason or UNSET,
            data_snapshot=STATE_HERE,
            events=Raw(b"[]"),
            more=False,
        )
        texts = hub.snapshots.texts(self._subscription, names)
        return with_state(answer, metered(texts, self._budget, is_compressed=self._is_compressed))


def _settle(taken: asyncio.Future[Cast], block: Cast | TwincastError) -> None:
    if taken.done():  # the client left
        return
    if isinstance(block, Cast):
        taken.set_result(block)
    else:
        taken.set_exception(block)
