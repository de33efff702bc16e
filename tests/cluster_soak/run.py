"""The run itself, and its command line: `scripts/soak --cluster [--minutes 30]`."""

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args
from unittest import mock

from tests.cluster_soak.copier import Copier
from tests.cluster_soak.faults import Faults
from tests.cluster_soak.judge import Judge, NotTold, differences, history_of, tables_of
from tests.cluster_soak.ledger import Ledger
from tests.cluster_soak.machines import Machines
from tests.cluster_soak.publishers import WAYS
from tests.cluster_soak.watchers import Watcher
from tests.journal.jetstream.power_cut import FailingPower, failing_power
from tests.soak import violations

Rule = Literal["keys", "numbers", "early", "watcher", "sync"]
"""What can be broken on purpose: known keys are stored; copies are, of which there are many; acknowledgements come
early; a watcher loses an event; NATS does not sync, and the power of all nodes fails."""
IN_SERVERS = frozenset({"keys", "numbers", "early"})
REPORT_S = 5.0
END_S = 90.0
"""How long publishers and watchers may take to end once all is well, before that is a fault."""
COPIED, COPIED_ALL = 0.05, 1.0


@dataclass
class Plan:
    """How hard a run is."""

    seconds: float = 1_800
    faults_per_minute: float = 4
    seed: int = 1
    publishers_of_a_way: int = 2
    pause_s: float = 0.25
    """Between a publisher's updates, about."""
    watchers: int = 6
    broken: Rule | None = None
    incident: Callable[[Machines], object] | None = None
    """Done once, after half of the time."""
    is_replaced: bool = False
    """Whether the log is another one after that, by right."""
    has_power_cut: bool = False
    """Whether the power of all nodes fails, after half of the time."""


class ClusterSoak:
    """One run."""

    def __init__(self, plan: Plan, machines: Machines) -> None:
        self._plan = plan
        self.machines = machines
        self.ledger = ledger = Ledger()
        self._end: tuple[str, int] | None = None
        self._histories: dict[str, list[bytes]] = {}
        servers, seed = machines.servers, plan.seed
        self.publishers = [
            make(f"{way} {i}", servers, ledger, f"{seed} {way} {i}", plan.pause_s)
            for way, make in WAYS.items()
            for i in range(plan.publishers_of_a_way)
        ]
        self.watchers = [
            Watcher(
                f"watcher {i}",
                "latest" if i == plan.watchers - 1 else "every",
                servers,
                ledger,
                f"{seed} watcher {i}",
                is_faulty=plan.broken == "watcher" and i == 0,
                until=lambda: self._end,
            )
            for i in range(plan.watchers)
        ]
        self.copier = Copier(machines.nats, COPIED_ALL if plan.broken == "numbers" else COPIED, f"copies {seed}")
        self._faults = Faults(machines, self.watchers, ledger, seed=seed, per_minute=plan.faults_per_minute)
        self._began_s = time.monotonic()

    async def run(self) -> list[str]:
        """Run, and return what was wrong."""
        faults_over, stopping = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            copier = group.create_task(self.copier.run())
            reporter = group.create_task(self._report())
            publishers = [group.create_task(each.run(stopping), name=each.name) for each in self.publishers]
            watchers = [group.create_task(each.run(), name=each.name) for each in self.watchers]
            faults = group.create_task(self._faults.run(faults_over))
            await asyncio.sleep(self._plan.seconds / 2)
            if self._plan.incident is not None:
                await asyncio.to_thread(self._plan.incident, self.machines)
            await asyncio.sleep(self._plan.seconds / 2)
            faults_over.set()
            await faults
            wrong = await self._whole_again()
            stopping.set()
            wrong += await _ended(publishers)
            copier.cancel()
            wrong += await self._settled()
            wrong += await _ended(watchers)
            reporter.cancel()
        if wrong:
            return wrong
        return await asyncio.to_thread(self.judged)

    async def _whole_again(self) -> list[str]:
        try:
            await asyncio.to_thread(self.machines.wait_until_ready)
        except AssertionError as error:
            return [f"{error}", *(f"{each.unwell}: {each.printed()}" for each in self.machines.servers if each.unwell)]
        return []

    async def _settled(self) -> list[str]:
        """Wait until all servers are equally far and tell their log, and have the watchers go up to there.

        A server that says that it is well may be about to find out that its log is another one.
        """
        until_s, refusal = time.monotonic() + END_S, ""
        while time.monotonic() < until_s:
            states = [await asyncio.to_thread(server.status) for server in self.machines.servers]
            ends = {(state["epoch"], state["seq"]) for state in states if state is not None and state.get("ok")}
            if len(ends) == 1 and all(state is not None for state in states):
                end = ends.pop()
                try:
                    self._histories = await asyncio.to_thread(self._told, end[0])
                except NotTold as error:
                    refusal = f"; {error}"
                else:
                    self._end = end
                    return []
            await asyncio.sleep(0.2)
        self._end = ("", 0)
        return [f"the servers do not come to one position: {states}{refusal}"]

    def _told(self, epoch: str) -> dict[str, list[bytes]]:
        return {server.name: history_of(server, epoch) for server in self.machines.servers}

    def judged(self) -> list[str]:
        """Return what is wrong, once all is still."""
        assert self._end is not None
        _, seq = self._end
        wrong = [*self.ledger.wrong, *differences("log", self._histories)]
        history = self._histories[self.machines.servers[0].name]
        judge = Judge(history)
        if len(history) != seq:
            wrong.append(f"the log has {len(history)} entries, and its servers say {seq}")
        wrong += judge.wrong(self.ledger, is_replaced=self._plan.is_replaced)
        for each in self.watchers:
            wrong += [f"{each.name}: {text}" for text in violations(each.heard, judge.log)]
            wrong += [f"{each.name}: {text}" for text in self._resynced(each)]
        for server in self.machines.servers:
            server.stop()
        tables = {server.name: tables_of(server.copy) for server in self.machines.servers}
        for what in next(iter(tables.values())):
            wrong += differences(f"table {what}", {name: each[what] for name, each in tables.items()})
        return wrong

    def _resynced(self, watcher: Watcher) -> list[str]:
        """Return what is wrong with how a watcher's cursors were taken."""
        causes = {"epoch"} if self._plan.is_replaced else set[str]()
        resyncs = watcher.heard.resyncs
        wrong = [f"its cursor {at} was not taken: {why}" for why, at in resyncs if why not in causes]
        return wrong + ["nobody told it that the log is another one"] * bool(causes and not resyncs)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            print(self.line(), flush=True)
            unwell = await asyncio.to_thread(lambda: [each.unwell for each in self.machines.servers])
            print("".join(f"         {text}\n" for text in unwell if text), end="", flush=True)
            if self.machines.died:
                raise RuntimeError("\n".join(self.machines.died))

    def line(self) -> str:
        """Return how far it is."""
        heard = sum(len(each.heard.seqs) for each in self.watchers)
        newest = self.ledger.faults[-1].kind if self.ledger.faults else "none yet"
        return (
            f"{time.monotonic() - self._began_s:6.0f} s: {self.ledger.entries:,} updates acknowledged in"
            f" {self.ledger.attempts:,} attempts, {self.ledger.replays:,} stored before, {heard:,} changes heard,"
            f" {self.copier.copies:,} commits copied, {len(self.ledger.faults)} faults, the newest: {newest}"
        )

    def table(self) -> str:
        """Return what was done, and what clients felt of it."""
        head = ("fault", "times", "alone", "silence: median", "longest", "watchers back: median", "longest")
        rows = [head, *(self._row(kind) for kind in sorted({fault.kind for fault in self.ledger.faults}))]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)

    def _row(self, kind: str) -> tuple[str, ...]:
        all_ = [fault for fault in self.ledger.faults if fault.kind == kind]
        alone = [fault for fault in all_ if fault.is_alone]
        silences = [fault.silence_s for fault in alone]
        backs = [fault.back_s for fault in alone if fault.back_s is not None and not fault.missing]
        return (kind, str(len(all_)), str(len(alone)), *_described(silences), *_described(backs))


def _described(seconds: list[float]) -> tuple[str, str]:
    return (f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s") if seconds else ("", "")


async def _ended(tasks: Iterable["asyncio.Task[None]"]) -> list[str]:
    _, late = await asyncio.wait(list(tasks), timeout=END_S)
    for task in late:
        task.cancel()
    return [f"{task.get_name()} did not end within {END_S:g} s with everything well" for task in late]


def run(plan: Plan, folder: Path) -> tuple[list[str], ClusterSoak]:
    """Run one on machines of its own; return what was wrong, and the run."""
    broken = plan.broken if plan.broken in IN_SERVERS else None
    with ExitStack() as undo:
        if plan.has_power_cut or plan.broken == "sync":
            (disk := folder / "disk").mkdir()
            power = undo.enter_context(failing_power(disk))
            undo.enter_context(mock.patch.object(tempfile, "tempdir", str(disk)))  # where the nodes store
            plan = replace(plan, incident=lambda machines: lose_power(machines, power))
        machines = undo.enter_context(Machines(folder, sync="2m" if plan.broken == "sync" else "always", broken=broken))
        soak = ClusterSoak(plan, machines)
        return asyncio.run(soak.run()), soak


def lose_power(machines: Machines, power: FailingPower) -> None:
    """Kill all nodes, have the disk forget what they had not synced, and start them again."""
    machines.kill_all_nodes()
    power.cut()
    machines.start_all_nodes()


def main() -> int:
    """Run from the command line; 1 if the servers were caught."""
    parser = argparse.ArgumentParser(prog="scripts/soak --cluster", description=__doc__)
    defaults = Plan()
    parser.add_argument("--minutes", type=float, default=defaults.seconds / 60)
    parser.add_argument("--faults-per-minute", type=float, default=defaults.faults_per_minute)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--break", dest="broken", choices=get_args(Rule), help="break a rule on purpose, as a control")
    parser.add_argument("--power-cut", action="store_true", help="on a disk whose power fails after half of the time")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = Plan(
        given.minutes * 60,
        given.faults_per_minute,
        given.seed,
        broken=given.broken,
        has_power_cut=given.power_cut,
    )
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="twincast-soak-")))
        wrong, soak = run(plan, folder)
        print(soak.line())
        print(soak.table())
    for text in wrong:
        print("VIOLATION", text)
    print(f"{len(wrong)} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
