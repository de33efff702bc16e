"""The power is cut at any write or sync: every append that returned is there afterwards, any other whole or not."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import Raw

from tests.journal.power_cut import failing_power
from twincast.core.model import DataUpdate, Deleted, Entry
from twincast.errors import JournalUnavailable
from twincast.journal import sqlite_file
from twincast.journal.sqlite_file import SqliteFile
from twincast.journal.sqlite_reader import LogReader

CUTS = 100
VALUE = Raw(b'"%b"' % (b"x" * 3_000))  # about a page, so that SQLite moves its WAL into the file now and then


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 100)


def batch_of(size: int, number: int) -> list[Entry]:
    """Make a batch whose every entry says which batch it is of; now and then it deletes a device."""
    at = f"batch {number}"
    return [
        Deleted(f"d{(i + number) % 7}", at, "rest")
        if (i + number) % 5 == 0
        else DataUpdate(f"d{i % 7}", VALUE, at, "rest")
        for i in range(size)
    ]


def newest_of(log: Sequence[Entry]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for entry in log:
        if isinstance(entry, DataUpdate):
            newest[entry.device_id] = entry.seq
        elif isinstance(entry, Deleted):
            newest.pop(entry.device_id, None)
    return newest


def write_until_the_cut(file: SqliteFile, chance: random.Random) -> list[int]:
    """Append and checkpoint until the power fails; return the sizes of the batches, the last one unacknowledged."""
    sizes: list[int] = []
    while True:
        size = chance.choice((1, 3, 40))
        try:
            file.append(batch_of(size, len(sizes)))
        except JournalUnavailable:
            return [*sizes, size]
        sizes.append(size)
        try:
            if file.checkpoint_is_due:
                file.checkpoint()
        except JournalUnavailable:
            return [*sizes, 0]


def entries_lost(tmp_path: Path, seed: int, synchronous: str) -> int:
    """Cut the power once, open what is left, check it, and count the acknowledged entries that are missing."""
    chance = random.Random(seed)
    before, after = tmp_path / f"{seed}-before", tmp_path / f"{seed}-after"
    before.mkdir()
    after.mkdir()
    with failing_power(seed, calls=chance.randrange(60, 4_000)) as power:
        file = SqliteFile(str(before / "journal.db"), vfs=power.vfs, synchronous=synchronous)
        sizes = write_until_the_cut(file, chance)
        power.restore(after)
        with pytest.raises(JournalUnavailable):
            file.close()

    file = SqliteFile(str(after / "journal.db"))
    reader = LogReader(str(after / "journal.db"), file.lineage.epoch)
    log = reader.read(0, limit=1_000_000)
    reader.close()
    twins = file.snapshot().twins
    file.close()
    of_batch = [f"batch {number}" for number, size in enumerate(sizes) for _ in range(size)]
    assert [(entry.seq, entry.timestamp_utc) for entry in log] == list(enumerate(of_batch[: len(log)], 1))
    assert {device_id: twin.seq for device_id, twin in twins.items()} == newest_of(log)
    acknowledged = sum(sizes[:-1])
    if len(log) > acknowledged:
        assert len(log) == acknowledged + sizes[-1], "a batch is stored whole or not at all"
    return max(0, acknowledged - len(log))


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert sum(entries_lost(tmp_path, seed, "full") for seed in range(CUTS)) == 0


def test_without_a_sync_at_each_commit_a_power_cut_does_lose_something(tmp_path: Path) -> None:
    """The control: with synchronous NORMAL the same test must fail, or it would not test anything."""
    assert sum(entries_lost(tmp_path, seed, "normal") for seed in range(CUTS)) > 0
