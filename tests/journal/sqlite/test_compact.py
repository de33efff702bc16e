"""A journal becomes smaller and stays what it was, whatever ends the work."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.full_disk import full_disk
from tests.journal.sqlite.history.disk import HistoryDisk
from tests.journal.sqlite.history.making import Row, close_log, late, log_of, reading, rows, write, write_rows
from tests.journal.sqlite.power_cut import PowerCut, failing_power
from tests.running import ROOT
from tests.tools import needs_root
from twincast.core.model import DataUpdate
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.sqlite import compact as sqlite_compact
from twincast.journal.sqlite.compact import Compacted, compact, groups
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history import files
from twincast.journal.sqlite.history.catalog import CLOSED, Part
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.reader import LogReader

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
KILLS = int(os.environ.get("TWINCAST_TEST_KILLS", "5"))
CUTS = 12


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal in 40 small partitions, with free pages, late readings and the state of devices that went silent."""
    return made(tmp_path / "twincast.db")


def made(path: Path) -> Path:
    entries = [reading("silent", '"early"', 1)]
    for n in range(2, 802):
        if n % 50 == 0:
            entries.append(late(f"d/{n % 3}", str(n), n, "2026-11-22T00:00:00.000000+00:00"))
        else:
            entries.append(reading(f"d/{n % 7}", f'{{"n":{n},"pad":"{"x" * 300}"}}', n))
    write(path, entries)
    close_log(str(path), 20)
    return path


def run(path: Path, vfs: str | None = None) -> Compacted:
    return compact(str(path), now_utc=NOW_UTC, progress=lambda _what, _done, _total: None, vfs=vfs)


def all_of(path: Path) -> list[tuple[int, str, bytes, str]]:
    with closing(SqliteFile(str(path))) as file, closing(LogReader(str(path), file.epoch)) as reader:
        since = file.look(NOW_UTC).oldest_since
        return [
            (each.seq, each.subject, bytes(each.payload), each.timestamp_utc) for each in reader.read(since, 10_000)
        ]


def parts(path: Path) -> list[Row]:
    return rows(path, "select first_seq, last_seq, file, entries from part order by first_seq")


def test_it_is_smaller_and_has_what_it_had(path: Path) -> None:
    log, twins = all_of(path), rows(path, "select * from twin order by device_id")
    before = path.stat().st_size
    told: list[tuple[str, int, int]] = []
    done = compact(str(path), now_utc=NOW_UTC, progress=lambda *what: told.append(what))
    assert (done.parts_before, done.parts_after) == (40, 20)
    assert done.bytes_after < done.bytes_before
    assert path.stat().st_size < before / 2
    assert not os.path.exists(f"{path}-wal")
    assert all_of(path) == log
    assert rows(path, "select * from twin order by device_id") == twins
    assert problems(str(path)) == []
    assert sorted(os.listdir(folder_of(str(path)))) == [row[2] for row in parts(path)]
    assert ("merging partitions", 800, 800) in told
    assert told[-1][0] == "removing free pages" and told[-1][1] == told[-1][2]
    assert run(path).parts_after == 20, "and once more changes nothing"


def test_what_a_kill_left_in_the_wal_counts_as_taken_before(path: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed" / "twincast.db"
    killed.parent.mkdir()
    with closing(apsw.Connection(str(path))) as db:
        db.pragma("wal_autocheckpoint", 0)
        for number in range(200):
            db.execute("replace into meta (name, value) values ('filler', ?)", (number,))
        for name in path, Path(f"{path}-wal"):
            shutil.copy(name, killed.parent)
        shutil.copytree(folder_of(str(path)), folder_of(str(killed)))
    sizes = [each.stat().st_size for each in killed.parent.rglob("*") if each.is_file()]
    assert Path(f"{killed}-wal").stat().st_size > killed.stat().st_size
    done = run(killed)
    assert done.bytes_before == sum(sizes)
    assert done.bytes_after == sum(each.stat().st_size for each in killed.parent.rglob("*.db"))


def test_a_merged_partition_is_what_it_would_be_had_it_been_closed_so(path: Path, tmp_path: Path) -> None:
    (tmp_path / "at once").mkdir()
    other = tmp_path / "at once" / "twincast.db"
    write(other, [])
    made_at_once(path, other)
    run(path)
    for before, merged in zip(parts(other), parts(path), strict=True):
        one, two = (Path(folder_of(str(each))) / part[2] for each, part in ((other, before), (path, merged)))
        for table in "entry", "rollup", "state", "claimed", "unordered", "device", "path":
            assert sorted(rows(two, f"select * from {table}")) == sorted(rows(one, f"select * from {table}")), table
        assert rows(two, "select value from about where name = 'state_is_whole'") == [("1",)]
        assert log_of(two) == log_of(one)


def made_at_once(path: Path, other: Path) -> None:
    """Make a journal with the entries of another one, closed in parts of twice the size."""
    with closing(SqliteFile(str(path))) as file:
        named = [Path(folder_of(str(path))) / part.file for part in file.partitions.parts]
    log = [row for each in named for row in log_of(each)] + log_of(path, 801)
    write_rows(other, log)
    SqliteFile(str(other)).close()
    close_log(str(other), 40)


def test_of_small_neighbours_so_many_become_one_that_enough_are_left() -> None:
    def parts_of(sizes: Sequence[int], kinds: Sequence[str] = ()) -> list[Part]:
        found, first = [], 1
        for number, size in enumerate(sizes):
            kind = kinds[number] if kinds else CLOSED
            found.append(Part(first, first + size - 1, f"{first}", 0, 0, 0, 0, size, 1, "", kind, NOW_UTC))
            first += size
        return found

    def sizes(parts: Sequence[Part]) -> list[int]:
        return [len(group) for group in groups(parts)]

    assert sizes(parts_of([10] * 16)) == []
    assert sizes(parts_of([10] * 64)) == [4] * 16
    assert sizes(parts_of([10] * 640)) == [8] * 80
    assert sizes(parts_of([1_000_000] * 100)) == []
    assert sizes(parts_of([300_000] * 100)) == [3] * 33
    assert sizes(parts_of([10] * 64, ([CLOSED] * 3 + ["thinned"]) * 16)) == [3] * 16
    holed = parts_of([10] * 64)
    del holed[2]
    assert sizes(holed)[:2] == [2, 3]
    assert all(a.last_seq + 1 == b.first_seq for group in groups(holed) for a, b in pairwise(group))


def test_a_journal_with_a_server_is_left_alone(path: Path) -> None:
    with closing(SqliteFile(str(path))) as file:
        before = sorted(os.listdir(folder_of(str(path))))
        with pytest.raises(JournalUnusable, match=r"a server runs on .*\. A journal is compacted while no"):
            run(path)
        assert sorted(os.listdir(folder_of(str(path)))) == before
        file.append(batch_of([DataUpdate("d", Raw(b"1"), NOW_UTC, "rest")]))


@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_a_partition_that_is_not_what_it_was_is_named_and_all_else_is_made_smaller(path: Path, what: str) -> None:
    lost = parts(path)[1]
    file = Path(folder_of(str(path))) / lost[2]
    if what == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    content = file.read_bytes() if file.exists() else None
    done = run(path)
    (problem,) = done.problems
    assert problem.startswith(f"{file} is {what}: put the file of the same name")
    assert lost in parts(path)
    assert done.parts_after < done.parts_before
    assert content == (file.read_bytes() if file.exists() else None)
    (said,) = problems(str(path))
    assert str(file) in said
    assert run(path).problems == [problem], "and one that there is nothing to merge for is named too"


def test_what_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match="there is no journal"):
        run(tmp_path / "mistyped.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes").write_text("# Notes\n" * 1_000)
    with pytest.raises(JournalUnusable, match="is not a journal"):
        run(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "# Notes\n" * 1_000


def test_a_disk_that_is_full_half_way_leaves_the_file_as_it_was(path: Path) -> None:
    run(path)
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of([DataUpdate("d", Raw(b'"%s"' % (b"y" * 500)), NOW_UTC, "rest")] * 200))
    log, before = all_of(path), path.stat().st_size
    with full_disk() as disk:

        def filling(what: str, _done: int, _total: int) -> None:
            disk.is_full = True

        with pytest.MonkeyPatch.context() as patch, pytest.raises(JournalUnusable, match="is full: nothing is lost"):
            patch.setattr(sqlite_compact, "_STEPS", 50)
            compact(str(path), now_utc=NOW_UTC, progress=filling, vfs=disk.vfs)
    assert path.stat().st_size == before
    assert all_of(path) == log
    assert problems(str(path)) == []


@needs_root("to mount a small disk")
def test_a_disk_without_room_for_a_while_is_said_before_anything_is_done(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=True)
    try:
        path = made(disk / "twincast.db")
        log, before = all_of(path), parts(path)
        room = os.statvfs(disk)
        (disk / "filling").write_bytes(bytes(room.f_bavail * room.f_frsize - 4_096))
        with pytest.raises(JournalUnusable, match=r"bytes free, and .* are needed for a while: nothing is lost"):
            run(path)
        (disk / "filling").unlink()
        assert parts(path) == before
        assert all_of(path) == log
        assert run(path).parts_after == 20
    finally:
        subprocess.run(["umount", disk], check=True)


# Cuts of the power, and kills.


def is_damaged(path: Path, place: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *, syncs: bool) -> bool:
    """Cut the power once while a copy of a journal is compacted, and return whether it is another than it was."""
    chance = random.Random(seed)
    before, after = (place / f"{seed}-{when}" / path.name for when in ("before", "after"))
    before.parent.mkdir()
    after.parent.mkdir()
    subprocess.run(["cp", "-r", path, folder_of(str(path)), before.parent], check=True)
    with failing_power(seed, calls=chance.randrange(1, 400)) as power, monkeypatch.context() as patch:
        power.know(before)
        disk = HistoryDisk(folder_of(str(before)), power, chance)
        disk.know()
        patch.setattr(files, "sync", disk.sync if syncs else lambda path: None)
        patch.setattr(files, "sync_folder", disk.sync_folder)
        with suppress(JournalUnusable, PowerCut, apsw.Error):
            run(before, power.vfs)
        power.restore(after.parent)
        disk.restore(folder_of(str(after)))
    with suppress(JournalUnusable, JournalUnavailable):
        return all_of(after) != all_of(path) or problems(str(after)) != []
    return True


@pytest.mark.parametrize("syncs", [True, False], ids=["it loses nothing", "the control: without syncs it would"])
def test_if_the_power_is_cut(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: bool) -> None:
    place = tmp_path / "cuts"
    place.mkdir()
    damaged = sum(is_damaged(path, place, seed, monkeypatch, syncs=syncs) for seed in range(CUTS))
    assert damaged == 0 if syncs else damaged > 0


def test_kill_nine_at_any_moment_leaves_the_journal_what_it_was(path: Path, tmp_path: Path) -> None:
    log, chance = all_of(path), random.Random(3)
    for number in range(KILLS):
        copy = tmp_path / str(number) / path.name
        copy.parent.mkdir()
        subprocess.run(["cp", "-r", path, folder_of(str(path)), copy.parent], check=True)
        code = (
            "import sys; from twincast.journal.sqlite import compact;"
            f"compact._STEPS = 200; compact.compact({str(copy)!r}, now_utc={NOW_UTC!r},"
            " progress=lambda what, done, total: print(done, flush=True))"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 24)):
                process.stdout.readline()
            time.sleep(chance.random() / 100)
            process.send_signal(signal.SIGKILL)
        assert all_of(copy) == log
        assert problems(str(copy)) == []
        assert sorted(os.listdir(folder_of(str(copy)))) == [row[2] for row in parts(copy)]
