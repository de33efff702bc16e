"""One client's conversation: what it says, what it is told, and how fast.

A session knows no socket and no clock. The edge that owns the connection hands it three things to call, tells it what
came in and when the connection stops or starts taking bytes; the same conversation so runs on every edge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from msgspec import Raw

from twincast.core import protocol
from twincast.core.cast import Cast
from twincast.core.model import Entry, Source
from twincast.core.outbox import Outbox
from twincast.core.state import State
from twincast.errors import BadMessage, FellBehind, TwincastError

DRAIN_BYTES = 256 * 1024
"""How much of its debt a client gets at once; more in one piece would only wait in the connection's buffer."""

Done = Callable[[TwincastError | None, int], None]
"""What a submission calls in the end: with the error that kept it out, or None and its last seq."""


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


class Stream(Protocol):
    """What a session needs of the hub."""

    state: State

    def submit(self, entry: Entry, size_bytes: int, done: Done) -> None:
        """Take one entry into the open batch; `done` is called when its fate is known."""

    def snapshot_json(self) -> bytes:
        """Return the state's twins as a JSON object, encoded at most once per position."""

    def now_utc(self) -> str:
        """Return the time, in ISO 8601 with offset."""


class Session:
    """The conversation with one client. Single-threaded; every method returns at once."""

    __slots__ = ("_connection", "_outbox", "_outbox_max_bytes", "_paused", "_source", "_stream", "closed")

    def __init__(self, connection: Connection, stream: Stream, *, outbox_max_bytes: int) -> None:
        self._connection = connection
        self._stream = stream
        self._outbox_max_bytes = outbox_max_bytes
        self._outbox: Outbox | None = None  # most clients keep up and never need one
        self._paused = False
        self._source: Source = "websocket"
        self.closed = False

    def greet(self) -> None:
        """Tell the client the state of everything. Every change after it is offered, from the same position on."""
        state = self._stream.state
        snapshot = Raw(self._stream.snapshot_json())
        self._say(protocol.Hello("connected", self._stream.now_utc(), state.epoch, state.seq, snapshot))

    def receive(self, payload: bytes) -> None:
        """Take one text message, valid UTF-8. Whatever is wrong with it is answered, never raised."""
        if self.closed:
            return
        try:
            message = protocol.decode_message(payload)
        except BadMessage as error:
            self._write(protocol.encode_error(error, protocol.id_of(payload)))
            return
        if message.type in {"telemetry", "control"}:
            done = self._refused if message.id is None else partial(self._answer, message.id)
            self._stream.submit(protocol.draft(message, self._source), len(payload), done)
        elif message.type == "ping":
            self._say(protocol.Pong(self._stream.now_utc()))
        else:
            self._say(protocol.Echo(self._stream.now_utc(), Raw(payload)))

    def refuse(self, error: TwincastError) -> None:
        """Answer something that is not even a message, such as a binary frame."""
        if not self.closed:
            self._write(protocol.encode_error(error))

    def offer(self, cast: Cast) -> None:
        """Take the changes of one commit: straight through if the client keeps up, else into its outbox."""
        if self.closed:
            return
        if self._outbox is None and not self._paused:
            self._connection.write(cast)
        else:
            self._owe(cast)

    def pause(self) -> None:
        """Note that the connection holds as much as it should; from now on changes merge in the outbox."""
        self._paused = True

    def resume(self) -> None:
        """Note that the connection takes bytes again, and pay what has waited."""
        self._paused = False
        while self._outbox and not self._paused:
            messages = self._outbox.take(self._stream.state.twins, DRAIN_BYTES)
            self._connection.write(Cast(messages))
        if not self._outbox:
            self._outbox = None

    def close(self, error: TwincastError) -> None:
        """End the conversation with the error's close code."""
        if not self.closed:
            self.closed = True
            self._outbox = None
            self._connection.close(error.close_code, f"{error.code}: {error.message}")

    def _say(self, message: object) -> None:
        self._write(protocol.encode(message))

    def _write(self, message: bytes) -> None:
        self.offer(Cast((message,)))

    def _owe(self, cast: Cast) -> None:
        if self._outbox is None:
            self._outbox = Outbox(self._outbox_max_bytes)
        try:
            self._outbox.add(cast, self._stream.state.seq)
        except FellBehind as error:
            self.close(error)

    def _refused(self, error: TwincastError | None, _last_seq: int) -> None:
        if error is not None:
            self._write(protocol.encode_error(error))

    def _answer(self, message_id: protocol.MessageId, error: TwincastError | None, last_seq: int) -> None:
        if error is None:
            self._say(protocol.Ack(message_id, last_seq))
        else:
            self._write(protocol.encode_error(error, message_id))
