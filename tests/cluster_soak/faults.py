"""What is done to nodes and servers, at random from a seed, and for how long."""

import asyncio
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.cluster_soak.ledger import Fault, Ledger
from tests.cluster_soak.machines import LOG, Machines, Server
from tests.cluster_soak.watchers import Watcher

HOLD_S = (0.5, 8.0)
"""How long a stop, a cut or a delay lasts."""
DOWN_S = (0.2, 4.0)
"""How long what was killed is away."""
DELAY_S = (0.01, 0.2)
CALM_S = 20.0
"""How long a fault that is measured waits until all is well, at most."""
CALM_AGAIN_S = 0.5
OVERLAPPING = 0.3
"""This share of the faults that are not measured comes while the one before may last."""

LEADER_KILLED, LEADER_STOPPED, SERVER_KILLED = "leader killed", "leader stopped in order", "server killed"
MEASURED = frozenset({LEADER_KILLED, LEADER_STOPPED, SERVER_KILLED})
KINDS = [
    *([LEADER_KILLED] * 2 + [LEADER_STOPPED] * 2 + [SERVER_KILLED] * 2),
    *("leader paused", "leader cut off", "leader slow"),
    *("node killed", "node paused", "node cut off", "node slow", "all nodes killed"),
    *("server paused", "server cut off from clients", "server cut off from NATS", "server slow"),
    *("server upgraded", "copy deleted"),
]
"""A round of them: each comes so often before any comes again."""


class Faults:
    """Does them, one after the other or two at a time, each to what is well."""

    def __init__(
        self, machines: Machines, watchers: Sequence[Watcher], ledger: Ledger, *, seed: int, per_minute: float
    ) -> None:
        self._machines = machines
        self._watchers = watchers
        self._ledger = ledger
        self._random = random.Random(f"faults {seed}")
        self._pause_s = 60 / per_minute if per_minute else math.inf
        self._bag: list[str] = []
        self._nodes_hit: set[int] = set()
        self._servers_hit: set[str] = set()
        self._active = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Do faults until told to stop; returns when what was hit is whole again."""
        if self._pause_s == math.inf:
            await stopping.wait()
            return
        async with asyncio.TaskGroup() as group:
            next_s = time.monotonic()
            while not stopping.is_set():
                next_s += self._pause_s * self._random.uniform(0.6, 1.4)
                kind = self._next_kind()
                if kind in MEASURED or self._random.random() >= OVERLAPPING:
                    await self._calm(stopping)
                if stopping.is_set():
                    return
                group.create_task(self._do(kind), name=kind)
                await _wait(stopping, next_s - time.monotonic())

    def _next_kind(self) -> str:
        if not self._bag:
            self._bag = self._random.sample(KINDS, len(KINDS))
        return self._bag.pop()

    async def _calm(self, stopping: asyncio.Event) -> None:
        """Wait until nothing is hit, and all is well."""
        until_s = time.monotonic() + CALM_S
        while time.monotonic() < until_s and not stopping.is_set():
            if not self._active and await asyncio.to_thread(lambda: self._machines.is_calm):
                await _wait(stopping, CALM_AGAIN_S)
                return
            await _wait(stopping, 0.1)

    async def _do(self, kind: str) -> None:
        what, _, how = kind.partition(" ")
        self._active += 1
        try:
            if what in {"leader", "node", "all"}:
                await self._hit_node(kind, what, how)
            else:
                await self._hit_server(kind, how)
        finally:
            self._active -= 1

    def _noted(self, kind: str, hit: Server | None = None) -> Fault:
        missing = {
            each.name: self._ledger.newest
            for each in self._watchers
            if each.server is hit and each.heard.subscription.mode == "every"
        }
        if self._ledger.faults and self._active > 1:
            self._ledger.faults[-1].is_alone = False
        fault = Fault(kind, time.monotonic(), self._active == 1, missing=missing if kind == SERVER_KILLED else {})
        self._ledger.faults.append(fault)
        return fault

    async def _hit_node(self, kind: str, what: str, how: str) -> None:
        nats = self._machines.nats
        leader = await asyncio.to_thread(nats.leader, LOG) if what == "leader" else None
        with self._hit_nodes(what, leader) as hit:
            if hit is None:
                return
            begin, end = self._node_ways(hit, how)
            await asyncio.to_thread(lambda: (self._noted(kind), begin()))
            await asyncio.sleep(self._random.uniform(*(DOWN_S if "kill" in how or "stop" in how else HOLD_S)))
            await asyncio.to_thread(end)

    @contextmanager
    def _hit_nodes(self, what: str, leader: int | None) -> Iterator[int | None]:
        well = [i for i in range(3) if i not in self._nodes_hit]
        if what == "all":
            hit, taken = (0, {0, 1, 2}) if len(well) == 3 else (None, set[int]())
        else:
            hit = leader if what == "leader" else (self._random.choice(well) if well else None)
            hit = None if hit in self._nodes_hit else hit
            taken = set() if hit is None else {hit}
        self._nodes_hit |= taken
        try:
            yield hit
        finally:
            self._nodes_hit -= taken

    def _node_ways(self, i: int, how: str) -> tuple[Callable[[], object], Callable[[], object]]:
        machines, nats = self._machines, self._machines.nats
        delay_s = self._random.uniform(*DELAY_S)
        return {
            "killed": (lambda: nats.kill(i), lambda: nats.start(i)),
            "stopped in order": (lambda: nats.stop(i), lambda: nats.start(i)),
            "paused": (lambda: nats.pause(i), lambda: nats.resume(i)),
            "cut off": (lambda: nats.cut(i), lambda: nats.heal(i)),
            "slow": (lambda: nats.slow(i, delay_s), lambda: nats.slow(i, 0)),
            "nodes killed": (machines.kill_all_nodes, machines.start_all_nodes),
        }[how]

    async def _hit_server(self, kind: str, how: str) -> None:
        well = [server for server in self._machines.servers if server.name not in self._servers_hit]
        if not well:
            return
        server = self._random.choice(well)
        self._servers_hit.add(server.name)
        try:
            begin, end = self._server_ways(server, how)
            await asyncio.to_thread(lambda: (self._noted(kind, server), begin()))
            if how != "upgraded":
                await asyncio.sleep(self._random.uniform(*(HOLD_S if how in {"paused", "slow"} else DOWN_S)))
            await asyncio.to_thread(end)
        finally:
            self._servers_hit.discard(server.name)

    def _server_ways(self, server: Server, how: str) -> tuple[Callable[[], object], Callable[[], object]]:
        delay_s = self._random.uniform(*DELAY_S) / 2

        def start_without_copy() -> None:
            for path in server.copy.parent.glob(f"{server.copy.name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            server.start()

        return {
            "killed": (server.kill, server.start),
            "paused": (server.pause, server.resume),
            "cut off from clients": (server.cut_from_clients, server.heal),
            "cut off from NATS": (server.cut_from_nats, server.heal),
            "slow": (lambda: server.slow(delay_s), lambda: server.slow(0)),
            "upgraded": (server.stop, server.start),
            "deleted": (server.kill, start_without_copy),
        }[how]


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0, seconds)):
            await stopping.wait()
    except TimeoutError:
        pass
