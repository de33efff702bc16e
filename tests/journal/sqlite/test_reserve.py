"""On a full disk keys are ended all the same, also the one that filled it; and what that leaves is nobody else's."""

import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.tools import needs_root
from twincast.core.audit import Actor
from twincast.core.keys import Key
from twincast.core.model import DataUpdate, Entry
from twincast.errors import JournalUnavailable, ValidationFailed
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.access_store import AccessReader
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reserve import RESERVE_BYTES, Reserve

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
ACTOR = Actor("local:test", "test")
pytestmark = needs_root("to mount a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def path(disk: Path) -> Path:
    """A journal with six keys."""
    path = disk / "journal.db"
    SqliteFile(str(path)).close()
    with AccessFile(str(path)) as access:
        for number in range(6):
            access.add(key(number), ACTOR)
    return path


def key(number: int) -> Key:
    return Key(f"id{number}", f"key{number}", f"{number:064}", {"publish": ["*"]}, NOW_UTC, None, None, None)


def reading(size_bytes: int) -> list[Entry]:
    return [DataUpdate("lamp", Raw(b'"%s"' % (b"x" * size_bytes)), NOW_UTC, "rest")]


def fill(file: SqliteFile, size_bytes: int = 30_000) -> int:
    """Append until the disk takes nothing more, not even a small one; return how many."""
    count = 0
    for size in size_bytes, 100:
        with suppress(JournalUnavailable):
            while True:
                file.append(batch_of(reading(size)))
                count += 1
    return count


def fill_by_another_program(disk: Path) -> None:
    with suppress(OSError), open(disk / "other", "wb", buffering=0) as other:
        while True:
            other.write(bytes(512))


def room_again(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)


def in_force(path: Path) -> set[str]:
    reader = AccessReader(str(path))
    keyring = reader.keyring()
    reader.close()
    assert keyring is not None
    return {each.name for each in keyring.keys if each.revoked_at_utc is None}


def test_the_key_that_filled_the_disk_is_ended_beside_its_server_and_so_are_others(disk: Path, path: Path) -> None:
    file = SqliteFile(str(path))
    stored = fill(file)
    for number in range(3):
        with AccessFile(str(path), is_urgent=True) as access:
            assert access.revoke(f"key{number}", NOW_UTC, ACTOR).name == f"key{number}"
        assert f"key{number}" not in in_force(path)
        for size in 30_000, 100:
            with pytest.raises(JournalUnavailable, match="full"):
                file.append(batch_of(reading(size)))
        with AccessFile(str(path)) as access, pytest.raises(JournalUnavailable, match="full"):
            access.add(key(9), ACTOR)
    room_again(disk)
    assert file.append(batch_of(reading(100))).seqs[0] == stored + 1
    assert Reserve(str(path)).is_whole
    file.close()


@pytest.mark.parametrize("is_killed", [False, True])
def test_keys_are_ended_on_a_full_disk_without_a_server(disk: Path, path: Path, is_killed: bool) -> None:
    file = SqliteFile(str(path))
    if is_killed:
        stored = fill(file)
        for suffix in "", "-wal":
            subprocess.run(["cp", f"{path}{suffix}", f"{disk.parent}/left.db{suffix}"], check=True)
        subprocess.run(["cp", f"{path}-reserve", f"{disk.parent}/left.db-reserve"], check=True)
        with suppress(JournalUnavailable):  # on a full disk the checkpoint waits
            file.close()
        for left in disk.iterdir():
            left.unlink()
        for suffix in "", "-wal", "-reserve":
            subprocess.run(["cp", f"{disk.parent}/left.db{suffix}", f"{path}{suffix}"], check=True)
    else:
        stored = file.seq
        file.close()
    fill_by_another_program(disk)
    with AccessFile(str(path), is_urgent=True) as access:
        access.revoke("key1", NOW_UTC, ACTOR)
    with AccessFile(str(path), is_urgent=True) as access:
        kept = access.keys()
        assert [each.name for each in kept if each.revoked_at_utc] == ["key1"]
        assert access.clear(NOW_UTC, ACTOR) == 6
    room_again(disk)
    with closing(SqliteFile(str(path))) as file:
        assert file.seq == stored
        file.append(batch_of(reading(100)))
    assert Reserve(str(path)).is_whole
    assert in_force(path) == set()


def test_a_disk_that_others_filled_lets_a_server_that_was_idle_end_a_key(disk: Path, path: Path) -> None:
    file = SqliteFile(str(path))
    fill_by_another_program(disk)
    with AccessFile(str(path), is_urgent=True) as access:
        access.revoke("key1", NOW_UTC, ACTOR)
        access.revoke("key2", NOW_UTC, ACTOR)
    assert in_force(path) == {"key0", "key3", "key4", "key5"}
    file.look_at_reserve()
    with pytest.raises(JournalUnavailable, match="kept for `twincast keys revoke`"):
        file.append(batch_of(reading(100)))
    (disk / "other").unlink()
    assert file.append(batch_of(reading(100))).seqs[0] == 1
    file.close()


def test_the_reserve_takes_at_most_64_kib_and_is_untouched_while_there_is_room(path: Path) -> None:
    reserve = Path(f"{path}-reserve")
    assert reserve.stat().st_size == RESERVE_BYTES == 64 * 1024
    assert reserve.stat().st_blocks * 512 == RESERVE_BYTES
    before = reserve.read_bytes()
    with AccessFile(str(path), is_urgent=True) as access:
        access.revoke("key1", NOW_UTC, ACTOR)
        with pytest.raises(ValidationFailed):
            access.revoke("nobody", NOW_UTC, ACTOR)
    assert reserve.read_bytes() == before


def test_a_reserve_that_cannot_be_kept_is_done_without(path: Path) -> None:
    Path(f"{path}-reserve").unlink()
    Path(f"{path}-reserve").mkdir()
    with closing(SqliteFile(str(path))) as file:
        file.look_at_reserve()
        assert file.append(batch_of(reading(100))).seqs[0] == 1
