"""The way into the log, over a journal that commits when it is told to."""

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from tests.fakes import batch_of
from tests.hub.stand_ins import TIMEOUT_S, GatedJournal, Receipts, RecordingWatcher, running, update
from twincast.core.audit import Actor
from twincast.core.batch import Batch, Placed
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, digest_of
from twincast.core.model import Control, Deleted, Entry
from twincast.core.producers import NumberedLine
from twincast.core.quotas import Quotas
from twincast.core.state import State
from twincast.core.subscription import EVERYTHING
from twincast.errors import (
    JournalUnavailable,
    KeyReused,
    LinePassed,
    NotFound,
    OutOfOrder,
    Stopping,
    TooLarge,
    TwincastError,
)
from twincast.hub.hub import Hub
from twincast.journal.memory import MemoryJournal


async def test_while_one_batch_commits_the_next_collects() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("first"), 1, receipts.done)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        for number in range(100):
            hub.submit(update(f"d{number}"), 1, receipts.done)
        await journal.open()
        await journal.open()
        answers = await receipts.count(101)
    assert journal.batches == [1, 100]
    assert [seq for _, seq in answers] == list(range(1, 102))


async def test_what_waits_until_all_is_settled_comes_behind_the_answers_of_a_failed_commit_too() -> None:
    journal, log = GatedJournal(), list[str]()
    async with running(journal) as hub:

        def first(_error: TwincastError | None, _seq: int) -> None:
            log.append("first")
            hub.intake.when_settled(lambda: log.append("settled"))

        hub.submit(update("a"), 1, first)
        hub.submit(update("b"), 1, lambda _error, _seq: log.append("second"))
        await journal.open(JournalUnavailable("disk full"))
        await asyncio.wait_for(hub.intake.settled(), TIMEOUT_S)
    assert log == ["first", "second", "settled"]


async def test_a_submission_of_many_is_answered_once_with_its_last_seq() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        hub.submit_all([update("b"), update("c"), update("d")], 3, receipts.done)
        hub.submit_all([Control("t", "c", Raw(b"{}"), "", "rest")], 1, receipts.done)
        assert await receipts.count(3) == [(None, 1), (None, 4), (None, 5)]
        assert set(hub.state.twins) == {"a", "b", "c", "d"}


async def test_readings_that_came_together_are_stored_in_order_and_answered_once() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        assert hub.submit_together([update("b"), update("c"), update("d")], 3, receipts.done)
        assert await receipts.count(2) == [(None, 1), (None, 4)]
        assert [twin.seq for twin in hub.state.twins.values()] == [1, 2, 3, 4]


async def test_readings_of_which_some_may_be_refused_are_left_to_be_submitted_one_by_one() -> None:
    receipts = Receipts([])
    journal = MemoryJournal(max_bytes=1 << 20)
    hub = Hub(journal, State(await journal.snapshot()), open_batch_max_bytes=1 << 20, quotas=Quotas(devices_max=3))
    assert not hub.submit_together([update("a"), update("b"), update("c"), update("d")], 4, receipts.done)
    assert not hub.submit_together([update("a")], 1, receipts.done, identity="key:1")  # whose share is not known
    assert hub.intake.waiting_bytes == 0
    async with running(MemoryJournal(max_bytes=1 << 20)) as hub:
        await hub.stop()
        assert not hub.submit_together([update("a")], 1, receipts.done)
    assert receipts.answers == []


async def test_readings_that_came_together_hold_back_senders_like_others() -> None:
    journal = GatedJournal()
    async with running(journal, max_bytes=1_000) as hub:
        assert hub.submit_together([update(f"d{number}") for number in range(10)], 10, Receipts([]).done)
        assert not hub.intake.has_room


async def test_a_failed_commit_is_answered_cast_to_nobody_and_the_next_one_may_succeed() -> None:
    log: list[str] = []
    journal, receipts, watcher = GatedJournal(), Receipts(log), RecordingWatcher(log)
    failure = JournalUnavailable("disk full")
    async with running(journal) as hub:
        hub.router.join(watcher, EVERYTHING)
        hub.submit(update("lost"), 1, receipts.done)
        await journal.open(failure)
        assert await receipts.count(1) == [(failure, 0)]
        assert hub.problem is failure
        hub.submit(update("kept"), 1, receipts.done)
        await journal.open()
        assert (await receipts.count(2))[1] == (None, 1)
        assert hub.problem is None
    assert log == ["answer", "cast", "answer"]


async def test_the_open_batch_is_bounded_and_senders_are_told_when_to_go_on() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    settled = asyncio.Event()
    async with running(journal, max_bytes=10_000) as hub:
        hub.submit(update("a"), 4_000, receipts.done)
        assert hub.intake.has_room
        hub.submit(update("b"), 6_000, receipts.done)
        assert not hub.intake.has_room
        hub.intake.when_settled(settled.set)
        await journal.open()
        await asyncio.wait_for(settled.wait(), TIMEOUT_S)
        assert hub.intake.has_room
        assert len(receipts.answers) == 2


async def test_a_hub_that_stops_answers_what_it_took_and_refuses_the_rest() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("taken"), 1, receipts.done)
        stopping = asyncio.create_task(hub.stop())
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit(update("late"), 1, receipts.done)
        hub.submit_all([update("late")], 1, receipts.done)
        await journal.open()
        await asyncio.wait_for(stopping, TIMEOUT_S)
    refused = [error for error, _ in receipts.answers if isinstance(error, Stopping)]
    assert len(refused) == 2
    assert (None, 1) in receipts.answers


async def test_an_idle_hub_is_settled_at_once() -> None:
    async with running(MemoryJournal(max_bytes=1 << 20)) as hub:
        settled: list[bool] = []
        hub.intake.when_settled(lambda: settled.append(True))
        assert settled == [True]


class Replays:
    """The records that retries were answered with."""

    def __init__(self) -> None:
        self.records: list[IdempotencyRecord] = []

    def retry(self, key: str, *entries: Entry) -> IdempotencyKey:
        return IdempotencyKey(key, digest_of(entries), self.records.append)


async def test_a_key_that_comes_again_stores_nothing_and_is_answered_like_the_first_time() -> None:
    journal, receipts, replays = MemoryJournal(max_bytes=1 << 20), Receipts([]), Replays()
    async with running(journal) as hub:
        hub.submit(update("other"), 1, receipts.done)
        batch = [update("a"), update("b")]
        hub.submit_all(batch, 1, receipts.done, replays.retry("k", *batch))
        assert await receipts.count(2) == [(None, 1), (None, 3)]
        hub.submit_all(batch, 1, receipts.done, replays.retry("k", *batch))
        assert [(record.first_seq, record.last_seq) for record in replays.records] == [(2, 3)]
        assert hub.state.seq == 3


async def test_a_key_that_comes_again_while_it_is_under_way_waits_for_the_same_answer() -> None:
    journal, receipts, replays = GatedJournal(), Receipts([]), Replays()
    async with running(journal) as hub:
        for _ in range(3):
            hub.submit(update("a"), 1, receipts.done, replays.retry("k", update("a")))
        await journal.open(JournalUnavailable("disk full"))
        assert [str(error) for error, _ in await receipts.count(3)] == ["disk full"] * 3
        hub.submit(update("a"), 1, receipts.done, replays.retry("k", update("a")))
        hub.submit(update("a"), 1, receipts.done, replays.retry("k", update("a")))
        await journal.open()
        assert (await receipts.count(4))[3] == (None, 1)
        assert [record.last_seq for record in replays.records] == [1]
    assert journal.batches == [1, 1]


async def test_a_key_with_other_content_is_refused() -> None:
    journal, receipts, replays = MemoryJournal(max_bytes=1 << 20), Receipts([]), Replays()
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done, replays.retry("k", update("a")))
        hub.submit(update("a", b"2"), 1, receipts.done, replays.retry("k", update("a", b"2")))
        await receipts.count(2)
        hub.submit(update("b"), 1, receipts.done, replays.retry("k", update("b")))
        (_, first), (refused, _), (refused_too, _) = sorted(
            await receipts.count(3), key=lambda answer: answer[0] is not None
        )
    assert first == 1
    assert isinstance(refused, KeyReused) and isinstance(refused_too, KeyReused)


class SharedLog(MemoryJournal):
    """A journal to which another server appends as well: what has its key in the log already is not stored again."""

    def __init__(self) -> None:
        super().__init__(max_bytes=1 << 20)
        self.elsewhere: list[Batch] = []

    async def append(self, batch: Batch) -> Placed:
        for other in self.elsewhere:  # between the hub's decision and its append
            await super().append(other)
        self.elsewhere.clear()
        stored = {record.key: record for record in self.keys}
        known = [stored[record.key] for record in batch.keys if record.key in stored]
        batch.leave_out(known)
        if batch.entries:
            return Placed((await super().append(batch)).seqs, known)
        next_seq = self.recent(0)[-1].seq + 1
        return Placed(range(next_seq, next_seq), known)


async def test_a_key_that_another_server_stored_first_is_answered_as_there_and_others_get_their_own_positions() -> None:
    journal, receipts, replays = SharedLog(), Receipts([]), Replays()
    async with running(journal) as hub:
        both, other = [update("a"), update("b")], [update("a", b"2")]
        journal.elsewhere.append(batch_of([update("x"), *both], keys={"": (1, ""), "k": (2, digest_of(both))}))
        hub.submit(update("first"), 1, receipts.done)
        hub.submit_all(both, 1, receipts.done, replays.retry("k", *both), Actor("key:1", "here"))
        hub.submit_all(both, 1, receipts.done, replays.retry("k", *both))  # waits for the same answer
        hub.submit(update("last"), 1, receipts.done, replays.retry("own", update("last")))
        assert await receipts.count(2) == [(None, 4), (None, 5)]
        assert [(record.first_seq, record.last_seq) for record in replays.records] == [(2, 3)] * 2
        assert [entry.topic[1] for entry in await hub.read(0, 10)] == ["x", "a", "b", "first", "last"]
        assert hub.state.newest("b") is not None
        journal.elsewhere.append(batch_of([update("a")], keys={"k2": (1, digest_of([update("a")]))}))
        hub.submit_all(other, 1, receipts.done, replays.retry("k2", *other))
        assert isinstance((await receipts.count(3))[2][0], KeyReused)
        hub.submit_all(both, 1, receipts.done, replays.retry("k", *both))
        assert [record.last_seq for record in replays.records] == [3] * 3, "it is known from the log"
        assert hub.state.seq == 6


async def test_a_key_that_another_server_stored_is_known_from_the_log() -> None:
    journal, receipts, replays = MemoryJournal(max_bytes=1 << 20), Receipts([]), Replays()
    async with running(journal) as hub:
        await journal.append(batch_of([update("a")], keys={"k": (1, digest_of([update("a")]))}))
        reached = asyncio.Event()
        hub.when_reached(1, reached.set)
        await asyncio.wait_for(reached.wait(), TIMEOUT_S)
        hub.submit(update("a"), 1, receipts.done, replays.retry("k", update("a")))
        assert [record.last_seq for record in replays.records] == [1]
    async with running(journal) as hub:  # and to one that starts anew
        hub.submit(update("a"), 1, receipts.done, replays.retry("k", update("a")))
        assert [record.last_seq for record in replays.records] == [1] * 2
        assert receipts.answers == []


async def test_what_a_lane_sent_behind_a_batch_that_failed_is_refused_and_others_go_on() -> None:
    journal, first, behind, others = GatedJournal(), Receipts([]), Receipts([]), Receipts([])
    lane = object()
    async with running(journal) as hub:
        hub.submit(update("lamp", b"1"), 1, first.done, lane=lane)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit(update("lamp", b"2"), 1, behind.done, lane=lane)
        hub.submit(update("fan", b"3"), 1, others.done, lane=object())
        hub.submit(update("lamp", b"4"), 1, others.done)
        await journal.open(JournalUnavailable("the disk is full"))
        [(failed, _)] = await first.count(1)
        [(refused, _)] = await behind.count(1)
        await journal.open()
        assert await others.count(2) == [(None, 1), (None, 2)]
        assert isinstance(failed, JournalUnavailable) and isinstance(refused, OutOfOrder)
        assert refused.retryable
        assert [entry.topic[1] for entry in await hub.read(0, 10)] == ["fan", "lamp"]


async def test_a_journal_that_takes_little_at_once_gets_it_in_several_appends_in_order() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    journal.batch_max_bytes = 20
    async with running(journal, max_bytes=2_900) as hub:
        hub.submit(update("first"), 1, receipts.done)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit_all([update("a"), update("b")], 12, receipts.done)
        hub.submit(update("c"), 8, receipts.done)
        hub.submit(update("large"), 21, receipts.done)
        for number in range(7):
            hub.submit(update(f"d{number}"), 8, receipts.done)
        assert not hub.intake.has_room
        await journal.open()
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        assert hub.intake.has_room
        hub.submit(update("late"), 3, receipts.done)  # behind what is left
        for _ in range(6):
            await journal.open()
        answers = await receipts.count(12)
        assert [entry.topic[1] for entry in await hub.read(0, 20)] == [
            *("first", "a", "b", "c", "large"),
            *(f"d{number}" for number in range(7)),
            "late",
        ]
    assert journal.batches == [1, 3, 1, 2, 2, 2, 2]
    assert answers == [(None, seq) for seq in (1, *range(3, 14))]


async def test_a_part_that_fails_takes_along_what_is_behind_it_as_a_whole_batch_does() -> None:
    journal, receipts, others = GatedJournal(), Receipts([]), Receipts([])
    journal.batch_max_bytes = 10
    lane = object()
    async with running(journal) as hub:
        hub.submit(update("x"), 1, receipts.done)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit(update("a"), 10, receipts.done, lane=lane)
        hub.submit(update("b"), 10, receipts.done, lane=lane)
        hub.submit(update("c"), 10, others.done)
        await journal.open()
        await journal.open(DISK_FULL)
        await journal.open()
        assert codes(await receipts.count(3)) == ["ok", "journal_unavailable", "out_of_order"]
        assert await others.count(1) == [(None, 2)]
        hub.submit(update("y"), 10, receipts.done)
        hub.submit_all([deletion("y")], 10, receipts.done)  # decided on it, in the same open batch
        await journal.open(DISK_FULL)
        assert codes((await receipts.count(5))[3:]) == ["journal_unavailable"] * 2


async def test_what_is_too_large_for_the_journal_is_refused_alone() -> None:
    journal, receipts, lane = GatedJournal(), Receipts([]), object()
    too_large = TooLarge("a batch may hold 1 MB")
    async with running(journal) as hub:
        hub.submit(update("large"), 1, receipts.done, lane=lane)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit(update("next"), 1, receipts.done, lane=lane)
        await journal.open(too_large)
        await journal.open()
        assert await receipts.count(2) == [(too_large, 0), (None, 1)]
        assert (hub.problem, hub.intake.counters.failed_commits) == (None, 0)
        hub.submit(update("y"), 1, receipts.done)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit_all([deletion("y")], 1, receipts.done)  # decided on it: there would be such a device
        await journal.open(too_large)
        assert codes((await receipts.count(4))[2:]) == ["too_large", "out_of_order"]
        hub.submit_all([deletion("y")], 1, receipts.done)
        assert codes((await receipts.count(5))[4:]) == ["not_found"]


async def test_a_line_that_is_too_large_for_the_journal_is_passed_by_the_next_one() -> None:
    journal = GatedJournal()
    async with running(journal) as hub:
        lines = Lines(hub)
        lines.send(1)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        lines.send(2)
        await journal.open(TooLarge("a batch may hold 1 MB"))
        await journal.open()
        assert codes(await lines.answers.count(2)) == ["too_large", "ok"]
        lines.send(1)
        assert codes(lines.answers.answers[2:]) == ["line_passed"]


async def test_a_key_whose_update_was_withdrawn_may_come_again() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    lane = object()

    def keyed() -> IdempotencyKey:
        return IdempotencyKey("key", digest_of([update("lamp", b"2")]), lambda _: receipts.done(None, -1))

    async with running(journal) as hub:
        hub.submit(update("lamp", b"1"), 1, receipts.done, lane=lane)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit(update("lamp", b"2"), 1, receipts.done, keyed(), lane=lane)
        await journal.open(JournalUnavailable("the disk is full"))
        await receipts.count(2)
        hub.submit(update("lamp", b"2"), 1, receipts.done, keyed(), lane=lane)
        await journal.open()
        assert (await receipts.count(3))[2] == (None, 1)


# Deletions, and what there is no room for.


def deletion(device_id: str) -> Deleted:
    return Deleted(device_id, "", "rest")


DISK_FULL = JournalUnavailable("disk full")


def codes(answers: Sequence[tuple[TwincastError | None, int]]) -> list[str]:
    return ["ok" if error is None else error.code for error, _ in answers]


async def test_a_deletion_is_decided_in_the_light_of_all_that_was_submitted_before_it() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        for entry in (deletion("a"), deletion("a"), update("a"), deletion("a"), deletion("b")):
            hub.submit(entry, 1, receipts.done, actor=Actor("key:1", "here"))
        await journal.open()
        await journal.open()
        answers = await receipts.count(6)
    assert sorted(codes(answers)) == ["not_found", "not_found", "ok", "ok", "ok", "ok"]
    assert codes(answers[:3]) == ["ok", "ok", "not_found"], "answers come in order"
    assert (hub.state.seq, dict(hub.state.twins)) == (4, {})


async def test_of_two_deletions_at_once_one_is_told_that_there_is_no_such_device() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        await receipts.count(1)
        for _ in range(2):
            hub.submit_all([deletion("a")], 1, receipts.done)
        assert codes(await receipts.count(3)) == ["ok", "ok", "not_found"]
        hub.submit_all([deletion("a")], 1, receipts.done)
        assert codes(receipts.answers[3:]) == ["not_found"], "nothing waits, so it is told at once"


async def test_what_was_decided_on_a_batch_that_is_not_stored_is_not_stored_either_and_no_lie_is_told() -> None:
    journal, receipts = GatedJournal(), Receipts([])
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        await journal.open()
        await receipts.count(1)
        hub.submit_all([deletion("a")], 1, receipts.done)  # under way, and will fail
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit_all([deletion("a")], 1, receipts.done)  # decided on it: there would be no such device
        hub.submit(update("c"), 1, receipts.done)
        await journal.open(DISK_FULL)
        assert codes((await receipts.count(4))[1:]) == ["journal_unavailable"] * 3
        assert list(hub.state.twins) == ["a"]
        hub.submit(update("x"), 1, receipts.done)  # will fail
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        hub.submit_all([deletion("x")], 1, receipts.done)  # decided on it: there would be one
        await journal.open(DISK_FULL)
        assert codes((await receipts.count(6))[4:]) == ["journal_unavailable"] * 2
        hub.submit_all([deletion("x")], 1, receipts.done)
        hub.submit_all([deletion("a")], 1, receipts.done)
        await journal.open()
        assert codes((await receipts.count(8))[6:]) == ["not_found", "ok"]


async def test_a_retry_of_a_deletion_is_answered_by_the_first_though_the_device_is_no_more() -> None:
    journal, receipts, replays = MemoryJournal(max_bytes=1 << 20), Receipts([]), Replays()
    async with running(journal) as hub:
        hub.submit(update("a"), 1, receipts.done)
        hub.submit_all([deletion("a")], 1, receipts.done, replays.retry("k", deletion("a")))
        await receipts.count(2)
        hub.submit_all([deletion("a")], 1, receipts.done, replays.retry("k", deletion("a")))
        assert [record.last_seq for record in replays.records] == [2]
        for _ in range(2):  # a refusal leaves its key free
            hub.submit_all([deletion("b")], 1, receipts.done, replays.retry("k2", deletion("b")))
        assert codes((await receipts.count(4))[2:]) == ["not_found"] * 2


async def test_what_there_is_no_room_for_is_refused_and_a_deletion_makes_room() -> None:
    journal, receipts = MemoryJournal(max_bytes=1 << 20), Receipts([])
    state = State(await journal.snapshot())
    hub = Hub(journal, state, open_batch_max_bytes=1 << 20, quotas=Quotas(devices_max=2), now_utc=lambda: "now")
    driver = asyncio.create_task(hub.run())
    for name in ("a", "b", "c", "a"):
        hub.submit(update(name), 1, receipts.done)
    hub.submit_all([update("b"), update("c")], 1, receipts.done)
    hub.submit_all([deletion("a")], 1, receipts.done)
    hub.submit_all([update("b"), update("c")], 1, receipts.done)
    answers = await receipts.count(7)
    assert codes(answers) == ["ok", "ok", "state_full", "ok", "state_full", "ok", "ok"]
    assert (sorted(state.twins), state.seq) == (["b", "c"], 6)
    driver.cancel()
    await asyncio.wait([driver])


# Numbered lines.


class Lines:
    """Numbered lines of one producer, and what they are told."""

    def __init__(self, hub: Hub, producer: str = "p", who: str = "") -> None:
        self._hub, self._producer, self._who = hub, producer, who
        self.answers = Receipts([])
        self.stored: list[tuple[int, int]] = []

    def send(self, number: int, entry: Entry | None = None, lane: Any = "a connection") -> None:
        line = NumberedLine(self._who, self._producer, number, lambda mark: self.stored.append((mark.line, mark.seq)))
        what = entry or update("lamp", b"%d" % number)
        self._hub.submit_all([what], 1, self.answers.done, lane=lane, identity=self._who, line=line)


async def test_a_line_is_stored_once_also_by_a_hub_that_is_started_anew() -> None:
    journal = MemoryJournal(max_bytes=1 << 20)
    for start in range(2):
        async with running(journal) as hub:
            lines = Lines(hub)
            for number in (1, 2, 3):
                lines.send(number)
            if start == 0:
                assert await lines.answers.count(3) == [(None, 1), (None, 2), (None, 3)]
                lines.send(2)
            else:
                assert lines.answers.answers == []
            assert lines.stored == ([(3, 3)] if start == 0 else [(3, 3)] * 3)
            assert hub.state.seq == 3


async def test_a_line_of_another_identity_with_the_same_name_is_its_own() -> None:
    async with running(MemoryJournal(max_bytes=1 << 20)) as hub:
        mallory, alice = Lines(hub, who="key:mallory"), Lines(hub, who="key:alice")
        mallory.send(1_000)
        await mallory.answers.count(1)
        alice.send(1)
        assert await alice.answers.count(1) == [(None, 2)]


async def test_behind_a_line_that_was_not_stored_no_later_one_of_its_producer_is_whoever_brings_it() -> None:
    journal = GatedJournal()
    async with running(journal) as hub:
        lines, other = Lines(hub), Lines(hub, "other")
        lines.send(1, lane="old")
        await asyncio.wait_for(journal.waiting.wait(), TIMEOUT_S)
        lines.send(1, lane="new")
        lines.send(2, lane="new")
        other.send(1, lane="another")
        await journal.open(JournalUnavailable("disk full"))
        assert [type(error) for error, _ in await lines.answers.count(3)] == [JournalUnavailable] * 2 + [OutOfOrder]
        await journal.open()
        assert await other.answers.count(1) == [(None, 1)]
        lines.send(1)
        lines.send(2)
        await journal.open()
        assert (await lines.answers.count(5))[3:] == [(None, 2), (None, 3)]


async def test_a_line_that_is_refused_for_good_is_passed_and_never_taken_for_stored() -> None:
    async with running(MemoryJournal(max_bytes=1 << 20)) as hub:
        lines = Lines(hub)
        lines.send(1, Deleted("nobody", "", "rest"))
        lines.send(2)
        lines.send(1, Deleted("nobody", "", "rest"))
        answers = await lines.answers.count(3)
        assert {(type(error), seq) for error, seq in answers} >= {(NotFound, 0), (type(None), 1)}
        lines.send(1, Deleted("lamp", "", "rest"))
        assert isinstance((await lines.answers.count(4))[-1][0], LinePassed)
        assert hub.state.newest("lamp") is not None
