"""The file of a spool: what was accepted is in it, whatever happens; what is no spool is refused and left as it is."""

import json
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
from twincast.client.spool_file import APPLICATION_ID, SCHEMA_VERSION, SpoolFile
from twincast.client.spool_line import ROW_BYTES, Refusal, Row
from twincast.errors import BufferFull, SpoolFull, SpoolUnusable

AT = "2026-11-27T04:16:10.250000+00:00"


def row(line: int, text: str = "é", at: str = AT, measured: str | None = None) -> Row:
    return Row(line, f'{{"value":"{text}"}}', len(text) + 2, at, measured)


def reading(line: int, device: str, at: str = AT, measured: str | None = None) -> Row:
    return Row(line, f'{{"type":"telemetry","device_id":"{device}","value":{line}}}', 1, at, measured)


def deletion(line: int, device: str) -> Row:
    return Row(line, f'{{"type":"delete","device_id":"{device}"}}', 0, AT)


def control(line: int) -> Row:
    return Row(line, '{"type":"control","target":"lamp","command":"on","args":{}}', 0, AT)


def of_a_kind(*rows: Row, part: bool | None = True) -> list[tuple[Row, bool | None]]:
    return [(each, part) for each in rows]


def read(
    file: SpoolFile, after: int = 0, limit: int = 100, max_bytes: int = 1 << 20, *, live: bool = True
) -> list[Row]:
    return file.read(after, limit, max_bytes, is_live=live)


def parts(file: SpoolFile) -> tuple[list[int], list[int]]:
    """Return the live lines and those of the backlog."""
    return [each.line for each in read(file)], [each.line for each in read(file, live=False)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def lines_of(path: Path) -> list[int]:
    with closing(SpoolFile(path)) as file:
        return [each.line for each in read(file)]


def test_lines_are_found_again_in_order_with_what_they_take(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        assert (file.last_line, file.lines, file.size_bytes, file.refused) == (0, 0, 0, 0)
        file.write(of_a_kind(row(1), row(2)), [])
        file.write(of_a_kind(row(4)), [1])
        producer = file.producer
    with closing(SpoolFile(path)) as file:
        assert (file.producer, file.last_line, file.lines) == (producer, 4, 2)
        assert file.size_bytes == sum(each.size_bytes for each in (row(2), row(4))) > 2 * ROW_BYTES
        assert read(file) == [row(2), row(4)]
        assert read(file, 2) == [row(4)]
        assert read(file, 0, 1) == read(file, 0, 10, 1) == [row(2)]


def test_each_file_has_a_producer_of_its_own(tmp_path: Path) -> None:
    producers = set()
    for name in ("a", "b", "c"):
        with closing(SpoolFile(tmp_path / name)) as file:
            producers.add(file.producer)
    assert len(producers) == 3 and all(len(producer) == 32 for producer in producers)


def test_a_number_is_never_given_out_again_though_its_line_is_gone(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(row(1), row(2), row(3)), [])
        file.write([], [1, 2, 3])
    with closing(SpoolFile(path)) as file:
        assert (file.lines, file.last_line) == (0, 3)


def test_it_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(SpoolFile(path)) as file:
            file.write(of_a_kind(row(1)), [])
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}, modes
    assert {"outbox.db", "outbox.db-wal", "outbox.db.lock"} == set(modes)


def test_a_file_that_was_closed_stands_alone(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(row(1)), [])
    assert not path.with_name("outbox.db-wal").exists()
    columns = "line, message, value_bytes, accepted_at_utc, measured_at_utc, is_live"
    assert query(path, f"select {columns} from line") == [(*row(1), 1)]


def test_what_fails_is_taken_back_whole(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(row(1), row(2)), [])
        with pytest.raises(SpoolUnusable):
            file.write(of_a_kind(row(3), row(2)), [1])  # there is a line 2 already
        assert [each.line for each in read(file)] == [1, 2]
        file.write(of_a_kind(row(3)), [1])
    assert lines_of(path) == [2, 3]


def test_what_was_refused_is_kept_aside_the_newest_within_a_bound(path: Path) -> None:
    bound: Any = {"refused_max_bytes": 2 * len(row(1).message)}
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(*map(row, range(1, 6))), [])
        file.write([], [1, 2], [Refusal(2, "too_large", "a value takes less")], **bound)
        assert file.refused == 1
        file.write([], [3, 4], [Refusal(3, "no", "no"), Refusal(4, "no", "no")], **bound)
        assert file.refused == 2
    assert query(path, "select line, code from refused") == [(3, "no"), (4, "no")]
    assert lines_of(path) == [5]
    with closing(SpoolFile(path)) as file:
        assert file.refused == 2


# Which lines are live, which are the backlog.


def test_lines_are_live_or_the_backlogs_or_neither_yet(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([(row(1), True), (row(2), False), (row(3), None), (row(4), True)], [])
        assert parts(file) == ([1, 4], [2])
    with closing(SpoolFile(path)) as file:
        assert (file.live[:3], file.backlog[:3], file.undecided[:3]) == ((2, 1, 4), (1, 2, 2), (1, 3, 3))
        assert file.live.size_bytes == row(1).size_bytes + row(4).size_bytes
        assert file.lines == 4


def test_all_that_waited_becomes_live(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write([(row(1), False), (row(2), None), (row(3), None)], [])
        file.make_all_live()
        assert parts(file) == ([2, 3], [1])
        file.make_all_live()
    with closing(SpoolFile(path)) as file:
        assert parts(file) == ([2, 3], [1])


def test_the_newest_reading_of_each_device_becomes_live_and_the_others_the_backlog(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        waited = [reading(1, "a"), reading(2, "b"), control(3), reading(4, "a"), reading(5, "c"), deletion(6, "c")]
        file.write(of_a_kind(*waited, part=None), [])
        assert file.make_newest_live(100, 100, {'"c"'}) == (
            2,
            2,
            4,
            reading(2, "b").size_bytes + reading(4, "a").size_bytes,
        )
        assert parts(file) == ([2, 4], [1, 3, 5, 6])
        assert file.make_newest_live(100, 100, ()) == (0, 0, 0, 0), "what is in the backlog stays there"
        file.write(of_a_kind(reading(7, "a"), part=None), [1, 2, 3, 4, 5, 6])
    with closing(SpoolFile(path)) as file:
        assert parts(file) == ([], []) and file.undecided[:3] == (1, 7, 7)
        assert file.make_newest_live(100, 100, ())[:3] == (1, 7, 7)


def test_the_newest_is_what_was_measured_last(path: Path) -> None:
    older, newer = "2026-11-27T04:16:11.000000+00:00", "2026-11-27T04:16:12.000000+00:00"
    with closing(SpoolFile(path)) as file:
        waited = [reading(1, "a", measured=newer), reading(2, "a", at=newer, measured=older), reading(3, "a")]
        file.write(of_a_kind(*waited, reading(4, "b"), reading(5, "b"), part=None), [])
        file.make_newest_live(100, 100, ())
        assert parts(file) == ([1, 5], [2, 3, 4])


def test_the_newest_are_among_the_last_lines_and_of_a_bounded_number(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(*(reading(line, f"device {line}") for line in range(1, 11)), part=None), [])
        assert file.make_newest_live(5, 3, ())[:3] == (3, 8, 10)
        assert parts(file) == ([8, 9, 10], [1, 2, 3, 4, 5, 6, 7])
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(*(reading(line, f"device {line}") for line in range(11, 21)), part=None), [])
        assert file.make_newest_live(5, 100, ()).number == 5


def test_live_lines_that_were_not_sent_can_be_taken_back(path: Path) -> None:
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(row(1), row(2), control(3), reading(4, "a")), [])
        taken, without_time = file.take_back(1)
        assert (taken[:3], without_time) == ((3, 2, 4), [row(2), control(3)])
        assert parts(file) == ([1], [])
        file.make_all_live()
        assert parts(file) == ([1, 2, 3, 4], [])


def test_what_has_no_time_is_found_each_with_its_part(path: Path) -> None:
    untimed = reading(5, "a", measured="")
    with closing(SpoolFile(path)) as file:
        file.write([(reading(1, "a"), True), (control(2), True), (deletion(3, "a"), False), (control(4), None)], [])
        file.write([(untimed, None), (reading(6, "a", measured=AT), None)], [])
    with closing(SpoolFile(path)) as file:
        found = [(control(2), True), (deletion(3, "a"), False), (control(4), None), (untimed, None)]
        assert file.without_time() == found
        assert read(file, live=False) == [deletion(3, "a")]


@pytest.mark.parametrize("device", ["lamp", "\u00e9", '"', "\\", 'x","value":1', "a\\"])
def test_a_line_says_its_device_whatever_its_name(device: str) -> None:
    name = json.dumps(device, ensure_ascii=False)
    inner = f'{{"a":"b","value":{name}}}'
    assert Row(1, f'{{"type":"telemetry","device_id":{name},"value":{inner}}}', 1, AT).device == name
    assert Row(1, f'{{"type":"delete","device_id":{name}}}', 1, AT).device == name


# A file of version 1.

VERSION_1 = """
pragma application_id = 0x5457534F; pragma user_version = 1;
create table meta (name text primary key, value text not null) without rowid;
create table line (line integer primary key autoincrement, message text not null, value_bytes integer not null,
    accepted_at_utc text not null, measured_at_utc text);
create table refused (line integer primary key, message text not null, value_bytes integer not null,
    accepted_at_utc text not null, measured_at_utc text, refused_at_utc text not null, code text not null,
    reason text not null);
insert into meta values ('producer', '0123456789abcdef0123456789abcdef');
"""


def test_the_lines_of_an_older_version_are_the_backlog_for_any_may_have_been_sent(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(VERSION_1)
        for line in (3, 4, 5):
            db.execute("insert into line values (?, ?, ?, ?, ?)", reading(line, "a"))
        db.execute("pragma journal_mode = wal")
    for _ in range(2):
        with closing(SpoolFile(path)) as file:
            assert file.producer == "0123456789abcdef0123456789abcdef"
            assert (file.live[:3], file.backlog[:3], file.undecided[:3]) == ((0, 0, 0), (3, 3, 5), (0, 0, 0))
            assert read(file, live=False)[0] == reading(3, "a") and file.last_line == 5
    with closing(SpoolFile(path)) as file:
        file.write(of_a_kind(reading(6, "a"), part=None), [3])
        file.make_all_live()
        assert parts(file) == ([6], [4, 5])


# Accepted is on disk.

ACCEPTING = """
import itertools, sys
from twincast.client.spool_file import SpoolFile
from twincast.client.spool_line import Row
file = SpoolFile(sys.argv[1])
for line in itertools.count(file.last_line + 1):
    file.write([(Row(line, '{"value":%d}' % line, 1, "2026"), True)], [line - 3] if line > 3 else [])
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
        file.write(of_a_kind(row(1)), [])
        assert file._db is not None
        file._db.execute("pragma max_page_count = 1")  # SQLite then says what it says of a full disk
        with pytest.raises(SpoolFull, match=r"disk of the spool .* is full") as refused:
            file.write(of_a_kind(row(2, "x" * 100_000)), [])
        assert isinstance(refused.value, BufferFull)
        file._db.execute("pragma max_page_count = 1000000")
        file.write(of_a_kind(row(3)), [1])
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
        file.write(of_a_kind(*(row(number, "x" * 1_000) for number in range(1, 50))), [])


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
