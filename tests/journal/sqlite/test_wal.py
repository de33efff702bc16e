"""A database that was restored, copied or moved without its -wal, or finds another's: refused, and nothing is lost."""

import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from twincast.core.audit import Actor
from twincast.core.model import DataUpdate, Entry
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.sqlite import wal
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.file import SqliteFile

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
FILES = ("", "-wal")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "live").mkdir()
    return tmp_path / "live" / "journal.db"


def readings(count: int, first: int = 0) -> list[Entry]:
    value = '{"n":%d,"pad":"' + "x" * 100 + '"}'
    return [DataUpdate(f"d/{n % 50}", Raw((value % (first + n)).encode()), NOW_UTC, "rest") for n in range(count)]


def copy_elsewhere(path: Path, to: Path, suffixes: tuple[str, ...] = FILES) -> None:
    """Copy files of a journal in use, in another process: closing them in this one would drop SQLite's locks."""
    for suffix in suffixes:
        subprocess.run(["cp", f"{path}{suffix}", f"{to}{suffix}"], check=True)


def backup(path: Path, to: Path) -> None:
    with (
        closing(apsw.Connection(str(path))) as live,
        closing(apsw.Connection(str(to))) as copy,
        copy.backup("main", live, "main") as work,
    ):
        work.step()


def vacuum_into(path: Path, to: Path) -> None:
    with closing(apsw.Connection(str(path))) as live:
        live.execute("vacuum into ?", (str(to),))


def content(path: Path) -> dict[str, bytes]:
    return {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in FILES}


def refusal_of(path: Path) -> str:
    """Return why a journal is refused, by the server and by the commands alike; neither may change a byte."""
    before = content(path)
    with pytest.raises(JournalUnusable) as refused:
        SqliteFile(str(path))
    with pytest.raises(JournalUnusable) as by_command:
        AccessFile(str(path))
    assert by_command.value.message == refused.value.message
    assert content(path) == before
    return refused.value.message


def crashed(path: Path, to: Path, *, early: Callable[[Path, Path], None] = backup, after: int = 40) -> Path:
    """Let a server store a lot, be backed up early, go on, and crash. Returns the backup."""
    file = SqliteFile(str(path))
    for number in range(5):
        file.append(batch_of(readings(1_000, number * 1_000)))
    copy = path.with_name("backup.db")
    early(path, copy)
    for number in range(after):
        file.append(batch_of(readings(1_000, 5_000 + number * 1_000)))
    copy_elsewhere(path, to)
    file.close()
    return copy


def held(path: Path) -> apsw.Connection:
    """Have another program keep a journal for itself; return its connection."""
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    other.execute("begin immediate")
    return other


def test_a_crashed_pair_is_waited_for_while_another_program_has_it(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left.db"
    crashed(path, left)
    other = held(left)
    letting_go = threading.Timer(0.3, other.close)
    letting_go.start()
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == 45_000
    letting_go.join()


def test_a_crashed_pair_that_another_program_keeps_is_not_taken_for_damaged(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "_BUSY_TIMEOUT_MS", 10)
    left = tmp_path / "left.db"
    crashed(path, left)
    with closing(held(left)), pytest.raises(JournalUnusable, match="another program keeps the file for itself") as told:
        SqliteFile(str(left))
    assert "move" not in told.value.message
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == 45_000


def test_a_crashed_pair_is_taken_wherever_it_is_by_now(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left.db"
    crashed(path, left)
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == 45_000
        assert len(file.snapshot().twins) == 50


def test_a_crash_amid_a_checkpoint_is_no_foreign_wal(path: Path, tmp_path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of(readings(300)))
    file.settle()  # the database has all, and the next entry begins the -wal anew
    for number in range(5):
        file.append(batch_of(readings(40, 300 + number * 40)))
    before, after = tmp_path / "before.db", tmp_path / "after.db"
    copy_elsewhere(path, before)
    file.settle()
    copy_elsewhere(path, after)
    file.close()
    old, new = before.read_bytes(), after.read_bytes()
    assert len(new) > len(old)
    for page in range(len(new) // 4_096 + 1):
        half = tmp_path / "half.db"
        cut = 4_096 * page
        half.write_bytes(new[:cut] + old[cut:])
        shutil.copy(f"{before}-wal", f"{half}-wal")
        with closing(SqliteFile(str(half))) as restarted:
            assert restarted.seq == 500


@pytest.mark.parametrize("how", [shutil.copy, shutil.move], ids=["copied over", "moved there"])
def test_an_older_backup_with_the_wal_of_later_days_is_refused(
    path: Path, tmp_path: Path, how: Callable[[Path, Path], object]
) -> None:
    left = tmp_path / "left.db"
    how(crashed(path, left), left)
    message = refusal_of(left)
    assert message.startswith(f"the journal {left} and its -wal do not belong together: ")
    assert f"move {left}-wal" in message
    Path(f"{left}-wal").unlink()
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == 5_000


def test_a_copy_whose_pages_lie_otherwise_is_refused(path: Path, tmp_path: Path) -> None:
    file = SqliteFile(str(path))
    for number in range(20):
        file.append(batch_of(readings(1_000, number * 1_000), keys={f"k{number}": (1, "d")}))
        file.checkpoint()
    file.settle()
    copy, left = tmp_path / "copy.db", tmp_path / "left.db"
    vacuum_into(path, copy)
    file.append(batch_of(readings(2_000, 20_000)))
    copy_elsewhere(path, left)
    file.close()
    shutil.copy(copy, left)
    assert "do not belong together" in refusal_of(left)


def test_a_newer_file_with_the_wal_of_earlier_days_is_refused(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left.db"
    crashed(path, left)
    shutil.copy(path, left)
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of(readings(10)))
    shutil.copy(path, left)
    assert "do not belong together" in refusal_of(left)


@pytest.mark.parametrize("entries", [1, 5_000])
def test_another_journal_is_not_overwritten_by_a_wal_that_was_left(path: Path, tmp_path: Path, entries: int) -> None:
    left = tmp_path / "left.db"
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of(readings(5)))  # so young that its -wal holds all of it
        copy_elsewhere(path, left)
    other = tmp_path / "other.db"
    with closing(SqliteFile(str(other))) as file:
        file.append(batch_of(readings(entries)))
    shutil.copy(other, left)
    assert "do not belong together: the file is of the log" in refusal_of(left)
    Path(f"{left}-wal").unlink()
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == entries


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_wal_whose_journal_is_gone_is_kept(path: Path, tmp_path: Path, is_emptied: bool) -> None:
    left = tmp_path / "left.db"
    crashed(path, left, after=1)
    kept = content(left)
    left.unlink()
    if is_emptied:
        left.touch()
    for use in SqliteFile, AccessFile:
        with pytest.raises(JournalUnusable, match="-wal holds changes, and") as refused:
            use(str(left))
        assert ("is empty" if is_emptied else "is gone") in refused.value.message
    assert Path(f"{left}-wal").read_bytes() == kept["-wal"]
    left.write_bytes(kept[""])
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == 6_000


def test_keys_are_not_written_to_a_file_that_the_server_of_this_path_does_not_know(path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of(readings(5)))
    copy = path.with_name("backup.db")
    backup(path, copy)
    copy.replace(path)
    with pytest.raises(JournalUnusable, match="is no longer there, or is another one"):
        AccessFile(str(path))
    with suppress(JournalUnavailable):  # so it says of itself
        file.close()


def test_keys_are_cleared_in_a_journal_whose_server_was_killed(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left.db"
    crashed(path, left, after=1)
    with AccessFile(str(left)) as access:
        assert access.clear(NOW_UTC, Actor("local:test", "test")) == 0
    with closing(SqliteFile(str(left))) as file:
        assert file.seq == 6_000


def test_the_check_finds_what_the_check_of_sqlite_finds(path: Path, tmp_path: Path) -> None:
    """Whatever backup meets whatever -wal: what is taken is whole, and what is refused was worth it."""
    states: list[Path] = []
    file = SqliteFile(str(path))
    for number in range(12):
        file.append(batch_of(readings(700, number * 700)))
        copy = tmp_path / f"state{number}.db"
        copy_elsewhere(path, copy)
        states.append(copy)
    file.close()
    taken = 0
    for state in states:
        for other in states:
            pair = tmp_path / "pair.db"
            shutil.copy(state, pair)
            shutil.copy(f"{other}-wal", f"{pair}-wal")
            try:
                restarted = SqliteFile(str(pair))
            except JournalUnusable:
                assert state != other
                continue
            taken += 1
            restarted.close()
            with closing(apsw.Connection(str(pair))) as db:
                assert db.execute("pragma integrity_check(1)").get == "ok"
                assert db.execute("select count(*) = max(seq) from log").get
    assert taken >= len(states)
