"""JetStream's durable ingest: every reading that counts is on disk, as every one that twincast's subscriber receives.

NATS's own protocol over TCP, without its client library: readings are made and framed beforehand, so the load costs it
as little as can be. A batch is atomic (NATS's ADR-50): messages that say their batch and their place in it, the last of
which commits it and is acknowledged.

Two shapes are measured. In that of twincast's ingest a subscriber, which is a consumer without acknowledgements, gets
every stored reading, and the publisher is paced by what has reached it. In the other one nobody reads, and the
acknowledgements pace and count: less work than twincast's, and the most that JetStream takes.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from benchmarks.loads.fanout import MARK, OWN_MARKS, TIMEOUT_S, IncompleteDelivery, Marks, reading
from benchmarks.machine import ServerProcess

STREAM = "bench"
_SUBJECT, _INBOX, _DELIVERY = b"bench.lab1", b"_INBOX.bench", b"delivered.bench"
_ACKNOWLEDGED, _MESSAGE_END = b'"stream":', b"}\r\n"
_RECEIVE_BYTES = 1 << 18
_STREAM_CONFIG = {
    "name": STREAM,
    "subjects": [f"{STREAM}.>"],
    "storage": "file",
    "num_replicas": 1,
    "allow_atomic": True,
}
_CONSUMER_CONFIG = {"deliver_subject": _DELIVERY.decode(), "ack_policy": "none", "mem_storage": True, "num_replicas": 1}


@dataclass(frozen=True)
class Result:
    """What one run measured."""

    readings: int
    seconds: float
    cpu_s: float = 0.0


class Publisher(asyncio.Protocol):
    """Sends units, which are messages or batches of them, and gets their acknowledgements."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._units: list[bytes] = []
        self._sent = self._acknowledged = 0
        self._is_paced_by_acks = True
        self._all_acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Introduce itself, and subscribe to the answers to everything that it will send."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b.* 1\r\n' % _INBOX)

    async def request(self, subject: str, body: object) -> dict[str, object]:
        """Ask the server something, and wait for its answer. Raises RuntimeError if it refuses."""
        text = json.dumps(body).encode()
        self._answer, self._received = asyncio.get_running_loop().create_future(), b""
        self.transport.write(b"PUB %b %b.ask %d\r\n%b\r\n" % (subject.encode(), _INBOX, len(text), text))
        answer: dict[str, object] = json.loads(await asyncio.wait_for(self._answer, TIMEOUT_S))
        self._answer = None
        if "error" in answer:
            raise RuntimeError(f"{subject}: {answer['error']}")
        return answer

    def publish(self, units: list[bytes], in_flight: int, *, is_paced_by_acks: bool) -> asyncio.Future[None]:
        """Send as many as may be in flight; the rest follow as they come back. Gives when all are acknowledged."""
        self._units, self._acknowledged, self._received = units, 0, b""
        self._is_paced_by_acks = is_paced_by_acks
        self._all_acknowledged = asyncio.get_running_loop().create_future()
        self._sent = 0
        self.send(in_flight)
        return self._all_acknowledged

    def send(self, count: int) -> None:
        """Send so many of the units that are left."""
        if self._sent < len(self._units):
            self.transport.write(b"".join(self._units[self._sent : self._sent + count]))
            self._sent += count

    def data_received(self, data: bytes) -> None:
        """Take the answer to a request, or acknowledgements."""
        if b"PING\r\n" in data:
            self.transport.write(b"PONG\r\n")
        self._received += data
        end = self._received.rfind(_MESSAGE_END) + len(_MESSAGE_END)
        if end < len(_MESSAGE_END):
            return
        whole, self._received = self._received[:end], self._received[end:]
        if self._answer is None:
            self._acknowledge(whole)
        elif (at := whole.find(b"MSG ")) >= 0 and not self._answer.done():
            self._answer.set_result(whole[at:].split(b"\r\n", 1)[1])

    def _acknowledge(self, whole: bytes) -> None:
        if b'"error"' in whole:
            self.connection_lost(RuntimeError(whole.decode()[:400]))
            return
        count = whole.count(_ACKNOWLEDGED)
        self._acknowledged += count
        if count and self._is_paced_by_acks:
            self.send(count)
        if self._acknowledged >= len(self._units) and not self._all_acknowledged.done():
            self._all_acknowledged.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        for waiting in (self._answer, self._all_acknowledged):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error or EOFError("the server ended the connection"))
                waiting.exception()  # nobody has to wait for it


class Subscriber(asyncio.BufferedProtocol):
    """Counts the readings that a consumer delivers, and says when another unit of them is complete."""

    _buffer = bytearray(_RECEIVE_BYTES)

    def __init__(self, unit_size: int, returned: Callable[[int], None]) -> None:
        self._unit_size = unit_size
        self._returned = returned
        self._marks = Marks(MARK)
        self._counted = 0
        self._awaited = 0
        self.all_here: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Subscribe to what the consumer delivers."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b 1\r\n' % _DELIVERY)

    def expect(self, readings: int) -> asyncio.Future[None]:
        """Start to count anew. Gives when all are here."""
        self._counted, self._awaited = 0, readings
        self.all_here = asyncio.get_running_loop().create_future()
        return self.all_here

    def get_buffer(self, _size_hint: int) -> bytearray:
        """Give the buffer."""
        return self._buffer

    def buffer_updated(self, size_bytes: int) -> None:
        """Count."""
        if size_bytes < 8 and self._buffer.startswith(b"PING\r\n"):
            self.transport.write(b"PONG\r\n")
        before = self._counted // self._unit_size
        self._counted += self._marks.count(self._buffer, size_bytes)
        if units := self._counted // self._unit_size - before:
            self._returned(units)
        if self._counted >= self._awaited and not self.all_here.done():
            self.all_here.set_result(None)


def messages(first: int, count: int) -> list[bytes]:
    """Return so many readings, each a message of its own that asks for its acknowledgement."""
    texts = [reading(number, OWN_MARKS[0]) for number in range(first, first + count)]
    return [b"PUB %b %b.a %d\r\n%b\r\n" % (_SUBJECT, _INBOX, len(text), text) for text in texts]


def batches(first: int, count: int, size: int) -> list[bytes]:
    """Return so many readings as atomic batches of a size, each of which asks for one acknowledgement."""
    return [_batch(start, size) for start in range(first, first + count, size)]


def _batch(first: int, size: int) -> bytes:
    parts = []
    for place in range(1, size + 1):
        text = reading(first + place - 1, OWN_MARKS[0])
        is_last = place == size
        commit = b"Nats-Batch-Commit:1\r\n" if is_last else b""
        head = b"NATS/1.0\r\nNats-Batch-Id:%d\r\nNats-Batch-Sequence:%d\r\n%b\r\n" % (first, place, commit)
        reply = b"%b.a " % _INBOX if is_last else b""
        sizes = b"%d %d" % (len(head), len(head) + len(text))
        parts.append(b"HPUB %b %b%b\r\n%b%b\r\n" % (_SUBJECT, reply, sizes, head, text))
    return b"".join(parts)


class Ingest:
    """A stream on a server, with one publisher and, if it is read, one subscriber."""

    def __init__(self, process: ServerProcess, port: int, batch_size: int, *, is_read: bool) -> None:
        self._process = process
        self._port = port
        self._batch_size = batch_size
        self._publisher = Publisher()
        self._subscriber = Subscriber(batch_size, self._publisher.send) if is_read else None
        self._stored = 0

    async def open(self) -> None:
        """Connect, and make the stream and its consumer."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._publisher, "127.0.0.1", self._port)
        await self._publisher.request(f"$JS.API.STREAM.CREATE.{STREAM}", _STREAM_CONFIG)
        if (subscriber := self._subscriber) is not None:
            await loop.create_connection(lambda: subscriber, "127.0.0.1", self._port)
            consumer = {"stream_name": STREAM, "config": _CONSUMER_CONFIG}
            await self._publisher.request(f"$JS.API.CONSUMER.CREATE.{STREAM}", consumer)

    async def run(self, readings: int, in_flight: int) -> Result:
        """Publish about so many readings; every one is acknowledged and, if the stream is read, delivered."""
        count = max(1, readings // self._batch_size) * self._batch_size
        first, self._stored = self._stored, self._stored + count
        units = messages(first, count) if self._batch_size == 1 else batches(first, count, self._batch_size)
        waiting = [] if self._subscriber is None else [self._subscriber.expect(count)]
        cpu_s, loop = self._process.cpu_s, asyncio.get_running_loop()
        began_s = loop.time()
        units_in_flight = max(1, in_flight // self._batch_size)
        waiting.append(self._publisher.publish(units, units_in_flight, is_paced_by_acks=self._subscriber is None))
        await asyncio.wait_for(asyncio.gather(*waiting), TIMEOUT_S)
        return Result(count, loop.time() - began_s, self._process.cpu_s - cpu_s)

    async def check(self) -> None:
        """Hold that the stream has as many readings as were acknowledged. Raises IncompleteDelivery if it has not."""
        info = await self._publisher.request(f"$JS.API.STREAM.INFO.{STREAM}", {})
        if (holds := cast(dict[str, int], info["state"])["messages"]) != self._stored:
            raise IncompleteDelivery(f"{self._stored} readings were acknowledged, the stream holds {holds}")

    def close(self) -> None:
        """End the connections."""
        self._publisher.transport.abort()
        if self._subscriber is not None:
            self._subscriber.transport.abort()


async def measure(
    process: ServerProcess, port: int, *, batch_size: int, is_read: bool, in_flight: int, seconds: float
) -> Result:
    """Find out how many readings fill the time, then measure that many.

    Args:
        process: the server.
        port: where it speaks NATS's protocol over TCP.
        batch_size: readings in an atomic batch, at most 1,000; 1 means a message each, without a batch.
        is_read: whether a subscriber gets every reading, as twincast's does.
        in_flight: readings that may be on their way at once.
        seconds: how long it should take, about.
    """
    ingest = Ingest(process, port, batch_size, is_read=is_read)
    try:
        await ingest.open()
        result = await ingest.run(in_flight, in_flight)
        while result.seconds < seconds / 8:
            result = await ingest.run(2 * result.readings, in_flight)
        result = await ingest.run(round(result.readings / result.seconds * seconds), in_flight)
        await ingest.check()
        return result
    finally:
        ingest.close()
