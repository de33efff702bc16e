"""Real servers as processes of their own, on free ports, and the one way in which tests wait."""

import inspect
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import requests

from tests import warm
from twincast import testing

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
DEADLINE_S = 30.0
PORTS = range(12_000, 32_000)
"""Below those that systems give to whoever asks for any: there somebody else may get one before its server listens."""
WORKERS_MAX = 16
"""How many workers have ports of their own; one that runs alone has the last share."""


def wait_for_answers(deadline_s: float) -> None:
    """Have httpx wait so long where a test says nothing; by itself it gives up after five seconds."""
    waits: httpx.Timeout = inspect.signature(httpx.get).parameters["timeout"].default
    waits.connect = waits.read = waits.write = waits.pool = deadline_s


def ports_of(worker: str) -> range:
    """Return the ports of one worker of a test run, by its name, such as gw2; no other worker has any of them."""
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else WORKERS_MAX - 1
    share = len(PORTS) // WORKERS_MAX
    first = PORTS.start + number % WORKERS_MAX * share
    return range(first, first + share)


def _turns() -> Iterator[int]:
    ports = ports_of(os.environ.get("PYTEST_XDIST_WORKER", ""))
    begin = random.randrange(len(ports))  # two runs at once hardly meet
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_PORTS = _turns()


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else is given before whoever asked for it listens."""
    for port in itertools.islice(_PORTS, len(PORTS)):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise RuntimeError(f"all ports from {PORTS.start} to {PORTS.stop - 1} are in use")


def eventually(condition: Callable[[], T], awaited: str, deadline_s: float = DEADLINE_S) -> T:
    """Wait as the kit does, as long as a process on a busy machine may take."""
    return testing.eventually(condition, awaited, deadline_s)


async def eventually_async(condition: Callable[[], T], awaited: str, deadline_s: float = DEADLINE_S) -> T:
    """Wait as `eventually` does, and let other tasks go on."""
    return await testing.eventually_async(condition, awaited, deadline_s)


class ServerProcess:
    """A server as its user runs it.

    `edge` "picows" is `twincast serve`; "portable", "reload" and "named" are `uvicorn main:app`, the last one with the
    fast edge. `module` may be a double of `twincast`.
    """

    def __init__(
        self,
        journal: str,
        *,
        edge: str = "picows",
        port: int | None = None,
        prefix: tuple[str, ...] = (),
        module: str = "twincast",
        **env: str,
    ) -> None:
        self.port = port or free_port()
        self.edge = edge
        self.journal = journal
        arguments = {
            "picows": ("-m", module, "serve", "--port", str(self.port), "--journal", journal),
            "portable": ("-m", "uvicorn", "main:app", "--host", "127.0.0.1", "--port", str(self.port)),
            "named": (
                *("-m", "uvicorn", "main:app", "--ws", "twincast.fast:Edge"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
            ),
            "reload": ("-m", "uvicorn", "main:app", "--reload", "--host", "127.0.0.1", "--port", str(self.port)),
        }[edge]
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would stop the server
        self.process = warm.Popen(
            [*prefix, sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "TWINCAST_JOURNAL": journal, "PYTHONUNBUFFERED": "1", **env},
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def ready(self) -> Self:
        """Wait until the server answers; fail with its output if it ends instead."""
        eventually(lambda: self.process.poll() is not None or self._answers(), f"the server at {self.url} answers")
        assert self.process.poll() is None, self.output()
        return self

    def get(self, path: str) -> Any:
        return requests.get(self.url + path, timeout=DEADLINE_S).json()

    def post(self, path: str, body: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=DEADLINE_S)

    def post_text(self, path: str, text: str | bytes, content_type: str = "application/json") -> requests.Response:
        return requests.post(self.url + path, data=text, headers={"Content-Type": content_type}, timeout=DEADLINE_S)

    def delete(self, path: str) -> requests.Response:
        return requests.delete(self.url + path, timeout=DEADLINE_S)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> str:
        """End the process and return what it printed."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.output()

    def kill(self) -> None:
        """Pull the plug."""
        self.stop(signal.SIGKILL)

    def output(self) -> str:
        """Wait for the end and return what was printed."""
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end in {DEADLINE_S} s; it printed:\n{self.printed()}") from None
        return self.printed()

    def printed(self) -> str:
        """Return what was printed until now."""
        self._printed.seek(0)
        return self._printed.read().decode()

    def _answers(self) -> bool:
        """Whether it says how it is: well, or not; but not that it still reads its log."""
        try:
            status = requests.get(f"{self.url}/api/status", timeout=1)
        except requests.RequestException:
            return False
        return status.status_code != 503 or "at_seq" not in status.json()


def as_json(text: str | bytes) -> Any:
    """Decode one message."""
    return json.loads(text)
