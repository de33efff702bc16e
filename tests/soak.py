"""A long run that tries to catch the server lying: watchers cut again and again, publishers that insist, kills.

`scripts/soak` runs it for minutes, tests/test_soak.py for seconds. Afterwards the log is the judge: what each watcher
heard must be exactly what its subscription selects from the log, once each and in order, or the gap was declared.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlencode
from zlib import crc32

from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.running import ServerProcess, free_port
from twincast.client import connect
from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.core.subscription import Subscription, rules_of
from twincast.errors import NotFound
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reader import LogReader
from twincast.testing import Proxy

Fault = Literal["drop", "duplicate", "reorder", "alter"]
DEVICES = [f"{place}/{name}" for place in ("lab", "hall", "roof") for name in ("fan", "door", "lamp", "meter")]
FILTERS = (["*"], ["lab/*"], ["*/door"], ["hall/fan"], ["roof/*", "lab/lamp"], ["lab/fan", "lab/door", "hall/*"])
LOG_MAX = 100_000_000
STALL_CHANCE, STALL_S = 0.002, 0.3
PING_EVERY_S = 0.5


@dataclass
class Plan:
    """How hard a run is."""

    seconds: float = 300
    watchers: int = 50
    publishers: int = 20
    updates_per_s: float = 500
    cuts: int = 10_000
    kill_every_s: float = 20
    seed: int = 1
    fault: Fault | None = None


@dataclass
class Heard:
    """What one watcher was told, over all its connections."""

    subscription: Subscription
    seqs: "array[int]" = field(default_factory=lambda: array("q"))
    sums: "array[int]" = field(default_factory=lambda: array("Q"))
    gaps: list[tuple[int, int]] = field(default_factory=list)
    state: dict[str, tuple[int, Any]] = field(default_factory=dict)
    started_at: int = -1
    cursor: tuple[str, int] | None = None
    resumes: int = 0

    def take(self, message: Any) -> None:
        """Follow the rules of docs/delivery.md."""
        kind = message["type"]
        if kind == "hello":
            self._hello(message)
        elif kind == "gap":
            self.gaps.append((message["from"], message["to"]))
            self.state = {}
        elif kind == "snapshot":
            self._snapshot(message)
        elif kind == "pong" and "seq" in message:
            self.cursor = (message["epoch"], max(message["seq"], self.cursor[1] if self.cursor else 0))
        elif kind in {"data_update", "control", "deleted"}:
            self.seqs.append(message["seq"])
            self.sums.append(_sum(kind, message.get("device_id") or message["target"], message.get("value")))
            self.cursor = (message["epoch"], message["seq"])
            if kind == "data_update":
                self.state[message["device_id"]] = (message["seq"], message["value"])
            elif kind == "deleted":
                self.state.pop(message["device_id"], None)

    def _hello(self, message: Any) -> None:
        if message["resumed"]:
            self.resumes += 1
            self.cursor = (message["epoch"], message["seq"])
            return
        if self.cursor is None:
            self.started_at = message["seq"]
        else:
            self.gaps.append((self.cursor[1] + 1, message["seq"]))
        self.state = {}
        self._snapshot(message)

    def _snapshot(self, message: Any) -> None:
        self.state |= {name: (twin["seq"], twin["value"]) for name, twin in message["data_snapshot"].items()}
        self.cursor = (message["epoch"], message["seq"])


class Faulty:
    """Breaks the promise on purpose, once, on what one watcher hears: the control of the checks."""

    def __init__(self, fault: Fault | None) -> None:
        self._fault = fault
        self._left = 20  # let some pass first
        self._kept: Any = None

    def pass_on(self, message: Any) -> list[Any]:
        """Return what is heard in place of a message."""
        if self._fault is None or message["type"] not in {"data_update", "control", "deleted"}:
            return [message]
        self._left -= 1
        if self._left > 0:
            return [message]
        if self._fault == "reorder" and self._kept is None:
            self._kept = message
            return []
        fault, self._fault = self._fault, None
        altered = {**message, "value": "altered"}
        skipped = {"type": "pong", "epoch": message["epoch"], "seq": message["seq"]}  # or a resume would bring it again
        return {"drop": [skipped], "duplicate": [message] * 2, "reorder": [message, self._kept], "alter": [altered]}[
            fault
        ]


def violations(heard: Heard, log: Sequence[Entry]) -> list[str]:
    """Return what is wrong with what one watcher heard; the log is the judge."""
    wrong = []
    seqs = list(heard.seqs)
    if any(second <= first for first, second in pairwise(seqs)):
        wrong.append("changes came twice or out of order")
    selected = [entry for entry in log if heard.subscription.selects(entry.topic)]
    by_seq = {entry.seq: entry for entry in selected}
    for seq, checksum in zip(seqs, heard.sums, strict=True):
        entry = by_seq.get(seq)
        if entry is None or checksum != _sum_of(entry):
            wrong.append(f"change {seq} is not the log's, or was not asked for")
            break
    missing = {seq for first, last in heard.gaps for seq in range(first, last + 1)}
    owed = {entry.seq for entry in selected if entry.seq > heard.started_at} - missing
    if heard.subscription.mode == "latest":  # changes of a device may merge, commands may not
        owed = {seq for seq in owed if isinstance(by_seq[seq], Control)}
    if lost := owed - set(seqs):
        wrong.append(f"{len(lost)} changes never came, and no gap was declared; the first is {min(lost)}")
    if heard.state != _fold(selected):
        wrong.append("the state is not the fold of the log")
    return wrong


def lost_or_doubled(sent: dict[str, int], acknowledged: dict[str, int], log: Sequence[Entry]) -> list[str]:
    """Return what is wrong with what the publishers sent: each number must be in the log once, in order."""
    stored: dict[str, list[int]] = {name: [] for name in sent}
    for entry in _updates(log):
        value = json.loads(bytes(entry.value))
        stored[value["by"]].append(value["n"])
    wrong = []
    for name, numbers in stored.items():
        if numbers != list(range(len(numbers))):
            wrong.append(f"{name}: what it sent is stored twice, out of order or with holes")
        if not acknowledged[name] <= len(numbers) <= sent[name]:
            wrong.append(f"{name}: {acknowledged[name]} acknowledged, {len(numbers)} stored")
    return wrong


def _fold(log: Iterable[Entry]) -> dict[str, tuple[int, Any]]:
    newest: dict[str, tuple[int, Any]] = {}
    for entry in log:
        if isinstance(entry, DataUpdate):
            newest[entry.device_id] = (entry.seq, json.loads(bytes(entry.value)))
        elif isinstance(entry, Deleted):
            newest.pop(entry.device_id, None)
    return newest


def _updates(entries: Iterable[Entry]) -> Iterable[DataUpdate]:
    return (entry for entry in entries if isinstance(entry, DataUpdate))


def _sum(kind: str, name: str, value: Any) -> int:
    return crc32(json.dumps([kind, name, value]).encode())


def _sum_of(entry: Entry) -> int:
    kind, name = entry.topic
    return _sum(kind, name, json.loads(bytes(entry.value)) if isinstance(entry, DataUpdate) else None)


class Soak:
    """One run: a server that is killed, a network that cuts, watchers and publishers."""

    def __init__(self, plan: Plan, journal: Path) -> None:
        self._plan = plan
        self._journal = journal
        self._random = random.Random(plan.seed)
        self._port = free_port()
        self._server = self._started()
        each_bytes = max(2_000, int(plan.updates_per_s * 250 * plan.seconds * plan.watchers / 5 / max(1, plan.cuts)))
        self._proxy = Proxy(self._port, seed=plan.seed, cut_every_bytes=each_bytes)
        self._stopping = asyncio.Event()
        self._until: int | None = None
        self.heard: list[Heard] = []
        self.sent: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}
        self.kills = 0

    async def run(self) -> list[str]:
        """Run, and return what was wrong."""
        try:
            async with asyncio.TaskGroup() as group:
                watchers = [group.create_task(self._watch(number)) for number in range(self._plan.watchers)]
                publishers = [group.create_task(self._publish(number)) for number in range(self._plan.publishers)]
                cutter = group.create_task(self._cut())
                killer = group.create_task(self._kill())
                reporter = group.create_task(self._report())
                await asyncio.sleep(self._plan.seconds)
                self._stopping.set()
                await asyncio.gather(*publishers, killer)
                cutter.cancel()
                self._until = self._server.get("/api/status")["seq"]
                await asyncio.gather(*watchers)
                reporter.cancel()
        finally:
            self._proxy.close()
            self._server.stop()
        return self._judge()

    def _judge(self) -> list[str]:
        log = read_log(self._journal)
        wrong = [
            f"watcher {number} ({heard.subscription.described()}): {text}"
            for number, heard in enumerate(self.heard)
            for text in violations(heard, log)
        ]
        print(self._line(), flush=True)
        return wrong + lost_or_doubled(self.sent, self.acknowledged, log)

    async def _watch(self, number: int) -> None:
        mode, max_hz = self._random.choice([("every", None), ("latest", None), ("latest", 20.0)])
        patterns = self._random.choice(FILTERS)
        heard = Heard(Subscription(rules_of(patterns), mode, max_hz))  # type: ignore[arg-type]
        self.heard.append(heard)
        faulty = Faulty(self._plan.fault if number == 0 else None)
        if number == 0 and self._plan.fault:
            heard.subscription = Subscription(rules_of(["*"]), "every")
        while self._until is None or heard.cursor is None or heard.cursor[1] < self._until:
            try:
                async with open_websocket(self._address(heard), compression=None, max_size=None) as socket:
                    await self._listen(socket, heard, faulty)
            except (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage, TimeoutError):
                await asyncio.sleep(self._random.uniform(0, 0.1))

    async def _listen(self, socket: Any, heard: Heard, faulty: Faulty) -> None:
        pinged_s = time.monotonic()
        while self._until is None or heard.cursor is None or heard.cursor[1] < self._until:
            if time.monotonic() - pinged_s > PING_EVERY_S:
                await socket.send('{"type":"ping"}')
                pinged_s = time.monotonic()
            if self._random.random() < STALL_CHANCE:
                await asyncio.sleep(STALL_S)
            try:
                async with asyncio.timeout(PING_EVERY_S):
                    text = await socket.recv()
            except TimeoutError:
                continue
            for message in faulty.pass_on(json.loads(text)):
                heard.take(message)

    def _address(self, heard: Heard) -> str:
        how = heard.subscription
        query: list[tuple[str, Any]] = [("devices", text) for text, _ in how.rules] + [
            ("mode", how.mode),
            ("page_size", 5),
        ]
        if how.max_hz:
            query.append(("max_hz", how.max_hz))
        if heard.cursor:
            query.append(("since", f"{heard.cursor[0]}:{heard.cursor[1]}"))
        return f"ws://127.0.0.1:{self._proxy.port}/ws?{urlencode(query)}"

    async def _publish(self, number: int) -> None:
        name = f"publisher {number}"
        self.sent[name] = self.acknowledged[name] = 0
        chance = random.Random(f"{self._plan.seed}/{number}")
        interval_s = self._plan.publishers / self._plan.updates_per_s

        def count(future: asyncio.Future[int]) -> None:
            if not future.cancelled() and future.exception() is None:
                self.acknowledged[name] += 1

        # Cuts come all the time here; a client that waits longer from one to the next would send nothing.
        async with connect(self._proxy.url, devices=(), timeout_s=None, wait_max_s=0.5) as client:
            while not self._stopping.is_set():
                future = await client.submit(chance.choice(DEVICES), {"by": name, "n": self.sent[name]})
                future.add_done_callback(count)
                self.sent[name] += 1
                if chance.random() < 0.02:
                    await client.control(chance.choice(DEVICES), "blink")
                if chance.random() < 0.02:
                    with suppress(NotFound):  # another one was first
                        await client.delete(chance.choice(DEVICES))
                await asyncio.sleep(interval_s * chance.uniform(0.5, 1.5))
            await client.settle()

    async def _cut(self) -> None:
        """Cut all at once now and then; the rest of the cuts comes from the bytes that pass."""
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * max(0.2, self._plan.seconds / 30))
            await asyncio.to_thread(self._proxy.cut)

    async def _kill(self) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(self._plan.kill_every_s):
                    await self._stopping.wait()
            except TimeoutError:
                await asyncio.to_thread(self._server.stop, signal.SIGKILL)
                self.kills += 1
                self._server = await asyncio.to_thread(self._started)

    def _started(self) -> ServerProcess:
        return ServerProcess(f"sqlite:{self._journal}", port=self._port).ready()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(5)
            print(self._line(), flush=True)

    def _line(self) -> str:
        resumes = sum(heard.resumes for heard in self.heard)
        told = sum(len(heard.seqs) for heard in self.heard)
        gaps = sum(len(heard.gaps) for heard in self.heard)
        stored = sum(self.acknowledged.values())
        return (
            f"{stored:,} updates acknowledged, {told:,} changes heard by {len(self.heard)} watchers,"
            f" {self._proxy.cuts:,} cuts, {resumes:,} resumes, {gaps} gaps declared, {self.kills} kills"
        )


def read_log(journal: Path) -> list[Entry]:
    """Return every entry of a journal that no server has open."""
    file = SqliteFile(str(journal))
    reader = LogReader(str(journal), file.lineage.epoch)
    try:
        return reader.read(0, LOG_MAX)
    finally:
        reader.close()
        file.close()


def main() -> int:
    """Run from the command line; 1 if the server was caught."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    defaults = Plan()
    parser.add_argument("--minutes", type=float, default=defaults.seconds / 60)
    parser.add_argument("--watchers", type=int, default=defaults.watchers)
    parser.add_argument("--publishers", type=int, default=defaults.publishers)
    parser.add_argument("--rate", type=float, default=defaults.updates_per_s, help="updates a second")
    parser.add_argument("--cuts", type=int, default=defaults.cuts)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--break", dest="fault", choices=get_args(Fault), help="break the promise once, as a control")
    given = parser.parse_args()
    plan = Plan(
        given.minutes * 60, given.watchers, given.publishers, given.rate, given.cuts, seed=given.seed, fault=given.fault
    )
    with tempfile.TemporaryDirectory() as place:

        async def run() -> list[str]:
            return await Soak(plan, Path(place) / "journal.db").run()

        wrong = asyncio.run(run())
    for text in wrong:
        print("VIOLATION", text)
    print(f"{len(wrong)} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
