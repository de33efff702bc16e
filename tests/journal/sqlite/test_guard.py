"""What is acknowledged is in the file that a restart opens, or nothing is acknowledged, whatever is done to it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from msgspec import Raw

from tests.conftest import StartServer
from tests.fakes import batch_of
from tests.running import ServerProcess, eventually, eventually_async
from twincast.core.model import DataUpdate, Entry
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.stores import open_stores

Misdeed = Callable[[Path], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def reading(value: int) -> list[Entry]:
    return [DataUpdate("lamp", Raw(b"%d" % value), "2026-11-23T16:24:00.123456+00:00", "rest")]


def values(path: Path) -> list[int]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [value for (value,) in db.execute("select cast(value as integer) from log order by seq")]


def values_of_the_file_alone(path: Path) -> list[int]:
    """Return what a process that was killed leaves in the file; of a copy, made by another process: see sqlite_lock."""
    left = path.with_name("left.db")
    subprocess.run(["cp", path, left], check=True)
    return values(left)


def values_after_a_crash(path: Path) -> list[int]:
    """Return what a process that was killed leaves in file and -wal."""
    left = path.with_name("left")
    left.mkdir()
    subprocess.run(["cp", path, beside(path, "-wal"), left], check=True)
    return values(left / path.name)


def run_elsewhere(path: Path, sql: str) -> None:
    """Run a statement as another program, which then ends."""
    run = f"import sqlite3; sqlite3.connect({str(path)!r}).execute({sql!r}).fetchall()"
    subprocess.run([sys.executable, "-c", run], check=True)


def change_all_but_the_content(path: Path) -> None:
    path.chmod(0o640)
    os.utime(path)
    path.with_name("hard.db").hardlink_to(path)


def point(link: Path, to: Path) -> None:
    link.unlink(missing_ok=True)
    to.touch()
    link.symlink_to(to)


def move(path: Path, to: str) -> Path:
    return path.rename(path.with_name(to))


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def remove_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-lock"):
        beside(path, suffix).unlink()


def replace_by_a_backup(path: Path) -> None:
    backup = path.with_name("backup.db")
    subprocess.run(["sqlite3" if shutil.which("sqlite3") else sys.executable, *_backup(path, backup)], check=True)
    backup.replace(path)


def _backup(path: Path, backup: Path) -> list[str]:
    if shutil.which("sqlite3"):
        return [str(path), f".backup {backup}"]
    copy = "import sqlite3, sys; a, b = map(sqlite3.connect, sys.argv[1:]); a.backup(b)"
    return ["-c", copy, str(path), str(backup)]


def replace_by_a_copy_of_the_wal(path: Path) -> None:
    wal = beside(path, "-wal")
    shutil.copy(wal, beside(path, "-new"))
    beside(path, "-new").replace(wal)


def replace_by_an_empty_one(path: Path) -> None:
    path.unlink()
    path.touch()


def rename_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


DEEDS: dict[str, Misdeed] = {
    "all files are removed": remove_all,
    "the file is removed": lambda path: path.unlink(),
    "the -wal is removed": lambda path: beside(path, "-wal").unlink(),
    "the -shm is removed": lambda path: beside(path, "-shm").unlink(),
    "the file is renamed": lambda path: path.rename(path.with_name("moved.db")),
    "the -wal is renamed": lambda path: beside(path, "-wal").rename(path.with_name("moved-wal")),
    "the file is replaced by a backup": replace_by_a_backup,
    "the file is replaced by an empty one": replace_by_an_empty_one,
    "the -wal is replaced by a copy": replace_by_a_copy_of_the_wal,
    "the file is cut to nothing": lambda path: os.truncate(path, 0),
    "the file is cut by a page": lambda path: os.truncate(path, path.stat().st_size - 4_096),
    "the -wal is cut to nothing": lambda path: os.truncate(beside(path, "-wal"), 0),
    "the -wal is cut by a byte": lambda path: os.truncate(
        beside(path, "-wal"), beside(path, "-wal").stat().st_size - 1
    ),
    "the folder is renamed": rename_the_folder,
}


@pytest.mark.parametrize("deed", DEEDS)
async def test_after_a_deed_to_its_files_the_journal_promises_nothing_more(path: Path, deed: str) -> None:
    path = path.parent / "folder" / path.name
    path.parent.mkdir()
    stores = await open_stores(f"sqlite:{path}", memory_max_bytes=0)
    journal, access, *_ = stores
    for number in range(3):
        await journal.append(batch_of(reading(number)))
    DEEDS[deed](path)
    for _ in range(3):
        with pytest.raises(JournalUnavailable, match="while the server ran, so nothing more is stored"):
            await journal.append(batch_of(reading(9)))
    with pytest.raises(JournalUnavailable, match="while the server ran"):
        await access.keyring()
    assert "while the server ran" in str(access.problem)
    await stores.close()


@pytest.mark.parametrize("moved", ["", "-wal", "-shm"])
async def test_a_file_that_is_put_back_is_gone_on_with(path: Path, moved: str) -> None:
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(reading(0)))
    away = move(beside(path, moved), "away")
    with pytest.raises(JournalUnavailable, match=f"{path}{moved} was removed or renamed"):
        await journal.append(batch_of(reading(1)))
    move(away, path.name + moved)
    assert (await journal.append(batch_of(reading(2)))).seqs == range(2, 3)
    await journal.close()
    assert values(path) == [0, 2]


async def test_a_link_that_leads_elsewhere_by_now_is_noticed(path: Path) -> None:
    link = path.with_name("link.db")
    point(link, path)
    journal = await SqliteJournal.open(str(link))
    await journal.append(batch_of(reading(0)))
    point(link, path.with_name("other.db"))
    with pytest.raises(JournalUnavailable, match=r"link\.db was replaced"):
        await journal.append(batch_of(reading(1)))
    await journal.close()
    assert values(path) == [0]


async def test_a_file_that_was_renamed_has_all_that_was_acknowledged_even_after_a_kill(path: Path) -> None:
    journal = await SqliteJournal.open(str(path))
    for number in range(5):
        await journal.append(batch_of(reading(number)))
    moved = move(path, "moved.db")
    with pytest.raises(JournalUnavailable):
        await journal.append(batch_of(reading(9)))

    def has_all() -> bool:
        with suppress(sqlite3.Error):
            return values_of_the_file_alone(moved) == [0, 1, 2, 3, 4]
        return False

    await eventually_async(has_all, "what was in the -wal is in the renamed file")
    await journal.close()
    assert values(moved) == [0, 1, 2, 3, 4]
    assert beside(path, "-wal").stat().st_size == 0, "what comes to stand at the old name finds no foreign -wal"


async def test_a_server_that_lost_its_files_leaves_those_of_the_next_one_alone(path: Path) -> None:
    lost = await SqliteJournal.open(str(path))
    await lost.append(batch_of(reading(0)))
    remove_all(path)
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(reading(1)))
    await lost.close()
    assert (await journal.append(batch_of(reading(2)))).seqs == range(2, 3)
    assert values_after_a_crash(path) == [1, 2]
    await journal.close()


async def test_what_other_programs_may_do_to_the_file_is_no_deed(path: Path) -> None:
    journal = await SqliteJournal.open(str(path))
    for number in range(400):
        await journal.append(batch_of(reading(number)))
    for sql in "pragma wal_checkpoint(truncate)", "vacuum", "pragma wal_checkpoint(truncate)":
        run_elsewhere(path, sql)
        await journal.append(batch_of(reading(9)))
    change_all_but_the_content(path)
    await journal.append(batch_of(reading(9)))
    await journal.close()
    assert len(values(path)) == 404


def test_an_open_that_fails_half_way_leaves_the_file_free(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("twincast.journal.sqlite.file.Guard", lambda *_: os.stat("/nowhere"))
        with pytest.raises(JournalUnusable):
            SqliteFile(str(path))
    SqliteFile(str(path)).close()


# A server as its user runs it.


def status_of(server: ServerProcess) -> tuple[bool, str]:
    status = server.get("/api/status")
    return status["ok"], status.get("problem", "")


@pytest.mark.parametrize("deed", ["all files are removed", "the file is replaced by a backup", "the -wal is removed"])
def test_a_server_whose_journal_is_gone_says_so_before_anybody_writes(
    server_process: StartServer, path: Path, deed: str, edge: str
) -> None:
    server = server_process(f"sqlite:{path}", edge=edge)
    assert server.post("/api/data", {"device_id": "lamp", "value": 1}).status_code == 200
    DEEDS[deed](path)
    eventually(lambda: not status_of(server)[0], "the status says that something is wrong")
    assert "while the server ran" in status_of(server)[1]
    refused = server.post("/api/data", {"device_id": "lamp", "value": 2})
    assert (refused.status_code, refused.json()["code"]) == (503, "journal_unavailable")
    assert "while the server ran" in refused.json()["detail"]
    assert "Traceback" not in server.stop()


def test_a_server_whose_journal_is_put_back_says_that_it_is_well(server_process: StartServer, path: Path) -> None:
    server = server_process(f"sqlite:{path}")
    away = path.rename(path.with_name("away"))
    eventually(lambda: not status_of(server)[0], "the status says that something is wrong")
    away.rename(path)
    eventually(lambda: status_of(server)[0], "the status says that it is well")
    assert server.post("/api/data", {"device_id": "lamp", "value": 1}).status_code == 200


def test_a_look_costs_microseconds(path: Path) -> None:
    file = SqliteFile(str(path))
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, arg: calls.append(arg.__name__) if event == "c_call" else None)
    file.guard.check()
    sys.setprofile(None)
    file.close()
    assert calls.count("stat") == 3, "and nothing else asks the system"
    assert calls.count("pread") == 1
    assert not {"open", "execute", "pragma"} & set(calls)
