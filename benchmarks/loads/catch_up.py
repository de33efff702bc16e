"""Catching up: how many entries a second a server takes in that starts with nothing on a log that is long."""

import asyncio
import http.client
import json
import signal
import tempfile
import time
from pathlib import Path

from msgspec import Raw

from benchmarks.machine import LOAD_CORE, SERVER_CORE, ServerProcess, free_port, python
from benchmarks.peers.shared_log import nats_nodes, wait_until_ready
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.commit import Commit, Run, encode_commit
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import open_stream

DEVICES, COMMIT_ENTRIES = 10_000, 500
TIMEOUT_S = 300.0


async def _fill(url: str, entries: int) -> None:
    """Write commits as a server does that takes readings; without one, for it is not what is measured."""
    address = NatsAddress.parse(url)
    link = await Link.connect(address)
    await open_stream(link, address)
    for n in range(entries // COMMIT_ENTRIES):
        numbers = range(n * COMMIT_ENTRIES, (n + 1) * COMMIT_ENTRIES)
        run = Run("data_update", "websocket", [f"hall/{i % DEVICES}" for i in numbers], [_value(i) for i in numbers])
        commit = Commit("0123456789abcdef", n + 1, "bench", n * COMMIT_ENTRIES, runs=[run])
        await link.store(address.log_subject, encode_commit(commit))
    await link.close()


def _value(number: int) -> Raw:
    return Raw(b'{"n":%d,"celsius":20.5,"ok":true}' % (1_000_000 + number))


def measure(entries: int) -> float:
    """Return entries a second, from the start of the server until it serves all of them; NATS on the other core."""
    with tempfile.TemporaryDirectory() as directory, nats_nodes(1) as nodes:
        url = nodes.url(Path(directory) / "copy.db")
        asyncio.run(_fill(url, entries))
        nodes.use_core(LOAD_CORE)
        port = free_port()
        began_s = time.monotonic()
        command = python("-m", "twincast", "serve", "--port", str(port), "--journal", url)
        server = ServerProcess(command, core=SERVER_CORE)
        try:
            server.wait_until_listening(port)
            wait_until_ready(port, TIMEOUT_S)
            seconds = time.monotonic() - began_s
            status = _status(port)
        finally:
            server.stop(signal.SIGKILL)
    assert (status["seq"], status["devices_known"]) == (entries, DEVICES)
    return entries / seconds


def _status(port: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", "/api/status")
    status: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return status
