"""Latency: readings at a steady rate, from the moment one is sent until each client has it.

An open loop: readings are sent when they are due, whatever the server does. The sender subscribes to nothing; it and
all receivers are one process with one clock. Each delivery is one sample.
"""

import asyncio
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from benchmarks.loads.fanout import IncompleteDelivery, close_all, open_publishers, subscribe_all
from benchmarks.peers import Streaming

RATE_PER_S = 1_000
CLIENTS = 100
WARM_UP_READINGS, WARM_UP_S = 500, 0.5
"""What is sent before it counts: the larger of both."""
HEARTBEAT_S = 5.0  # a client from which nothing comes is cut off after half a minute
PONG = b"\x8a\x80\0\0\0\0"  # unasked and empty, a heartbeat of RFC 6455, section 5.5.3
_SENT_AT = re.compile(rb'"ns":(\d+)')


@dataclass(frozen=True)
class Delays:
    """What all deliveries together say, in milliseconds."""

    p50_ms: float
    p99_ms: float
    longest_ms: float


class Clock:
    """Collects, for every client, how long each reading was on its way."""

    def __init__(self, awaited: int) -> None:
        self._awaited = awaited
        self.delays_ns: list[int] = []
        self.all_here = asyncio.Event()

    def take(self, chunk: bytes, now_ns: int) -> None:
        """Read the sending times out of a chunk that holds whole messages."""
        for sent_ns in _SENT_AT.findall(chunk):
            self.delays_ns.append(now_ns - int(sent_ns))
        if len(self.delays_ns) >= self._awaited:
            self.all_here.set()


async def measure(
    system: Streaming, port: int, *, seconds: float, clients: int = CLIENTS, rate_per_s: int = RATE_PER_S
) -> Delays:
    """Return how long deliveries took.

    Raises:
        IncompleteDelivery: not every client got every reading.
    """
    subscribers = await subscribe_all(system, port, clients)
    publishers = await open_publishers(system, port, 1)
    warm_up = max(WARM_UP_READINGS, round(rate_per_s * WARM_UP_S))
    readings = warm_up + round(rate_per_s * seconds)
    clocks = [Clock(readings) for _ in subscribers]
    for subscriber, clock in zip(subscribers, clocks, strict=True):
        subscriber.listen(clock.take)
    heartbeat = asyncio.create_task(_keep_alive([subscriber.transport for subscriber in subscribers]))
    try:
        await _send(system, publishers[0].transport, readings, rate_per_s)
        async with asyncio.timeout(10):
            await asyncio.gather(*(clock.all_here.wait() for clock in clocks))
    except TimeoutError:
        raise IncompleteDelivery(
            f"of {readings} readings a client got {min(len(clock.delays_ns) for clock in clocks)}"
        ) from None
    finally:
        heartbeat.cancel()
        close_all([*publishers, *subscribers])
    delays_ns = sorted(chain.from_iterable(clock.delays_ns[warm_up:] for clock in clocks))
    return Delays(percentile(delays_ns, 50) / 1e6, percentile(delays_ns, 99) / 1e6, delays_ns[-1] / 1e6)


async def _send(system: Streaming, sender: asyncio.Transport, readings: int, rate_per_s: int) -> None:
    """Send each reading when it is due; those that are due together go together, each with the time when it went."""
    loop = asyncio.get_running_loop()
    began_s, sent = loop.time(), 0
    while sent < readings:
        due = min(readings, 1 + int((loop.time() - began_s) * rate_per_s))
        if due > sent:
            sender.write(b"".join([system.publish(_timed_reading()) for _ in range(sent, due)]))
            sent = due
        await asyncio.sleep(began_s + sent / rate_per_s - loop.time())


def _timed_reading() -> bytes:
    return b'{"type":"telemetry","device_id":"lab1","value":{"ns":%d}}' % time.perf_counter_ns()


async def _keep_alive(transports: Sequence[asyncio.Transport]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        for transport in transports:
            transport.write(PONG)


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the smallest value that so many percent of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
