"""One client's conversation: what it says, and what it is answered. What it watches is its feed's business.

A session knows no socket and no clock. The edge that owns the connection hands it what to call, tells it what
came in and when the connection stops or starts taking bytes; the same conversation so runs on every edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from msgspec import Raw

from twincast.core import counters
from twincast.core.audit import Actor
from twincast.core.batch import Lane
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, OnCommitted, digest_of, key_of_update
from twincast.core.model import Entry, Position, Source
from twincast.core.producers import NumberedLine, ProducerMark
from twincast.core.rights import Principal
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.delivery.scheduler import Budget
from twincast.delivery.stream import Stream
from twincast.errors import BadMessage, OutOfOrder, TwincastError, Unauthenticated, ValidationFailed
from twincast.wire import requests
from twincast.wire.messages import (
    AuthRequired,
    Echo,
    MessageId,
    SizeLimits,
    encode,
    encode_ack,
    encode_error,
    encode_pong,
)
from twincast.wire.query import decode_stream_query, resubscribed

AUTH_MAX_BYTES = 8 * 1024
"""What a client may say before it has said who it is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one WebSocket client may cost."""

    message_max_bytes: int
    outbox_max_bytes: int
    handshake_timeout_s: float
    ping_interval_s: float
    pong_timeout_s: float
    close_timeout_s: float = 5.0


class Connection(Protocol):
    """What an edge gives to a session."""

    def write(self, cast: Cast) -> None:
        """Send messages. May call `pause` of the session before it returns."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and end the connection."""


class Hub(Stream, Protocol):
    """What a session needs of the hub: a stream, and what the client's own entries are submitted to."""

    sizes: SizeLimits

    def submit(
        self,
        entry: Entry,
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> None:
        """Take one entry into the open batch; `done` is called when its fate is known."""

    def submit_all(
        self,
        entries: Sequence[Entry],
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
        line: NumberedLine | None = None,
    ) -> None:
        """Take entries into the open batch, all or none of them; one entry, if it is a numbered line."""

    def now_utc(self) -> str:
        """Return the time, in ISO 8601 with offset."""


class Lease(Budget, Protocol):
    """What a session needs of the entrance. What it has to pay keeps its client from being read; see `owe`."""

    principal: Principal | None

    @property
    def actor(self) -> Actor:
        """What the audit trail notes."""

    def present(self, text: str) -> Principal:
        """Say who this is by a credential, or renew the one that it was before."""

    def charge(self, updates: int, frames: int) -> float:
        """Count what came against the rates, and return for how many seconds no more should be read of this client.

        Args:
            updates: readings and commands.
            frames: everything that came, those too; also pings, for they cost work as well.
        """

    def release(self) -> None:
        """Note that the connection is over. May be called again."""


class Session:
    """The conversation with one client. Single-threaded; every method returns at once."""

    __slots__ = (
        "_asked",
        "_connection",
        "_has_lost",
        "_hub",
        "_lane",
        "_lease",
        "_query",
        "_source",
        "_updates",
        "_value_max_bytes",
        "closed",
        "feed",
    )

    def __init__(
        self,
        connection: Connection,
        hub: Hub,
        enter: Callable[[Callable[[TwincastError], None]], Lease],
        *,
        outbox_max_bytes: int,
    ) -> None:
        """Begin a conversation.

        Args:
            connection: writes and closes.
            hub: the stream, and where entries are submitted.
            enter: makes the visit; it is given what ends the conversation. What it raises is raised here.
            outbox_max_bytes: how much may wait for the client that cannot be merged.
        """
        self._connection = connection
        self._hub = hub
        self._lease = enter(self.close)
        self._query: str | None = None  # what the client asked for, until it has said who it is
        self._asked = False  # whether the client named devices, so that it does not watch everything unasked
        self._source: Source = "websocket"
        self._updates = 0  # since they were counted last
        self._lane: Session | None = None  # this very session, if its updates are to stay in order
        self._has_lost = False  # whether an update in the lane was not stored, so that none may follow it
        self._value_max_bytes = hub.sizes.value_max_bytes
        self.closed = False
        """Whether the conversation is over; read for each message, so an attribute and no property."""
        self.feed = Feed(connection.write, hub, self.close, budget=self._lease, outbox_max_bytes=outbox_max_bytes)

    @property
    def is_unknown(self) -> bool:
        """Whether the client has still to say who it is."""
        return self._query is not None

    def count(self, frames: int) -> float:
        """Count what the client has sent since the last time, in so many frames.

        Returns:
            For how many seconds it is not to be read, so that its rates hold. Nothing of it is lost.
        """
        if self.closed:
            return 0.0
        updates, self._updates = self._updates, 0
        return self._lease.charge(updates, frames)

    def greet(self, query: str = "") -> None:
        """Begin as the address asks for: with the state of everything, if it asks for nothing.

        A client that is not known yet is greeted when it has said who it is; one whose visit has ended meanwhile never.
        """
        if self.closed:
            return
        if self._lease.principal is None:
            self._query = query
            self._say(encode(AuthRequired()))
        else:
            self._begin(self._lease.principal, query)

    def receive(self, payload: bytes) -> None:
        """Take one text message, valid UTF-8. Whatever is wrong with it is answered, never raised."""
        if self.closed:
            return
        if self._query is not None:
            self._log_in(payload, self._query)
            return
        try:
            message = requests.decode_message(payload)
            if message.type in {"telemetry", "control", "delete"}:
                self._submit(message, len(payload))
            elif message.type == "restart":
                self._restart(message)
            elif message.type == "ping":
                self._say(encode_pong(self._hub.now_utc(), self.feed.position))
            elif message.type in {"subscribe", "unsubscribe"}:
                self.feed.when_caught_up(partial(self._resubscribe, message), len(payload))
            elif message.type == "auth":
                self._renew(message)
            else:
                self._say(encode(Echo(self._hub.now_utc(), Raw(payload))))
        except TwincastError as error:
            self._tell(error, requests.id_of(payload))

    def refuse(self, error: TwincastError, payload: bytes = b"") -> None:
        """Answer something that is not taken as a message, such as a binary frame; a text may have an `id`."""
        if not self.closed:
            self._tell(error, requests.id_of(payload))
            if self.is_unknown:
                self.close(Unauthenticated("the first message is `auth`, with a `token`"))

    def pause(self) -> None:
        """Note that the connection holds as much as it should; what comes now waits."""
        self.feed.sender.pause()

    def resume(self) -> None:
        """Note that the connection takes bytes again, and pay what has waited."""
        self.feed.sender.resume()

    def end(self) -> None:
        """Note that the client is gone."""
        self.closed = True
        self.feed.close()
        self._lease.release()

    def close(self, error: TwincastError) -> None:
        """End the conversation with the error's close code."""
        if not self.closed:
            self.closed = True
            self.feed.close()
            self._lease.release()
            counters.closes[error.code] += 1
            self._connection.close(error.close_code, f"{error.code}: {error.message}")

    def stop(self, error: TwincastError) -> None:
        """End the conversation as `close` does, with the answers that are due before that."""
        if not self.closed:
            self.feed.send_replies()
            self.close(error)

    def _say(self, message: bytes) -> None:
        self.feed.sender.offer(Cast((message,)))

    def _tell(self, error: TwincastError, message_id: MessageId | None = None) -> None:
        counters.refusals[error.code] += 1
        self._say(encode_error(error, message_id))

    def _begin(self, principal: Principal, query: str) -> None:
        try:
            stream_query = decode_stream_query(query)
        except BadMessage as error:
            self._tell(error)
            self.close(error)
            return
        self._asked = stream_query.names_devices
        self._lane = self if stream_query.ordered else None
        subscription = stream_query.subscription.inside(principal.readable)
        self._lease.spend(len(query))
        self.feed.begin(
            subscription, since=stream_query.since, page_size=stream_query.page, ordered=stream_query.ordered
        )

    def _log_in(self, payload: bytes, query: str) -> None:
        try:
            if len(payload) > AUTH_MAX_BYTES:
                raise Unauthenticated(f"the first message is `auth`, of up to {AUTH_MAX_BYTES} bytes")
            message = requests.decode_message(payload)
            if message.type != "auth" or message.token is None:
                raise Unauthenticated("the first message is `auth`, with a `token`")
            principal = self._lease.present(message.token)
        except TwincastError as error:  # one try: who guesses is to pay for a connection each time
            self._tell(error)
            self.close(error)
            return
        self._query = None
        self._begin(principal, query)

    def _renew(self, message: requests.ClientMessage) -> None:
        assert message.token is not None  # decode_message saw to it
        self._lease.present(message.token)
        if message.id is not None:
            self._acknowledge(message.id, self._hub.state.seq)

    def _submit(self, message: requests.ClientMessage, size_bytes: int) -> None:
        if self._has_lost:
            raise OutOfOrder("an update before this one was not stored; `restart`, then send again what was refused")
        entry = requests.draft(message, self._source)
        if size_bytes > self._value_max_bytes:
            requests.check_value_sizes((entry,), self._value_max_bytes)
        kind, name = entry.topic
        principal = self._lease.principal
        assert principal is not None  # nothing is submitted before it is known
        if not principal.is_unbounded:
            principal.require("command" if kind == "control" else "publish", name)
        self._updates += 1
        actor = None if kind == "data_update" else self._lease.actor
        done: OnCommitted = self._refused if message.id is None else partial(self._answer, message.id)
        idempotency_key, identity = None, principal.identity
        if message.update_id is not None:
            key = key_of_update(entry, message.update_id, identity)
            idempotency_key = IdempotencyKey(key, digest_of((entry,)), partial(self._answer_again, message.id))
        elif message.line is not None:
            line = self._numbered(message, identity)
            self._hub.submit_all((entry,), size_bytes, done, None, actor, lane=self._lane, identity=identity, line=line)
            return
        self._hub.submit(entry, size_bytes, done, idempotency_key, actor, lane=self._lane, identity=identity)

    def _numbered(self, message: requests.ClientMessage, identity: str) -> NumberedLine:
        if self._lane is None:
            raise ValidationFailed("a numbered line takes a connection with `ordered=1`, or a later one could pass it")
        assert message.producer is not None and message.line is not None  # decode_message saw to it
        return NumberedLine(identity, message.producer, message.line, partial(self._answer_stored, message.id))

    def _resubscribe(self, message: requests.ClientMessage) -> None:
        try:
            current = self.feed.subscription if self._asked else self.feed.subscription.removing(None)
            wanted = resubscribed(message, current)
        except BadMessage as error:
            self._tell(error, message.id)
            return
        self._asked = True
        self.feed.change(wanted, partial(self._resubscribed, message.id))

    def _resubscribed(self, message_id: MessageId | None) -> None:
        if message_id is not None:
            self._acknowledge(message_id, self._hub.state.seq)

    def _restart(self, message: requests.ClientMessage) -> None:
        self._has_lost = False
        if message.id is not None:
            self._acknowledge(message.id, self._hub.state.seq)

    def _refused(self, error: TwincastError | None, _last_seq: int) -> None:
        if error is not None:
            self._lose(error)
            self.refuse(error)

    def _answer(self, message_id: MessageId, error: TwincastError | None, last_seq: int) -> None:
        if error is None:
            self._acknowledge(message_id, last_seq)
        else:
            self._lose(error)
            if not self.closed:
                self._tell(error, message_id)

    def _lose(self, error: TwincastError) -> None:
        """Note that an update may come again, and what is behind it must not come before it."""
        if error.retryable and self._lane is not None:
            self._has_lost = True

    def _answer_again(self, message_id: MessageId | None, receipt: IdempotencyRecord) -> None:
        if message_id is not None:
            self._acknowledge(message_id, receipt.last_seq, replayed=True)

    def _answer_stored(self, message_id: MessageId | None, mark: ProducerMark) -> None:
        if message_id is not None:
            self._acknowledge(message_id, mark.seq, replayed=True, line=mark.line)

    def _acknowledge(self, message_id: MessageId, seq: int, *, replayed: bool = False, line: int | None = None) -> None:
        if not self.closed:
            position = Position(self._hub.state.epoch, seq)
            self._say(encode_ack(message_id, position, replayed=replayed, line=line))
