"""A backup that is made again takes what is new, and is at each moment the earlier one or the new one, whole."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from msgspec import Raw

from tests.conftest import StartServer
from tests.fakes import batch_of
from tests.journal.sqlite.cut_disk import CutDisk, PowerCut
from tests.journal.sqlite.history.making import close_log, log_of
from tests.running import ROOT, eventually
from tests.tools import needs_root
from twincast.core.model import DataUpdate
from twincast.errors import BackupUnusable, JournalUnusable
from twincast.journal.sqlite import backup as sqlite_backup
from twincast.journal.sqlite import backup_parts
from twincast.journal.sqlite.backup import check_backup, restore
from twincast.journal.sqlite.backup_manifest import BackupFile, Manifest
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.history import catalog, files
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.wal import alone

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
KILLS = int(os.environ.get("TWINCAST_TEST_KILLS", "5"))
SEEDS = 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal whose log is in three partitions but for its end."""
    path = tmp_path / "twincast.db"
    grow(path, 50)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def grow(path: Path, entries: int) -> None:
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of([DataUpdate(f"d/{n}", Raw(b'"%d"' % n), NOW_UTC, "rest") for n in range(entries)]))
    close_log(str(path), 15)


def back_up(path: Path, folder: Path, told: Callable[[int, int], None] = lambda _done, _total: None) -> Manifest:
    return sqlite_backup.back_up(str(path), str(folder), version="0", now_utc=NOW_UTC, progress=told)


def all_of(path: Path) -> list[tuple[int, bytes]]:
    with closing(SqliteFile(str(path))) as file, closing(LogReader(str(path), file.epoch)) as reader:
        since = file.look(NOW_UTC).oldest_since
        return [(entry.seq, bytes(entry.payload)) for entry in reader.read(since, 10_000)]


def restored(folder: Path, place: Path) -> list[tuple[int, bytes]]:
    place.mkdir()
    restore(str(folder), str(place / "j.db"), force=False, now_utc=NOW_UTC, progress=lambda _done, _total: None)
    return all_of(place / "j.db")


def inodes(folder: Path) -> dict[str, int]:
    return {each.name: each.stat().st_ino for each in (folder / "journal.db-history").iterdir()}


def test_what_it_has_stays_and_what_is_new_is_linked(path: Path, folder: Path, tmp_path: Path) -> None:
    back_up(path, folder)
    first = inodes(folder)
    assert first == {name: (Path(folder_of(str(path))) / name).stat().st_ino for name in first}
    grow(path, 40)
    told: list[tuple[int, int]] = []
    manifest = back_up(path, folder, lambda done, total: told.append((done, total)))
    assert first.items() < inodes(folder).items()
    assert len(inodes(folder)) == len(manifest.files) - 1 == 5
    assert told[-1] == (sum(file.bytes for file in manifest.files[1:]),) * 2
    assert check_backup(str(folder)) == manifest
    assert restored(folder, tmp_path / "back") == all_of(path)
    assert sorted(each.name for each in folder.iterdir()) == ["journal.db", "journal.db-history", "manifest.json"]


def test_where_no_link_can_be_made_only_what_is_new_is_copied(
    path: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system")

    copied: list[str] = []

    def copy(source: str, target: str, file: BackupFile, progress: Callable[[int], None]) -> None:
        copied.append(file.name)
        kept(source, target, file, progress)

    kept = backup_parts.copy_checked
    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(backup_parts, "copy_checked", copy)
    back_up(path, folder)
    assert copied == [f"{first:012}.db" for first in (1, 16, 31)]
    grow(path, 40)
    copied.clear()
    back_up(path, folder)
    assert copied == [f"{first:012}.db" for first in (46, 61)]
    check_backup(str(folder))
    assert restored(folder, tmp_path / "back") == all_of(path)


def test_what_the_journal_has_dropped_goes_from_the_backup_too(path: Path, folder: Path) -> None:
    back_up(path, folder)
    with closing(SqliteFile(str(path))) as file:
        drop(path, file)
    manifest = back_up(path, folder)
    assert [file.name for file in manifest.files[1:]] == [f"journal.db-history/{first:012}.db" for first in (16, 31)]
    assert sorted(inodes(folder)) == [f"{first:012}.db" for first in (16, 31)]
    check_backup(str(folder))


def drop(path: Path, file: SqliteFile) -> None:
    files.unlink(str(path), file.partitions.drop(file.partitions.parts[:1]))


def test_a_file_of_the_same_name_that_is_another_stays_until_the_end_and_gets_another_name_beside(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    """As after a partition was made anew; and where one in the backup was damaged."""
    back_up(path, folder)
    damaged = folder / "journal.db-history" / "000000000016.db"
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1] + b"!")
    with pytest.raises(BackupUnusable, match="was changed"):
        check_backup(str(folder))
    manifest = back_up(path, folder)
    assert [file.name for file in manifest.files[1:]] == [
        f"journal.db-history/{name}.db" for name in ("000000000001", "000000000016-1", "000000000031")
    ]
    check_backup(str(folder))
    assert restored(folder, tmp_path / "back") == all_of(path)
    assert not damaged.exists()


def test_what_went_meanwhile_is_not_in_it_and_what_was_replaced_meanwhile_is_taken_as_it_is_then(
    path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = backup_parts._taken
    changes: list[Callable[[SqliteFile], None]] = []

    with closing(SqliteFile(str(path))) as file:

        def after_a_change(part: catalog.Part, *rest: object) -> str | None:
            while changes:
                changes.pop()(file)
            return taken(part, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(backup_parts, "_taken", after_a_change)
        changes.append(lambda file: drop(path, file))
        assert [each.name[-7:-3] for each in back_up(path, folder).files[1:]] == ["0016", "0031"]
        shutil.rmtree(folder)
        changes.append(lambda file: rename(path, file, "000000000031.db", "000000000031-1.db"))
        assert [each.name[-9:-3] for each in back_up(path, folder).files[1:]] == ["000016", "0031-1"]
    check_backup(str(folder))


def rename(path: Path, file: SqliteFile, before: str, after: str) -> None:
    os.rename(Path(folder_of(str(path))) / before, Path(folder_of(str(path))) / after)
    [part] = [part for part in file.partitions.parts if part.file == before]
    file.partitions.add(part._replace(file=after))


def test_a_journal_that_lacks_what_the_backup_has_does_not_replace_it(path: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "older.db")
    grow(path, 5)
    manifest = back_up(path, folder)
    with pytest.raises(BackupUnusable, match="that reaches further than this journal"):
        back_up(tmp_path / "older.db", folder)
    grow(tmp_path / "another.db", 50)
    with pytest.raises(BackupUnusable, match="has a backup of another log"):
        back_up(tmp_path / "another.db", folder)
    assert check_backup(str(folder)) == manifest


def test_a_backup_that_is_served_as_a_journal_is_not_replaced(path: Path, folder: Path) -> None:
    back_up(path, folder)
    grow(folder / "journal.db", 3)
    with pytest.raises(BackupUnusable, match="was changed, or is in use as a journal"):
        back_up(path, folder)
    assert len(log_of(folder / "journal.db")) == 8


def test_two_backups_are_not_made_in_one_folder_at_a_time(path: Path, folder: Path) -> None:
    said: list[str] = []

    def again(_done: int, _total: int) -> None:
        with pytest.raises(BackupUnusable, match="another backup is being made") as refused:
            back_up(path, folder)
        said.append(refused.value.message)

    back_up(path, folder, again)
    assert said
    check_backup(str(folder))


@needs_root("to mount a small disk")
@pytest.mark.parametrize("grown", [40, 20_000], ids=["partitions", "file"])
def test_on_a_full_disk_the_earlier_backup_stays(path: Path, tmp_path: Path, grown: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], check=True)
    try:
        manifest = back_up(path, disk / "backup")
        if grown == 40:
            grow(path, grown)  # by two partitions, of which one has room
            room, part = os.statvfs(disk), Path(folder_of(str(path))) / "000000000046.db"
            left = path.stat().st_size + part.stat().st_size * 3 // 2
            (disk / "filling").write_bytes(bytes(room.f_bavail * room.f_frsize - left))
        else:
            with closing(SqliteFile(str(path))) as file:
                file.append(batch_of([DataUpdate("d", Raw(b'"%s"' % (b"x" * 100)), NOW_UTC, "rest")] * grown))
        with pytest.raises(BackupUnusable, match=r"is full|No space left"):
            back_up(path, disk / "backup")
        assert check_backup(str(disk / "backup")) == manifest
        assert sorted(os.listdir(disk / "backup")) == ["journal.db", "journal.db-history", "manifest.json"]
        assert len(os.listdir(disk / "backup" / "journal.db-history")) == 3
    finally:
        subprocess.run(["umount", disk], check=True)


def test_backups_made_again_beside_a_server_that_closes_drops_and_sums_up_are_whole(
    server_process: StartServer, path: Path, folder: Path, tmp_path: Path
) -> None:
    kept = {"KEEP": "1s", "KEEP_ROLLUPS": "1d", "PARTITION_ENTRIES": "200", "RESUME_MAX_ENTRIES": "100"}
    server = server_process(f"sqlite:{path}", **{f"TWINCAST_{name}": value for name, value in kept.items()})
    acknowledged, stop = [0], threading.Event()

    def load() -> None:
        batch = [{"device_id": f"d/{n}", "value": n} for n in range(50)]
        while not stop.wait(0.1):
            acknowledged[0] = server.post("/api/data", batch).json()["last_seq"]

    loader = threading.Thread(target=load)
    loader.start()
    kinds: set[str] = set()
    try:
        eventually(lambda: acknowledged[0], "the load has begun")
        made, until_s = 0, time.monotonic() + 60
        while made < 10 or (kinds != {"closed", "rollup"} and time.monotonic() < until_s):
            made += 1
            before = acknowledged[0]
            manifest = back_up(path, folder)
            assert check_backup(str(folder)) == manifest
            assert manifest.seq >= before, "what was acknowledged before it began is in it"
            with closing(alone(str(folder / "journal.db"))) as db:
                kinds |= {part.kind for part in catalog.parts(db)}
                named = [part.file for part in catalog.parts(db)]
            assert sorted(each.name for each in folder.glob("journal.db-history/*")) == sorted(named)
            time.sleep(0.2)
    finally:
        stop.set()
        loader.join()
    assert kinds == {"closed", "rollup"}
    found = restored(folder, tmp_path / "back")
    assert found[-1][0] == manifest.seq


# A cut of the power, at each step of a backup that replaces one.


def cut_at(
    path: Path, place: Path, calls: int, chance: random.Random, monkeypatch: pytest.MonkeyPatch, *, syncs: bool
) -> tuple[bool, bool]:
    """Back up until the power fails; return whether a backup is found then that is whole, and whether it did fail."""
    was_cut = False
    folder = place / "backup"
    disk = CutDisk([folder, Path(folder_of(str(path)))], calls, chance, syncs=syncs)
    with monkeypatch.context() as patch:
        disk.put_in(patch)
        try:
            back_up(path, folder)
        except PowerCut:
            was_cut = True
    disk.restore(folder, place / "found")
    with suppress(BackupUnusable, JournalUnusable):
        found = check_backup(str(place / "found"))
        return found.seq in {50, 90}, was_cut
    return False, was_cut


def cuts(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, syncs: bool) -> tuple[int, int]:
    """Cut the power at each call, and return how many times a whole backup was found, and how many it was not."""
    back_up(path, tmp_path / "earlier")
    grow(path, 40)
    whole, damaged, calls, was_cut = 0, 0, 0, True
    while was_cut:
        for copy in range(SEEDS):
            place = tmp_path / f"{calls}-{copy}-{syncs}"
            shutil.copytree(tmp_path / "earlier", _made(place) / "backup")
            is_whole, was_cut = cut_at(path, place, calls, random.Random(f"{calls} {copy}"), monkeypatch, syncs=syncs)
            whole, damaged = whole + is_whole, damaged + (not is_whole)
        calls += 1
    return whole, damaged


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_power_cut_at_any_step_leaves_a_whole_backup(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, damaged = cuts(path, tmp_path, monkeypatch, syncs=True)
    assert damaged == 0
    assert whole > 10 * SEEDS


def test_if_files_were_not_synced_a_power_cut_would_leave_no_backup(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the syncs the same test must fail."""
    _, damaged = cuts(path, tmp_path, monkeypatch, syncs=False)
    assert damaged > 0


def test_kill_nine_at_any_moment_leaves_a_whole_backup(path: Path, folder: Path) -> None:
    back_up(path, folder)
    chance, seqs = random.Random(1), [50]
    code = (
        "import sys; from twincast.journal.sqlite.backup import back_up;"
        f"back_up({str(path)!r}, {str(folder)!r}, version='0', now_utc={NOW_UTC!r},"
        " progress=lambda done, total: print(done, flush=True))"
    )
    for _ in range(KILLS):
        grow(path, 40)
        seqs.append(seqs[-1] + 40)
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 8)):
                process.stdout.readline()
            time.sleep(chance.random() / 50)
            process.send_signal(signal.SIGKILL)
        assert check_backup(str(folder)).seq in seqs
    assert back_up(path, folder).seq == seqs[-1]
    check_backup(str(folder))
    with closing(alone(str(folder / "journal.db"))) as db:
        assert sorted(os.listdir(folder / "journal.db-history")) == [part.file for part in catalog.parts(db)]
