"""The end of the log in memory: what it keeps, what it lets go, whom it wakes."""

import asyncio
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import CountingEntries
from twincast.core.batch import Committed
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.model import Control, DataUpdate
from twincast.journal.tail import ENTRY_BYTES, LogTail

PLENTY_BYTES = 1 << 40


def batch_of(first_seq: int, size: int, value: bytes = b"1") -> Committed:
    return Committed(tuple(DataUpdate("a", Raw(value), "", "rest", seq) for seq in range(first_seq, first_seq + size)))


def append(window: LogTail, batch: Committed) -> None:
    window.append(batch, sum(len(entry.payload) for entry in batch.entries))


def filled(sizes: list[int], max_bytes: int = PLENTY_BYTES, seq: int = 0) -> LogTail:
    window = LogTail(seq, max_bytes)
    for size in sizes:
        append(window, batch_of(window.seq + 1, size))
    return window


def test_a_new_window_stands_at_the_position_of_its_log_and_holds_nothing() -> None:
    window = LogTail(41, PLENTY_BYTES)
    assert (window.since, window.seq, window.read(41)) == (41, 41, None)


def test_a_follower_that_keeps_up_gets_the_very_batch_that_was_appended() -> None:
    window = filled([3])
    batch = batch_of(4, 2)
    append(window, batch)
    assert window.read(3) is batch


@given(st.lists(st.integers(1, 5), min_size=1), st.data())
def test_a_follower_gets_what_follows_its_position_without_a_gap(sizes: list[int], data: st.DataObject) -> None:
    window = filled(sizes)
    since = data.draw(st.integers(0, window.seq))
    found: list[int] = []
    while more := window.read(since + len(found)):
        found += [entry.seq for entry in more.entries]
    assert found == list(range(since + 1, window.seq + 1))


@given(st.lists(st.integers(1, 5), min_size=1), st.integers(1, 10))
def test_the_oldest_batches_go_first_and_whole_and_no_more_than_must(sizes: list[int], max_entries: int) -> None:
    window = filled(sizes, max_bytes=max_entries * (ENTRY_BYTES + 1))
    kept: list[int] = []
    for size in reversed(sizes):
        if kept and sum(kept) + size > max_entries:
            break
        kept.append(size)
    assert window.since == window.seq - sum(kept)


def test_the_newest_batch_stays_even_if_it_alone_is_too_large() -> None:
    window = filled([1, 100], max_bytes=1_000)
    assert window.since == 1
    assert len(window.recent(1)) == 100


def test_values_and_args_count_with_their_bytes() -> None:
    window = LogTail(0, max_bytes=10_000)
    append(window, Committed((DataUpdate("a", Raw(b"x" * 5_000), "", "rest", 1),)))
    append(window, Committed((Control("a", "on", Raw(b"x" * 4_000), "", "rest", 2),)))
    assert window.since == 0
    append(window, batch_of(3, 1, b"x" * 500))
    assert window.since == 1


def test_a_follower_in_the_middle_finds_its_batch_in_a_few_steps() -> None:
    window = LogTail(0, PLENTY_BYTES)
    for seq in range(1, 10_001):
        append(window, Committed(CountingEntries(batch_of(seq, 1).entries)))
    before = CountingEntries.looks
    assert [window.read(since).entries[0].seq for since in (2, 5_000, 9_000)] == [3, 5_001, 9_001]  # type: ignore[union-attr]
    assert CountingEntries.looks - before < 100


def test_what_is_kept_is_out_of_the_collectors_sight() -> None:
    """Or each full collection would look at all of it, and the server would stand meanwhile."""
    window = LogTail(0, PLENTY_BYTES)
    gc.collect()
    before = len(gc.get_objects())
    for seq in range(1, 2_001):
        key = IdempotencyRecord(f"key {seq}", seq, seq, "07")
        append(window, Committed(batch_of(seq, 3).entries, (key,), texts=(b"1", b"2", b"3")))
        window.seq = seq
    gc.collect()
    gc.collect()
    assert len(gc.get_objects()) - before < 100


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.integers(1, 40), st.integers(1, 30), st.data())
def test_what_is_recent_is_whole_up_to_a_limit_or_to_the_newest(
    sizes: list[int], max_entries: int, limit: int, data: st.DataObject
) -> None:
    window = filled(sizes, max_bytes=max_entries * (ENTRY_BYTES + 1))
    since = data.draw(st.integers(0, window.seq + 1))
    found = [entry.seq for entry in window.recent(since, limit)]
    assert found == list(range(since + 1, since + 1 + len(found)))
    if window.since <= since:
        assert len(found) >= min(limit, window.seq - since)
    else:
        assert not found
    assert [entry.seq for batch in window.batches for entry in batch.entries] == list(
        range(window.since + 1, window.seq + 1)
    )


async def test_grown_returns_at_once_when_there_is_an_entry() -> None:
    await filled([2]).grown(1)


async def test_an_append_wakes_every_follower_that_waits_for_it_and_no_other() -> None:
    window = LogTail(0, PLENTY_BYTES)
    waiting = [asyncio.create_task(window.grown(since)) for since in (0, 0, 1, 2)]
    await turns_of_the_loop()
    assert [task.done() for task in waiting] == [False] * 4
    append(window, batch_of(1, 1))
    await turns_of_the_loop()
    assert [task.done() for task in waiting] == [True, True, False, False]
    append(window, batch_of(2, 2))
    await asyncio.gather(*waiting)


async def test_a_follower_that_gave_up_waiting_wakes_nobody() -> None:
    window = LogTail(0, PLENTY_BYTES)
    gave_up, waits = (asyncio.create_task(window.grown(0)) for _ in range(2))
    await turns_of_the_loop()
    gave_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gave_up
    assert not waits.done()
    append(window, batch_of(1, 1))
    await waits


async def turns_of_the_loop() -> None:
    """Let every task run until it waits: none here needs more than a few turns."""
    for _ in range(5):
        await asyncio.sleep(0)
