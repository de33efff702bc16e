"""What follows the log: the state, the casts, and who waits for a position."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from tests.fakes import batch_of
from tests.hub.stand_ins import TIMEOUT_S, GatedJournal, Receipts, RecordingWatcher, running, update
from tests.running import eventually_async
from twincast.core.batch import Committed
from twincast.core.model import Position, Snapshot
from twincast.core.state import State
from twincast.core.subscription import EVERYTHING, Subscription, rules_of
from twincast.delivery import router
from twincast.delivery.cast import Cast
from twincast.delivery.router import Router
from twincast.errors import NotYet, TwincastError
from twincast.hub.hub import Hub
from twincast.journal.memory import MemoryJournal


async def test_nobody_learns_of_a_change_before_it_is_durable_and_watchers_before_its_sender() -> None:
    log: list[str] = []
    journal, receipts, watcher = GatedJournal(), Receipts(log), RecordingWatcher(log)
    async with running(journal) as hub:
        hub.router.join(watcher, EVERYTHING)
        hub.submit(update("lamp"), 1, receipts.done)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        assert (log, hub.state.seq) == ([], 0)
        await journal.open()
        assert await receipts.count(1) == [(None, 1)]
    assert log == ["cast", "answer"]
    assert watcher.casts[0].messages == [
        b'{"type":"data_update","device_id":"lamp","value":1,"timestamp_utc":"now","source":"rest","seq":1,"epoch":"%b"}'
        % journal.lineage.epoch.encode()
    ]


async def test_a_watcher_that_joins_gets_everything_after_the_state_it_saw() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    late = RecordingWatcher([])
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        await receipts.count(1)
        seen = hub.state.seq
        group = hub.router.join(late, EVERYTHING)
        hub.submit(update("b"), 1, receipts.done)
        await receipts.count(2)
        hub.router.leave(late, group)
        hub.submit(update("c"), 1, receipts.done)
        await receipts.count(3)
    assert [entry.seq for cast in late.casts for entry in cast.entries] == [seen + 1]


async def test_changes_that_another_server_appended_are_cast_too() -> None:
    """The hub never assumes that it is the only writer."""
    journal = MemoryJournal(max_bytes=1 << 20)
    log: list[str] = []
    watcher, receipts = RecordingWatcher(log), Receipts(log)
    async with running(journal) as hub:
        hub.router.join(watcher, EVERYTHING)
        await journal.append(batch_of([update("elsewhere")]))
        hub.submit(update("here"), 1, receipts.done)
        assert await receipts.count(1) == [(None, 2)]
        assert list(hub.state.twins) == ["elsewhere", "here"]
    assert [entry.seq for cast in watcher.casts for entry in cast.entries] == [1, 2]


async def test_the_state_is_encoded_once_per_position() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        assert list(hub.snapshots.texts(EVERYTHING, hub.state.names())) == [b"{}"]
        hub.submit(update("a"), 1, receipts.done)
        await receipts.count(1)
        [first] = hub.snapshots.texts(EVERYTHING, hub.state.names())
        assert first == b'{"a":{"value":1,"updated_at_utc":"now","seq":1,"source":"rest"}}'
        assert next(hub.snapshots.texts(EVERYTHING, hub.state.names())) is first


async def test_a_gap_in_the_log_ends_the_hub_instead_of_a_wrong_state() -> None:
    class GappedJournal(MemoryJournal):
        async def follow(self, since: int) -> AsyncIterator[Committed]:
            entry = update("a")
            entry.seq = since + 2
            yield Committed((entry,))

    journal = GappedJournal(max_bytes=1 << 20)
    hub = Hub(journal, State(Snapshot("e", 0, {})), open_batch_max_bytes=1)
    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(hub.run(), TIMEOUT_S)
    assert "the log goes on at 1, not at 2" in str(ended.value.exceptions[0])


async def test_a_position_that_is_awaited_is_told_once_the_state_has_it() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        reached: list[int] = []
        for seq in (0, 1, 3):
            hub.when_reached(seq, lambda seq=seq: reached.append(seq))  # type: ignore[misc]
        assert reached == [0]
        hub.submit_all([update("a"), update("b")], 1, receipts.done)
        await receipts.count(1)
        assert reached == [0, 1]
        hub.submit(update("c"), 1, receipts.done)
        await receipts.count(2)
        assert reached == [0, 1, 3]


async def test_a_position_of_another_server_on_the_same_log_is_waited_for_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        told: list[TwincastError | None] = []
        epoch = hub.state.epoch
        assert hub.when_come(Position(epoch, 1), told.append) is None, "this log is of one server"
        assert not hub.is_of_this_log(Position(epoch, 1))
        hub._is_shared = True
        for here in (Position(epoch, 0), Position("other", 1)):
            assert hub.when_come(here, told.append) is None
        assert [hub.is_of_this_log(Position(each, 1)) for each in (epoch, "other")] == [True, False]
        first, second = (hub.when_come(Position(epoch, 1), told.append) for _ in range(2))
        assert first is not None and second is not None
        second()
        hub.submit(update("a"), 1, receipts.done)
        await receipts.count(1)
        first()
        assert told == [None]
        monkeypatch.setattr("twincast.hub.hub.COME_S", 0.01)
        assert hub.when_come(Position(epoch, 9), told.append) is not None
        await eventually_async(lambda: len(told) == 2, "it is given up")
        assert isinstance(told[1], NotYet)
        assert len(hub._awaited) == 0


async def test_a_position_that_is_awaited_no_longer_is_forgotten() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        reached: list[str] = []
        callback = partial(reached.append, "told")
        forgets = [hub.when_reached(seq, callback) for seq in (0, 1, 1, 1 << 60)]
        held = sys.getrefcount(callback)
        forgets[1]()
        forgets[3]()
        assert sys.getrefcount(callback) == held - 2
        hub.submit(update("a"), 1, receipts.done)
        await receipts.count(1)
        for forget in forgets:
            forget()  # what was told or forgotten can be forgotten again
    assert reached == ["told"] * 2


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        (Position("other", 5), "epoch"),
        (Position("", 6), "ahead"),
        (Position("", 1), "too_old"),
        (Position("", 2), ""),
        (Position("", 5), ""),
    ],
)
async def test_a_position_is_resumed_from_or_the_reason_is_told(since: Position, reason: str) -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    hub = Hub(journal, State(await journal.snapshot()), open_batch_max_bytes=1 << 20, resume_max_entries=3)
    driver = asyncio.create_task(hub.run())
    hub.submit_all([update(name) for name in "abcde"], 1, receipts.done)
    await receipts.count(1)
    assert hub.why_not_resume(Position(since.epoch or hub.state.epoch, since.seq)) == reason
    driver.cancel()
    await asyncio.wait([driver])


class AskingRouter(Router):
    """A router that notes how often somebody is asked about a topic in the moment of a cast."""

    asked_in_offer = 0
    is_offering = False
    came: Callable[[], None] | None = None

    def prepare(self, cast: Cast, start: int = 0) -> int | None:
        if self.came is not None and start > 10:
            came, self.came = self.came, None
            came()
        return super().prepare(cast, start)

    def offer(self, cast: Cast) -> None:
        self.is_offering = True
        super().offer(cast)
        self.is_offering = False

    def _renew(self, *how: Any) -> Any:
        self.asked_in_offer += self.is_offering
        return super()._renew(*how)


async def test_nobody_is_asked_in_the_moment_of_a_cast_not_even_who_came_while_others_were_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router, "ROUTE_STEPS", 50)
    scheduler: list[int] = []
    async with running(MemoryJournal(max_bytes=1 << 20)) as hub:
        asking = hub.router = AskingRouter(hub.state, lambda *_: asyncio.get_running_loop().call_soon(lambda: None))
        log: list[str] = []
        first, late = RecordingWatcher(log), RecordingWatcher(log)
        asking.join(first, Subscription(rules_of(f"*{number}*" for number in range(20))))
        asking.came = lambda: scheduler.append(len(asking.join(late, Subscription(rules_of(["*1*"]))).members))
        receipts = Receipts([])
        hub.submit_all([update(f"d{number}") for number in range(100)], 1, receipts.done)
        await receipts.count(1)
    assert scheduler == [1], "somebody came while the routes were looked for"
    assert asking.asked_in_offer == 0
    assert [len(cast.entries) for cast in first.casts] == [100]
    assert [len(cast.entries) for cast in late.casts] == [sum("1" in str(number) for number in range(100))]
