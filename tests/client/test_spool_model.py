"""A spool against a model: whatever fails or is killed, each line is stored once, as its producer's order has it."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec import Raw

from tests.client.fake_server import FakeNetwork, LogServer, TimelessLoop
from twincast.client import Client
from twincast.client.spool_file import SpoolFile
from twincast.client.spooled_outgoing import SpooledOutgoing
from twincast.core.model import DataUpdate, Late
from twincast.errors import BadMessage, NotFound, ServerUnreachable, SpoolFull, TooLarge

T = TypeVar("T")
DEVICES = ["a", "b"]
SPOOL_MAX_BYTES = 64 * 1024


class _Disk:
    """A disk that is written to within the loop, at some later step, and that may be full."""

    def __init__(self) -> None:
        self.is_full = False

    async def in_thread(self, work: Callable[[], T]) -> T:
        for _ in range(4):
            await asyncio.sleep(0)
        if self.is_full:
            raise SpoolFull("the disk is full")
        return work()


class Spooled(RuleBasedStateMachine):
    """A program with a spool, which is killed and started again, and all that may happen to its server."""

    @initialize(
        window=st.sampled_from([1, 3, 1_024]),
        window_bytes=st.sampled_from([300, 1 << 20]),
        live_max=st.sampled_from([2, 6, 65_536]),
        spans=st.sampled_from([1, 16]),
    )
    def begin(self, window: int, window_bytes: int, live_max: int, spans: int) -> None:
        self.loop = TimelessLoop()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.disk = _Disk()
        self.window_bytes = window_bytes

        async def in_thread(_: SpooledOutgoing, work: Callable[[], Any]) -> Any:
            return await self.disk.in_thread(work)

        self.patches: list[Any] = [
            patch("twincast.client.spooled_outgoing.IN_FLIGHT_MAX", window),
            patch("twincast.client.spool_window.IN_FLIGHT_MAX", window),
            patch("twincast.client.spooled_outgoing.LIVE_MAX_LINES", live_max),
            patch("twincast.client.spooled_outgoing.PRESENT_SPANS", spans),
            patch.object(SpooledOutgoing, "_in_thread", in_thread),
        ]
        for each in self.patches:
            each.start()
        self.number = 0
        self.network = FakeNetwork(LogServer())
        self.accepted: list[int] = []
        self.last: dict[str, int | None] = {}
        """Of each device the value that was accepted last, None for its deletion; nothing if nobody can know that."""
        self.refused: set[int] = set()
        self.receipts: list[tuple[int, asyncio.Future[int]]] = []
        self.deletions: list[asyncio.Task[int]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.start()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def start(self) -> None:
        self.file = SpoolFile(self.folder / "outbox.db")
        assert self.file._db is not None
        self.file._db.execute("pragma synchronous = off")  # nobody cuts the power here
        with patch("twincast.client.client.open_link", self.network.open):
            self.run(self._started())

    async def _started(self) -> None:
        outgoing = SpooledOutgoing(self.file, SPOOL_MAX_BYTES, self.window_bytes)
        self.client = Client("http://server", (), buffer_max_bytes=0, on_link=None, token="a-key", outgoing=outgoing)
        outgoing.start()
        self.running = asyncio.create_task(self.client.connection.run(None))

    async def _steps(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        self.run(self._steps(count))

    @rule(seconds=st.sampled_from([0.05, 1.5, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    # What the program does.

    async def _publish(self, device: str, value: int, size: int) -> None:
        try:
            assert await self.client.publish(device, [value, "x" * size]) == 0
        except (SpoolFull, ServerUnreachable):
            return
        self.accepted.append(value)
        self.last[device] = value

    async def _submit(self, device: str, value: int) -> None:
        try:
            receipt = await self.client.submit(device, [value, ""])
        except (SpoolFull, ServerUnreachable):
            return
        self.accepted.append(value)
        self.last[device] = value
        self.receipts.append((value, receipt))

    def task(self, work: Any) -> asyncio.Task[Any]:
        async def begin() -> asyncio.Task[Any]:
            return asyncio.create_task(work)

        begun: asyncio.Task[Any] = self.run(begin())
        return begun

    def value(self) -> int:
        self.number += 1
        return self.number

    @rule(device=st.sampled_from(DEVICES), count=st.integers(1, 5), size=st.sampled_from([0, 0, 9_000]))
    def publish(self, device: str, count: int, size: int) -> None:
        self.tasks += [self.task(self._publish(device, self.value(), size)) for _ in range(count)]

    @rule(device=st.sampled_from(DEVICES), count=st.integers(1, 3), after=st.integers(0, 12))
    def publish_while_answers_come(self, device: str, count: int, after: int) -> None:
        self.run(self._heal())
        self.publish(device, 3, 0)
        self.run(self._steps(40))
        self.the_server_hears(1_000)
        self.network.server.commit()
        self.the_client_hears(1_000)

        async def begin() -> None:
            await self._steps(after)
            self.tasks += [asyncio.create_task(self._publish(device, self.value(), 0)) for _ in range(count)]

        self.run(begin())

    @rule(device=st.sampled_from(DEVICES))
    def submit(self, device: str) -> None:
        self.tasks.append(self.task(self._submit(device, self.value())))

    @rule(device=st.sampled_from(DEVICES))
    def publish_what_somebody_on_the_way_refuses(self, device: str) -> None:
        self.tasks.append(self.task(self._quietly(self.client.control(device, "poison"))))

    @rule(device=st.sampled_from(DEVICES))
    def delete(self, device: str) -> None:
        self.tasks.append(self.task(self._delete(device)))

    async def _delete(self, device: str) -> None:
        try:
            await self.client.delete(device)
        except (SpoolFull, ServerUnreachable):
            return
        self.last[device] = None

    async def _quietly(self, work: Any) -> None:
        try:
            await work
        except (SpoolFull, ServerUnreachable):
            return

    @rule()
    def the_disk_is_full(self) -> None:
        self.disk.is_full = True

    @rule()
    def there_is_room_again(self) -> None:
        self.disk.is_full = False

    @rule()
    def the_program_is_killed_and_started_again(self) -> None:
        self.kill()
        self.start()

    @rule()
    def the_program_ends_and_is_started_again(self) -> None:
        self.run(self._ended())
        self.file.close()
        self.start()

    async def _ended(self) -> None:
        self.disk.is_full = False
        self.running.cancel()
        await asyncio.wait([self.running])
        await self.client.close()
        await asyncio.gather(*self.tasks)
        self.tasks = []
        self.receipts = [(value, receipt) for value, receipt in self.receipts if receipt.exception() is None]

    def kill(self) -> None:
        """What is in memory is gone, and what is in the file stays."""
        if any(not task.done() for task in self.tasks):
            self.last.clear()
        for task in [*self.tasks, self.running, self.client._outgoing._task]:  # type: ignore[attr-defined]
            task.cancel()
        self.run(asyncio.sleep(0))
        self.run(self._steps(3))
        if self.network.link is not None:
            self.network.link.end()
        self.receipts = [(value, receipt) for value, receipt in self.receipts if receipt.done()]
        self.tasks = []
        self.file.close()

    # What the network and the server do.

    @rule(count=st.integers(1, 4))
    def the_server_hears(self, count: int) -> None:
        if self.network.link is not None:
            self.network.link.let_server_hear(count)

    @rule(count=st.integers(1, 4))
    def the_client_hears(self, count: int) -> None:
        if self.network.link is not None:
            self.network.link.let_client_hear(count)

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        self.run(self._heal())
        self._check()

    @precondition(lambda self: self.network.link is not None and self.network.link.is_open)
    @rule(heard=st.integers(0, 4), kills=st.booleans())
    def much_is_stored_and_its_answers_are_lost(self, heard: int, kills: bool) -> None:
        self.run(self._steps(20))
        self.the_server_hears(1_000)
        self.network.server.commit()
        self.the_client_hears(heard)
        self.run(self._steps(5))
        self.cut()
        if kills:
            self.the_program_is_killed_and_started_again()

    @rule()
    def commit(self) -> None:
        self.network.server.commit()

    @rule(count=st.integers(1, 3))
    def the_disk_of_the_server_fails(self, count: int) -> None:
        self.network.server.refuse_some(count)

    @rule()
    def cut(self) -> None:
        if self.network.link is not None:
            self.network.link.end()

    @rule(away=st.booleans())
    def the_server_goes_or_comes(self, away: bool) -> None:
        self.network.is_away = away
        self.cut()

    @rule()
    def the_server_starts_anew(self) -> None:
        self.cut()
        self.network.server.new_run()

    # What must be so in the end.

    async def _heal(self) -> None:
        self.disk.is_full = self.network.is_away = False
        for _ in range(2_000):
            link = self.network.link
            if link is not None:
                link.let_server_hear(1_000)
                self.network.server.commit()
                link.let_client_hear(1_000)
            await self._steps(30)
            backlog = self.client.backlog
            assert backlog is not None
            if not backlog.lines and all(task.done() for task in self.tasks):
                return
            await asyncio.sleep(0.3 if link and link.is_open and not link.session.closed else 20.0)
        raise AssertionError(f"it does not settle: {self.client.backlog}")

    def _check(self) -> None:
        assert self.client.connection.failed is None
        for task in self.tasks:
            assert task.exception() is None
        log = self.network.server.log
        stored = [_number(entry.value) for entry in log if isinstance(entry, DataUpdate | Late)]
        assert len(stored) == len(set(stored)), "once"
        lines = self.network.server.stored_lines
        for producer in {producer for producer, _ in lines}:
            numbers = [number for name, number in lines if name == producer]
            assert numbers == sorted(set(numbers)), "in order, those of each producer"
        assert set(self.accepted) <= set(stored), "all that was accepted"
        for value, receipt in self.receipts:
            entry = log[receipt.result() - 1]
            assert isinstance(entry, DataUpdate | Late) and stored.count(value) == 1
        twins = self.network.server.state.twins
        for device, value_of_it in self.last.items():
            assert value_of_it == (_number(twins[device].value) if device in twins else None), "the newest is the twin"
        outgoing = self.client._outgoing
        assert isinstance(outgoing, SpooledOutgoing)
        for window in (outgoing._live, outgoing._backlog):
            assert not window.unanswered and not window.rows and window.size_bytes == window.unread == 0
        for part in outgoing._precedence._parts.values():
            assert part.lines == part.size_bytes == part.in_order == 0 and not part.held
        assert self.client.backlog is not None and self.client.backlog[:2] == (0, 0)

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        try:
            self.run(self._heal())
            self._check()
            self.run(self._ended())
            self.file.close()
            with sqlite3.connect(self.folder / "outbox.db") as db:
                assert db.execute("select count(*) from line").fetchone() == (0,)
                codes = {code for (code,) in db.execute("select distinct code from refused")}
            db.close()
            allowed = {kind.code for kind in (NotFound, BadMessage, TooLarge)} | {"line_passed"}
            assert codes <= allowed, codes
        finally:
            for each in self.patches:
                each.stop()
            self.loop.close()
            shutil.rmtree(self.folder)


def _number(value: Raw) -> int:
    return int(bytes(value)[1:].split(b",")[0])


TestSpooled = Spooled.TestCase
TestSpooled.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, phases=[Phase.reuse, Phase.generate]
)
