"""A real disk becomes full in the middle of closing: nothing is lost, live appends go on, and it is tried again."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.running import eventually_async
from tests.tools import needs_root
from twincast.core.model import DataUpdate
from twincast.history.query import EntriesQuery
from twincast.journal.retention import Retention
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history import apart, schedule
from twincast.journal.sqlite.history.closer import Closed, Job
from twincast.journal.sqlite.history.history import SqliteHistory
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.times import iso
from twincast.journal.sqlite.journal import SqliteJournal

pytestmark = needs_root("to mount a small disk")
ENTRIES = 6_000
PARTITION = 5_000


class Disk:
    """A file system in memory, of a size that can be changed."""

    def __init__(self, path: Path, kib: int) -> None:
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", path], check=True)

    def resize(self, kib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", self.path], check=True)

    def used_kib(self) -> int:
        found = os.statvfs(self.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize // 1_024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk", 64 * 1_024)
    yield disk
    subprocess.run(["umount", "-l", disk.path], check=True)


async def append(journal: SqliteJournal, first: int, count: int) -> None:
    for start in range(first, first + count, 500):
        numbers = range(start, min(start + 500, first + count))
        entries = [DataUpdate(f"d{n % 9}", Raw(b'"%d %s"' % (n, b"x" * 100)), iso(n * 1_000), "rest") for n in numbers]
        await journal.append(batch_of(entries))


@pytest.mark.parametrize("share", [0.2, 0.7, 1.2])
async def test_a_disk_that_becomes_full_while_the_log_is_closed_loses_nothing(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """`share` says how much of what closing takes is there: so it fails in the copy, or in the new file."""
    made, may_close, began = apart.made_here, asyncio.Semaphore(0), 0

    async def later(job: Job) -> Closed:
        nonlocal began
        began += 1
        await may_close.acquire()
        return await made(job)

    monkeypatch.setattr(apart, "made_apart", later)
    monkeypatch.setattr(schedule, "AGAIN_S", 0.05)
    path = str(disk.path / "journal.db")
    journal = await SqliteJournal.open(path, retention=Retention(partition_entries=PARTITION, keep_entries=1_000))
    await append(journal, 1, ENTRIES)
    monkeypatch.setattr(apart, "ROOM_BYTES", -(1 << 40))  # what it looks at first says that there is room
    await eventually_async(lambda: began == 1, "it is about to be closed")
    disk.resize(disk.used_kib() + round(share * PARTITION * 0.15))
    may_close.release()
    await eventually_async(lambda: bool(journal.space().problem), "it has failed")
    assert "full" in (journal.space().problem or "") or "No space" in (journal.space().problem or "")
    await eventually_async(lambda: began == 2, "it is about to be tried again")
    await append(journal, ENTRIES + 1, 200)  # in its -wal there is room, and what was half made is gone
    assert os.listdir(folder_of(path)) == []
    disk.resize(64 * 1_024)
    may_close.release()
    await journal.closed()
    assert journal.space().problem is None
    history = await SqliteHistory.open(path, journal)
    try:
        query = EntriesQuery(
            ("d4",), frozenset({"data_update"}), 0, 1 << 60, 0, 1 << 60, is_descending=False, limit=10_000
        )
        (page,), _ = await history.entries(query)
        assert [entry.seq for entry in page.entries] == [n for n in range(1, ENTRIES + 201) if n % 9 == 4]
    finally:
        await history.close()
    entries = await journal.read(0, 10_000)
    assert [entry.seq for entry in entries] == list(range(1, ENTRIES + 201))
    await journal.close()
    assert problems(path) == []
