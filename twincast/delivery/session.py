"""One client's conversation: what it says, and what it is answered. What it receives is the business of its feed.

A session knows no socket and no clock. The edge that owns the connection hands it what to call, passes on what came in,
and calls `pause` and `resume` as the connection fills and drains; so the same conversation runs on every edge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from msgspec import Raw

from twincast.core import counters
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, OnCommitted, digest_of, key_of_update
from twincast.core.model import Position, Source
from twincast.core.producers import NumberedLine, ProducerMark
from twincast.core.rights import Principal
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.delivery.ports import Connection, Hub, Lease
from twincast.errors import BadMessage, OutOfOrder, TwincastError, Unauthenticated, ValidationFailed
from twincast.wire.checks import check_value_sizes
from twincast.wire.client_messages import ClientMessage, decode_message, draft, id_of
from twincast.wire.messages import AuthRequired, Echo, MessageId, encode, encode_ack, encode_error, encode_pong
from twincast.wire.query import decode_stream_query, resubscribed
from twincast.wire.readings import plain_readings

READINGS_AT_ONCE = 1_024
"""How many readings that came together are one submission."""
AUTH_MAX_BYTES = 8 * 1024
"""How long the first message of an unauthenticated client may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one WebSocket client may cost."""

    message_max_bytes: int
    outbox_max_bytes: int
    handshake_timeout_s: float
    ping_interval_s: float
    pong_timeout_s: float
    close_timeout_s: float = 5.0


class Session:
    """The conversation with one client. Single-threaded; every method returns at once.

    States and transitions:

        not begun ------ begin, the client is known ---------> conversing
        not begun ------ begin, it is not: `auth_required` --> unauthenticated
        unauthenticated  `auth` with a good credential ------> conversing
        unauthenticated  anything else ----------------------> closed    one try: a guess costs a connection
        any ------------ close, stop or end -----------------> closed

    Where the client is in the log is the state of its feed, not of the conversation.
    """

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
        admit: Callable[[Callable[[TwincastError], None]], Lease],
        *,
        outbox_max_bytes: int,
    ) -> None:
        """Admit a client; `begin` begins the conversation.

        Args:
            connection: writes and closes.
            hub: the stream, and where entries are submitted.
            admit: makes the lease; it is given what ends the conversation. What it raises is raised here.
            outbox_max_bytes: how much that cannot be merged may wait for the client.
        """
        self._connection = connection
        self._hub = hub
        end = self.close  # bound once: each time makes an object, and idle clients are many
        self._lease = admit(end)
        self._query: str | None = None  # of the address, while the client is unauthenticated
        self._asked = False  # whether the client named devices, so that it does not receive everything unasked
        self._source: Source = "websocket"
        self._updates = 0  # since they were counted last
        self._lane: Session | None = None  # this very session, if its updates are to stay in order
        self._has_lost = False  # whether an update in the lane was not stored, so that none may follow it
        self._value_max_bytes = hub.sizes.value_max_bytes
        self.closed = False
        """Whether the conversation is over; read for each message, so an attribute and no property."""
        self.feed = Feed(connection.write, hub, end, budget=self._lease, outbox_max_bytes=outbox_max_bytes)

    @property
    def is_unauthenticated(self) -> bool:
        """Whether the client has still to present a credential."""
        return self._query is not None

    def count(self, frames: int) -> float:
        """Charge what the client has sent since the last time, in so many frames.

        Returns:
            For how many seconds the client must not be read, so that its rates hold. Nothing of it is lost.
        """
        if self.closed:
            return 0.0
        updates, self._updates = self._updates, 0
        return self._lease.charge(updates, frames)

    def begin(self, query: str = "") -> None:
        """Begin as the address asks for: with the state of everything, if it asks for nothing.

        A client that is not authenticated yet is sent the hello once it is; one whose lease has ended meanwhile, never.
        """
        if self.closed:
            return
        if self._lease.principal is None:
            self._query = query
            self._send(encode(AuthRequired()))
        else:
            self._begin_as(self._lease.principal, query)

    def receive(self, payload: bytes) -> None:
        """Take one text message, valid UTF-8. Whatever is wrong with it is answered, never raised."""
        if self.closed:
            return
        if self._query is not None:
            self._authenticate(payload, self._query)
            return
        try:
            message = decode_message(payload)
            action = ACTIONS.get(message.type)
            if action is None:
                self._echo(payload)
            else:
                action(self, message, payload)
        except TwincastError as error:
            self._send_error(error, id_of(payload))

    def receive_all(self, payloads: Sequence[bytes]) -> None:
        """Take text messages that came together, in order, each as `receive` does.

        Plain readings that follow one another are submitted together. Where there are none, they are not looked for
        again: a client mostly sends messages of one kind.
        """
        while count := self._receive_readings(payloads):
            if count == len(payloads):
                return
            payloads = payloads[count:]
            if count < READINGS_AT_ONCE:
                self.receive(payloads[0])
                payloads = payloads[1:]
        for payload in payloads:
            self.receive(payload)

    def _receive_readings(self, payloads: Sequence[bytes]) -> int:
        """Submit the plain readings at the beginning of some messages, at most so many at once; return how many."""
        principal = self._lease.principal
        if self.closed or self._has_lost or principal is None or self._query is not None:
            return 0
        if len(payloads) > READINGS_AT_ONCE:
            payloads = payloads[:READINGS_AT_ONCE]
        readings, size_bytes = plain_readings(payloads, self._source, self._value_max_bytes)
        if not principal.is_unbounded and not principal.may_everywhere("publish"):
            readings = list(takewhile(lambda reading: principal.may("publish", reading.device_id), readings))
        count = len(readings)
        done: OnCommitted = self._on_unnamed if count == 1 else partial(self._on_readings, count)
        if not count or not self._hub.submit_together(
            readings, size_bytes, done, lane=self._lane, identity=principal.identity
        ):
            return 0
        self._updates += count
        return count

    def refuse(self, error: TwincastError, payload: bytes = b"") -> None:
        """Answer something that is not taken as a message, such as a binary frame; a text may have an `id`."""
        if not self.closed:
            self._send_error(error, id_of(payload))
            if self.is_unauthenticated:
                self.close(Unauthenticated("the first message is `auth`, with a `token`"))

    def pause(self) -> None:
        """Note that the connection holds as much as it should; what comes now waits."""
        self.feed.sender.pause()

    def resume(self) -> None:
        """Note that the connection takes bytes again, and send what has waited."""
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
            self._connection.close(error.close_code, error.reason)

    def stop(self, error: TwincastError) -> None:
        """End the conversation as `close` does, with the queued replies before that."""
        if not self.closed:
            self.feed.send_replies()
            self.close(error)

    def _send(self, message: bytes) -> None:
        self.feed.sender.offer(Cast((message,)))

    def _send_error(self, error: TwincastError, message_id: MessageId | None = None) -> None:
        counters.refusals[error.code] += 1
        self._send(encode_error(error, message_id))

    def _acknowledge(self, message_id: MessageId, seq: int, *, replayed: bool = False, line: int | None = None) -> None:
        if not self.closed:
            position = Position(self._hub.state.epoch, seq)
            self._send(encode_ack(message_id, position, replayed=replayed, line=line))

    def _acknowledge_now(self, message_id: MessageId | None) -> None:
        """Acknowledge a message that is in force as of the state's position, if the client asked for it by an id."""
        if message_id is not None:
            self._acknowledge(message_id, self._hub.state.seq)

    def _begin_as(self, principal: Principal, query: str) -> None:
        try:
            stream_query = decode_stream_query(query)
        except BadMessage as error:
            self._send_error(error)
            self.close(error)
            return
        self._asked = stream_query.names_devices
        self._lane = self if stream_query.ordered else None
        subscription = stream_query.subscription.inside(principal.readable)
        self._lease.spend(len(query))
        self.feed.begin(
            subscription, since=stream_query.since, page_size=stream_query.page_size, ordered=stream_query.ordered
        )

    def _authenticate(self, payload: bytes, query: str) -> None:
        """Take the first message of an unauthenticated client. There is one try: each guess costs a connection."""
        try:
            if len(payload) > AUTH_MAX_BYTES:
                raise Unauthenticated(f"the first message is `auth`, of up to {AUTH_MAX_BYTES} bytes")
            message = decode_message(payload)
            if message.type != "auth" or message.token is None:
                raise Unauthenticated("the first message is `auth`, with a `token`")
            principal = self._lease.present(message.token)
        except TwincastError as error:
            self._send_error(error)
            self.close(error)
            return
        self._query = None
        self._begin_as(principal, query)

    def _submit(self, message: ClientMessage, payload: bytes) -> None:
        """Submit the entry of a telemetry, control or delete message; its ack comes when the entry is durable."""
        if self._has_lost:
            raise OutOfOrder("an update before this one was not stored; `restart`, then send again what was refused")
        entry, size_bytes = draft(message, self._source), len(payload)
        if size_bytes > self._value_max_bytes:
            check_value_sizes((entry,), self._value_max_bytes)
        principal = self._lease.principal
        assert principal is not None  # an unauthenticated client does not get here
        if not principal.is_unbounded:
            principal.require(entry.right, entry.subject)
        self._updates += 1
        actor = None if entry.audited_as is None else self._lease.actor
        done: OnCommitted = self._on_unnamed if message.id is None else partial(self._on_committed, message.id)
        idempotency_key, identity = None, principal.identity
        if message.update_id is not None:
            key = key_of_update(entry, message.update_id, identity)
            idempotency_key = IdempotencyKey(key, digest_of((entry,)), partial(self._on_replayed, message.id))
        elif message.line is not None:
            line = self._numbered(message, identity)
            self._hub.submit_all((entry,), size_bytes, done, None, actor, lane=self._lane, identity=identity, line=line)
            return
        self._hub.submit(entry, size_bytes, done, idempotency_key, actor, lane=self._lane, identity=identity)

    def _numbered(self, message: ClientMessage, identity: str) -> NumberedLine:
        if self._lane is None:
            raise ValidationFailed("a numbered line needs a connection with `ordered=1`, or a later one could pass it")
        assert message.producer is not None and message.line is not None  # decode_message saw to it
        return NumberedLine(identity, message.producer, message.line, partial(self._on_stored_line, message.id))

    def _restart(self, message: ClientMessage, payload: bytes) -> None:
        """Let updates come again after one that was not stored: the client sends them in order from there on."""
        del payload
        self._has_lost = False
        self._acknowledge_now(message.id)

    def _subscribe(self, message: ClientMessage, payload: bytes) -> None:
        """Change the subscription once the client has caught up, so that what it adds comes behind what it had."""
        self.feed.when_caught_up(partial(self._change_subscription, message), len(payload))

    def _change_subscription(self, message: ClientMessage) -> None:
        try:
            current = self.feed.subscription if self._asked else self.feed.subscription.removing(None)
            wanted = resubscribed(message, current)
        except BadMessage as error:
            self._send_error(error, message.id)
            return
        self._asked = True
        self.feed.change(wanted, partial(self._acknowledge_now, message.id))

    def _renew(self, message: ClientMessage, payload: bytes) -> None:
        """Renew the lease by another credential of the same identity."""
        del payload
        assert message.token is not None  # decode_message saw to it
        self._lease.present(message.token)
        self._acknowledge_now(message.id)

    def _pong(self, message: ClientMessage, payload: bytes) -> None:
        del message, payload
        self._send(encode_pong(self._hub.now_utc(), self.feed.position))

    def _echo(self, payload: bytes) -> None:
        """Answer a message of a type that is not known, so that whoever writes a client sees what arrived."""
        self._send(encode(Echo(self._hub.now_utc(), Raw(payload))))

    def _on_readings(self, count: int, error: TwincastError | None, last_seq: int) -> None:
        if error is not None:
            for _ in range(count):
                self._on_unnamed(error, last_seq)

    def _on_unnamed(self, error: TwincastError | None, _last_seq: int) -> None:
        if error is not None:
            self._note_loss(error)
            self.refuse(error)

    def _on_committed(self, message_id: MessageId, error: TwincastError | None, last_seq: int) -> None:
        if error is None:
            self._acknowledge(message_id, last_seq)
        else:
            self._note_loss(error)
            if not self.closed:
                self._send_error(error, message_id)

    def _note_loss(self, error: TwincastError) -> None:
        """Note that an update may come again, so that the updates behind it must not be stored before it."""
        if error.retryable and self._lane is not None:
            self._has_lost = True

    def _on_replayed(self, message_id: MessageId | None, record: IdempotencyRecord) -> None:
        if message_id is not None:
            self._acknowledge(message_id, record.last_seq, replayed=True)

    def _on_stored_line(self, message_id: MessageId | None, mark: ProducerMark) -> None:
        if message_id is not None:
            self._acknowledge(message_id, mark.seq, replayed=True, line=mark.line)


ACTIONS: dict[str, Callable[[Session, ClientMessage, bytes], None]] = {
    "telemetry": Session._submit,
    "control": Session._submit,
    "delete": Session._submit,
    "restart": Session._restart,
    "subscribe": Session._subscribe,
    "unsubscribe": Session._subscribe,
    "auth": Session._renew,
    "ping": Session._pong,
}
"""What each type of message does. A new type is a row here, a row of `CHECKS` in wire/client_messages, where its fields
stand too, and a shape in transports/documents/conversation; tests hold that the three name the same types."""
