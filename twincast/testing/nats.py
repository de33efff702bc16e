"""A NATS cluster of the test's own: real nodes on this machine, which die, stand still and are cut off when it says."""

import itertools
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlencode

from twincast.cluster.configuration import HOST, ClusterBlock
from twincast.cluster.engine import Engine
from twincast.cluster.knock import NoAnswer, ask
from twincast.testing.proxy import Proxy
from twincast.testing.waiting import eventually

READY_S = 60.0
"""Three nodes elect a leader twice, which takes some seconds each time."""
_ASK_S = 2.0
_NOWHERE = f"{HOST}:1"
"""What nodes tell others of one another: no way past the network that the test controls."""


class Nats:
    """NATS with JetStream, on one node or on three, behind a network that the test controls. Use it as a context.

    Nodes are numbered from 0. Clients and other nodes reach each through a proxy, so that what happens to a node's
    network happens to all of it. No token is asked for.
    """

    def __init__(self, nodes: Literal[1, 3] = 1, *, sync: str = "always") -> None:
        """Start, and return when JetStream answers on every node.

        Args:
            nodes: how many.
            sync: when a node syncs to its disk: "always", or a time like "2m", with which a power cut loses what was
                acknowledged.

        Raises:
            ExtraMissing: `nats-server` is not installed; the message has the line that brings it.
            JournalUnusable: a node did not start.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="twincast-nats-", ignore_cleanup_errors=True)
        self._backups = itertools.count()
        numbers = range(nodes)
        self._clients = {i: Proxy(0) for i in numbers}
        self._routes = {(i, j): Proxy(0) for i in numbers for j in numbers if i != j}
        """By who dials whom."""
        self._cut: set[int] = set()
        self._paused: set[int] = set()
        self._delays_s = dict.fromkeys(numbers, 0.0)
        self.engines = [self._engine(i, sync) for i in numbers]
        """The nodes themselves, for what is not asked through the network: `pid`, `port`, `folder`, `last_line()`."""
        try:
            for i in numbers:
                self.start(i)
            self.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def url(self, name: str, **options: object) -> str:
        """Return the journal's URL of a log, with all nodes.

        Args:
            name: of the log.
            options: what stands behind `?`, such as `copy="lab.db"`; `as_` for `as`, which Python keeps for itself.
        """
        nodes = ",".join(f"{HOST}:{port}" for port in self.ports)
        query = urlencode({key.removesuffix("_"): str(value) for key, value in options.items()}, safe="/")
        return f"nats://{nodes}/{name}{query and f'?{query}'}"

    @property
    def ports(self) -> list[int]:
        """Where clients reach each node, through its network."""
        return [proxy.port for proxy in self._clients.values()]

    def start(self, i: int) -> None:
        """Start a node that has ended, on what it has on its disk. The only one: returns when JetStream answers."""
        self.engines[i].start()
        self._paused.discard(i)
        self._clients[i].to_port = self.engines[i].port
        for (_, dialled), proxy in self._routes.items():
            if dialled == i:
                proxy.to_port = self.engines[i].route_port

    def stop(self, i: int) -> None:
        """End a node in order: if it leads, it hands over first."""
        self.resume(i)
        self.engines[i].stop()

    def kill(self, i: int) -> None:
        """Kill a node, as `kill -9` does."""
        self.engines[i].kill()

    def pause(self, i: int) -> None:
        """Have a node stand still (SIGSTOP): its connections stay open, and it says nothing."""
        self._paused.add(i)
        self.engines[i].send_signal(signal.SIGSTOP)

    def resume(self, i: int) -> None:
        """Have it go on, with what it had in hand."""
        self.engines[i].send_signal(signal.SIGCONT)
        self._paused.discard(i)

    def cut(self, i: int) -> None:
        """Cut a node off from clients and other nodes: nothing passes either way, and nothing says so."""
        self._cut.add(i)
        self._apply()

    def heal(self, i: int) -> None:
        """Join it again: what was under way arrives now."""
        self._cut.discard(i)
        self._apply()

    def slow(self, i: int, delay_s: float) -> None:
        """Delay all that goes to a node or comes from it by so many seconds, each way; 0 ends it."""
        self._delays_s[i] = delay_s
        self._apply()

    def leader(self, name: str) -> int | None:
        """Return which node leads the stream of a log; None while none does, or there is no such stream."""
        if len(self.engines) == 1:
            return 0 if self._stream(name) is not None else None
        info = self._stream(name) or {}
        leader = info.get("cluster", {}).get("leader")
        return None if leader is None else int(leader.removeprefix("n"))

    def last_seq(self, name: str) -> int | None:
        """Return the number of the newest message in the stream of a log; None if there is none, or nobody answers."""
        info = self._stream(name)
        return None if info is None else int(info["state"]["last_seq"])

    def delete_stream(self, name: str) -> None:
        """Delete the stream of a log, as somebody does who takes it for another.

        Raises:
            RuntimeError: it is not there, or no node answers.
        """
        if self._ask(f"STREAM.DELETE.twincast_{name}") is None:
            raise RuntimeError(f"NATS does not delete the stream of {name}")

    def backup(self) -> Path:
        """Return a copy of what all nodes have on their disks. They are stopped for it, and started again."""
        folder = Path(self._folder.name) / f"backup-{next(self._backups)}"
        self._while_stopped(lambda engine: shutil.copytree(engine.folder / "jetstream", folder / engine.folder.name))
        return folder

    def restore(self, backup: Path) -> None:
        """Put a copy back, in the place of what is there, as after a fault of the disks."""

        def put_back(engine: Engine) -> None:
            shutil.rmtree(engine.folder / "jetstream")
            shutil.copytree(backup / engine.folder.name, engine.folder / "jetstream")

        self._while_stopped(put_back)

    def wait_until_ready(self, deadline_s: float = READY_S) -> None:
        """Return when JetStream answers on every node that can. Raises AssertionError if it does not in time."""
        eventually(lambda: all(map(_answers, self._running())), "JetStream answers on every node", deadline_s)

    def close(self) -> None:
        """End the nodes and the network, and remove what they had stored."""
        for i, engine in enumerate(getattr(self, "engines", [])):
            self.resume(i)
            engine.kill()
        for proxy in [*self._clients.values(), *self._routes.values()]:
            proxy.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _engine(self, i: int, sync: str) -> Engine:
        routes = [f"nats://{HOST}:{proxy.port}" for (dials, _), proxy in self._routes.items() if dials == i]
        return Engine(
            Path(self._folder.name) / f"n{i}",
            name=f"n{i}",
            asks_token=False,
            sync_interval=sync,
            cluster=ClusterBlock("twincast", routes, advertise=_NOWHERE) if routes else None,
        )

    def _running(self) -> list[Engine]:
        """Return the nodes that can answer."""
        away = self._cut | self._paused
        return [engine for i, engine in enumerate(self.engines) if engine.is_running and i not in away]

    def _apply(self) -> None:
        """Give every proxy the faults of the nodes at its ends."""
        ways = {(i,): proxy for i, proxy in self._clients.items()} | dict(self._routes.items())
        for ends, proxy in ways.items():
            proxy.delay(sum(self._delays_s[i] for i in ends))
            if self._cut.intersection(ends):
                proxy.stall()
            else:
                proxy.flow()

    def _stream(self, name: str) -> dict[str, Any] | None:
        return self._ask(f"STREAM.INFO.twincast_{name}")

    def _ask(self, what: str) -> dict[str, Any] | None:
        """Return the first answer of a node that is no refusal, past the network; None if there is none."""
        for engine in self._running():
            with suppress(NoAnswer):
                return ask(engine.port, None, what, timeout_s=_ASK_S)
        return None

    def _while_stopped(self, work: Callable[[Engine], object]) -> None:
        for i in range(len(self.engines)):
            self.stop(i)
        for engine in self.engines:
            work(engine)
        for i in range(len(self.engines)):
            self.start(i)
        self.wait_until_ready()


def _answers(engine: Engine) -> bool:
    try:
        ask(engine.port, None, "INFO", timeout_s=_ASK_S)
    except NoAnswer:
        return False
    return True
