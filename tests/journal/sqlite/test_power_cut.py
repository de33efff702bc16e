"""The power is cut at any write or sync: every append that returned is there afterwards, any other whole or not."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.power_cut import failing_power
from twincast.core.model import DataUpdate, Deleted, Entry
from twincast.errors import JournalUnavailable
from twincast.journal import retention
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite import trim as sqlite_trim
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.reader import LogReader

CUTS = 100
NOW_UTC = "2026-11-23T16:24:00+00:00"
VALUE = Raw(b'"%b"' % (b"x" * 3_000))  # about a page, so that SQLite moves its WAL into the file now and then


@pytest.fixture(autouse=True)
def frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 100)


def entries_of(size: int, number: int) -> list[Entry]:
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


def write_until_the_cut(file: SqliteFile, chance: random.Random, *, trims: bool) -> list[int]:
    """Append, checkpoint and trim until the power fails; return the batches' sizes, the last one unacknowledged."""
    sizes: list[int] = []
    while True:
        size = chance.choice((1, 3, 40))
        try:
            file.append(batch_of(entries_of(size, len(sizes))))
        except JournalUnavailable:
            return [*sizes, size]
        sizes.append(size)
        try:
            if file.checkpoint_is_due:
                file.checkpoint()
            if trims and (until := file.look(NOW_UTC).until) is not None:
                file.trim(until)
        except JournalUnavailable:
            return [*sizes, 0]


def entries_lost(tmp_path: Path, seed: int, synchronous: str, retention: Retention = KEEP_ALL) -> int:
    """Cut the power once, open what is left, check it, and count the acknowledged entries that are missing at its end.

    Of what was trimmed some may be back, but what is there has no holes, and the state is of all that ever was.
    """
    chance = random.Random(seed)
    before, after = tmp_path / f"{seed}-before", tmp_path / f"{seed}-after"
    before.mkdir()
    after.mkdir()
    with failing_power(seed, calls=chance.randrange(60, 4_000)) as power:
        file = SqliteFile(str(before / "journal.db"), retention=retention, vfs=power.vfs, synchronous=synchronous)
        sizes = write_until_the_cut(file, chance, trims=retention.is_bounded)
        power.restore(after)
        with pytest.raises(JournalUnavailable):
            file.close()

    file = SqliteFile(str(after / "journal.db"))
    reader = LogReader(str(after / "journal.db"), file.lineage.epoch)
    oldest_since = file.look(NOW_UTC).oldest_since
    log = reader.read(oldest_since, limit=1_000_000)
    reader.close()
    newest_seq, twins = file.seq, file.snapshot().twins
    file.close()
    assert problems(str(after / "journal.db")) == []
    of_batch = [f"batch {number}" for number, size in enumerate(sizes) for _ in range(size)]
    stored = list(enumerate(of_batch[:newest_seq], 1))
    assert [(entry.seq, entry.timestamp_utc) for entry in log] == stored[oldest_since:]
    ever = [entry for number, size in enumerate(sizes) for entry in entries_of(size, number)][:newest_seq]
    for seq, entry in enumerate(ever, 1):
        entry.seq = seq
    assert {device_id: twin.seq for device_id, twin in twins.items()} == newest_of(ever)
    acknowledged = sum(sizes[:-1])
    if newest_seq > acknowledged:
        assert newest_seq == acknowledged + sizes[-1], "a batch is stored whole or not at all"
    return max(0, acknowledged - newest_seq)


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert sum(entries_lost(tmp_path, seed, "full") for seed in range(CUTS)) == 0


@pytest.mark.parametrize("keep_entries", [0, 150])
def test_a_power_cut_while_trimming_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_entries: int
) -> None:
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(sqlite_trim, "SLICE_ENTRIES", 40)
    monkeypatch.setattr(sqlite_trim, "SLACK_BYTES", 8_192)
    kept = Retention(keep_bytes=200_000, keep_entries=keep_entries)
    assert sum(entries_lost(tmp_path, seed, "full", kept) for seed in range(CUTS // 4)) == 0


def test_without_a_sync_at_each_commit_a_power_cut_does_lose_something(tmp_path: Path) -> None:
    """The control: with synchronous NORMAL the same test must fail, or it would not test anything."""
    assert sum(entries_lost(tmp_path, seed, "normal") for seed in range(CUTS)) > 0
