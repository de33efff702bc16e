"""Restart: how long after its start a server answers that holds 10,000 devices and 1,000,000 entries."""

import asyncio
import http.client
import json
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.loads import rest
from benchmarks.machine import SERVER_CORE, ServerProcess, free_port, python

DEVICES = 10_000
ENTRIES = 1_000_000
BATCH = 10_000
TIMEOUT_S = 60.0


def _start(port: int, file: Path, core: int | None) -> ServerProcess:
    command = python("-m", "twincast", "serve", "--port", str(port), "--journal", f"sqlite:{file}")
    return ServerProcess(command, core=core)


def _status(port: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", "/api/status")
    status: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return status


def fill(file: Path) -> None:
    """Make a journal of so many entries, by the API, and end its server by SIGKILL."""
    port = free_port()
    server = _start(port, file, None)
    server.wait_until_listening(port)
    readings = [{"device_id": f"hall/{n}", "value": {"celsius": 20 + n / 1000, "ok": True}} for n in range(DEVICES)]
    body = json.dumps(readings[:BATCH]).encode()
    batches = iter(range(ENTRIES // BATCH))

    async def post() -> None:
        loop = asyncio.get_running_loop()
        text = rest.request("POST", "/api/data", body)
        _, protocol = await loop.create_connection(
            lambda: rest.Connection(lambda: text if next(batches, None) is not None else None), "127.0.0.1", port
        )
        protocol.start()
        await asyncio.wait_for(protocol.done, TIMEOUT_S)

    asyncio.run(post())
    assert _status(port)["seq"] == ENTRIES
    server.stop(signal.SIGKILL)


def measure(file: Path) -> float:
    """Start a server on the journal; return the seconds until it answers with all of it, and end it by SIGKILL."""
    port = free_port()
    began_s = time.monotonic()
    server = _start(port, file, SERVER_CORE)
    server.wait_until_listening(port)
    status = _status(port)
    seconds = time.monotonic() - began_s
    server.stop(signal.SIGKILL)
    assert (status["seq"], status["devices_known"]) == (ENTRIES, DEVICES)
    return seconds


def measure_rounds(rounds: int) -> list[float]:
    """Fill a journal and restart on it so many times."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "journal.db"
        fill(file)
        return [measure(file) for _ in range(rounds)]
