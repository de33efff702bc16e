"""The file of a spool: what was accepted is in it, whatever happens; what is no spool is refused and left as it is."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.running import ROOT
from twincast.client.spool_file import APPLICATION_ID, ROW_BYTES, SCHEMA_VERSION, Refusal, Row, SpoolFile
from twincast.errors import BufferFull, SpoolFull, SpoolUnusable


def row(line: int, text: str = "é") -> Row:
    return Row(line, f'{{"value":"{text}"}}', len(text) + 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def lines_of(path: Path) -> list[int]:
    with closing(SpoolFile(path)) as file:
        return [each.line for each in file.read(0, 100, 1 << 20)]


def test_lines_are_found_again_in_order_with_what_they_take(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        assert (file.last_line, file.lines, file.size_bytes, file.refused) == (0, 0, 0, 0)
        file.write([row(1), row(2)], [])
        file.write([row(4)], [1])
        producer = file.producer
    with closing(SpoolFile(path)) as file:
        assert (file.producer, file.last_line, file.lines) == (producer, 4, 2)
        assert file.size_bytes == sum(each.size_bytes for each in (row(2), row(4))) > 2 * ROW_BYTES
        assert file.read(0, 10, 1 << 20) == [row(2), row(4)]
        assert file.read(2, 10, 1 << 20) == [row(4)]
        assert file.read(0, 1, 1 << 20) == file.read(0, 10, 1) == [row(2)]


def test_each_file_has_a_producer_of_its_own(tmp_path: Path) -> None:
    producers = set()
    for name in ("a", "b", "c"):
        with closing(SpoolFile(tmp_path / name)) as file:
            producers.add(file.producer)
    assert len(producers) == 3 and all(len(producer) == 32 for producer in producers)


def test_a_number_is_never_given_out_again_though_its_line_is_gone(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([row(1), row(2), row(3)], [])
        file.write([], [1, 2, 3])
    with closing(SpoolFile(path)) as file:
        assert (file.lines, file.last_line) == (0, 3)


def test_it_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SpoolFile(path)) as file:
            file.write([row(1)], [])
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes
    assert {"outbox.db", "outbox.db-wal", "outbox.db.lock"} == set(modes)


def test_a_file_that_was_closed_stands_alone(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([row(1)], [])
    assert not path.with_name("outbox.db-wal").exists()
    assert query(path, "select line, message, value_bytes, measured_at_utc from line") == [(*row(1), None)]


def test_what_fails_is_taken_back_whole(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([row(1), row(2)], [])
        with pytest.raises(SpoolUnusable):
            file.write([row(3), row(2)], [1])  # there is a line 2 already
        assert [each.line for each in file.read(0, 10, 1 << 20)] == [1, 2]
        file.write([row(3)], [1])
    assert lines_of(path) == [2, 3]


def test_what_was_refused_is_kept_aside_the_newest_within_a_bound(path: Path) -> None:
    bound: Any = {"refused_max_bytes": 2 * len(row(1).message)}
    with closing(SpoolFile(path)) as file:
        file.write([row(number) for number in range(1, 6)], [])
        file.write([], [1, 2], [Refusal(2, "too_large", "a value takes less")], **bound)
        assert file.refused == 1
        file.write([], [3, 4], [Refusal(3, "no", "no"), Refusal(4, "no", "no")], **bound)
        assert file.refused == 2
    assert query(path, "select line, code from refused") == [(3, "no"), (4, "no")]
    assert lines_of(path) == [5]
    with closing(SpoolFile(path)) as file:
        assert file.refused == 2


# Accepted is on disk.

ACCEPTING = """
import itertools, sys
from twincast.client.spool_file import Row, SpoolFile
file = SpoolFile(sys.argv[1])
for line in itertools.count(file.last_line + 1):
    file.write([Row(line, '{"value":%d}' % line, 1)], [line - 3] if line > 3 else [])
    print(line, flush=True)
"""


def test_a_process_that_is_killed_leaves_all_that_it_accepted(path: Path) -> None:
    last = 0
    for _ in range(3):
        process = warm.Popen([sys.executable, "-c", ACCEPTING, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        for _ in range(50):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        printed = process.stdout.read().split()
        process.wait()
        last = int(printed[-1]) if printed else last
        found = lines_of(path)
        assert found in ([last - 2, last - 1, last], [last - 1, last, last + 1])


def test_each_commit_is_synced(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        assert file._db is not None
        assert file._db.execute("pragma synchronous").fetchone() == (2,), "full"
        assert file._db.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_full_disk_is_said_and_what_was_accepted_stays(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([row(1)], [])
        assert file._db is not None
        file._db.execute("pragma max_page_count = 1")  # SQLite then says what it says of a full disk
        with pytest.raises(SpoolFull, match=r"disk of the spool .* is full") as refused:
            file.write([row(2, "x" * 100_000)], [])
        assert isinstance(refused.value, BufferFull)
        file._db.execute("pragma max_page_count = 1000000")
        file.write([row(3)], [1])
    assert lines_of(path) == [3]


# One process a file.


def test_a_second_program_is_refused_as_long_as_the_first_one_lives(path: Path) -> None:
    process = warm.Popen([sys.executable, "-c", ACCEPTING, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(SpoolUnusable, match="in use by another program; give each one a file of its own"):
        SpoolFile(path)
    process.kill()
    process.wait()
    process.stdout.close()
    SpoolFile(path).close()


def test_a_file_that_some_other_tool_holds_is_not_used(path: Path) -> None:
    SpoolFile(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(SpoolUnusable, match="open in another program; close it there"):
            SpoolFile(path)
    SpoolFile(path).close()


# What is no spool.


def make(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([row(number, "x" * 1_000) for number in range(1, 50)], [])


def cut_short(path: Path) -> None:
    make(path)
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    make(path)
    with path.open("r+b") as file:
        file.seek(3 * 4_096)
        file.write(b"\xff" * 3 * 4_096)


def put_a_text(path: Path) -> None:
    path.write_text("this is my diary\n" * 100)


def put_another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table line (diary)")


def put_a_newer_one(path: Path) -> None:
    make(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")


def leave_the_wal_alone(path: Path) -> None:
    path.with_name("outbox.db-wal").write_bytes(b"its lines")


def empty_it_beside_its_wal(path: Path) -> None:
    path.write_bytes(b"")
    leave_the_wal_alone(path)


WRONGS: list[tuple[Callable[[Path], None], str]] = [
    (cut_short, "torn|is not a spool"),
    (overwrite, "torn"),
    (put_a_text, "is not a spool, or is damaged; move it away"),
    (put_another_database, "is an SQLite database, but not a spool; name another file"),
    (put_a_newer_one, f"of version {SCHEMA_VERSION + 1}, written by a newer twincast"),
    (lambda path: path.mkdir(), "cannot be used: Is a directory"),
    (leave_the_wal_alone, "is empty or gone, and its lines may be in .*-wal; put the file back"),
    (empty_it_beside_its_wal, "is empty or gone"),
]


@pytest.mark.parametrize(("damage", "words"), WRONGS)
def test_what_is_no_spool_is_refused_in_words_and_left_as_it_is(
    path: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(path)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    with pytest.raises(SpoolUnusable, match=words):
        SpoolFile(path)
    after = {each.name: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    assert {name: data for name, data in after.items() if name != "outbox.db.lock"} == {
        name: data for name, data in before.items() if name != "outbox.db.lock"
    }


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnusable, match="there is no folder"):
        SpoolFile(tmp_path / "nowhere" / "outbox.db")


def test_an_empty_file_becomes_a_spool_for_there_is_nothing_in_it(path: Path) -> None:
    path.touch()
    SpoolFile(path).close()
    assert query(path, "pragma application_id") == [(APPLICATION_ID,)]
