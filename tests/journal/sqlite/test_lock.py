"""One server on one file, by what the file is; and no other SQLite library that takes its -wal away."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.tools import needs_root
from twincast.core.model import DataUpdate
from twincast.errors import JournalUnusable
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.lock import HAS_FILE_LOCKS, serves_the_file, serves_the_name

ROOT = Path(__file__).parents[3]
needs_file_locks = pytest.mark.skipif(not HAS_FILE_LOCKS, reason="this system locks by name alone")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(str(path))
    yield file
    file.close()


def reading(value: int) -> DataUpdate:
    return DataUpdate("lamp", Raw(b"%d" % value), "2026-11-23T16:24:00.123456+00:00", "rest")


def after_a_crash(path: Path) -> list[int]:
    """Return the values that are found if the process is killed now: in a copy of what it would leave."""
    left = path.with_name("left")
    left.mkdir()
    for suffix in ("", "-wal"):
        # In another process: closing a descriptor of the file in this one would drop SQLite's locks on it.
        subprocess.run(["cp", f"{path}{suffix}", left], check=True)
    with closing(sqlite3.connect(left / path.name)) as db:
        return [value for (value,) in db.execute("select cast(value as integer) from log order by seq")]


def read_with_another_library(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        count: int = db.execute("select count(*) from log").fetchone()[0]
        return count


@needs_file_locks
def test_another_sqlite_in_the_same_process_that_closes_takes_nothing_that_was_acknowledged(
    file: SqliteFile, path: Path
) -> None:
    for number in range(5):
        file.append(batch_of([reading(number)]))
        assert read_with_another_library(path) == number + 1
    assert after_a_crash(path) == [0, 1, 2, 3, 4]


@needs_file_locks
def test_other_processes_do_not_take_the_wal_after_another_sqlite_dropped_the_locks_of_this_one(
    file: SqliteFile, path: Path
) -> None:
    file.append(batch_of([reading(0)]))
    read_with_another_library(path)
    os.close(os.open(path, os.O_RDONLY))  # whoever closes the file drops all locks that this process had on it
    os.close(os.open(f"{path}-shm", os.O_RDONLY))
    wal = os.stat(f"{path}-wal").st_ino
    ask = (
        f"import sqlite3; db = sqlite3.connect({str(path)!r}); print(db.execute('select count(*) from log').fetchone())"
    )
    other = subprocess.run([sys.executable, "-c", f"{ask}; db.close()"], capture_output=True, text=True, check=True)
    assert other.stdout == "(1,)\n"
    assert os.stat(f"{path}-wal").st_ino == wal
    file.append(batch_of([reading(1)]))
    assert after_a_crash(path) == [0, 1]


@needs_file_locks
def test_readers_of_another_sqlite_beside_commits_lose_nothing(file: SqliteFile, path: Path) -> None:
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            read_with_another_library(path)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(300):
        file.append(batch_of([reading(number)]))
    stop.set()
    for thread in threads:
        thread.join()
    assert after_a_crash(path) == list(range(300))


def test_a_connection_of_another_sqlite_that_outlives_the_server_takes_nothing_of_the_next_one(path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of([reading(0)]))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("select count(*) from log").fetchone() == (1,)
        file.close()
        file = SqliteFile(str(path))
        file.append(batch_of([reading(1)]))
    file.append(batch_of([reading(2)]))
    assert after_a_crash(path) == [0, 1, 2]
    file.close()


def by_a_symbolic_link(path: Path) -> Path:
    link = path.with_name("link.db")
    link.symlink_to(path)
    return link


def by_a_hard_link(path: Path) -> Path:
    link = path.with_name("hard.db")
    link.hardlink_to(path)
    return link


def by_its_new_name(path: Path) -> Path:
    return path.rename(path.with_name("renamed.db"))


def without_its_lock_file(path: Path) -> Path:
    path.with_name(f"{path.name}-lock").unlink()
    return path


def by_a_relative_path(path: Path) -> Path:
    return Path(os.path.relpath(path))


NAMES = [by_a_symbolic_link, by_a_hard_link, by_its_new_name, without_its_lock_file, by_a_relative_path]


@needs_file_locks
@pytest.mark.parametrize("named", NAMES)
def test_a_second_server_is_refused_whatever_the_file_is_called(
    file: SqliteFile, path: Path, named: Callable[[Path], Path]
) -> None:
    name = named(path)
    with pytest.raises(JournalUnusable, match="in use by another server"):
        SqliteFile(str(name))
    start = f"from twincast.journal.sqlite.file import SqliteFile; SqliteFile({str(name)!r})"
    other = subprocess.run([sys.executable, "-c", start], cwd=ROOT, capture_output=True, text=True, check=False)
    if name.is_absolute():
        assert "in use by another server" in other.stderr
    if named is by_its_new_name:
        name.rename(path)
    assert file.append(batch_of([reading(1)])).seqs[0] == 1


def test_whether_a_server_runs_can_be_asked_without_disturbing_it(path: Path) -> None:
    assert not serves_the_file(str(path))
    assert not serves_the_name(str(path))
    file = SqliteFile(str(path))
    assert serves_the_file(str(path))
    assert serves_the_name(str(path))
    file.close()
    assert not serves_the_file(str(path))
    assert not serves_the_name(str(path))


def test_a_server_that_could_not_start_leaves_no_lock(path: Path) -> None:
    path.write_bytes(b"# Notes\n" * 1_000)
    with pytest.raises(JournalUnusable):
        SqliteFile(str(path))
    assert not serves_the_file(str(path))
    assert not serves_the_name(str(path))


# Files that another user left.

AS_NOBODY = """
import os, sys
from twincast.errors import JournalUnusable
from twincast.journal.sqlite.file import SqliteFile
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    SqliteFile(sys.argv[1]).close()
except JournalUnusable as error:
    print(error)
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A journal's path in a folder that everybody reaches; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "journal.db"


def as_nobody(path: Path) -> str:
    run = [sys.executable, "-c", AS_NOBODY, str(path)]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout


to_be_another = needs_root("to be somebody else")


@to_be_another
@pytest.mark.parametrize("suffix", ["", "-lock", "-wal", "-shm"])
def test_a_file_that_another_user_left_is_named_with_its_owner(shared: Path, suffix: str) -> None:
    SqliteFile(str(shared)).close()
    os.chown(shared.parent, 65534, 65534)
    for each in ("", "-lock", "-wal", "-shm"):
        left = shared.with_name(shared.name + each)
        left.touch(0o600)
        if each != suffix:
            os.chown(left, 65534, 65534)
    left = shared.with_name(shared.name + suffix)
    left.chmod(0o600)
    said = as_nobody(shared)
    assert f"{left} is root's, and nobody may not write it" in said
    assert said.count("\n") == 1


@to_be_another
def test_a_folder_in_which_no_file_may_be_made_is_named(shared: Path) -> None:
    assert f"nobody may not make files in {shared.parent}, which is root's" in as_nobody(shared)


@to_be_another
def test_a_server_that_root_ran_once_leaves_the_lock_to_the_journals_owner(shared: Path) -> None:
    os.chown(shared.parent, 65534, 65534)
    assert as_nobody(shared) == ""
    shared.with_name("journal.db-lock").unlink()
    SqliteFile(str(shared)).close()  # as root
    assert as_nobody(shared) == ""
