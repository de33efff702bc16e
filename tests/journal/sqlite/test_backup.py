"""Backups are whole, however busy the server is; and what is put back is a whole backup, or nothing is touched."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec import Raw

from tests.conftest import StartServer
from tests.fakes import batch_of
from tests.journal.sqlite.history.making import Row, close_log, log_of
from tests.running import eventually
from tests.tools import needs_root
from twincast.core.audit import Actor
from twincast.core.keys import Key
from twincast.core.model import DataUpdate, Entry
from twincast.errors import BackupUnusable, JournalUnusable, TwincastError
from twincast.journal.sqlite import backup as sqlite_backup
from twincast.journal.sqlite import health as sqlite_health
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.backup import check_backup
from twincast.journal.sqlite.backup_manifest import Manifest
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.schema import SCHEMA_VERSION

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def readings(count: int) -> list[Entry]:
    return [DataUpdate(f"d/{n}", Raw(b'"%s"' % (b"x" * 100)), NOW_UTC, "rest") for n in range(count)]


def journal_of(path: Path, entries: int) -> None:
    with closing(SqliteFile(str(path))) as file:
        if entries:
            file.append(batch_of(readings(entries)))


def back_up(path: Path, folder: Path, told: Callable[[int, int], None] = lambda _done, _total: None) -> Manifest:
    return sqlite_backup.back_up(str(path), str(folder), version="0", now_utc=NOW_UTC, progress=told)


def restore(folder: Path, path: Path, *, force: bool = False) -> list[str]:
    _, aside = sqlite_backup.restore(
        str(folder), str(path), force=force, now_utc=NOW_UTC, progress=lambda _done, _total: None
    )
    return list(aside)


def entries_in(path: Path) -> int:
    with closing(SqliteFile(str(path))) as file:
        return file.seq


def files_in(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


@contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """Expect that nothing in a folder is another afterwards, but for a lock, which is empty."""
    before = files_in(folder)
    yield
    after = files_in(folder)
    assert after == {"journal.db-lock": b"", **before} if "journal.db-lock" in after else before


def test_fifty_backups_under_load_are_whole_and_have_all_that_was_acknowledged(
    server_process: StartServer, path: Path, tmp_path: Path
) -> None:
    server = server_process(f"sqlite:{path}")
    acknowledged = [0]
    stop = threading.Event()

    def load() -> None:
        batch = [{"device_id": f"d/{n}", "value": {"n": n, "pad": "x" * 100}} for n in range(50)]
        while not stop.wait(0.01):  # busy, but not so that each backup takes longer than the one before
            acknowledged[0] = server.post("/api/data", batch).json()["last_seq"]

    loader = threading.Thread(target=load)
    loader.start()
    reached: list[int] = []
    eventually(lambda: acknowledged[0], "the load has begun")
    try:
        for number in range(50):
            before = acknowledged[0]
            manifest = back_up(path, tmp_path / str(number))
            with closing(sqlite3.connect(f"file:{tmp_path / str(number)}/journal.db?mode=ro", uri=True)) as db:
                assert db.execute("pragma integrity_check").fetchone() == ("ok",)
                count, oldest, newest = db.execute("select count(*), min(seq), max(seq) from log").fetchone()
            assert (oldest, newest, count) == (1, manifest.seq, manifest.seq)
            assert newest >= before, "what was acknowledged before it began is in it"
            assert check_backup(str(tmp_path / str(number))) == manifest
            reached.append(newest)
            shutil.rmtree(tmp_path / str(number))
    finally:
        stop.set()
        loader.join()
    assert reached == sorted(reached)
    assert reached[-1] > reached[0], "the server went on meanwhile"


def test_a_backup_is_its_owners_and_says_what_it_is(path: Path, folder: Path) -> None:
    journal_of(path, 3)
    told: list[tuple[int, int]] = []
    manifest = back_up(path, folder, lambda done, total: told.append((done, total)))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.name: each.stat().st_mode & 0o777 for each in folder.iterdir()} == {
        "journal.db": 0o600,
        "manifest.json": 0o600,
    }
    written = json.loads((folder / "manifest.json").read_text())
    assert (written["twincast_backup"], written["schema"], written["seq"]) == (1, SCHEMA_VERSION, 3)
    assert written["epoch"] == manifest.epoch == sqlite_health.facts(str(path)).epoch
    assert written["files"] == [
        {"name": "journal.db", "bytes": (folder / "journal.db").stat().st_size, "sha256": manifest.files[0].sha256}
    ]
    assert told[-1][0] == told[-1][1] > 0


def test_a_journal_comes_back_as_it_was(path: Path, folder: Path, tmp_path: Path) -> None:
    journal_of(path, 5)
    key = Key("1", "a", "d" * 64, {"read": ["*"]}, NOW_UTC, None, None, None)
    with AccessFile(str(path)) as access:
        access.add(key, Actor("local:test", "test"))
    back_up(path, folder)
    back = tmp_path / "back.db"
    assert restore(folder, back) == []
    assert back.stat().st_mode & 0o777 == 0o600
    with AccessFile(str(back)) as access:
        assert list(access.keys()) == [key]
    assert entries_in(back) == 5
    with closing(SqliteFile(str(back))) as file:
        assert file.append(batch_of(readings(1))).seqs[0] == 6


def test_a_journal_whose_server_was_killed_is_backed_up_as_it_is(path: Path, folder: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of(readings(5)))
        subprocess.run(["cp", path, f"{path}-wal", left], check=True)
    before = files_in(left)
    assert back_up(left / path.name, folder).seq == 5
    after = files_in(left)
    assert {name: after[name] for name in before} == before


# A folder in which no backup can be made.


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(path: Path, folder: Path) -> None:
    journal_of(path, 1)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with untouched(folder), pytest.raises(BackupUnusable, match="is not empty"):
        back_up(path, folder)
    (folder / "notes.txt").unlink()
    assert back_up(path, folder).seq == 1, "an empty one is taken"


@needs_root("to mount a small disk")
def test_a_full_disk_is_said_and_nothing_is_left_on_it(path: Path, tmp_path: Path) -> None:
    journal_of(path, 20_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        with pytest.raises(BackupUnusable, match=f"the disk of {disk}/backup is full"):
            back_up(path, disk / "backup")
        assert not list(disk.iterdir())
        back_up(path, tmp_path / "backup")
        with pytest.raises(BackupUnusable, match="No space left on device"):
            restore(tmp_path / "backup", disk / "journal.db")
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_damaged_journal_gives_no_backup(path: Path, folder: Path) -> None:
    journal_of(path, 1_000)
    content = bytearray(path.read_bytes())
    content[-4_096:] = bytes(4_096)
    path.write_bytes(content)
    with pytest.raises(JournalUnusable, match="is not whole"):
        back_up(path, folder)
    assert not folder.exists()


@pytest.mark.parametrize("what", ["nothing", "a text", "another database", "a newer journal"])
def test_what_is_no_journal_is_not_backed_up(path: Path, folder: Path, what: str) -> None:
    if what == "a text":
        path.write_text("# Notes\n" * 1_000)
    elif what == "another database":
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("create table notes (text)")
    elif what == "a newer journal":
        journal_of(path, 1)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("pragma user_version = 99")
    with pytest.raises(JournalUnusable):
        back_up(path, folder)
    assert not folder.exists()


# What is in a folder, and cannot be put back.


def torn(folder: Path) -> None:
    os.truncate(folder / "journal.db", 4_096)


def changed(folder: Path) -> None:
    content = bytearray((folder / "journal.db").read_bytes())
    content[-1] ^= 1
    (folder / "journal.db").write_bytes(content)


def unfinished(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def without_its_journal(folder: Path) -> None:
    (folder / "journal.db").unlink()


def in_manifest(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    return change


def with_a_list_for_a_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def of_another(folder: Path) -> None:
    """Put another whole journal in, with its digest in the manifest."""
    journal_of(folder / "other.db", 1)
    back_up(folder / "other.db", folder / "other")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = json.loads((folder / "other" / "manifest.json").read_text())["files"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "other" / "journal.db").replace(folder / "journal.db")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn": (torn, "is torn: it has 4,096 bytes"),
    "changed by a bit": (changed, "was changed since it was written"),
    "not finished": (unfinished, "was not finished"),
    "without its journal": (without_its_journal, "cannot be read: No such file"),
    "of a newer schema": (in_manifest(schema=99), "written by a newer twincast"),
    "of a newer format": (in_manifest(twincast_backup=2), "no backup that this twincast reads"),
    "with a path in a name": (in_manifest(files=[{"name": "../x", "bytes": 1, "sha256": ""}]), "other files"),
    "no manifest of ours": (with_a_list_for_a_manifest, "no backup that"),
    "of another journal": (of_another, "another journal than the manifest says"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_whole_backup_is_not_put_back_and_nothing_is_touched(
    path: Path, folder: Path, tmp_path: Path, damage: str
) -> None:
    journal_of(path, 50)
    back_up(path, folder)
    do, words = DAMAGES[damage]
    do(folder)
    with pytest.raises(BackupUnusable, match=words):
        check_backup(str(folder))
    place = tmp_path / "place"
    place.mkdir()
    journal_of(place / "journal.db", 7)
    with untouched(place), pytest.raises(BackupUnusable, match=words):
        restore(folder, place / "journal.db", force=True)


def test_a_journal_that_is_there_is_kept(path: Path, folder: Path, tmp_path: Path) -> None:
    journal_of(path, 5)
    back_up(path, folder)
    place = tmp_path / "place"
    place.mkdir()
    journal = place / "journal.db"
    journal_of(journal, 7)
    with untouched(place), pytest.raises(BackupUnusable, match="--force puts it aside"):
        restore(folder, journal)
    [aside] = restore(folder, journal, force=True)
    assert entries_in(journal) == 5
    assert entries_in(Path(aside)) == 7


def test_a_wal_that_was_left_goes_aside_with_its_journal(path: Path, folder: Path, tmp_path: Path) -> None:
    journal_of(path, 5)
    back_up(path, folder)
    place = tmp_path / "place"
    place.mkdir()
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of(readings(3)))
        subprocess.run(["cp", path, f"{path}-wal", f"{path}-shm", place], check=True)
    journal = place / "journal.db"
    aside, wal = restore(folder, journal, force=True)
    assert wal == f"{aside}-wal"
    assert entries_in(journal) == 5
    assert entries_in(Path(aside)) == 8, "both together are what they were"


def test_a_journal_with_a_server_is_not_replaced(path: Path, folder: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of(readings(5)))
    back_up(path, folder)
    with pytest.raises(BackupUnusable, match="a server runs on"):
        restore(folder, path, force=True)
    assert file.append(batch_of(readings(1))).seqs[0] == 6
    file.close()


# What a journal says of itself.


def test_a_journal_says_what_it_holds_while_it_is_written(path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of(readings(5)))
    facts = sqlite_health.facts(str(path))
    assert (facts.oldest_seq, facts.newest_seq, facts.devices, facts.keys, facts.schema) == (1, 5, 5, 0, SCHEMA_VERSION)
    assert facts.is_served
    assert facts.newest_at_utc == NOW_UTC
    assert sqlite_health.problems(str(path)) == []
    file.close()
    assert not sqlite_health.facts(str(path)).is_served
    assert [each.name for each in sorted(path.parent.iterdir()) if each.stat().st_size] == [
        "journal.db",
        "journal.db-reserve",
    ]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("delete from log where seq = 3", "1 lack"),
        ("update log set value = 'open' where seq = 2", "no JSON; the first is 2"),
        ("update meta set value = '99' where name = 'checkpoint_seq'", "the checkpoint is of 99"),
        ("update checkpoint set seq = 77 where device_id = 'd/1'", "1 devices as of a later time"),
        ("insert into fence values (6, '', 'p', 1, '0')", "the fence says of 1 numbered lines"),
    ],
)
def test_what_is_wrong_is_found(path: Path, sql: str, words: str) -> None:
    journal_of(path, 5)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql)
    [problem] = sqlite_health.problems(str(path))
    assert words in problem


def test_what_is_asked_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    for ask in sqlite_health.facts, sqlite_health.problems:
        with pytest.raises(TwincastError, match="there is no journal at"):
            ask(str(tmp_path / "mistyped.db"))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def closed(path: Path) -> list[Row]:
    """Have a journal whose log is in partitions but for its end; return all of it."""
    journal_of(path, 50)
    log = log_of(path)
    close_log(str(path), 15)
    assert log_of(path) == log[-5:]
    return log


def all_of(path: Path) -> list[str]:
    """Return the device of each entry, as a reader gets them."""
    with closing(SqliteFile(str(path))) as file, closing(LogReader(str(path), file.epoch)) as reader:
        return [entry.subject for entry in reader.read(0, 1_000)]


def test_a_backup_has_the_partitions_too_and_they_come_back(
    path: Path, folder: Path, tmp_path: Path, closed: list[Row]
) -> None:
    manifest = back_up(path, folder)
    assert [file.name for file in manifest.files[1:]] == [f"journal.db-history/{first:012}.db" for first in (1, 16, 31)]
    assert check_backup(str(folder)) == manifest
    target = tmp_path / "elsewhere" / "journal.db"
    target.parent.mkdir()
    restore(folder, target)
    assert all_of(target) == [row[2] for row in closed] == all_of(path)
    assert sqlite_health.problems(str(target)) == []
    assert len(os.listdir(f"{target}-history")) == 3


def test_partitions_that_are_there_go_aside_with_their_journal(path: Path, folder: Path, closed: list[Row]) -> None:
    back_up(path, folder)
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of(readings(30)))
    close_log(str(path), 15)
    aside = restore(folder, path, force=True)
    assert [name.removeprefix(f"{path}.before-20261123T162400") for name in aside] == ["", "-history"]
    assert len(all_of(Path(aside[0]))) == 80
    assert all_of(path) == [row[2] for row in closed]


@pytest.mark.parametrize("what", ["gone", "changed", "another"])
def test_a_backup_whose_partition_is_not_as_it_was_is_refused(
    path: Path, folder: Path, tmp_path: Path, closed: list[Row], what: str
) -> None:
    assert closed
    back_up(path, folder)
    file = folder / "journal.db-history" / "000000000016.db"
    if what == "gone":
        file.unlink()
    elif what == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    else:
        shutil.copy(file.with_name("000000000001.db"), file)
    target = tmp_path / "elsewhere" / "journal.db"
    target.parent.mkdir()
    with pytest.raises(BackupUnusable):
        check_backup(str(folder))
    with pytest.raises(BackupUnusable):
        restore(folder, target)
    assert [name for name in os.listdir(target.parent) if not name.endswith("-lock")] == []


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_what_a_journal_has_lost_is_named_and_all_the_rest_is_taken(
    path: Path, folder: Path, tmp_path: Path, closed: list[Row], what: str
) -> None:
    file = path.parent / "journal.db-history" / "000000000016.db"
    if what == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    manifest = back_up(path, folder)
    [lost] = manifest.lost
    assert (lost.file, lost.first_seq, lost.last_seq) == ("000000000016.db", 16, 30)
    assert str(lost).endswith("the log lacks the entries from 16 to 30") and what in str(lost)
    assert [each.name[-7:] for each in manifest.files[1:]] == ["0001.db", "0031.db"]
    assert sorted(os.listdir(folder / "journal.db-history")) == ["000000000001.db", "000000000031.db"]
    assert check_backup(str(folder)) == manifest
    target = tmp_path / "elsewhere" / "journal.db"
    target.parent.mkdir()
    restore(folder, target)
    [said] = sqlite_health.problems(str(target))
    assert "000000000016.db is gone: the log lacks the entries from 16 to 30" in said
    assert len(os.listdir(f"{target}-history")) == 2
    shutil.copy(target.parent / "journal.db-history" / "000000000001.db", folder / "journal.db-history" / "x")
    (folder / "journal.db-history" / "000000000001.db").unlink()
    with pytest.raises(BackupUnusable):
        check_backup(str(folder))


def test_what_an_earlier_backup_has_is_not_lost(path: Path, folder: Path, closed: list[Row]) -> None:
    assert closed
    made = back_up(path, folder)
    (path.parent / "journal.db-history" / "000000000016.db").unlink()
    assert back_up(path, folder) == made
    assert not made.lost


def test_a_copy_for_another_server_has_all_of_the_log_in_one_file(
    path: Path, tmp_path: Path, closed: list[Row]
) -> None:
    with sqlite_backup.copied(str(path)) as copy:
        (tmp_path / "copy.db").write_bytes(copy.read())
    assert log_of(tmp_path / "copy.db") == closed
    assert sqlite_health.problems(str(tmp_path / "copy.db")) == []
    assert sqlite_health.facts(str(tmp_path / "copy.db")).partitions == 0
