"""What a deployment does beside plain fan-out: narrow subscriptions, dashboards, event streams, clients that return.

Every load counts by content, like the fan-out, and fails where something is missing.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from benchmarks.loads import fanout, latency, rest
from benchmarks.loads.fanout import CONNECT_AT_ONCE, TIMEOUT_S, IncompleteDelivery, Marks
from benchmarks.machine import ServerProcess
from benchmarks.peers import Streaming
from benchmarks.wire import frame, handshake

VALUE_MARK = b'"m":"#~#"'
STALLED_RATE_PER_S = 400
"""Half of what keeps the server's core busy with 200 clients: near its limit, the machine's noise would be measured."""
TWIN_MARK = b'"updated_at_utc"'
_VALUE = re.compile(rb'"device_id":"d(\d+)","value":\{"n":(\d+),')


class Reader(asyncio.BufferedProtocol):
    """A connection to any path that counts a mark; all share one buffer."""

    _buffer = bytearray(1 << 20)
    _view = memoryview(_buffer)

    def __init__(self, request: bytes, mark: bytes, counted: Callable[[int], None] | None = None) -> None:
        self._request = request
        self._marks = Marks(mark)
        self._counted = counted or (lambda _: None)
        self._head: bytes | None = b""
        self.entered = asyncio.get_running_loop().create_future()
        self.count = 0
        self.kept: list[bytes] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def get_buffer(self, _size_hint: int) -> memoryview:
        """Give the buffer that all share."""
        return self._view

    def buffer_updated(self, size_bytes: int) -> None:
        """Count."""
        if self._head is not None:
            self._head += bytes(self._view[:size_bytes])
            if b'"hello"' in self._head:
                self._head = None
                self.entered.set_result(None)
        count = self._marks.count(self._buffer, size_bytes)
        if self.kept is not None:
            self.kept.append(bytes(self._view[:size_bytes]))
        if count:
            self.count += count
            self._counted(count)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail whoever waits."""
        if not self.entered.done():
            self.entered.set_exception(error or EOFError("the server ended the connection"))
            self.entered.exception()


async def open_all(port: int, readers: Sequence[Reader], *, at_once: int = CONNECT_AT_ONCE) -> None:
    """Connect, a group at a time, and wait until the server has let them in."""
    loop = asyncio.get_running_loop()
    for start in range(0, len(readers), at_once):
        group = readers[start : start + at_once]
        await asyncio.gather(*(loop.create_connection(partial(_itself, reader), "127.0.0.1", port) for reader in group))
        await asyncio.wait_for(asyncio.gather(*(reader.entered for reader in group)), TIMEOUT_S)


def close_all(readers: Sequence[Reader]) -> None:
    """End connections."""
    for reader in readers:
        reader.transport.abort()


class Total:
    """Counts over many connections, and tells when a number is reached."""

    def __init__(self) -> None:
        self.count = 0
        self._awaited = 0
        self._reached = asyncio.Event()

    def add(self, count: int) -> None:
        """Count more."""
        self.count += count
        if self.count >= self._awaited:
            self._reached.set()

    async def reaches(self, count: int) -> None:
        """Wait for a number. Raises IncompleteDelivery if it does not come."""
        self._awaited = count
        self._reached.clear()
        if self.count < count:
            try:
                await asyncio.wait_for(self._reached.wait(), TIMEOUT_S)
            except TimeoutError:
                raise IncompleteDelivery(f"of {count} deliveries {self.count} came") from None


def reading(device: int, number: int) -> bytes:
    """Return the frame of one reading of a device."""
    return frame(b'{"type":"telemetry","device_id":"d%d","value":{"n":%d,"m":"#~#"}}' % (device, number))


def batch(devices: Sequence[int]) -> bytes:
    """Return the request that stores one reading of each device."""
    texts = [b'{"device_id":"d%d","value":{"n":%d,"m":"#~#"}}' % (device, n) for n, device in enumerate(devices)]
    return rest.request("POST", "/api/data", b"[%b]" % b",".join(texts))


async def post_all(port: int, requests: Sequence[bytes]) -> None:
    """Send requests, one after another."""
    left = iter(requests)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(lambda: rest.Connection(lambda: next(left, None)), "127.0.0.1", port)
    protocol.start()
    await asyncio.wait_for(protocol.done, TIMEOUT_S)


async def single_devices(port: int, *, clients: int, in_flight: int, seconds: float) -> float:
    """Return updates a second when each of so many clients follows one device, and each update is of one of them."""
    total = Total()
    sender = Reader(handshake(port, "/ws?devices="), VALUE_MARK)
    sent = 0

    def returned(count: int) -> None:
        nonlocal sent
        total.add(count)
        if sent < updates:
            more = min(count, updates - sent)
            sender.transport.write(b"".join([reading(n * 7919 % clients, n) for n in range(sent, sent + more)]))
            sent += more

    updates = in_flight
    watching = [Reader(handshake(port, f"/ws?devices=d{n}"), VALUE_MARK, returned) for n in range(clients)]
    await open_all(port, [sender])
    await open_all(port, watching)
    try:
        elapsed_s, loop = 0.0, asyncio.get_running_loop()
        while elapsed_s < seconds:
            updates = updates * 2 if elapsed_s < seconds / 4 else round(updates * seconds / elapsed_s * 1.05)
            total.count = sent = 0
            began_s = loop.time()
            returned(0)
            sender.transport.write(b"".join([reading(n * 7919 % clients, n) for n in range(in_flight)]))
            sent = in_flight
            await total.reaches(updates)
            elapsed_s = loop.time() - began_s
        if total.count != updates:
            raise IncompleteDelivery(f"{updates} updates were delivered {total.count} times")
        return updates / elapsed_s
    finally:
        close_all([sender, *watching])


async def dashboards(
    port: int, *, clients: int, devices: int, updates_per_s: int, max_hz: int, seconds: float
) -> tuple[float, float]:
    """Return how often a second each client got each device anew, and how many updates a second were taken.

    An open loop: updates are sent when they are due. At the end every client must have the newest value of each device.
    """
    sender = Reader(handshake(port, "/ws?devices="), VALUE_MARK)
    watching = [Reader(handshake(port, f"/ws?mode=latest&max_hz={max_hz}"), VALUE_MARK) for _ in range(clients)]
    await open_all(port, [sender])
    await open_all(port, watching)
    try:
        loop = asyncio.get_running_loop()
        began_s, number = loop.time(), 0
        while (elapsed_s := loop.time() - began_s) < seconds:
            due = int(elapsed_s * updates_per_s)
            if due > number and not sender.transport.get_write_buffer_size():
                sender.transport.write(b"".join([reading(n % devices, n) for n in range(number, due)]))
                number = due
            await asyncio.sleep(0.005)
        delivered = sum(reader.count for reader in watching)
        await _reached(port, number)
        taken_per_s = number / (loop.time() - began_s)
        for reader in watching:
            reader.kept = []
        # The last value of each device, a little later, is what everybody must have in the end.
        sender.transport.write(b"".join([reading(n, number + n) for n in range(devices)]))
        await _all_have_the_newest(watching, devices, number)
        return delivered / clients / devices / seconds, taken_per_s
    finally:
        close_all([sender, *watching])


async def _reached(port: int, seq: int) -> None:
    """Wait until the server has so many changes."""
    async with asyncio.timeout(TIMEOUT_S):
        while (await rest.status(port))["seq"] < seq:  # noqa: ASYNC110  # another process has no event for us
            await asyncio.sleep(0.05)


async def _all_have_the_newest(watching: Sequence[Reader], devices: int, number: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        for reader in watching:
            while len(newest := _newest(reader, number)) < devices:  # noqa: ASYNC110  # no event of a text not yet parsed
                await asyncio.sleep(0.05)
            if any(n != number + device for device, n in newest.items()):
                raise IncompleteDelivery("a dashboard has another value than the newest")


def _newest(reader: Reader, number: int) -> dict[int, int]:
    """Return what a dashboard has heard last of each device, of the values from a number on."""
    found = _VALUE.findall(b"".join(reader.kept or ()))
    return {int(device): int(n) for device, n in found if int(n) >= number}


class EventStream(fanout.Subscriber):
    """A subscriber of the fan-out that reads server-sent events."""

    def __init__(self, system: Streaming, port: int) -> None:
        super().__init__(system, port)
        self._request = (
            f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
        )


async def event_streams(system: Streaming, port: int, *, clients: int, in_flight: int, seconds: float) -> float:
    """Return readings delivered in a second to so many event streams; they are published over WebSocket."""
    streams = [EventStream(system, port) for _ in range(clients)]
    await fanout.open_all(port, streams)
    publishers = await fanout.open_publishers(system, port, clients)
    try:
        warm = await fanout.publish_to_all(publishers, streams, 2_000, in_flight)
        readings = max(in_flight, round(warm.readings / warm.seconds * seconds))
        return (await fanout.publish_to_all(publishers, streams, readings, in_flight)).deliveries_per_s
    finally:
        fanout.close_all([*publishers, *streams])


async def resumes(port: int, *, clients: int, missed: int) -> float:
    """Return how many seconds it takes so many clients, coming back at once, to get all that each has missed."""
    before = await rest.status(port)
    await post_all(port, [batch(range(1_000))] * (missed // 1_000))
    path = f"/ws?mode=every&since={before['epoch']}:{before['seq']}"
    total = Total()
    returning = [Reader(handshake(port, path), VALUE_MARK, total.add) for _ in range(clients)]
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await open_all(port, returning, at_once=clients)
    await total.reaches(clients * missed)
    seconds = loop.time() - began_s
    close_all(returning)
    if {reader.count for reader in returning} != {missed}:
        raise IncompleteDelivery(f"of {missed} changes clients got {sorted({reader.count for reader in returning})}")
    return seconds


async def storm(process: ServerProcess, port: int, *, clients: int, devices: int) -> tuple[float, float]:
    """Return the seconds until so many clients, coming at once, have the state, and the bytes that the server grew by.

    Readings go on meanwhile, so that no two clients find the same state.
    """
    await post_all(port, [batch(range(start, start + 1_000)) for start in range(0, devices, 1_000)])
    before_bytes = most_bytes = process.memory_bytes
    total = Total()
    coming = [Reader(handshake(port, "/ws"), TWIN_MARK, total.add) for _ in range(clients)]
    sender = Reader(handshake(port, "/ws?devices="), VALUE_MARK)
    await open_all(port, [sender])
    loop = asyncio.get_running_loop()

    async def disturb() -> None:
        nonlocal most_bytes
        for number in range(1_000_000):
            sender.transport.write(reading(number % devices, number))
            if number % 20 == 0:
                most_bytes = max(most_bytes, process.memory_bytes)
            await asyncio.sleep(0.01)

    disturbing = asyncio.create_task(disturb())
    began_s = loop.time()
    await open_all(port, coming, at_once=500)
    await total.reaches(clients * devices)
    seconds = loop.time() - began_s
    disturbing.cancel()
    close_all([sender, *coming])
    if {reader.count for reader in coming} != {devices}:
        raise IncompleteDelivery("somebody has not the state of every device once")
    return seconds, most_bytes - before_bytes


async def stalled(
    system: Streaming, process: ServerProcess, port: int, *, stalled_clients: int, seconds: float
) -> tuple[float, float]:
    """Return the p99 in milliseconds of 200 clients that read, beside some that stop, and the server's growth in bytes.

    Afterwards the ones that stopped read on, and must end with the newest state.
    """
    stopping = [Reader(handshake(port, "/ws"), VALUE_MARK) for _ in range(stalled_clients)]
    await open_all(port, stopping)
    before_bytes = process.memory_bytes
    for reader in stopping:
        reader.transport.pause_reading()
    delays = await latency.measure(system, port, seconds=seconds, clients=200, rate_per_s=STALLED_RATE_PER_S)
    grown_bytes = process.memory_bytes - before_bytes
    for reader in stopping:
        reader.kept = []
        reader.transport.resume_reading()
    seq = (await rest.status(port))["seq"]
    for reader in stopping:
        await _catches_up(port, reader, seq)
    close_all(stopping)
    return delays.p99_ms, grown_bytes


async def _catches_up(port: int, reader: Reader, seq: int) -> None:
    """Wait until a client has the newest change: on its connection, or, if it was cut off, on one that resumes."""
    found = b'"seq":%d,' % seq
    async with asyncio.timeout(TIMEOUT_S):
        while found not in b"".join(reader.kept or ()):
            await asyncio.sleep(0.05)
            if reader.transport.is_closing():
                heard = b"".join(reader.kept or ())
                cursors = re.findall(rb'"seq":(\d+),"epoch":"([\w-]+)"', heard)
                since = f"{cursors[-1][1].decode()}:{cursors[-1][0].decode()}" if cursors else ""
                again = Reader(handshake(port, f"/ws?since={since}" if since else "/ws"), VALUE_MARK)
                again.kept = reader.kept
                await open_all(port, [again])
                reader.transport = again.transport
                reader.kept = again.kept


def _itself(reader: Reader) -> Reader:
    return reader
