"""The fast WebSocket edge without a socket and without a loop: bytes in, bytes out, no time passes."""

import asyncio
import logging
from asyncio import AbstractEventLoop, Future, events
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from fuzz.oracles import Fault, hold
from tests.fakes import CommittingStream
from twincast.access.admission import Admission
from twincast.access.authenticator import Authenticator
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.core.keys import Keyring
from twincast.delivery.session import Limits
from twincast.hub.hub import Hub
from twincast.journal.memory import MemoryAccessStore, MemoryTrail
from twincast.server.websocket import PicowsEdge
from twincast.transports.parts import IN_STATE, PORTABLE, EdgeInUse, Parts, RequestLimits

MESSAGE_MAX_BYTES = 512
HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class StandingLoop:
    """A loop in which no time passes: timers and tasks never run. It has what the edge uses."""

    def get_debug(self) -> bool:
        """See AbstractEventLoop, as for the others."""
        return False

    def create_future(self) -> Future[Any]:
        """See AbstractEventLoop."""
        return Future(loop=_LOOP)

    def call_soon(self, *_: Any, **__: Any) -> None:
        """Call never."""

    def call_later(self, *_: Any, **__: Any) -> asyncio.TimerHandle:
        """Call never."""
        return asyncio.TimerHandle(0.0, lambda: None, (), _LOOP)

    def create_task(self, coro: Coroutine[Any, Any, Any], **_: Any) -> Future[Any]:
        """Run nothing of it."""
        coro.close()
        return self.create_future()

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """See BaseEventLoop."""


class RecordingTransport(asyncio.Transport):
    """A transport that remembers what it was told. It says that it is secure, so that picows uses no descriptor."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "ssl_object": object(), "socket": self})
        self.written = bytearray()
        self.has_ended = False

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: Any) -> None:
        pass

    def getsockopt(self, *_: Any) -> int:
        return 0

    def write(self, data: Any) -> None:
        if not self.has_ended:
            self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_reading(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.has_ended

    def close(self) -> None:
        self.has_ended = True

    def abort(self) -> None:
        self.has_ended = True


class Swallowed(logging.Handler):
    """Remembers what picows logs instead of raising it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class WebSocketStream(CommittingStream):
    """What the edge needs of the hub beyond what a session does."""

    def __init__(self) -> None:
        super().__init__()
        self.intake = self
        self.has_room = True

    def when_settled(self, callback: Callable[[], None]) -> None:
        callback()


class EdgeServer:
    """What the clients of one server share."""

    def __init__(self, keyring: Keyring | None = None) -> None:
        self.stream = WebSocketStream()
        authenticator = Authenticator()
        if keyring is not None:
            authenticator.learn(keyring)
        self.admission = Admission(OriginPolicy(), authenticator, Bounds(), trusted_proxies=("127.0.0.0/8",))
        self.parts = Parts(
            admission=self.admission,
            limits=Limits(
                message_max_bytes=MESSAGE_MAX_BYTES,
                outbox_max_bytes=64 * 1024,
                handshake_timeout_s=5.0,
                ping_interval_s=20.0,
                pong_timeout_s=10.0,
            ),
            request_limits=RequestLimits(body_max_bytes=MESSAGE_MAX_BYTES, updates_max=1),
            edge=EdgeInUse(PORTABLE),
            version="0",
            journal="memory:",
        )
        self.parts.open(cast(Hub, self.stream), MemoryAccessStore(MemoryTrail()))
        self.state = ServerState()
        self.app_state = {IN_STATE: self.parts}


class EdgeClient:
    """One client of the edge: says bytes, and has what came back."""

    def __init__(self, keyring: Keyring | None = None, *, server: EdgeServer | None = None) -> None:
        self._server = server or EdgeServer(keyring)
        self.stream = self._server.stream
        self.transport = RecordingTransport()
        self.edge = PicowsEdge(_CONFIG, self._server.state, self._server.app_state)
        self.edge.connection_made(self.transport)

    def says(self, data: bytes) -> None:
        """Send bytes, if the connection has not ended."""
        if data and not self.transport.has_ended:
            self.edge.data_received(data)

    def leaves(self) -> None:
        """End the connection."""
        self.edge.connection_lost(None)
        server = self._server
        hold(not server.parts.sessions and len(server.admission.leases) == 0, "a client that is gone is forgotten")

    def heard(self) -> bytes:
        """Return what was sent since the last call."""
        written = bytes(self.transport.written)
        self.transport.written.clear()
        return written


@contextmanager
def standing_still() -> Generator[None]:
    """Let edges run without a loop, and raise what picows would have logged."""
    swallowed = Swallowed()
    log = logging.getLogger("twincast.picows")
    log.addHandler(swallowed)
    propagates, log.propagate = log.propagate, False
    events._set_running_loop(_LOOP)
    try:
        yield
    finally:
        events._set_running_loop(None)
        log.propagate = propagates
        log.removeHandler(swallowed)
    for record in swallowed.records:
        if record.exc_info or "exception" in record.getMessage():
            cause = record.exc_info[1] if record.exc_info else None
            raise Fault(f"the edge raised: {record.getMessage()}") from cause


_LOOP = cast("AbstractEventLoop", StandingLoop())
_CONFIG = uvicorn.Config("twincast", log_config=None)
_CONFIG.encoded_headers = []  # what uvicorn adds to every answer; it is not loaded here
