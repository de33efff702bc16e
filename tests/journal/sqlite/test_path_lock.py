"""The lock by name is a real one, by `flock` and, where there is none, by SQLite: it falls with its holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import DEADLINE_S, ROOT
from twincast.journal.sqlite import path_lock
from twincast.journal.sqlite.path_lock import NameLock, is_taken

HOLDER = """
import sys
if sys.argv[2] == "SQLite":
    sys.modules["fcntl"] = None
from twincast.journal.sqlite.path_lock import NameLock, is_taken
print(is_taken(sys.argv[1]), flush=True)
try:
    lock = NameLock(sys.argv[1])
except BlockingIOError:
    print("taken", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["flock", "SQLite"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By what it is locked; without `fcntl`, as on Windows, by SQLite."""
    if request.param == "SQLite":
        monkeypatch.setattr(path_lock, "fcntl", None)
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


def another(path: str, how: str) -> subprocess.Popen[str]:
    """Have another process take the lock, if it can, until it is killed."""
    command = [sys.executable, "-c", HOLDER, path, how]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(2)]


def test_one_holds_it_and_a_second_in_the_same_process_is_refused(path: str, how: str) -> None:
    assert not is_taken(path)
    first = NameLock(path)
    assert is_taken(path)
    with pytest.raises(BlockingIOError):
        NameLock(path)
    assert is_taken(path), "whoever is refused takes nothing from the holder"
    first.release()
    assert not is_taken(path)
    NameLock(path).release()


def test_another_process_is_refused_and_sees_that_it_is_taken(path: str, how: str) -> None:
    lock = NameLock(path)
    with another(path, how) as other:
        assert said(other) == ["True", "taken"]
        other.wait(DEADLINE_S)
    lock.release()
    with another(path, how) as other:
        assert said(other) == ["False", "held"]
        assert is_taken(path)
        other.kill()


def test_it_falls_with_a_process_that_is_killed(path: str, how: str) -> None:
    with another(path, how) as other:
        assert said(other) == ["False", "held"]
        other.kill()
        other.wait(DEADLINE_S)
    assert not is_taken(path)
    NameLock(path).release()


def test_the_file_is_its_owners_alone_and_stays_empty(path: str, how: str) -> None:
    lock = NameLock(path)
    beside = Path(f"{path}-lock")
    assert beside.stat().st_mode & 0o777 == 0o600
    lock.release()
    assert beside.stat().st_size == 0


def test_whoever_made_the_file_can_take_it_away_and_nobody_else_can(path: str, how: str) -> None:
    beside = Path(f"{path}-lock")
    NameLock(path).discard()
    assert not beside.exists()
    NameLock(path).release()
    NameLock(path).discard()
    assert beside.exists(), "it was there before"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no flock here")
def test_a_lock_on_a_file_that_is_taken_away_meanwhile_is_none(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One opens the file of a start that is refused, and locks it once that has removed it."""
    first = NameLock(path)
    opened = path_lock._opened

    def open_and_lose(name: str, path: str) -> tuple[int, bool]:
        monkeypatch.setattr(path_lock, "_opened", opened)
        found = opened(name, path)
        first.discard()
        return found

    monkeypatch.setattr(path_lock, "_opened", open_and_lose)
    second = NameLock(path)
    assert Path(f"{path}-lock").exists()
    with pytest.raises(BlockingIOError):
        NameLock(path)
    second.release()


def test_where_it_cannot_be_made_the_system_says_why(tmp_path: Path, how: str) -> None:
    with pytest.raises(FileNotFoundError):
        NameLock(str(tmp_path / "missing" / "journal.db"))
