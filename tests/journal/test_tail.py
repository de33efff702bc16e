"""The end of the log in memory: what it keeps, what it lets go, whom it wakes."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.batch import Committed
from twincast.core.model import Control, DataUpdate
from twincast.journal.tail import ENTRY_BYTES, LogTail

PLENTY_BYTES = 1 << 40


def batch_of(first_seq: int, size: int, value: bytes = b"1") -> Committed:
    return Committed([DataUpdate("a", Raw(value), "", "rest", seq) for seq in range(first_seq, first_seq + size)])


def filled(sizes: list[int], max_bytes: int = PLENTY_BYTES, seq: int = 0) -> LogTail:
    window = LogTail(seq, max_bytes)
    for size in sizes:
        window.append(batch_of(window.seq + 1, size))
    return window


def test_a_new_window_stands_at_the_position_of_its_log_and_holds_nothing() -> None:
    window = LogTail(41, PLENTY_BYTES)
    assert (window.since, window.seq, window.read(41)) == (41, 41, None)


def test_a_follower_that_keeps_up_gets_the_very_batch_that_was_appended() -> None:
    window = filled([3])
    batch = batch_of(4, 2)
    window.append(batch)
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
    window.append(Committed([DataUpdate("a", Raw(b"x" * 5_000), "", "rest", 1)]))
    window.append(Committed([Control("a", "on", Raw(b"x" * 4_000), "", "rest", 2)]))
    assert window.since == 0
    window.append(batch_of(3, 1, b"x" * 500))
    assert window.since == 1


async def test_grown_returns_at_once_when_there_is_an_entry() -> None:
    await filled([2]).grown(1)


async def test_an_append_wakes_every_follower_that_waits_for_it_and_no_other() -> None:
    window = LogTail(0, PLENTY_BYTES)
    waiting = [asyncio.create_task(window.grown(since)) for since in (0, 0, 1, 2)]
    await turns_of_the_loop()
    assert [task.done() for task in waiting] == [False] * 4
    window.append(batch_of(1, 1))
    await turns_of_the_loop()
    assert [task.done() for task in waiting] == [True, True, False, False]
    window.append(batch_of(2, 2))
    await asyncio.gather(*waiting)


async def test_a_follower_that_gave_up_waiting_wakes_nobody() -> None:
    window = LogTail(0, PLENTY_BYTES)
    gave_up, waits = (asyncio.create_task(window.grown(0)) for _ in range(2))
    await turns_of_the_loop()
    gave_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gave_up
    assert not waits.done()
    window.append(batch_of(1, 1))
    await waits


async def turns_of_the_loop() -> None:
    """Let every task run until it waits: none here needs more than a few turns."""
    for _ in range(5):
        await asyncio.sleep(0)
