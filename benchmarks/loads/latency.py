"""Latency: 1,000 readings a second, 100 clients, from the moment a reading is sent until each client has it.

An open loop: readings are sent when they are due, whatever the server does. The sender and all receivers are one
process with one clock. Each delivery is one sample.
"""

import asyncio
import math
import re
import time
from collections.abc import Sequence
from itertools import chain

from benchmarks.loads.fanout import IncompleteDelivery, connect_all
from benchmarks.peers import Streaming

RATE_PER_S = 1_000
CLIENTS = 100
WARM_UP_READINGS = 500
HEARTBEAT_S = 5.0  # a client from which nothing comes is cut off after half a minute
PONG = b"\x8a\x80\0\0\0\0"  # unasked and empty, a heartbeat of RFC 6455, section 5.5.3
_SENT_AT = re.compile(rb'"ns":(\d+)')


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
) -> tuple[float, float]:
    """Return the 50th and the 99th percentile of all deliveries, in milliseconds.

    Raises:
        IncompleteDelivery: not every client got every reading.
    """
    publishers, everyone = await connect_all(system, port, clients)
    readings = WARM_UP_READINGS + round(rate_per_s * seconds)
    clocks = [Clock(readings) for _ in everyone]
    for client, clock in zip(everyone, clocks, strict=True):
        client.listen(clock.take)
    heartbeat = asyncio.create_task(_keep_alive([client.transport for client in everyone]))
    try:
        sender = publishers[0].transport
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(readings):
            due_s = began_s + number / rate_per_s
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            value = b'{"type":"telemetry","device_id":"lab1","value":{"ns":%d}}' % time.perf_counter_ns()
            sender.write(system.publish(value))
        async with asyncio.timeout(10):
            await asyncio.gather(*(clock.all_here.wait() for clock in clocks))
    except TimeoutError:
        raise IncompleteDelivery(
            f"of {readings} readings a client got {min(len(clock.delays_ns) for clock in clocks)}"
        ) from None
    finally:
        heartbeat.cancel()
        for client in everyone:
            client.transport.abort()
    delays_ns = sorted(chain.from_iterable(clock.delays_ns[WARM_UP_READINGS:] for clock in clocks))
    return percentile(delays_ns, 50) / 1e6, percentile(delays_ns, 99) / 1e6


async def _keep_alive(transports: Sequence[asyncio.Transport]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        for transport in transports:
            transport.write(PONG)


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the smallest value that so many percent of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
