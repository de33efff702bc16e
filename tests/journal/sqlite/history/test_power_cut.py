"""The power is cut while the log is closed, trimmed and dropped: nothing is lost, each file is as its digest says."""

import os
import random
from contextlib import suppress
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.history.disk import HistoryDisk
from tests.journal.sqlite.power_cut import PowerCut, failing_power
from twincast.core.model import DataUpdate, Entry
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal import retention
from twincast.journal.retention import Retention
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite import trim as sqlite_trim
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history import files
from twincast.journal.sqlite.history.catalog import CLOSED, ROLLUP, Part
from twincast.journal.sqlite.history.closer import Job, Rewriting, Summing, close, sum_up, write_anew
from twincast.journal.sqlite.history.layout import folder_of, summary_name
from twincast.journal.sqlite.history.rewrite import EVERYTHING
from twincast.journal.sqlite.history.thinning import thinned_part
from twincast.journal.sqlite.history.times import iso
from twincast.journal.sqlite.reader import LogReader

CUTS = int(os.environ.get("TWINCAST_TEST_CUTS", "15"))
CONTROL_CUTS = 15
PARTITION = 60
NOW_UTC = "2026-11-23T16:24:00.000000+00:00"


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 50)
    monkeypatch.setattr(sqlite_trim, "SLICE_ENTRIES", 40)
    monkeypatch.setattr(sqlite_trim, "SLACK_BYTES", 8_192)
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(retention, "CLOSING_BYTES", 1)


def entries_of(first: int, size: int) -> list[Entry]:
    return [
        DataUpdate(f"d{seq % 7}", Raw(f'"{seq} {"x" * 200}"'.encode()), iso(1_800_000_000_000_000 + seq), "rest")
        for seq in range(first, first + size)
    ]


def close_next(file: SqliteFile, journal: str, first: int) -> None:
    """Close a span as the schedule does, in this thread."""
    last = first + PARTITION - 1
    new = files.new_file(journal, first)
    before = files.path_of(journal, file.partitions.parts[-1]) if file.partitions.parts else None
    made = close(Job(journal, new, first, last, file.epoch, before, share=1))
    name = files.settle(new, first)
    times = made.min_us, made.max_us, made.stored_min_us, made.stored_max_us
    file.partitions.add(Part(first, last, name, *times, made.entries, made.bytes, made.sha256, CLOSED, NOW_UTC))


def left_of(journal: str, part: Part) -> Part:
    """Make what is left of a partition as `summaries` does, in this thread."""
    name = summary_name(part.first_seq)
    new = os.path.join(folder_of(journal), f"{name}.1.new")
    made = sum_up(Summing(files.path_of(journal, part), new, share=1))
    files.settle_as(new, name)
    return part._replace(file=name, bytes=made.bytes, sha256=made.sha256, kind=ROLLUP)


def thin_oldest(file: SqliteFile, journal: str) -> None:
    """Write the oldest partition anew without a device, as `thinning` does, in this thread."""
    for part in file.partitions.parts[:-1]:
        if part.kind == CLOSED and part.last_seq <= file.hot_since():
            new = files.new_file(journal, part.first_seq)
            source = files.path_of(journal, part)
            made = write_anew(Rewriting(source, new, without=[("d3", EVERYTHING)], keeps_places=False, share=1))
            name = files.settle_anew(new, part.file)
            file.partitions.replace(part, thinned_part(part, name, made))
            files.unlink(journal, [part])
            return


def write_until_the_cut(file: SqliteFile, journal: str, kept: Retention, chance: random.Random) -> list[int]:
    """Append, close, trim and drop until the power fails; return how much was stored for certain, and perhaps."""
    while True:
        size = chance.choice((3, 20, 40))
        try:
            file.append(batch_of(entries_of(file.seq + 1, size)))
        except (JournalUnavailable, PowerCut):
            return [file.seq, file.seq + size]
        try:
            if file.checkpoint_is_due:
                file.checkpoint()
            if file.seq - (closed := file.closed_seq()) >= PARTITION:
                close_next(file, journal, closed + 1)
            if kept.keep_for:
                thin_oldest(file, journal)
            look = file.look(NOW_UTC)
            if gone := (*look.forgotten, *look.dropped):
                is_left = kept.keep_rollups_s is not None
                file.partitions.drop(gone, [left_of(journal, part) for part in look.dropped] if is_left else ())
                files.unlink(journal, gone)
            if look.until is not None:
                file.trim(look.until)
        except (JournalUnavailable, apsw.Error):
            return [file.seq, file.seq]


def is_damaged(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, kept: Retention, *, syncs: bool) -> bool:
    """Cut the power once, and return whether anything is lost, or another than it was, of what is left."""
    chance = random.Random(seed)
    before, after = (tmp_path / f"{seed}-{when}" / "journal.db" for when in ("before", "after"))
    before.parent.mkdir()
    after.parent.mkdir()
    with failing_power(seed, calls=chance.randrange(100, 1_200)) as power:
        disk = HistoryDisk(folder_of(str(before)), power, chance)
        monkeypatch.setattr(files, "sync", disk.sync if syncs else lambda path: None)
        monkeypatch.setattr(files, "sync_folder", disk.sync_folder)
        file = SqliteFile(str(before), retention=kept, vfs=power.vfs)
        certain, perhaps = write_until_the_cut(file, str(before), kept, chance)
        power.restore(after.parent)
        disk.restore(folder_of(str(after)))
        with suppress(JournalUnavailable, apsw.Error):
            file.close()
    try:
        file = SqliteFile(str(after))
        reader = LogReader(str(after), file.lineage.epoch)
        oldest_since, newest = file.look(NOW_UTC).oldest_since, file.seq
        parts = (*file.partitions.parts, *file.partitions.summaries)
        log = reader.read(oldest_since, limit=1_000_000)
        reader.close()
        twins = file.snapshot().twins
        file.close()
    except (JournalUnavailable, JournalUnusable):
        return True
    folder = folder_of(str(after))
    named = sorted(part.file for part in parts)
    expected = entries_of(oldest_since + 1, newest - oldest_since)
    return not (
        problems(str(after)) == []
        and (sorted(os.listdir(folder)) if os.path.isdir(folder) else []) == named
        and certain <= newest <= perhaps
        and [(each.seq, each.payload, each.timestamp_utc) for each in log]
        == [(seq, each.payload, each.timestamp_utc) for seq, each in enumerate(expected, oldest_since + 1)]
        and max((twin.seq for twin in twins.values()), default=0) == newest
        and (kept.is_bounded or bool(kept.keep_for) or oldest_since == 0)
    )


def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Retention, *, syncs: bool, cuts: int = CUTS) -> int:
    return sum(is_damaged(tmp_path, seed, monkeypatch, kept, syncs=syncs) for seed in range(cuts))


@pytest.mark.parametrize(
    "kept",
    [
        Retention(partition_entries=PARTITION, keep_entries=30),
        Retention(partition_entries=PARTITION, keep_entries=30, keep_bytes=800_000),
        Retention(partition_entries=PARTITION, keep_entries=30, keep_bytes=800_000, keep_rollups_s=1e9),
        Retention(partition_entries=PARTITION, keep_entries=30, keep_for=(("d3", 1.0),)),
    ],
    ids=["everything", "some bytes", "some bytes and the sums of the rest", "less of a device"],
)
def test_a_power_cut_loses_nothing_and_leaves_no_file_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Retention
) -> None:
    assert damaged(tmp_path, monkeypatch, kept, syncs=True) == 0


def test_if_the_catalog_came_before_the_sync_a_power_cut_would_damage_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: where the new file is not on the disk when the catalog names it, the same test must fail."""
    kept = Retention(partition_entries=PARTITION, keep_entries=30)
    assert damaged(tmp_path, monkeypatch, kept, syncs=False, cuts=CONTROL_CUTS) > 0
