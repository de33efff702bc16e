"""One client on the fast WebSocket edge: frames that picows has read, to messages for a session, and back.

picows reads single frames. `Assembler` joins them to messages as RFC 6455 asks; `Conversation` adds pongs and the
closing handshake (7.1).
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
)

from twincast.access.leases import End, Lease
from twincast.core import counters
from twincast.delivery.cast import Cast
from twincast.delivery.session import Session
from twincast.errors import TooLarge, TwincastError, UnsupportedMedia
from twincast.server.pings import Pings
from twincast.transports.parts import Parts
from twincast.wire import frames
from twincast.wire.assembler import BINARY, Assembler, Violation, close_code_of

AHEAD_READ_BYTES = 128
"""What is read at once from a client that is above its rate, so that other clients need not wait for it: each answer is
a write of its own, and costs tens of microseconds."""
AHEAD_READ_FRAMES = AHEAD_READ_BYTES // 32
"""Estimated frames per read: charged in advance, corrected after the read."""
WRITE_BUFFER_BYTES = 16 * 1024
"""What waits for one client above the system's own buffer, where many small writes cost several times their size; the
rest waits in its outbox, where it can merge."""
CLOSE_FRAME_S = 0.01
"""How long a close frame has to leave, where the client has not answered for long and is not waited for."""
_TEXT, _PING, _PONG, _CLOSE = WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE


class Conversation(WSListener):
    """One client on this edge: frames to messages for its session, and its session's casts to the socket."""

    __slots__ = (
        "_assembler",
        "_frames",
        "_hub",
        "_is_inside",
        "_limits",
        "_pings",
        "_query",
        "_sessions",
        "_texts",
        "_transport",
        "_websocket",
        "is_ahead",
        "is_held",
        "is_open",
        "pong_ticks_left",
        "session",
        "silent_ticks",
    )

    def __init__(
        self, websocket: WSTransport, parts: Parts, pings: Pings, query: str, admit: Callable[[End], Lease]
    ) -> None:
        hub = self._hub = parts.hub
        self._sessions = parts.sessions
        self._pings = pings
        self._query = query
        limits = self._limits = parts.limits
        self._websocket = websocket
        self._transport = websocket.underlying_transport
        self._assembler = Assembler(limits.message_max_bytes)
        self._is_inside = False  # of a message in several frames
        self._texts: list[bytes] = []  # the messages of a read that have not been taken yet
        self._frames = 0
        self.is_open = False
        """Whether the handshake is done."""
        self.is_ahead = False
        """Whether the client has sent more than its rates allow, and is read in small pieces."""
        self.is_held = False
        """Whether reading from the client is paused."""
        self.silent_ticks = 0
        """See Client in server/pings."""
        self.pong_ticks_left = 0
        """See Client in server/pings."""
        self.session = Session(self, hub, admit, outbox_max_bytes=limits.outbox_max_bytes)

    def write(self, cast: Cast) -> None:
        """Send a cast in one piece."""
        self._transport.write(cast.encoded[frames.encode])

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; the client's own, or a deadline, ends the connection."""
        self._sessions.pop(self.session, None)
        if not self.is_open:  # the handshake is not answered yet, so the client cannot read frames
            self._transport.abort()
            return
        # Sent by picows, which would otherwise send pings and a close frame of its own behind this one.
        self._websocket.send_close(cast("WSCloseCode", code), frames.close_reason(reason))
        self._read()
        self.abort_later()

    def abort_later(self) -> None:
        """Abort the connection after a time if the client does not read what was written for it."""
        asyncio.get_running_loop().call_later(self._limits.close_timeout_s, self._transport.abort)

    def stop(self, error: TwincastError) -> None:
        """End the conversation because the server stops: with the answers that are due, and then the close code."""
        self._transport.pause_reading()
        self._hub.intake.when_settled(lambda: self.session.stop(error))

    def on_ws_connected(self, _transport: WSTransport) -> None:
        """Send the initial state, and then what follows."""
        self.is_open = True
        _forget_head(self._websocket)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._sessions[self.session] = None
        self._pings.add(self)
        query, self._query = self._query, ""
        self.session.begin(query)

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """End the session."""
        self._pings.discard(self)
        self._leave()

    def on_broken_frame(self) -> None:
        """End the conversation: picows could not read a frame and has sent a close frame itself."""
        if self._texts:
            self._take_texts()
        self._leave()

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self.session.pause()

    def resume_writing(self) -> None:
        """The socket's buffer has drained."""
        self.session.resume()

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        """Take one frame. Whole text messages, as most are, wait for the others of the same read."""
        kind: Any = frame.msg_type  # an IntEnum, made into a Python object at each access
        has_reserved_bits = frame.rsv1 or frame.rsv2 or frame.rsv3
        if kind is _TEXT and frame.fin and not has_reserved_bits and not self._is_inside:
            self._texts.append(frame.get_payload_as_bytes())
            return
        if self._texts:
            self._take_texts()
        self._frames += 1
        if self.session.closed:
            if kind is _CLOSE:
                self._transport.close()
            return
        if self._websocket.is_close_frame_sent:
            self._leave()  # picows reads a frame ahead; that one was broken, and nothing may follow the close frame
            return
        payload = frame.get_payload_as_bytes()
        if not self._take(kind, frame.fin, payload, has_reserved_bits):
            if kind is _PING:
                self._answer_ping(payload)
            elif kind is _CLOSE:
                self._answer_close(payload)
            elif kind is _PONG:
                self._take_pong()
        self._is_inside = self._assembler.is_inside

    def _take_texts(self) -> None:
        """Take the text messages that have come together."""
        texts = self._texts
        self._texts = []
        self._frames += len(texts)
        if self._websocket.is_close_frame_sent:
            self.session.pause()  # a broken frame came behind them, and nothing may follow the close frame
        if self._assembler.would_take(texts):
            self.session.receive_all(texts)
        else:
            for text in texts:
                self._take(_TEXT, True, text)

    def _take(self, kind: Any, fin: bool, payload: bytes, has_reserved_bits: bool = False) -> bool:
        """Take one frame as part of a message; return False for a control frame, which has still to be answered."""
        if self.session.closed:
            return True
        try:
            message = self._assembler.take(kind, fin, payload, has_reserved_bits)
        except Violation as violation:
            self._fail(violation.code, violation.reason)
        except TooLarge as error:
            is_whole = kind is _TEXT and fin  # else the id would be looked for in a part
            self.session.refuse(error, payload if is_whole else b"")
            self._fail(error.close_code, error.reason)
        except UnsupportedMedia as error:
            self.session.refuse(error)
        else:
            if message is not None:
                self.session.receive(message)
            elif kind > BINARY:
                return False
        return True

    def ping(self) -> bool:
        """Send a ping, unless reading is paused: the pong would not be seen."""
        if self.is_held:
            return False
        self._websocket.send_ping()
        return True

    def end_unanswered(self) -> None:
        """End the connection of a client that has not answered a ping."""
        timeout_s = self._limits.pong_timeout_s
        reason = f"peer has not replied to ping/heartbeat request within {timeout_s} second(s)"
        self._leave()
        self._websocket.send_close(WSCloseCode.GOING_AWAY, reason)
        asyncio.get_running_loop().call_later(CLOSE_FRAME_S, self._transport.abort)

    def on_read(self) -> None:
        """Read on when the client's rates and the hub allow it; all frames of one read have come."""
        if self._texts:
            self._take_texts()
        if self._websocket.is_close_frame_sent:  # of a broken frame
            self._leave()
            return
        self.silent_ticks = 0
        frames_read, self._frames = self._frames, 0
        left_s = self.session.count(frames_read)
        self.is_ahead = left_s > 0
        if self.is_ahead:
            self._hold()
            asyncio.get_running_loop().call_later(left_s, self._read_on)
        elif not self._hub.intake.has_room and not self.session.closed:
            self._hold()
            self._hub.intake.when_settled(self._read)

    def _hold(self) -> None:
        self.is_held = True
        self._transport.pause_reading()
        self.pong_ticks_left = 0  # a pong that is on its way is not read meanwhile

    def _read(self) -> None:
        self.is_held = False
        self._transport.resume_reading()

    def _read_on(self) -> None:
        left_s = self.session.count(0)
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._read_on)
            return
        # Charged in advance, so that the other connections of this identity do not all read at the same moment.
        self._frames -= AHEAD_READ_FRAMES
        self.session.count(AHEAD_READ_FRAMES)
        self._read()

    def _take_pong(self) -> None:
        if self.pong_ticks_left:
            self.pong_ticks_left = 0
            self._frames -= 1  # the server has asked for it, so it is not charged

    def _answer_ping(self, payload: bytes) -> None:
        # No pongs to a client that does not read: a flood of pings would fill its buffer without bound.
        if self._transport.get_write_buffer_size() < WRITE_BUFFER_BYTES:
            self._transport.write(frames.pong(payload))

    def _answer_close(self, payload: bytes) -> None:
        self._leave()
        self._transport.write(frames.close(close_code_of(payload)))
        self._transport.close()
        self.abort_later()

    def _fail(self, code: int, reason: str) -> None:
        self._leave()
        self.close(code, reason)

    def _leave(self) -> None:
        self.session.end()
        self._sessions.pop(self.session, None)


class Dismissal(WSListener):
    """A client that is told by a close frame why it is not served: of an answer to the handshake no page learns."""

    __slots__ = ("_close_timeout_s", "_error", "is_ahead", "is_open")

    def __init__(self, error: TwincastError, close_timeout_s: float) -> None:
        self._error = error
        self._close_timeout_s = close_timeout_s
        self.is_open = False
        """See Conversation."""
        self.is_ahead = False
        """See Conversation."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Send the close frame; the client's own, or a deadline, ends the connection."""
        self.is_open = True
        error, socket = self._error, transport.underlying_transport
        counters.closes[error.code] += 1
        transport.send_close(cast("WSCloseCode", error.close_code), frames.close_reason(error.reason))
        asyncio.get_running_loop().call_later(self._close_timeout_s, socket.abort)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Wait for the client's close frame, and for nothing else."""
        if frame.msg_type is _CLOSE:
            transport.underlying_transport.close()

    def on_broken_frame(self) -> None:
        """See Conversation. Nothing is left to end."""

    def on_read(self) -> None:
        """See Conversation. Nothing is read on purpose."""

    def stop(self, error: TwincastError) -> None:
        """See Conversation. It has its close frame."""
        del error


def _forget_head(websocket: WSTransport) -> None:
    """Drop what the handshake said: picows keeps it as long as the connection lasts, and nobody reads it again."""
    request, response = websocket.request, websocket.response
    del request.method, request.path, request.version, request.headers, response.headers
