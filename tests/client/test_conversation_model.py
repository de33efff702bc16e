"""The client as a whole against a model, whatever is cut, cancelled, refused or replaced, at any step.

Nothing acknowledged is lost, stored twice or out of order; every watch is told every event or a gap, nothing twice;
the state is the server's; nobody waits for ever; nothing piles up.
"""

import asyncio
from typing import Any
from unittest.mock import patch

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.client.fake_server import FakeNetwork, LogServer, TimelessLoop
from twincast.client import Client, Event
from twincast.core.model import Control, DataUpdate
from twincast.core.subscription import Mode
from twincast.errors import BadMessage, NotFound, TooLarge

DEVICES = ["a", "b", "c/1", "c/2"]
FOLLOWED = [(), ("*",), ("a", "c/*"), ("b",)]
PATTERNS = [("*",), ("a",), ("b", "c/1"), ("c/*",), ("a", "c/*"), ("*/1",)]
KINDS = [None, ["data_update"], ["control"], ["deleted", "data_update"]]


class Watcher:
    """A task that watches, what it was told, and from where on it is owed events."""

    def __init__(self, network: FakeNetwork, client: Client, patterns: tuple[str, ...], mode: Mode, kinds: Any) -> None:
        self.events: list[Event] = []
        self.watch = client.watch(*patterns, mode=mode, kinds=kinds)
        self.owed_from: int | None = None
        self.takes = asyncio.Event()
        self.takes.set()
        self.log: LogServer | None = None
        self._network = network
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async with self.watch as watch:
            self.log, self.owed_from = self._network.server, self._network.server.state.seq
            async for event in watch:
                self.events.append(event)
                await self.takes.wait()

    @property
    def is_watching(self) -> bool:
        return not self.task.done()

    def check(self, server: LogServer) -> None:
        """Hold what it was told against the log."""
        assert self.owed_from is not None, "a watch begins in the end"
        owed = [entry for entry in server.log if self.watch.subscription.selects(entry.topic)]
        gaps = [number for number, event in enumerate(self.events) if event.gap is not None]
        self._check_nothing_twice()
        if self.log is server and not gaps:
            owed = [entry for entry in owed if entry.seq > self.owed_from]
            self._check_unbroken(owed)
        else:
            self._check_newest(owed, server)

    def _check_nothing_twice(self) -> None:
        logs: dict[str, list[int]] = {}
        for event in self.events:
            if event.gap is None or event.gap.from_seq is not None:
                logs.setdefault(event.epoch.rpartition("-")[0], []).append(event.seq)
            else:
                logs.clear()
        for seqs in logs.values():
            assert seqs == sorted(seqs)

    def _check_unbroken(self, owed: list[Any]) -> None:
        seqs = [event.seq for event in self.events]
        assert seqs == sorted(set(seqs)), "in order, and nothing twice"
        if self.watch.subscription.mode == "every":
            expected = {entry.seq for entry in owed}
            assert expected <= set(seqs), f"{expected - set(seqs)} are missing without a gap"
            assert all(event.merged == 1 for event in self.events)
            return
        newest = {entry.topic[1]: entry.seq for entry in owed if not isinstance(entry, Control)}
        commands = {entry.seq for entry in owed if isinstance(entry, Control)}
        assert set(newest.values()) | commands <= set(seqs)

    def _check_newest(self, owed: list[Any], server: LogServer) -> None:
        """After a gap, what was told last of each device is what counts, if anything of it was told."""
        told: dict[str, Event] = {}
        for event in self.events:
            if event.kind != "control":
                told[event.device_id] = event
        newest: dict[str, Any] = {entry.topic[1]: entry for entry in owed if not isinstance(entry, Control)}
        for device_id, event in told.items():
            entry = newest.get(device_id)
            if entry is None or device_id not in server.state.twins:
                assert event.kind == "deleted" or "deleted" not in dict(self.watch.subscription.rules).popitem()[1]
            else:
                assert (event.kind, event.value) == ("data_update", int(bytes(entry.value)))


class Conversation(RuleBasedStateMachine):
    """A client, its watchers and publishers, and all that may happen to them."""

    @initialize(followed=st.sampled_from(FOLLOWED), devices=st.lists(st.sampled_from(DEVICES), max_size=4))
    def begin(self, followed: tuple[str, ...], devices: list[str]) -> None:
        self.loop = TimelessLoop()
        self.number = 0
        self.followed = followed
        self.network = FakeNetwork(LogServer())
        self.was_replaced = self.was_limited = False
        self.sent: list[tuple[int, asyncio.Task[int]]] = []
        self.others: list[asyncio.Task[Any]] = []
        self.watchers: list[Watcher] = []
        for device_id in devices:
            self.network.server.change(device_id, self.value())
        self.bound = patch("twincast.client.event_queue.UNMERGED_MAX", 3)
        self.bound.start()
        with patch("twincast.client.client.open_link", self.network.open):
            self.client = self.run(self._made())

    async def _made(self) -> Client:
        client = Client("http://server", self.followed, buffer_max_bytes=1 << 26, on_link=None, token="a-key")
        self.running = asyncio.create_task(client.connection.run(None))
        return client

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def value(self) -> bytes:
        self.number += 1
        return b"%d" % self.number

    async def _steps(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        self.run(self._steps(count))

    @rule(seconds=st.sampled_from([0.05, 1.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    # What the program does.

    def task(self, work: Any) -> asyncio.Task[Any]:
        async def begin() -> asyncio.Task[Any]:
            return asyncio.create_task(work)

        begun: asyncio.Task[Any] = self.run(begin())
        return begun

    @rule(device=st.sampled_from(DEVICES), count=st.integers(1, 3))
    def publish(self, device: str, count: int) -> None:
        for _ in range(count):
            value = int(self.value())
            self.sent.append((value, self.task(self.client.publish(device, value))))

    @rule(device=st.sampled_from(DEVICES))
    def publish_what_is_too_large(self, device: str) -> None:
        self.others.append(self.task(self.client.publish(device, "x" * 70_000)))

    @rule(device=st.sampled_from(DEVICES), size=st.sampled_from([45_000, 55_000]))
    def command_what_is_too_large_for_some(self, device: str, size: int) -> None:
        self.others.append(self.task(self.client.control(device, "set", {"to": "x" * size})))

    @rule(device=st.sampled_from(DEVICES))
    def publish_what_somebody_on_the_way_refuses(self, device: str) -> None:
        self.others.append(self.task(self.client.control(device, "poison")))

    @rule(device=st.sampled_from(DEVICES))
    def delete(self, device: str) -> None:
        self.others.append(self.task(self.client.delete(device)))

    @rule(
        patterns=st.sampled_from(PATTERNS),
        mode=st.sampled_from(["latest", "every"]),
        kinds=st.sampled_from(KINDS),
    )
    def watch(self, patterns: tuple[str, ...], mode: Mode, kinds: Any) -> None:
        async def begin() -> Watcher:
            return Watcher(self.network, self.client, patterns, mode, kinds)

        self.watchers.append(self.run(begin()))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        tasks = [task for _, task in self.sent] + self.others + [watcher.task for watcher in self.watchers]
        pending = [task for task in tasks if not task.done()]
        if pending:
            pending[data.draw(st.integers(0, len(pending) - 1))].cancel()

    @precondition(lambda self: any(watcher.is_watching for watcher in self.watchers))
    @rule(data=st.data())
    def stop_watching(self, data: st.DataObject) -> None:
        watching = [watcher for watcher in self.watchers if watcher.is_watching]
        watching[data.draw(st.integers(0, len(watching) - 1))].task.cancel()

    @rule()
    def who_watches_takes_nothing_for_a_while(self) -> None:
        for watcher in self.watchers:
            watcher.takes.clear()

    @rule(devices=st.lists(st.sampled_from(DEVICES), min_size=1, max_size=6))
    def all_goes_well_for_a_while(self, devices: list[str]) -> None:
        self.run(self._heal())
        self._check()
        for device in devices:
            self.another_client_publishes(device)
        self.network.server.command(devices[0])
        self.run(self._heal())
        self._check()

    @precondition(lambda self: self.network.link is not None and self.network.link.is_open)
    @rule(count=st.integers(1, 4))
    def what_is_said_on_the_way_is_heard_and_then_it_is_cut(self, count: int) -> None:
        self.the_client_hears(count)
        self.run(self._steps(3))
        self.cut()

    # What the network and the server do.

    @rule(count=st.integers(1, 3))
    def the_server_hears(self, count: int) -> None:
        if self.network.link is not None:
            self.network.link.let_server_hear(count)

    @rule(count=st.integers(1, 3))
    def the_client_hears(self, count: int) -> None:
        if self.network.link is not None:
            self.network.link.let_client_hear(count)

    @rule()
    def commit(self) -> None:
        self.network.server.commit()

    @rule(count=st.integers(1, 3))
    def the_disk_fails(self, count: int) -> None:
        self.network.server.refuse_some(count)

    @rule(count=st.integers(1, 3), goes_on=st.booleans())
    def the_disk_fails_amid_what_is_published(self, count: int, goes_on: bool) -> None:
        for device in DEVICES:
            self.publish(device, 1)
        self.run(self._steps(8))
        self.the_server_hears(count + 1)
        self.the_disk_fails(count)
        if goes_on:
            self.commit()
            self.the_server_hears(3)
            self.commit()

    @rule(device=st.sampled_from(DEVICES))
    def another_client_publishes(self, device: str) -> None:
        self.network.server.change(device, self.value())

    @rule(device=st.sampled_from(DEVICES))
    def another_client_commands(self, device: str) -> None:
        self.network.server.command(device)

    @rule(device=st.sampled_from(DEVICES))
    def another_client_deletes(self, device: str) -> None:
        if device in self.network.server.state.twins:
            self.network.server.delete(device)

    @rule()
    def cut(self) -> None:
        if self.network.link is not None:
            self.network.link.end()

    @rule()
    def the_server_starts_anew(self) -> None:
        self.cut()
        self.network.server.new_run()

    @rule(devices=st.lists(st.sampled_from(DEVICES), max_size=3))
    def the_server_is_another_one(self, devices: list[str]) -> None:
        self.was_replaced = True
        other = LogServer(f"log {self.value()!r}")
        for device in devices:
            other.change(device, self.value())
        self.network.replace(other)

    @precondition(lambda self: not self.was_limited)
    @rule()
    def limits_are_lowered_by_a_restart(self) -> None:
        self.was_limited = True
        self.the_server_starts_anew()
        self.network.limit(40_000, 30_000)

    @rule()
    def somebody_on_the_way_takes_less(self) -> None:
        self.network.message_max_bytes = 50_000
        self.cut()

    # What must be so in the end.

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        try:
            self.run(self._heal())
            self._check()
        finally:
            self.run(self._end())
            self.loop.close()
            self.bound.stop()

    async def _heal(self) -> None:
        for watcher in self.watchers:
            watcher.takes.set()
        for _ in range(400):
            link = self.network.link
            if link is not None:
                link.let_server_hear(1_000)
                self.network.server.commit()
                link.let_client_hear(1_000)
            await self._steps(30)
            if not link or not link.is_open or link.session.closed:
                await asyncio.sleep(20.0)
            elif self._is_settled(link):
                return
            else:
                await asyncio.sleep(0.3)
        raise AssertionError(f"it does not settle: {[t for t in self._tasks() if not t.done()]}")

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [task for _, task in self.sent] + self.others

    def _is_settled(self, link: Any) -> bool:
        has_begun = all(watcher.owed_from is not None for watcher in self.watchers if watcher.is_watching)
        is_quiet = not link.to_server and not link.to_client and link.is_all_taken
        told = self.client.position is not None and self.client.is_connected and not self.client.connection.is_asking
        return has_begun and is_quiet and told and all(task.done() for task in self._tasks())

    def _check(self) -> None:
        server = self.network.server
        assert self.client.connection.failed is None
        follows = self.client._incoming._following.selects
        following = {name for name in server.state.twins if follows(("data_update", name))}
        assert {name: twin.value for name, twin in self.client.state.items()} == {
            name: int(bytes(server.state.twins[name].value)) for name in following
        }
        self._check_sent(server)
        for task in self.others:
            error = None if task.cancelled() else task.exception()
            assert error is None or isinstance(error, TooLarge | NotFound | BadMessage)
        for watcher in self.watchers:
            if watcher.is_watching:
                watcher.check(server)
            else:
                assert watcher.task.cancelled()
        self._check_bounds()

    def _check_sent(self, server: LogServer) -> None:
        stored = [int(bytes(entry.value)) for entry in server.log if isinstance(entry, DataUpdate)]
        own = {value for value, _ in self.sent}
        mine = [value for value in stored if value in own]
        assert mine == sorted(set(mine)), "in the order in which it was sent, and nothing twice"
        for value, task in self.sent:
            if task.cancelled():
                continue
            error = task.exception()
            assert error is None or (self.network.message_max_bytes < 1 << 30 and isinstance(error, TooLarge)), error
            if error is None and not self.was_replaced:
                entry = server.log[task.result() - 1]
                assert isinstance(entry, DataUpdate)
                assert int(bytes(entry.value)) == value

    def _check_bounds(self) -> None:
        incoming, outgoing = self.client._incoming, self.client._outgoing
        watching = [watcher.watch for watcher in self.watchers if watcher.is_watching]
        assert set(incoming._watches) == set(incoming._wanted) == set(watching), "no watch is left behind"
        assert not any(lane.unanswered for lane in outgoing._lanes)
        assert not outgoing._questions.has_unanswered and not outgoing._questions.has_unsent
        assert outgoing._lanes[0].size_bytes == 0
        assert self.network.link is not None
        brought = dict(self.network.link.session.feed.subscription.rules)
        for text, kinds in incoming.needed().rules:
            assert kinds <= brought.get(text, frozenset()), f"nothing brings {text}"

    async def _end(self) -> None:
        for task in [*self._tasks(), *(watcher.task for watcher in self.watchers), self.running]:
            task.cancel()
        await asyncio.gather(
            *self._tasks(), *(watcher.task for watcher in self.watchers), self.running, return_exceptions=True
        )
        await self.client.close()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, phases=[Phase.reuse, Phase.generate]
)
