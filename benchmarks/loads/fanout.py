"""Fan-out: N clients connected, up to four of them publish, everyone receives everything.

A closed loop: so many readings are in flight, and a publisher sends its next one when its own comes back. The clock
runs from the first reading to the moment when the last client has the last one.

A reading carries a mark, which nothing else on any of the wires does, so a client counts readings by counting marks. At
the end every client must have each of them: the counts must be equal and exact, and one client parses all that it got
and must find every number of every publisher once.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from benchmarks.machine import ServerProcess
from benchmarks.peers import Streaming
from benchmarks.wire import handshake

PUBLISHERS = 4
READING_BYTES = 72
FIRST_NUMBER = 1_000_000  # so that all numbers have as many digits
MARK = b'":"#~#'  # not even the length bytes of a frame can read like this
OWN_MARKS = (b"#~#a", b"#~#b", b"#~#c", b"#~#d")
RECEIVE_BYTES = 1 << 18
CONNECT_AT_ONCE = 50
TIMEOUT_S = 60.0
_LAST_BYTES = frozenset(b"}\n")
_NUMBER = re.compile(rb'"n":(\d+),"m":"#~#(.)"')


class IncompleteDelivery(Exception):
    """Some client did not get every reading exactly once. A figure of such a run would be worthless."""


@dataclass(frozen=True)
class Result:
    """What one run measured."""

    readings: int
    clients: int
    seconds: float
    cpu_s: float = 0.0
    """What the server has spent."""

    @property
    def deliveries_per_s(self) -> float:
        """Readings received, of all clients together, in a second."""
        return self.readings * self.clients / self.seconds

    @property
    def cpu_us_a_reading(self) -> float:
        """Processor time of the server for each reading, its deliveries included, in microseconds."""
        return 1e6 * self.cpu_s / self.readings


def reading(number: int, own_mark: bytes) -> bytes:
    """Return a reading of 72 bytes, the same text for every system."""
    text = b'{"type":"telemetry","device_id":"lab1","value":{"n":%d,"m":"%b"}}' % (FIRST_NUMBER + number, own_mark)
    assert len(text) == READING_BYTES
    return text


class Marks:
    """Counts a mark in a stream of chunks, also where it is cut."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._tail_bytes = len(mark) - 1
        self._tail = b""

    def count(self, chunk: bytearray, size_bytes: int) -> int:
        """Return how many marks end in the first bytes of the chunk."""
        count = chunk.count(self._mark, 0, size_bytes)
        if self._tail:
            overlap = self._tail + chunk[: min(self._tail_bytes, size_bytes)]
            count += overlap.count(self._mark)
            self._tail = bytes(overlap[-self._tail_bytes :])
        if chunk[size_bytes - 1] in _LAST_BYTES:  # a whole message ends here, so no mark is cut
            self._tail = b""
        elif size_bytes >= self._tail_bytes:
            self._tail = bytes(chunk[size_bytes - self._tail_bytes : size_bytes])
        elif not self._tail:
            self._tail = bytes(chunk[:size_bytes])
        return count


class Client(asyncio.BufferedProtocol):
    """One connection that counts what it receives; all share one buffer, for each read is done with at once."""

    _buffer = bytearray(RECEIVE_BYTES)
    _view = memoryview(_buffer)

    def __init__(self, system: Streaming, port: int) -> None:
        self._system = system
        self._port = port
        self._head = b""
        self._marks = Marks(MARK)
        self.entered = asyncio.get_running_loop().create_future()
        self.all_here = asyncio.get_running_loop().create_future()
        self.received = 0
        self.awaited = 0
        self.kept: list[bytes] | None = None
        self._listener: Callable[[bytes, int], None] | None = None
        self._cut = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(handshake(self._port, self._system.path, self._system.head))

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Give the buffer that all clients share."""
        return self._view

    def buffer_updated(self, size_bytes: int) -> None:
        """Count."""
        if not self.entered.done():
            self._enter(bytes(self._view[:size_bytes]))
            return
        if self._listener is not None:
            self._hand_on(self._cut + self._view[:size_bytes])
            return
        self.received += self._marks.count(self._buffer, size_bytes)
        if self.kept is not None:
            self.kept.append(bytes(self._view[:size_bytes]))
        if self.received >= self.awaited and not self.all_here.done():
            self.all_here.set_result(None)

    def listen(self, listener: Callable[[bytes, int], None]) -> None:
        """Hand on what comes in, cut at the ends of JSON texts, with the time when it came, and count no more."""
        self._listener = listener

    def _hand_on(self, chunk: bytes) -> None:
        end = chunk.rfind(b"}") + 1
        self._cut = chunk[end:]
        assert self._listener is not None
        self._listener(chunk[:end], time.perf_counter_ns())

    def _enter(self, received: bytes) -> None:
        was_open = b"\r\n\r\n" in self._head
        self._head += received
        if not was_open and b"\r\n\r\n" in self._head and self._system.greeting:
            self.transport.write(self._system.greeting)
        if self._system.ready in self._head:
            self.entered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        for waiting in (self.entered, self.all_here):
            if not waiting.done():
                waiting.set_exception(error or EOFError("the server ended the connection"))
                waiting.exception()  # nobody has to wait for it

    def expect(self, readings: int, *, keep: bool) -> None:
        """Start to count anew."""
        self.received, self.awaited = 0, readings
        self.kept = [] if keep else None
        self.all_here = asyncio.get_running_loop().create_future()


class Publisher(Client):
    """A client that keeps a share of the readings in flight."""

    def __init__(self, system: Streaming, port: int, own_mark: bytes) -> None:
        super().__init__(system, port)
        self._own_mark = own_mark
        self._own_marks = Marks(own_mark)
        self._frames: list[bytes] = []
        self._sent = 0

    def start(self, readings: int, in_flight: int) -> None:
        """Send the first readings; the rest follow as they come back."""
        self._frames = [self._system.publish(reading(number, self._own_mark)) for number in range(readings)]
        self._sent = 0
        self._own_marks = Marks(self._own_mark)
        self._send(in_flight)

    def buffer_updated(self, size_bytes: int) -> None:
        """Count, and send as many as have come back."""
        if self._sent < len(self._frames):
            returned = self._own_marks.count(self._buffer, size_bytes)
            if returned:
                self._send(returned)
        super().buffer_updated(size_bytes)

    def _send(self, count: int) -> None:
        self.transport.write(b"".join(self._frames[self._sent : self._sent + count]))
        self._sent += count


def _itself(client: Client) -> Client:
    return client


async def connect_all(system: Streaming, port: int, clients: int) -> tuple[list[Publisher], list[Client]]:
    """Connect so many clients, the publishers among them, and wait until the server has let them in."""
    loop = asyncio.get_running_loop()
    publishers = [Publisher(system, port, mark) for mark in OWN_MARKS[: min(clients, PUBLISHERS)]]
    everyone: list[Client] = [*publishers, *(Client(system, port) for _ in range(clients - len(publishers)))]
    for start in range(0, clients, CONNECT_AT_ONCE):
        group = everyone[start : start + CONNECT_AT_ONCE]
        for client in group:
            await loop.create_connection(partial(_itself, client), "127.0.0.1", port)
        await asyncio.wait_for(asyncio.gather(*(client.entered for client in group)), TIMEOUT_S)
    return publishers, everyone


async def publish_to_all(publishers: list[Publisher], everyone: list[Client], readings: int, in_flight: int) -> Result:
    """Publish so many readings and wait until everyone has all of them.

    Raises:
        IncompleteDelivery: somebody has not, or got one twice.
    """
    share = readings // len(publishers)
    readings = share * len(publishers)
    for number, client in enumerate(everyone):
        client.expect(readings, keep=number == len(everyone) - 1)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for publisher in publishers:
        publisher.start(share, in_flight // len(publishers))
    await asyncio.wait_for(asyncio.gather(*(client.all_here for client in everyone)), TIMEOUT_S)
    result = Result(readings, len(everyone), loop.time() - began_s)
    check(publishers, everyone, share)
    return result


def check(publishers: list[Publisher], everyone: list[Client], share: int) -> None:
    """Hold that every client got every reading of every publisher exactly once.

    Raises:
        IncompleteDelivery: it did not.
    """
    counts = {client.received for client in everyone}
    if counts != {share * len(publishers)}:
        raise IncompleteDelivery(f"of {share * len(publishers)} readings clients received {sorted(counts)}")
    found = _NUMBER.findall(b"".join(everyone[-1].kept or ()))
    numbers = {(mark, int(number)) for number, mark in found}
    if len(found) != len(numbers) or len(numbers) != share * len(publishers):
        raise IncompleteDelivery(f"a client found {len(numbers)} different readings among {len(found)}")


async def measure(
    system: Streaming, process: ServerProcess, port: int, clients: int, *, in_flight: int, seconds: float
) -> Result:
    """Find out how many readings fill the time, then measure that many."""
    publishers, everyone = await connect_all(system, port, clients)
    try:
        readings, elapsed_s = max(200, in_flight), 0.0
        while elapsed_s < seconds / 8:
            warm = await publish_to_all(publishers, everyone, readings, in_flight)
            elapsed_s = warm.seconds
            readings *= 2
        readings = max(in_flight, round(warm.readings / warm.seconds * seconds))
        cpu_s = process.cpu_s
        result = await publish_to_all(publishers, everyone, readings, in_flight)
        return replace(result, cpu_s=process.cpu_s - cpu_s)
    finally:
        for client in everyone:
            client.transport.abort()
