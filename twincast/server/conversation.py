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
from twincast.delivery.cast import Cast
from twincast.delivery.session import Session
from twincast.errors import TooLarge, UnsupportedMedia
from twincast.transports.parts import Parts
from twincast.wire import frames
from twincast.wire.assembler import Assembler, Violation, close_code_of

AHEAD_READ_BYTES = 128
"""What is read at once from a client that is above its rate, so that other clients need not wait for it: each answer is
a write of its own, and costs tens of microseconds."""
AHEAD_READ_FRAMES = AHEAD_READ_BYTES // 32
"""Estimated frames per read: charged in advance, corrected after the read."""
WRITE_BUFFER_BYTES = 16 * 1024
"""What waits for one client above the system's own buffer, where many small writes cost several times their size; the
rest waits in its outbox, where it can merge."""
_TEXT, _PING, _CLOSE = WSMsgType.TEXT, WSMsgType.PING, WSMsgType.CLOSE


class Conversation(WSListener):
    """One client on this edge: frames to messages for its session, and its session's casts to the socket."""

    __slots__ = (
        "_assembler",
        "_frames",
        "_hub",
        "_limits",
        "_query",
        "_sessions",
        "_transport",
        "_websocket",
        "is_ahead",
        "is_held",
        "is_open",
        "session",
    )

    def __init__(self, websocket: WSTransport, parts: Parts, query: str, admit: Callable[[End], Lease]) -> None:
        hub = self._hub = parts.hub
        self._sessions = parts.sessions
        self._query = query
        limits = self._limits = parts.limits
        self._websocket = websocket
        self._transport = websocket.underlying_transport
        self._assembler = Assembler(limits.message_max_bytes)
        self._frames = 0
        self.is_open = False
        """Whether the handshake is done."""
        self.is_ahead = False
        """Whether the client has sent more than its rates allow, and is read in small pieces."""
        self.is_held = False
        """Whether reading from the client is paused."""
        self.session = Session(self, hub, admit, outbox_max_bytes=limits.outbox_max_bytes)

    def write(self, cast: Cast) -> None:
        """Send a cast in one piece."""
        self._transport.write(cast.encoded[frames.encode])

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; the client's own, or a deadline, ends the connection."""
        self._sessions.discard(self.session)
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

    def on_ws_connected(self, _transport: WSTransport) -> None:
        """Send the initial state, and then what follows."""
        self.is_open = True
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._sessions.add(self.session)
        self.session.begin(self._query)

    def on_ws_disconnected(self, _transport: WSTransport) -> None:
        """End the session."""
        self._leave()

    def on_broken_frame(self) -> None:
        """End the conversation: picows could not read a frame and has sent a close frame itself."""
        self._leave()

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self.session.pause()

    def resume_writing(self) -> None:
        """The socket's buffer has drained."""
        self.session.resume()

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        """Take one frame; most are whole text messages."""
        kind: Any = frame.msg_type  # an IntEnum, made into a Python object at each access
        self._frames += 1
        if self.session.closed:
            if kind is _CLOSE:
                self._transport.close()
            return
        if self._websocket.is_close_frame_sent:
            self._leave()  # picows reads a frame ahead; that one was broken, and nothing may follow the close frame
            return
        payload = frame.get_payload_as_bytes()
        try:
            message = self._assembler.take(kind, frame.fin, payload, frame.rsv1 or frame.rsv2 or frame.rsv3)
        except Violation as violation:
            self._fail(violation.code, violation.reason)
        except TooLarge as error:
            is_whole = kind is _TEXT and frame.fin  # else the id would be looked for in a part
            self.session.refuse(error, payload if is_whole else b"")
            self._fail(error.close_code, f"{error.code}: {error.message}")
        except UnsupportedMedia as error:
            self.session.refuse(error)
        else:
            if message is not None:
                self.session.receive(message)
            elif kind is _PING:
                self._answer_ping(payload)
            elif kind is _CLOSE:
                self._answer_close(payload)

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        """Send a ping, unless reading is paused: the pong would not be seen."""
        if self.is_held:
            asyncio.get_running_loop().call_soon(transport.notify_user_specific_pong_received)
        else:
            transport.send_ping()

    def on_read(self) -> None:
        """Read on when the client's rates and the hub allow it; all frames of one read have been taken."""
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
        self._websocket.notify_user_specific_pong_received()  # a pong that is on its way is not read meanwhile

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
        self._sessions.discard(self.session)
