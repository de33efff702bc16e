"""The log read back in blocks: what one costs."""

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import Raw

from tests.fakes import CountingBatch, CountingEntries, batch_of
from twincast.core.model import DataUpdate, Entry
from twincast.delivery.cast import Cast
from twincast.errors import TwincastError
from twincast.hub import readback
from twincast.hub.readback import BLOCK_MAX_BYTES, ReadBack
from twincast.journal.memory import MemoryJournal

TIMEOUT_S = 10


class RecordingJournal(MemoryJournal):
    """A journal that remembers how much was read of it; its memory may forget, so that it is read as from a disk."""

    def __init__(self, *, is_forgetful: bool = False) -> None:
        super().__init__(max_bytes=1 << 30)
        self.reads_bytes: list[int] = []
        self._is_forgetful = is_forgetful

    def recent(self, since: int, limit: int = 1) -> Sequence[Entry]:
        return () if self._is_forgetful else super().recent(since, limit)

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        entries = await super().read(since, limit, max_bytes=max_bytes)
        self.reads_bytes.append(sum(len(bytes(entry.value)) for entry in entries if isinstance(entry, DataUpdate)))
        return entries


async def filled(journal: RecordingJournal, count: int, size_bytes: int) -> RecordingJournal:
    value = b'"%b"' % (b"x" * (size_bytes - 2))
    for _ in range(count):
        await journal.append(batch_of([DataUpdate("a", Raw(value), "now", "rest")]))
    return journal


async def read_all(journal: RecordingJournal, until: int) -> list[Cast]:
    blocks: list[Cast] = []
    log = ReadBack(journal)
    running = asyncio.create_task(log.run())
    since = 0
    try:
        while since < until:
            taken: asyncio.Future[Cast | TwincastError] = asyncio.get_running_loop().create_future()
            block: Cast | TwincastError | None = log.read(since, until, taken.set_result)
            if block is None:
                block = await asyncio.wait_for(taken, TIMEOUT_S)
            assert isinstance(block, Cast)
            blocks.append(block)
            since = block.entries[-1].seq
    finally:
        running.cancel()
        await asyncio.wait([running])
    return blocks


@pytest.mark.parametrize("is_forgetful", [False, True])
async def test_all_blocks_together_are_the_log(is_forgetful: bool) -> None:
    journal = await filled(RecordingJournal(is_forgetful=is_forgetful), 700, 1_000)
    blocks = await read_all(journal, 700)
    assert [entry.seq for block in blocks for entry in block.entries] == list(range(1, 701))
    assert all(len(block.messages) == len(block.entries) for block in blocks)
    assert max(block.size_bytes for block in blocks) <= BLOCK_MAX_BYTES + 1_200


async def test_a_block_reads_no_more_of_the_journal_than_it_holds() -> None:
    journal = await filled(RecordingJournal(is_forgetful=True), 20, 100_000)
    assert len(await read_all(journal, 20)) == 7
    assert max(journal.reads_bytes) <= BLOCK_MAX_BYTES + 100_000
    assert sum(journal.reads_bytes) == 20 * 100_000


async def test_a_block_of_what_memory_has_encodes_no_more_than_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []

    def encode(entry: object) -> bytes:
        encoded.append(entry)
        return b"x" * 100_000

    monkeypatch.setattr(readback, "encode", encode)
    journal = await filled(RecordingJournal(), 20, 10)
    assert len(await read_all(journal, 20)) == 7
    assert len(encoded) == 20


async def test_a_block_of_small_batches_looks_at_those_of_the_block_and_not_at_all_before() -> None:
    journal = RecordingJournal()
    for _ in range(4_096):
        await journal.append(batch_of([DataUpdate("a", Raw(b"1"), "now", "rest")], kind=CountingBatch))
    before = CountingEntries.looks
    block = ReadBack(journal).read(3_072, 4_096, lambda _: None)
    assert block is not None
    assert [entry.seq for entry in block.entries] == list(range(3_073, 3_585))
    assert 0 < CountingEntries.looks - before < 4 * 512
