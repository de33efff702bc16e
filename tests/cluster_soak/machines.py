"""Three NATS nodes, and servers on one log as processes of their own, each behind a network that the run controls."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from tests.running import ServerProcess, eventually, free_port
from twincast.testing import Nats, Proxy

LOG = "soak"
SERVERS = 3
READY_S = 60.0


class Server:
    """One server: its process, its copy, and the networks to its clients and to NATS."""

    def __init__(self, number: int, nats: Nats, folder: Path, broken: str | None) -> None:
        self.name = f"s{number}"
        self.copy = folder / f"{self.name}.db"
        self._broken = broken
        self._port = free_port()
        self._to_nats = [Proxy(port) for port in nats.ports]
        self._front = Proxy(self._port)
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Where clients reach it, through its network."""
        return self._front.url

    @property
    def ws_url(self) -> str:
        return self._front.ws_url

    def start(self) -> None:
        """Start it; it answers some time later."""
        nodes = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._to_nats)
        journal = f"nats://{nodes}/{LOG}?copy={self.copy}&as={self.name}"
        if self._broken is None:
            self._process = ServerProcess(journal, port=self._port)
        else:
            self._process = ServerProcess(
                journal, port=self._port, module="tests.cluster_soak.broken", TWINCAST_BROKEN_RULE=self._broken
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End its process, and wait for that."""
        if self._process is not None:
            self.resume()
            self._process.stop(how)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Have it stand still (SIGSTOP): its connections stay open, and it says nothing."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def cut_from_clients(self) -> None:
        self._front.stall()

    def cut_from_nats(self) -> None:
        for proxy in self._to_nats:
            proxy.stall()

    def slow(self, delay_s: float) -> None:
        """Delay all that goes to it or comes from it by so many seconds, each way; 0 ends it."""
        for proxy in (self._front, *self._to_nats):
            proxy.delay(delay_s)

    def heal(self) -> None:
        """Join it again: what was under way arrives now."""
        for proxy in (self._front, *self._to_nats):
            proxy.flow()

    def status(self) -> Any:
        """Return what it says of itself, past its network; None if nothing."""
        with suppress(requests.RequestException, ValueError):
            return requests.get(f"http://127.0.0.1:{self._port}/api/status", timeout=2).json()
        return None

    @property
    def is_ready(self) -> bool:
        return bool((self.status() or {}).get("ok"))

    @property
    def died(self) -> str:
        """What it printed, if it has ended by itself; empty if not."""
        if self._process is None or (code := self._process.process.poll()) in {None, 0, -signal.SIGKILL}:
            return ""
        return f"{self.name} ended with {code}: {self.printed()}"

    @property
    def unwell(self) -> str:
        """Why it takes no updates at the moment; empty if it does."""
        if self._process is not None and (code := self._process.process.poll()) is not None:
            return f"{self.name} has ended with {code}"
        status = self.status()
        if status is None:
            return f"{self.name} does not answer"
        return "" if status.get("ok") else f"{self.name} is not well: {status.get('problem') or status}"

    def printed(self) -> str:
        return "" if self._process is None else self._process.printed()

    def close(self) -> None:
        with suppress(AssertionError):
            self.kill()
        for proxy in (self._front, *self._to_nats):
            proxy.close()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.process.poll() is None:
            self._process.process.send_signal(number)


class Machines:
    """All of them. Use it as a context."""

    def __init__(self, folder: Path, *, sync: str = "always", broken: str | None = None) -> None:
        self.nats = Nats(3, sync=sync)
        self.servers: list[Server] = []
        try:
            for number in range(SERVERS):
                self.servers.append(Server(number, self.nats, folder, broken))
                self.servers[-1].start()
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def is_calm(self) -> bool:
        """Whether every server takes updates."""
        return all(server.is_ready for server in self.servers)

    @property
    def died(self) -> list[str]:
        """What servers that have ended by themselves have printed."""
        return [server.died for server in self.servers if server.died]

    def wait_until_ready(self, deadline_s: float = READY_S) -> None:
        """Return when every server takes updates. Raises AssertionError if one does not in time."""
        eventually(lambda: self.is_calm, "every server takes updates", deadline_s)

    def kill_all_nodes(self) -> None:
        """Kill all NATS nodes, as near to at once as it can be."""
        for engine in self.nats.engines:
            engine.send_signal(signal.SIGKILL)
        for i in range(len(self.nats.engines)):
            self.nats.kill(i)

    def start_all_nodes(self) -> None:
        for i in range(len(self.nats.engines)):
            self.nats.start(i)

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.nats.close()

    def __enter__(self) -> "Machines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
