"""What the memory journal does beyond the contract: it forgets."""

import pytest
from msgspec import Raw

from tests.fakes import CountingBatch, CountingEntries, batch_of
from twincast.core.model import DataUpdate
from twincast.errors import Truncated
from twincast.journal.memory import MemoryJournal
from twincast.journal.stores import open_stores
from twincast.journal.tail import ENTRY_BYTES


def reading(value: int) -> DataUpdate:
    return DataUpdate("a", Raw(b"%d" % value), "now", "rest")


async def forgetful() -> MemoryJournal:
    """Return a journal of 30 entries that holds the newest ten."""
    journal = MemoryJournal(max_bytes=10 * (ENTRY_BYTES + 2))
    for value in range(10, 40):
        await journal.append(batch_of([reading(value)]))
    return journal


async def test_it_keeps_the_newest_entries_that_its_bytes_hold() -> None:
    journal = await forgetful()
    assert [entry.seq for entry in await journal.read(20, 100)] == list(range(21, 31))


async def test_a_position_before_them_is_truncated_and_says_how_far_back_it_reaches() -> None:
    journal = await forgetful()
    with pytest.raises(Truncated, match="back to 20, not to 19"):
        await journal.read(19, 100)
    with pytest.raises(Truncated):
        await anext(journal.follow(0))


async def test_a_follower_that_became_too_slow_is_told_so() -> None:
    journal = MemoryJournal(max_bytes=2 * (ENTRY_BYTES + 2))
    await journal.append(batch_of([reading(1)]))
    follower = journal.follow(0)
    assert [entry.seq for entry in (await anext(follower)).entries] == [1]
    for value in range(10):
        await journal.append(batch_of([reading(value)]))
    with pytest.raises(Truncated):
        await anext(follower)


async def test_the_state_remembers_what_the_log_forgot() -> None:
    journal = MemoryJournal(max_bytes=ENTRY_BYTES)
    await journal.append(batch_of([DataUpdate("old", Raw(b"1"), "now", "rest")]))
    for value in range(10):
        await journal.append(batch_of([reading(value)]))
    snapshot = await journal.snapshot()
    assert {device: twin.seq for device, twin in snapshot.twins.items()} == {"old": 1, "a": 11}


async def test_each_is_another_log() -> None:
    assert MemoryJournal(max_bytes=1).epoch != MemoryJournal(max_bytes=1).epoch


async def test_open_stores_passes_its_bound() -> None:
    journal, *_ = await open_stores("memory:", memory_max_bytes=ENTRY_BYTES)
    for value in range(3):
        await journal.append(batch_of([reading(value)]))
    with pytest.raises(Truncated):
        await journal.read(0, 1)


async def test_reading_looks_at_what_it_returns_and_not_at_all_batches_before() -> None:
    journal = MemoryJournal(max_bytes=1 << 30)
    for value in range(4_000):
        await journal.append(batch_of([reading(value)], kind=CountingBatch))
    before = CountingEntries.looks
    for since in (3_000, 3_488):
        assert [entry.seq for entry in await journal.read(since, 512)] == list(range(since + 1, since + 513))
    assert 0 < CountingEntries.looks - before < 4 * 1_024
