"""What clients notice of a failure: how long nothing comes when NATS's leader dies or leaves, or a server is killed.

Three NATS nodes and two servers on one log, behind an address that leads to the one that lives, as a proxy's would. A
publisher sends as fast as it is answered; watchers of every reading come back with their position. The silence is the
longest time for which any watcher got nothing; and at the end each must have had every reading, once and in order.
"""

import asyncio
import signal
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

from benchmarks.loads.fanout import IncompleteDelivery
from benchmarks.machine import ServerProcess, free_port, python
from benchmarks.peers.shared_log import wait_until_ready
from twincast.client import Gap, connect
from twincast.testing import Nats, Proxy

WATCHERS = 20
BEFORE_S, WITHIN_S = 1.5, 30.0
NAME = "bench"
AFTER = 20
"""So many readings must have come after the failure, on every watcher."""
Failure = Literal["a NATS leader killed", "a NATS leader stopped", "a server killed"]
FAILURES: tuple[Failure, ...] = ("a NATS leader killed", "a NATS leader stopped", "a server killed")


class _Watcher:
    """What one client got, and its longest silence."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._last_s = time.monotonic()
        self.seqs: list[int] = []
        self.longest_s = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        async with connect(self._url) as client:
            async for event in client.watch(mode="every"):
                if isinstance(event, Gap):
                    raise IncompleteDelivery(f"a watcher was told of a gap: {event}")
                now_s = time.monotonic()
                self.longest_s = max(self.longest_s, now_s - self._last_s)
                self._last_s = now_s
                self.seqs.append(event.seq)

    def forget(self) -> None:
        """Begin to measure here."""
        self.longest_s, self._last_s = 0.0, time.monotonic()


async def _publish(url: str) -> None:
    async with connect(url) as client:
        number = 0
        while True:
            number += 1
            await client.publish("hall/t", number)


async def _measure(failure: Failure, nats: Nats, servers: list[ServerProcess], ports: list[int], proxy: Proxy) -> float:
    watchers = [_Watcher(proxy.url) for _ in range(WATCHERS)]
    tasks = [asyncio.ensure_future(each.run()) for each in watchers]
    tasks.append(asyncio.ensure_future(_publish(proxy.url)))
    try:
        async with asyncio.timeout(WITHIN_S):
            while not all(watcher.seqs for watcher in watchers):  # noqa: ASYNC110  # they are measured, not woken
                await asyncio.sleep(0.05)
        await asyncio.sleep(BEFORE_S)
        for watcher in watchers:
            watcher.forget()
        before = max(watcher.seqs[-1] for watcher in watchers)
        await asyncio.to_thread(_fail, failure, nats, servers, ports, proxy)
        async with asyncio.timeout(WITHIN_S):
            while any(watcher.seqs[-1] < before + AFTER for watcher in watchers):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(BEFORE_S)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    for watcher in watchers:
        if watcher.seqs != list(range(watcher.seqs[0], watcher.seqs[-1] + 1)):
            raise IncompleteDelivery("a watcher has missed a reading, or got one twice")
    return max(watcher.longest_s for watcher in watchers)


def _fail(failure: Failure, nats: Nats, servers: list[ServerProcess], ports: list[int], proxy: Proxy) -> None:
    if failure == "a server killed":
        proxy.to_port = ports[1]
        servers[0].stop(signal.SIGKILL)
        return
    leader = nats.leader(NAME)
    assert leader is not None
    if failure == "a NATS leader killed":
        nats.kill(leader)
    else:
        nats.stop(leader)


def measure(failure: Failure) -> float:
    """Return the longest silence, in seconds.

    Raises:
        IncompleteDelivery: a watcher has missed a reading.
    """
    with tempfile.TemporaryDirectory() as directory, Nats(3) as nats, ExitStack() as undo:
        ports, servers = [free_port(), free_port()], list[ServerProcess]()
        for number, port in enumerate(ports):
            url = nats.url(NAME, copy=str(Path(directory) / f"{number}.db"), replicas=3)
            server = ServerProcess(python("-m", "twincast", "serve", "--port", str(port), "--journal", url), core=None)
            undo.callback(server.stop, signal.SIGKILL)
            servers.append(server)
            server.wait_until_listening(port)
            wait_until_ready(port)
        with Proxy(ports[0]) as proxy, suppress(TimeoutError):
            return asyncio.run(_measure(failure, nats, servers, ports, proxy))
    raise IncompleteDelivery(f"{failure}: nothing came for {WITHIN_S:g} seconds")
