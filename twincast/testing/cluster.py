"""Several servers on one log, as processes that a test kills, stops, pauses and cuts off."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from twincast.cluster.child import start_child
from twincast.testing.nats import Nats
from twincast.testing.proxy import Proxy
from twincast.testing.waiting import eventually

HOST = "127.0.0.1"
READY_S, STOP_S, EQUAL_S = 60.0, 30.0, 30.0
_ASK_S = 10.0
_LOOK_S = 1.0
_LIMIT = 10_000


class Cluster:
    """Servers (`twincast serve`) on one log in NATS, each with its own copy and its own way to NATS. A context.

    Servers are numbered from 0. `nats` has the faults of the nodes; the servers reach them through its network.
    """

    def __init__(
        self, servers: int = 2, nodes: Literal[1, 3] = 1, *, name: str = "lab", sync: str = "always", **settings: Any
    ) -> None:
        """Start, and return when every server is ready.

        Args:
            servers: how many.
            nodes: how many nodes NATS has.
            name: of the log.
            sync: when NATS syncs; see Nats.
            settings: any setting of the servers, by name, the same for all.

        Raises:
            ExtraMissing: what the extra `cluster` brings is not installed.
            AssertionError: a server did not become ready; it says what that printed.
        """
        self.name = name
        self.nats = Nats(nodes, sync=sync)
        self._folder = tempfile.TemporaryDirectory(prefix="twincast-cluster-", ignore_cleanup_errors=True)
        folders = [Path(self._folder.name) / f"s{i}" for i in range(servers)]
        self._servers = [_Server(folder, self.nats, name, settings) for folder in folders]
        try:
            for server in self._servers:
                server.start()
            for server in self._servers:
                server.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def url(self, i: int = 0) -> str:
        """Return where a server's REST and pages are."""
        return f"http://{HOST}:{self._servers[i].port}"

    def ws_url(self, i: int = 0) -> str:
        """Return where a server's WebSocket is."""
        return f"ws://{HOST}:{self._servers[i].port}/ws"

    def copy(self, i: int) -> Path:
        """Return the SQLite file that is a server's copy of the log."""
        return self._servers[i].copy

    def pid(self, i: int) -> int:
        """Return the number of a server's process."""
        return self._servers[i].process.pid

    def start(self, i: int, *, is_awaited: bool = True) -> None:
        """Start a server that has ended, at the same address, on the copy that it left; return when it is ready."""
        self._servers[i].start()
        if is_awaited:
            self._servers[i].wait_until_ready()

    def stop(self, i: int) -> int:
        """End a server in order, and return its status; it is killed if it takes too long."""
        return self._servers[i].stop()

    def kill(self, i: int) -> None:
        """Kill a server, as `kill -9` does."""
        self._servers[i].kill()

    def pause(self, i: int) -> None:
        """Have a server stand still (SIGSTOP), its connections open."""
        self._servers[i].process.send_signal(signal.SIGSTOP)

    def resume(self, i: int) -> None:
        """Have it go on, with what it had in hand."""
        self._servers[i].process.send_signal(signal.SIGCONT)

    def cut(self, i: int) -> None:
        """Cut a server off from NATS: nothing passes either way, and nothing says so. Its clients still reach it."""
        for proxy in self._servers[i].ways:
            proxy.stall()

    def heal(self, i: int) -> None:
        """Join it again: what was under way arrives now."""
        for proxy in self._servers[i].ways:
            proxy.flow()

    def slow(self, i: int, delay_s: float) -> None:
        """Delay all between a server and NATS by so many seconds, each way; 0 ends it."""
        for proxy in self._servers[i].ways:
            proxy.delay(delay_s)

    def status(self, i: int) -> dict[str, Any]:
        """Return what a server says of itself, ready or not. Raises httpx.HTTPError if it does not answer."""
        return self._servers[i].status(_ASK_S)

    def log(self, i: int, *, token: str | None = None) -> list[dict[str, Any]]:
        """Return every entry of the log as a server tells it, as events.

        Args:
            i: which server.
            token: an API key that may read everything, if the servers ask for one.

        Raises:
            httpx.HTTPError: it does not answer, or refuses.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=self.url(i), headers=headers, timeout=_ASK_S) as client:
            log: list[dict[str, Any]] = []
            position, more = f"{_body(client, '/api/status')['epoch']}:0", True
            while more:
                found = _body(client, "/api/events", since=position, limit=_LIMIT)
                log += found["events"]
                position, more = f"{found['epoch']}:{found['seq']}", found["more"]
            return log

    def wait_until_equal(self, deadline_s: float = EQUAL_S) -> int:
        """Wait until all servers that run are at the same position of the same log; return its seq.

        Only what nobody writes to any more stays equal.

        Raises:
            AssertionError: they are not, within the deadline; it says what each said last.
        """
        running = [i for i, server in enumerate(self._servers) if server.process.poll() is None]
        said: list[Any] = []

        def are_equal() -> bool:
            said[:] = [self._servers[i].said() for i in running]
            positions = {(status.get("epoch"), status.get("seq")) for status in said}
            return len(positions) == 1 and all(status.get("ok") for status in said)

        try:
            eventually(are_equal, "all servers are at the same position", deadline_s)
        except AssertionError:
            raise AssertionError(f"the servers did not become equal in {deadline_s:g} s; they say {said}") from None
        return int(said[0]["seq"])

    def output(self, i: int) -> str:
        """Return what a server has printed, over all its starts."""
        return self._servers[i].output()

    def close(self) -> None:
        """End the servers and NATS, and remove what they had stored."""
        for server in self._servers:
            server.kill()
            for proxy in server.ways:
                proxy.close()
        self.nats.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server:
    """One of the servers: a process, its folder, its port, and a proxy to each node of NATS."""

    process: subprocess.Popen[bytes]

    def __init__(self, folder: Path, nats: Nats, name: str, settings: dict[str, Any]) -> None:
        folder.mkdir()
        self._folder = folder
        self.port = _free_port()
        self.copy = folder / "copy.db"
        self.ways = [Proxy(port) for port in nats.ports]
        nodes = ",".join(f"{HOST}:{proxy.port}" for proxy in self.ways)
        own = {"host": HOST, "port": self.port, "journal": f"nats://{nodes}/{name}?copy={self.copy}&as={folder.name}"}
        self._settings = {f"TWINCAST_{key.upper()}": _text(value) for key, value in {**settings, **own}.items()}

    def start(self) -> None:
        with open(self._folder / "output", "ab") as output:
            self.process = start_child(
                [sys.executable, "-m", "twincast", "serve"],
                output=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._settings},
                folder=self._folder,  # without a .env
            )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        self.kill()
        return self.process.returncode

    def kill(self) -> None:
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()

    def wait_until_ready(self) -> None:
        try:
            eventually(lambda: self.process.poll() is not None or self.said().get("ok"), "it is ready", READY_S)
        except AssertionError:
            raise AssertionError(
                f"a server is not ready; it says {self.said()} and printed:\n{self.output()}"
            ) from None
        if self.process.poll() is not None:
            raise AssertionError(f"a server did not start; it printed:\n{self.output()}")

    def status(self, timeout_s: float) -> dict[str, Any]:
        status: dict[str, Any] = httpx.get(f"http://{HOST}:{self.port}/api/status", timeout=timeout_s).json()
        return status

    def said(self) -> dict[str, Any]:
        """Return its status, or nothing if it does not say any."""
        try:
            return self.status(_LOOK_S)
        except (httpx.HTTPError, ValueError):
            return {}

    def output(self) -> str:
        with suppress(FileNotFoundError):
            return (self._folder / "output").read_text(errors="replace")
        return ""


def _body(client: httpx.Client, path: str, **parameters: Any) -> Any:
    return client.get(path, params=parameters).raise_for_status().json()


def _text(value: Any) -> str:
    """Return a setting as the environment has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])
