"""`twincast journal`, as a person runs it."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from tests import warm
from tests.conftest import StartServer
from tests.fakes import batch_of
from tests.journal.sqlite.history.making import close_log
from twincast.core.model import DataUpdate
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.history.layout import folder_of
from twincast.testing import Nats


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of([DataUpdate("lamp", Raw(b"1"), "2026-11-23T16:24:00.123456+00:00", "rest")]))
    return path


def run(journal: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twincast", "journal", *arguments, "--journal", f"sqlite:{journal}"]
    return warm.run(command, cwd=journal.parent, capture_output=True, text=True, timeout=120, check=False)


def test_a_journal_is_backed_up_checked_and_put_back(journal: Path) -> None:
    made = run(journal, "backup", "monday")
    assert (made.returncode, made.stdout) == (0, "")
    assert "is a backup of" in made.stderr
    assert run(journal, "check", "monday").returncode == 0
    refused = run(journal, "restore", "monday")
    assert refused.returncode == 1
    assert refused.stderr.startswith("twincast: there is a journal already")
    assert refused.stderr.count("\n") == 1
    back = run(journal, "restore", "monday", "--force")
    assert back.returncode == 0
    assert "What was there is" in back.stderr
    assert run(journal, "check").returncode == 0


@pytest.mark.parametrize("command", ["backup", "restore", "check"])
def test_a_file_in_place_of_a_backup_is_said_to_be_one(journal: Path, command: str) -> None:
    (journal.parent / "note.txt").write_text("x")
    refused = run(journal, command, "note.txt")
    assert refused.returncode == 1
    assert "note.txt is a file; a backup is a folder" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert "Errno" not in refused.stderr and "Not a directory" not in refused.stderr


def test_a_server_that_runs_is_backed_up_and_described_and_nothing_is_put_under_it(
    server_process: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "served.db"
    server = server_process(f"sqlite:{path}")
    server.post("/api/data", {"device_id": "lamp", "value": 1})
    facts = json.loads(run(path, "info", "--json").stdout)
    assert (facts["newest_seq"], facts["devices"], facts["is_served"]) == (1, 1, True)
    assert facts["epoch"] == server.get("/api/status")["epoch"]
    assert run(path, "backup", "tuesday").returncode == 0
    refused = run(path, "restore", "tuesday", "--force")
    assert refused.returncode == 1
    assert "a server runs on" in refused.stderr
    assert server.post("/api/data", {"device_id": "lamp", "value": 2}).json()["event"]["seq"] == 2


def test_info_says_how_full_a_journal_is_and_for_how_long_its_disk_lasts(journal: Path) -> None:
    facts = json.loads(run(journal, "info", "--json").stdout)
    assert facts["file_bytes"] == journal.stat().st_size
    assert (facts["entries"], facts["oldest_at_utc"]) == (1, "2026-11-23T16:24:00.123456+00:00")
    assert facts["disk_free_bytes"] > 0
    assert (facts["growth_bytes_per_s"], facts["full_in_s"]) == (None, None), "one change is no pace"
    with closing(SqliteFile(str(journal))) as file:
        for minute in range(25, 30):
            file.append(
                batch_of([DataUpdate("lamp", Raw(b"1"), f"2026-11-23T16:{minute}:00.123456+00:00", "rest")] * 40)
            )
    facts = json.loads(run(journal, "info", "--json").stdout)
    used_bytes = facts["file_bytes"] - facts["free_bytes"]
    assert facts["growth_bytes_per_s"] == round(200 / 300 * used_bytes / 201, 1)
    room_bytes = facts["disk_free_bytes"] + facts["free_bytes"]
    assert facts["full_in_s"] == round(room_bytes / facts["growth_bytes_per_s"], 1)
    said = run(journal, "info").stdout
    assert re.search(r"disk full, untrimmed, in +(\d|,)+ years *\n", said) and re.search(r" file +\d+\.\d KB *\n", said)
    assert re.search(r" growth +\d+ bytes/s *\n", said) and re.search(r"a server runs on it +no *\n", said)
    assert not re.search(r"True|False|_| in s |bytes per s", said)


def test_a_backup_is_made_again_and_the_journal_remembers_where(journal: Path) -> None:
    assert run(journal, "backup", "daily").returncode == 0
    with closing(SqliteFile(str(journal))) as file:
        file.append(batch_of([DataUpdate("lamp", Raw(b"2"), "2026-11-23T16:25:00.123456+00:00", "rest")]))
    again = run(journal, "backup", "daily")
    assert (again.returncode, "up to entry 2" in again.stderr) == (0, True)
    assert "took no note" not in again.stderr
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        [[text]] = db.execute("select value from meta where name = 'backups'")
    [noted] = json.loads(text)
    assert (noted["place"], noted["seq"]) == (str(journal.parent / "daily"), 2)
    assert json.loads(run(journal, "info", "--json").stdout)["backups"] == [noted]
    assert f"up to entry 2: {journal.parent / 'daily'} on " in run(journal, "info").stdout


def test_a_backup_of_a_journal_that_lost_a_part_has_the_rest_and_says_so(journal: Path) -> None:
    with closing(SqliteFile(str(journal))) as file:
        file.append(batch_of([DataUpdate("lamp", Raw(b"2"), "2026-11-23T16:25:00.123456+00:00", "rest")] * 50))
    close_log(str(journal), 15)
    (Path(folder_of(str(journal))) / "000000000016.db").unlink()
    made = run(journal, "backup", "monday")
    said = "000000000016.db is gone: the log lacks the entries from 16 to 30"
    assert (made.returncode, made.stdout.strip()) == (1, said)
    assert "It has all but what is lost." in made.stderr
    checked = run(journal, "check", "monday")
    assert (checked.returncode, checked.stdout.strip()) == (1, said)
    assert "has all but what its journal had lost" in checked.stderr
    back = run(journal, "restore", "monday", "--force")
    assert (back.returncode, said in back.stderr) == (0, True)
    assert run(journal, "check").returncode == 1
    assert sorted(os.listdir(folder_of(str(journal)))) == [f"{first:012}.db" for first in (1, 31)]


def test_a_journal_is_compacted_while_no_server_runs(journal: Path) -> None:
    with closing(SqliteFile(str(journal))) as file:
        file.append(
            batch_of(
                [DataUpdate("lamp", Raw(b'"%s"' % (b"x" * 500)), "2026-11-23T16:25:00.123456+00:00", "rest")] * 2_000
            )
        )
    with closing(sqlite3.connect(journal)) as db, db:
        db.execute("delete from log where seq < 1900")
    before = journal.stat().st_size
    said = run(journal, "compact")
    assert (said.returncode, said.stdout) == (0, "")
    assert journal.stat().st_size < before / 4
    assert f"takes {journal.stat().st_size:,} bytes instead of {before:,}." in said.stderr
    with closing(SqliteFile(str(journal))):
        refused = run(journal, "compact")
    assert refused.returncode == 1
    assert f"a server runs on {journal}. A journal is compacted while" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_partition_that_is_gone_is_said_when_a_journal_is_compacted(journal: Path) -> None:
    with closing(SqliteFile(str(journal))) as file:
        file.append(batch_of([DataUpdate("lamp", Raw(b"2"), "2026-11-23T16:25:00.123456+00:00", "rest")] * 50))
    close_log(str(journal), 15)
    lost = Path(folder_of(str(journal))) / "000000000016.db"
    lost.unlink()
    said = run(journal, "compact")
    assert said.returncode == 1
    assert said.stdout.startswith(f"{lost} is gone: put the file of the same name")
    assert "bytes instead of" in said.stderr


def test_damage_is_said_with_the_exit_status(journal: Path) -> None:
    content = bytearray(journal.read_bytes())
    content[4_096 : 2 * 4_096] = bytes(4_096)
    journal.write_bytes(content)
    said = run(journal, "check")
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("command", [("backup", "there"), ("restore", "there"), ("check",), ("info",), ("compact",)])
def test_a_mistyped_path_and_a_journal_in_memory_are_errors_of_one_line(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    said = run(tmp_path / "mistyped.db", *command)
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    in_memory = [sys.executable, "-m", "twincast", "journal", *command, "--journal", "memory:"]
    said = warm.run(in_memory, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert said.returncode == 1
    assert "a journal on disk" in said.stderr


def test_a_journal_is_moved_to_a_shared_log_and_back(journal: Path, tmp_path: Path) -> None:
    def move(source: str, target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "twincast", "journal", "move", source, target]
        return warm.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    with Nats() as nats:
        there = move(f"sqlite:{journal}", nats.url("lab"))
        assert (there.returncode, there.stdout) == (0, "")
        assert "/lab has the log of" in there.stderr
        assert "1 entries" in there.stderr
        again = move(f"sqlite:{journal}", nats.url("other"))
        assert again.returncode == 1
        assert "was moved to" in again.stderr
        assert again.stderr.count("\n") == 1
        back = move(nats.url("lab"), "sqlite:back.db")
        assert back.returncode == 0
        assert "up to entry 1" in back.stderr
    assert run(tmp_path / "back.db", "check").returncode == 0
