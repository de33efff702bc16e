"""A server within this process: the real edge, session, hub and journal, and clients on connections without a socket.

What is measured is the processor time of this process. It holds no system call of a connection and no other process,
so it is the same again and again, also on a machine that is busy.
"""

import asyncio
import gc
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from twincast.app import create_app
from twincast.server.conversation import WRITE_BUFFER_BYTES
from twincast.server.websocket import PicowsEdge
from twincast.settings import Settings
from twincast.transports.parts import Parts, parts_in

NOTHING = "?devices="
"""The query of a client that sends and wants to receive nothing."""
TURN_S = 60.0
_HEAD = (
    "GET /ws%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_UPDATE = b'"data_update"'
_END_BYTES = 4_096


class Wire(asyncio.Transport):
    """The server's end of a connection. As a socket's, its buffer is full after a large write, until the next turn."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50_000), "ssl_object": object(), "socket": self})
        self.size_bytes = 0
        """How much has arrived."""
        self.has_update = False
        """Whether the newest of it is a reading; the part of the state that a hello brings is none."""
        self.is_full = False
        """Whether the client reads nothing."""
        self._protocol: asyncio.Protocol | None = None

    def fileno(self) -> int:
        """See socket: there is none."""
        return -1

    def setsockopt(self, *_: object) -> None:
        """See socket."""

    def getsockopt(self, *_: object) -> int:
        """See socket."""
        return 0

    def write(self, data: Any) -> None:
        """See asyncio.WriteTransport."""
        self.size_bytes += len(data)
        self.has_update = _UPDATE in bytes(data[-_END_BYTES:])
        if len(data) > WRITE_BUFFER_BYTES and not self.is_full and self._protocol is not None:
            self._protocol.pause_writing()
            asyncio.get_running_loop().call_soon(self._drained)

    def _drained(self) -> None:
        if not self.is_full and self._protocol is not None:
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """See asyncio.WriteTransport."""
        return 1 << 20 if self.is_full else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio.WriteTransport."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio.BaseTransport."""
        self._protocol = cast(asyncio.Protocol, protocol)

    def pause_reading(self) -> None:
        """See asyncio.ReadTransport."""

    def resume_reading(self) -> None:
        """See asyncio.ReadTransport."""

    def is_reading(self) -> bool:
        """See asyncio.ReadTransport."""
        return True

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return False

    def close(self) -> None:
        """See asyncio.BaseTransport."""

    def abort(self) -> None:
        """See asyncio.WriteTransport."""


class Client:
    """One WebSocket client of the server."""

    def __init__(self, edge: PicowsEdge) -> None:
        self.wire = Wire()
        self._edge = edge
        edge.connection_made(self.wire)

    def send(self, data: bytes) -> None:
        """Have the server read some bytes."""
        self._edge.data_received(data)

    def fall_behind(self) -> None:
        """Read nothing more."""
        self.wire.is_full = True
        self._edge.pause_writing()

    def read_on(self) -> None:
        """Read again."""
        self.wire.is_full = False
        self._edge.resume_writing()

    def leave(self) -> None:
        """End the connection."""
        self._edge.connection_lost(None)


class Inside:
    """The server and its clients."""

    def __init__(self, app: Any, parts: Parts, state: dict[str, Any]) -> None:
        self.app = app
        self.parts = parts
        self._state = state
        self._config = uvicorn.Config("twincast", log_config=None)
        self._config.encoded_headers = []
        self._server_state = ServerState()

    def connect(self, query: str = "") -> Client:
        """Return a client whose handshake is under way."""
        client = Client(PicowsEdge(self._config, self._server_state, self._state))
        client.send((_HEAD % query).encode())
        return client

    async def connected(self, queries: Iterable[str]) -> list[Client]:
        """Return clients that have received what there is."""
        clients = []
        for query in queries:
            clients.append(self.connect(query))
            await asyncio.sleep(0)
        await self.settle()
        return clients

    async def settle(self) -> None:
        """Return when nothing moves any more: no commit, no hello."""
        quiet = 0
        connections = self._server_state.connections
        before = -1
        while quiet < 20:
            await asyncio.sleep(0.001)
            now = self.parts.hub.state.seq + sum(edge.transport is not None for edge in connections)
            quiet = quiet + 1 if now == before else 0
            before = now

    async def submit(self, reads: Sequence[tuple[Client, bytes]], readings: int) -> None:
        """Have the server take what clients send; return when all of it is in the state and was cast."""
        state = self.parts.hub.state
        until = state.seq + readings
        for client, data in reads:
            client.send(data)
        while state.seq < until:  # noqa: ASYNC110  # an event would be part of what is measured
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def cost_us(
        self,
        reads_of: Callable[[int], Sequence[tuple[Client, bytes]]],
        readings: int,
        *,
        seconds: float,
        turns: int = 20,
    ) -> float:
        """Return the processor time of one reading: the median of rounds, each of some turns.

        Args:
            reads_of: what clients send in a turn of that number; prepared before the clock runs.
            readings: how many readings that is.
            seconds: for how long it is measured, about.
            turns: how many turns a round has.
        """
        costs_us: list[float] = []
        until_s, number = time.monotonic() + seconds, 0
        while time.monotonic() < until_s or len(costs_us) < 3:  # else it is no median
            prepared = [reads_of(number + turn) for turn in range(turns)]
            number += turns
            began_s = time.process_time()
            for reads in prepared:
                await self.submit(reads, readings)
            costs_us.append((time.process_time() - began_s) / turns / readings * 1e6)
        return median(costs_us[len(costs_us) // 4 :])  # the first rounds fill the caches


def out_of_sight() -> None:
    """Keep all that there is by now from being walked by the garbage collector again."""
    gc.collect()
    gc.freeze()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Inside]:
    """Run a server with a journal in memory."""
    given: dict[str, Any] = {"journal": "memory:", "ping_interval_s": 36_000.0, "devices_max": 2_000_000, **settings}
    app = create_app(Settings(**given))
    try:
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            out_of_sight()  # as the server does once it has started
            yield Inside(app, parts_in(dict(state)), dict(state))
    finally:
        gc.unfreeze()


def frame(payload: bytes) -> bytes:
    """Return a text frame as a client sends it; its mask is zero, which costs the server what any mask costs."""
    size = len(payload)
    if size < 126:  # RFC 6455, section 5.2
        head = struct.pack(">BB", 0x81, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x81, 0xFE, size)
    else:
        head = struct.pack(">BBQ", 0x81, 0xFF, size)
    return head + b"\0\0\0\0" + payload


def reading(device: str, value: bytes) -> bytes:
    """Return the frame of a reading."""
    return frame(b'{"type":"telemetry","device_id":"%b","value":%b}' % (device.encode(), value))


class LoopWatch:
    """Measures the longest step of the event loop, in processor time, while it is open."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._is_over = False

    async def __aenter__(self) -> "LoopWatch":
        """Begin."""
        self._watching = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        self._is_over = True
        await self._watching

    async def _watch(self) -> None:
        before_s = time.thread_time()
        while not self._is_over:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            self.longest_s = max(self.longest_s, now_s - before_s)
            before_s = now_s
