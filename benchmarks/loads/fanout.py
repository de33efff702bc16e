"""Fan-out: N clients subscribe to everything, up to four others publish and subscribe to nothing.

The shape is the same for every system: a publisher gets nothing of what it or others publish, and only what the N
subscribers receive is counted. A closed loop: so many readings are in flight, and a publisher sends its next one when
its last one has reached the subscriber that paces it; each publisher is paced by another one, as long as there are
enough. All connections of the load are in one process, so the word from the one to the other costs no system anything.
The readings are made beforehand; the clock runs from the first that is sent to the moment when the last subscriber has
the last one.

A reading carries a mark, which nothing else on any of the wires does, so a subscriber counts readings by counting
marks. At the end every subscriber must have each of them: the counts must be equal and exact, and one of them parses
all that it got and must find every number of every publisher once.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
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
    """Some subscriber did not get every reading exactly once. A figure of such a run would be worthless."""


@dataclass(frozen=True)
class Result:
    """What one run measured."""

    readings: int
    subscribers: int
    seconds: float
    cpu_s: float = 0.0
    """What the server has spent."""

    @property
    def deliveries_per_s(self) -> float:
        """Readings received, by all subscribers together, in a second."""
        return self.readings * self.subscribers / self.seconds

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


class Connection(asyncio.BufferedProtocol):
    """A WebSocket to a system; all share one buffer, for each read is done with at once."""

    _buffer = bytearray(RECEIVE_BYTES)
    _view = memoryview(_buffer)

    def __init__(self, request: bytes, greeting: bytes, ready: bytes) -> None:
        self._request = request
        self._greeting = greeting
        self._ready = ready
        self._head = b""
        self.entered = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Give the buffer that all connections share."""
        return self._view

    def buffer_updated(self, size_bytes: int) -> None:
        """Wait to be let in, then take what comes."""
        if self.entered.done():
            self.take(size_bytes)
        else:
            self._enter(bytes(self._view[:size_bytes]))

    def take(self, size_bytes: int) -> None:
        """Take what is in the buffer; here, drop it."""

    def _enter(self, received: bytes) -> None:
        was_open = b"\r\n\r\n" in self._head
        self._head += received
        if not was_open and b"\r\n\r\n" in self._head and self._greeting:
            self.transport.write(self._greeting)
        if self._ready in self._head:
            self.entered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the one that waits to be let in."""
        _fail(self.entered, error)


def _fail(waiting: asyncio.Future[None], error: Exception | None) -> None:
    if not waiting.done():
        waiting.set_exception(error or EOFError("the server ended the connection"))
        waiting.exception()  # nobody has to wait for it


class Publisher(Connection):
    """Keeps a share of the readings in flight; it gets none of them, and is told what came back to a subscriber."""

    def __init__(self, system: Streaming, port: int, own_mark: bytes) -> None:
        request = handshake(port, system.publisher_path, system.head)
        super().__init__(request, system.publisher_greeting, system.ready)
        self._publish = system.publish
        self.own_mark = own_mark
        self._frames: list[bytes] = []
        self._sent = 0

    @property
    def has_more(self) -> bool:
        """Whether there are readings to send."""
        return self._sent < len(self._frames)

    def prepare(self, readings: int) -> None:
        """Make the frames of so many readings."""
        self._frames = [self._publish(reading(number, self.own_mark)) for number in range(readings)]
        self._sent = 0

    def send(self, count: int) -> None:
        """Send so many of the frames that are left: at the start all that may be in flight, then what came back."""
        self.transport.write(b"".join(self._frames[self._sent : self._sent + count]))
        self._sent += count


class Subscriber(Connection):
    """Counts what it receives, and may pace one publisher."""

    def __init__(self, system: Streaming, port: int) -> None:
        super().__init__(handshake(port, system.path, system.head), system.greeting, system.ready)
        self._marks = Marks(MARK)
        self._paced: Publisher | None = None
        self.all_here = asyncio.get_running_loop().create_future()
        self.received = 0
        self.awaited = 0
        self.kept: list[bytes] | None = None
        self._listener: Callable[[bytes, int], None] | None = None
        self._cut = b""

    def take(self, size_bytes: int) -> None:
        """Count, and let the publisher that it paces send as many as have come back."""
        if self._listener is not None:
            self._hand_on(self._cut + self._view[:size_bytes])
            return
        if self._paced is not None and self._paced.has_more:
            returned = self._own_marks.count(self._buffer, size_bytes)
            if returned:
                self._paced.send(returned)
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

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        super().connection_lost(error)
        _fail(self.all_here, error)

    def expect(self, readings: int, *, keep: bool, paces: Publisher | None) -> None:
        """Start to count anew."""
        self.received, self.awaited = 0, readings
        self.kept = [] if keep else None
        self.all_here = asyncio.get_running_loop().create_future()
        self._paced = paces
        self._own_marks = Marks(paces.own_mark if paces else MARK)


def _itself(connection: Connection) -> Connection:
    return connection


async def open_all(port: int, connections: Sequence[Connection]) -> None:
    """Connect, a group at a time, and wait until the server has let them in."""
    loop = asyncio.get_running_loop()
    for start in range(0, len(connections), CONNECT_AT_ONCE):
        group = connections[start : start + CONNECT_AT_ONCE]
        for connection in group:
            await loop.create_connection(partial(_itself, connection), "127.0.0.1", port)
        await asyncio.wait_for(asyncio.gather(*(connection.entered for connection in group)), TIMEOUT_S)


async def subscribe_all(system: Streaming, port: int, clients: int) -> list[Subscriber]:
    """Connect so many subscribers to everything."""
    subscribers = [Subscriber(system, port) for _ in range(clients)]
    await open_all(port, subscribers)
    return subscribers


async def open_publishers(system: Streaming, port: int, clients: int) -> list[Publisher]:
    """Connect the publishers for so many subscribers: no more than there are, so that each can be paced by its own."""
    publishers = [Publisher(system, port, mark) for mark in OWN_MARKS[: min(clients, PUBLISHERS)]]
    await open_all(port, publishers)
    return publishers


def close_all(connections: Iterable[Connection]) -> None:
    """End connections."""
    for connection in connections:
        connection.transport.abort()


async def publish_to_all(
    publishers: Sequence[Publisher], subscribers: Sequence[Subscriber], readings: int, in_flight: int
) -> Result:
    """Publish so many readings and wait until every subscriber has all of them.

    Raises:
        IncompleteDelivery: one has not, or got one twice.
    """
    share = readings // len(publishers)
    readings = share * len(publishers)
    for publisher in publishers:
        publisher.prepare(share)
    for number, subscriber in enumerate(subscribers):
        paced = publishers[number] if number < len(publishers) else None
        subscriber.expect(readings, keep=number == len(subscribers) - 1, paces=paced)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for publisher in publishers:
        publisher.send(in_flight // len(publishers))
    await asyncio.wait_for(asyncio.gather(*(subscriber.all_here for subscriber in subscribers)), TIMEOUT_S)
    result = Result(readings, len(subscribers), loop.time() - began_s)
    check(subscribers, readings)
    return result


def check(subscribers: Sequence[Subscriber], readings: int) -> None:
    """Hold that every subscriber got every reading of every publisher exactly once.

    Raises:
        IncompleteDelivery: it did not.
    """
    counts = {subscriber.received for subscriber in subscribers}
    if counts != {readings}:
        raise IncompleteDelivery(f"of {readings} readings subscribers received {sorted(counts)}")
    found = _NUMBER.findall(b"".join(subscribers[-1].kept or ()))
    numbers = {(mark, int(number)) for number, mark in found}
    if len(found) != len(numbers) or len(numbers) != readings:
        raise IncompleteDelivery(f"a subscriber found {len(numbers)} different readings among {len(found)}")


async def measure(
    system: Streaming, process: ServerProcess, port: int, clients: int, *, in_flight: int, seconds: float
) -> Result:
    """Find out how many readings fill the time, then measure that many."""
    subscribers = await subscribe_all(system, port, clients)
    publishers = await open_publishers(system, port, clients)
    try:
        readings, elapsed_s = max(200, in_flight), 0.0
        while elapsed_s < seconds / 8:
            warm = await publish_to_all(publishers, subscribers, readings, in_flight)
            elapsed_s = warm.seconds
            readings *= 2
        readings = max(in_flight, round(warm.readings / warm.seconds * seconds))
        cpu_s = process.cpu_s
        result = await publish_to_all(publishers, subscribers, readings, in_flight)
        return replace(result, cpu_s=process.cpu_s - cpu_s)
    finally:
        close_all([*publishers, *subscribers])
