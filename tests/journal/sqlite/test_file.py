"""The journal's file: readable by any SQLite tool while it is written, and refused with a reason if it cannot serve."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import batch_of
from twincast.core.audit import Actor
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.keys import Key, Pairing
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Late, Twin
from twincast.core.producers import ProducerMark
from twincast.errors import JournalUnavailable, JournalUnusable, Truncated
from twincast.journal.sqlite import checkpoint, idempotency
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite import producers as sqlite_producers
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.schema import APPLICATION_ID, COPY_OF, SCHEMA_VERSION

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteFile]:
    file = SqliteFile(str(path))
    yield file
    file.close()


def reading(device_id: str, value: bytes = b"1", at: str = NOW_UTC) -> DataUpdate:
    return DataUpdate(device_id, Raw(value), at, "rest")


def order(target: str, args: bytes = b"{}") -> Control:
    return Control(target, "on", Raw(args), NOW_UTC, "websocket")


def deletion(device_id: str) -> Deleted:
    return Deleted(device_id, NOW_UTC, "rest")


def query(path: Path, sql: str) -> list[Any]:
    """Ask as a stranger would: with another SQLite, and read-only."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


# The public schema.


def test_the_file_says_what_it_is(file: SqliteFile, path: Path) -> None:
    assert query(path, "pragma application_id") == [(APPLICATION_ID,)] == [(int.from_bytes(b"TWIN", "big"),)]
    assert query(path, "pragma user_version") == [(SCHEMA_VERSION,)]


def test_a_stranger_reads_the_log_while_it_is_written(file: SqliteFile, path: Path) -> None:
    file.append(batch_of([reading("lamp", b'{"on":true}'), order("lamp", b'{"to":3}')]))
    columns = "seq, type, device_id, value, command, timestamp_utc, source"
    assert query(path, f"select {columns} from log order by seq") == [
        (1, "data_update", "lamp", '{"on":true}', None, NOW_UTC, "rest"),
        (2, "control", "lamp", '{"to":3}', "on", NOW_UTC, "websocket"),
    ]
    file.append(batch_of([reading("door")]))
    assert query(path, "select max(seq) from log") == [(3,)]
    assert query(path, "select json_extract(value, '$.on') from log where seq = 1") == [(1,)]
    assert query(path, "select distinct typeof(value) from log") == [("text",)]


def test_a_stranger_who_is_reading_does_not_hold_up_the_journal(file: SqliteFile, path: Path) -> None:
    file.append(batch_of([reading("lamp")]))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("begin")
        assert db.execute("select count(*) from log").fetchone() == (1,)
        file.append(batch_of([reading("lamp")]))
        file.checkpoint()
        assert db.execute("select count(*) from log").fetchone() == (1,)
        db.execute("commit")
        assert db.execute("select count(*) from log").fetchone() == (2,)


def test_the_view_twin_shows_the_state_before_and_after_a_checkpoint(file: SqliteFile, path: Path) -> None:
    file.append(
        batch_of([reading("lamp", b"1"), reading("door", b'"open"', "earlier"), order("lamp"), reading("lamp", b"2")])
    )
    expected = [("door", '"open"', "earlier", "rest", 2), ("lamp", "2", NOW_UTC, "rest", 4)]
    twins = "select device_id, value, updated_at_utc, source, seq from twin order by device_id"
    assert query(path, twins) == expected
    file.checkpoint()
    assert query(path, twins) == expected
    file.append(batch_of([reading("lamp", b"3")]))
    assert query(path, twins) == [expected[0], ("lamp", "3", NOW_UTC, "rest", 5)]
    file.append(batch_of([deletion("lamp")]))
    assert query(path, twins) == expected[:1]
    file.checkpoint()
    assert query(path, twins) == expected[:1]
    assert query(path, "select device_id from checkpoint") == [("door",)]
    assert query(path, "select type, value, command from log where seq = 6") == [("deleted", "null", None)]


@given(
    st.lists(
        st.one_of(
            st.lists(
                st.tuples(st.sampled_from("abcd"), st.sampled_from([reading, order, deletion])), min_size=1, max_size=6
            ),
            st.just("checkpoint"),
        ),
        max_size=12,
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_view_the_snapshot_and_the_log_agree_wherever_the_checkpoint_is(
    tmp_path: Path, script: list[list[tuple[str, Callable[..., Entry]]] | str]
) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    file = SqliteFile(str(path))
    newest: dict[str, tuple[int, str]] = {}
    for step in script:
        if isinstance(step, str):
            file.checkpoint()
            continue
        batch: list[Entry] = []
        for seq, (name, make) in enumerate(step, file.seq + 1):
            batch.append(make(name, b"%d" % seq) if make is reading else make(name))
            if make is reading:
                newest[name] = (seq, str(seq))
            elif make is deletion:
                newest.pop(name, None)
        file.append(batch_of(batch))
    view = {name: (seq, value) for name, seq, value in query(path, "select device_id, seq, value from twin")}
    state = {name: (twin.seq, bytes(twin.value).decode()) for name, twin in file.snapshot().twins.items()}
    assert view == state == newest
    file.close()


# Checkpoint and replay.


def restarted(path: Path) -> dict[str, tuple[int, bytes]]:
    """Open the file anew and return its state."""
    file = SqliteFile(str(path))
    twins = {name: (twin.seq, bytes(twin.value)) for name, twin in file.snapshot().twins.items()}
    file.close()
    return twins


def test_it_is_remembered_when_devices_were_deleted_wherever_the_checkpoint_is(
    file: SqliteFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "DELETIONS_MAX", 2)
    times = [f"2026-11-23T16:24:0{n}.000000+00:00" for n in range(5)]
    for n, name in enumerate("abcad"):
        file.append(batch_of([reading(name), Deleted(name, times[n], "rest"), reading(name)]))
        if n in {1, 3}:
            file.checkpoint()
        expected = list(dict.fromkeys(reversed("abcad"[: n + 1])))[:2][::-1]  # those that were deleted last
        newest = {each: times["abcad".rindex(each, 0, n + 1)] for each in expected}
        assert list(file.snapshot().deletions.items()) == list(newest.items())
    file.checkpoint()
    assert query(path, "select device_id, deleted_at_utc, seq from deletion order by seq") == [
        ("a", times[3], 11),
        ("d", times[4], 14),
    ]


def test_late_readings_change_neither_the_view_nor_the_checkpoint(file: SqliteFile, path: Path) -> None:
    measured = DataUpdate("lamp", Raw(b"1"), NOW_UTC, "rest", measured_at_utc=NOW_UTC)
    late = Late("lamp", Raw(b"2"), NOW_UTC, "rest", "2026-11-23T16:23:00.000000+00:00")
    file.append(batch_of([measured, late, Late("other", Raw(b"3"), NOW_UTC, "rest", NOW_UTC)]))
    for _ in range(2):
        assert query(path, "select device_id, value, seq, measured_at_utc from twin") == [("lamp", "1", 1, NOW_UTC)]
        assert file.snapshot().twins == {"lamp": Twin(Raw(b"1"), NOW_UTC, 1, "rest", measured_at_utc=NOW_UTC)}
        file.checkpoint()
    assert query(path, "select seq, type, measured_at_utc from log where type = 'late'") == [
        (2, "late", "2026-11-23T16:23:00.000000+00:00"),
        (3, "late", NOW_UTC),
    ]


def test_a_start_reads_the_checkpoint_and_replays_only_what_the_log_has_since(path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of([reading("old", b"1"), reading("both", b"2")]))
    file.checkpoint()
    file.append(batch_of([reading("both", b"3"), reading("new", b"4")]))
    # A trace in the checkpoint tells whether the start reads it, and in the log whether it replays the tail alone.
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update checkpoint set value = '\"checkpoint\"' where device_id = 'old'")
        db.execute("update log set value = '\"replayed\"' where seq <= 2")
    twins = {name: bytes(twin.value) for name, twin in file.snapshot().twins.items()}
    assert twins == {"old": b'"checkpoint"', "both": b"3", "new": b"4"}
    file.close()


def test_a_crash_between_checkpoints_loses_nothing(path: Path, tmp_path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of([reading("a", b"1")]))
    file.checkpoint()
    file.append(batch_of([reading("a", b"2"), reading("b", b"3")]))
    crashed = tmp_path / "crashed.db"
    for suffix in ("", "-wal"):  # what a killed process leaves behind
        (tmp_path / f"crashed.db{suffix}").write_bytes((tmp_path / f"journal.db{suffix}").read_bytes())
    assert restarted(crashed) == {"a": (2, b"2"), "b": (3, b"3")}
    file.close()


def test_a_checkpoint_takes_a_slice_and_is_due_again_until_it_caught_up(
    file: SqliteFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 10)
    file.append(batch_of([reading("a") for _ in range(9)]))
    assert not file.checkpoint_is_due
    file.append(batch_of([reading("a") for _ in range(16)]))
    reached: list[Any] = []
    while file.checkpoint_is_due:
        file.checkpoint()
        reached += query(path, "select cast(value as integer) from meta where name = 'checkpoint_seq'")
    assert reached == [(10,), (20,)]
    assert query(path, "select seq from checkpoint") == [(20,)]


def test_commits_larger_than_a_slice_do_not_leave_the_checkpoint_behind(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 10)
    for _ in range(40):
        file.append(batch_of([reading(f"d{number}") for number in range(50)]))
        file.checkpoint()  # one slice between two commits, as they come at full load
        assert file.seq - file.checkpoint_seq <= 4 * 50


def test_a_closed_file_stands_alone_with_its_checkpoint_up_to_date(path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of([reading("a", b"1"), reading("a", b"2"), order("a")]))
    file.close()
    assert not path.with_name("journal.db-wal").exists()
    assert query(path, "select value from meta where name = 'checkpoint_seq'") == [("3",)]
    assert query(path, "select value, seq from checkpoint") == [("2", 2)]


def test_the_hot_transaction_writes_the_log_and_nothing_else(file: SqliteFile, path: Path) -> None:
    file.append(batch_of([reading("a")]))
    assert query(path, "select count(*) from checkpoint") == [(0,)]
    assert query(path, "select value from meta where name = 'checkpoint_seq'") == [("0",)]
    assert query(
        path, "select count(*) from sqlite_schema where type in ('index', 'trigger') and tbl_name = 'log'"
    ) == [(0,)]


def test_the_log_survives_a_power_cut_by_its_settings(file: SqliteFile) -> None:
    db = file._db  # the pragma is of this connection alone
    assert db.pragma("journal_mode") == "wal"
    assert db.pragma("synchronous") == 2  # full


# All or nothing.


def test_a_batch_with_one_entry_that_the_schema_refuses_is_not_stored_at_all(file: SqliteFile, path: Path) -> None:
    file.append(batch_of([reading("a")]))
    with pytest.raises(JournalUnavailable):
        file.append(batch_of([reading("b"), reading("c", at=None)]))  # type: ignore[arg-type]
    assert file.seq == 1
    assert file.append(batch_of([reading("d")])).seqs[0] == 2
    assert query(path, "select seq, device_id from log") == [(1, "a"), (2, "d")]


def test_a_batch_of_ten_thousand_is_one_transaction(file: SqliteFile, path: Path) -> None:
    assert file.append(batch_of([reading(f"device {n}", b"%d" % n) for n in range(10_000)])).seqs[0] == 1
    assert query(path, "select count(*), min(seq), max(seq) from log") == [(10_000, 1, 10_000)]
    assert query(path, "select device_id, value from log where seq = 10000") == [("device 9999", "9999")]


def test_a_read_that_stops_half_way_leaves_nothing_open(file: SqliteFile, path: Path) -> None:
    file.append(batch_of([reading("a") for _ in range(10)]))
    reader = LogReader(str(path), file.lineage.epoch)
    assert len(reader.read(0, 10, 1)) == 1
    file.append(batch_of([reading("a")]))
    with closing(apsw.Connection(str(path))) as db:  # another SQLite would not see this process's locks
        [(is_busy, _, _)] = db.execute("pragma wal_checkpoint(truncate)")
    assert not is_busy
    reader.close()


def test_what_was_pruned_is_truncated(file: SqliteFile, path: Path) -> None:
    file.append(batch_of([reading("a") for _ in range(10)]))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("delete from log where seq <= 6")
    reader = LogReader(str(path), file.lineage.epoch)
    with pytest.raises(Truncated, match="back to 6, not to 5"):
        reader.read(5, 10)
    assert [entry.seq for entry in reader.read(6, 10)] == [7, 8, 9, 10]
    reader.close()


# Keys.


def test_keys_are_stored_with_their_entries_and_found_again(path: Path) -> None:
    with closing(SqliteFile(str(path))) as file:
        file.append(batch_of([reading("a")]))
        file.append(batch_of([reading("b"), reading("c"), reading("d")], keys={"k1": (1, "0b"), "k2": (2, "1" * 32)}))
    with closing(SqliteFile(str(path))) as file:
        assert file.idempotency_keys() == [IdempotencyRecord("k1", 2, 2, "0b"), IdempotencyRecord("k2", 3, 4, "1" * 32)]
    assert query(path, "select key, first_seq, last_seq from receipt") == [("k1", 2, 2), ("k2", 3, 4)]


def test_keys_of_a_batch_that_was_not_stored_are_not_stored(file: SqliteFile) -> None:
    with pytest.raises(JournalUnavailable):
        file.append(batch_of([reading("a", at=None)], keys={"k": (1, "01")}))  # type: ignore[arg-type]
    assert file.idempotency_keys() == []


def test_keys_that_no_longer_count_are_not_returned_and_go(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "WINDOW_ENTRIES", 4)
    for number in range(10):
        file.append(batch_of([reading("a")], keys={f"k{number}": (1, "01")}))
    assert [record.key for record in file.idempotency_keys()] == ["k6", "k7", "k8", "k9"]
    monkeypatch.setattr(idempotency, "KEYS_MAX", 2)
    assert [record.key for record in file.idempotency_keys()] == ["k8", "k9"]
    file.checkpoint()
    assert [record.key for record in file.idempotency_keys()] == ["k8", "k9"]
    monkeypatch.setattr(idempotency, "KEYS_MAX", 100)
    monkeypatch.setattr(idempotency, "WINDOW_ENTRIES", 100)
    assert [record.key for record in file.idempotency_keys()] == ["k6", "k7", "k8", "k9"]


# Numbered lines.


def fence_of(path: Path) -> list[Any]:
    return query(path, "select seq, who, producer, line, missing from fence")


def test_a_commit_appends_a_mark_and_the_checkpoint_clears_the_older_ones(path: Path, file: SqliteFile) -> None:
    for line in (1, 2, 3):
        file.append(batch_of([reading("a")], marks=[ProducerMark("", "p", line, 0)]))
    file.append(batch_of([reading("a")], marks=[ProducerMark("", "q", 7, 0, 0b1011)]))
    assert fence_of(path) == [(1, "", "p", 1, "0"), (2, "", "p", 2, "0"), (3, "", "p", 3, "0"), (4, "", "q", 7, "b")]
    marks = file.marks()
    assert marks == [ProducerMark("", "p", 3, 3), ProducerMark("", "q", 7, 4, 0b1011)]
    file.checkpoint()
    assert fence_of(path) == [(3, "", "p", 3, "0"), (4, "", "q", 7, "b")]
    assert file.marks() == marks


def test_marks_of_a_batch_that_was_not_stored_are_not_stored(file: SqliteFile) -> None:
    with pytest.raises(JournalUnavailable):
        file.append(batch_of([reading("a", at=None)], marks=[ProducerMark("", "p", 1, 0)]))  # type: ignore[arg-type]
    assert file.marks() == []


def test_the_producers_that_wrote_last_are_kept_the_others_go(
    path: Path, file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_producers, "PRODUCERS_MAX", 2)
    for producer in ("a", "b", "a", "c"):
        file.append(batch_of([reading("x")], marks=[ProducerMark("", producer, 1, 0)]))
    assert [(mark.producer, mark.seq) for mark in file.marks()] == [("a", 3), ("c", 4)]
    file.checkpoint()
    assert [row[2] for row in fence_of(path)] == ["a", "c"]


# Files that cannot serve.


def refusal_of(path: Path) -> str:
    """Return why a file is refused; it must be refused without a trace of having been opened."""
    with pytest.raises(JournalUnusable) as refused:
        SqliteFile(str(path))
    assert "\n" not in refused.value.message
    return refused.value.message


@pytest.mark.parametrize(
    "content", [b"# Notes\n" * 1_000, os.urandom(8_192), b"ab"], ids=["text", "noise", "two bytes"]
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is not a journal: the file is something else" in refusal_of(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table log (seq integer)")
    before = path.read_bytes()
    assert "an SQLite database, but not a twincast journal" in refusal_of(path)
    assert path.read_bytes() == before


def test_a_journal_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    SqliteFile(str(path)).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    message = refusal_of(path)
    assert f"version {SCHEMA_VERSION + 1}" in message
    assert "newer twincast" in message
    assert path.read_bytes() == before


def test_a_directory_and_a_missing_directory_are_refused(tmp_path: Path) -> None:
    assert "cannot be opened" in refusal_of(tmp_path)
    assert "cannot be opened: No such file or directory" in refusal_of(tmp_path / "missing" / "journal.db")


def test_a_damaged_journal_is_refused(path: Path) -> None:
    file = SqliteFile(str(path))
    file.append(batch_of([reading(f"device {n}") for n in range(1_000)]))
    file.close()
    content = bytearray(path.read_bytes())
    content[100:8_192] = b"\xff" * (8_192 - 100)
    path.write_bytes(content)
    assert str(path) in refusal_of(path)


READ_ONLY = """
import os, sys
from twincast.errors import JournalUnusable
from twincast.journal.sqlite.file import SqliteFile
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    SqliteFile(sys.argv[1])
except JournalUnusable as error:
    print(error)
"""


def refusal_of_a_user_who_may_not_write(path: Path) -> str:
    """Return why an unprivileged process is refused; root may write everything."""
    root = Path(__file__).parents[3]
    run = [sys.executable, "-c", READ_ONLY, str(path)]
    return subprocess.run(run, cwd=root, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def shared() -> Iterator[Path]:
    """A journal's path in a folder that everybody reaches; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder) / "journal.db"


def test_a_read_only_file_is_refused(shared: Path) -> None:
    SqliteFile(str(shared)).close()
    shared.chmod(0o444)
    shared.with_name("journal.db-lock").chmod(0o666)
    assert "is read-only; the server must be able to write it" in refusal_of_a_user_who_may_not_write(shared)


def test_a_read_only_directory_is_refused(shared: Path) -> None:
    shared.parent.chmod(0o555)
    assert "cannot be opened: Permission denied" in refusal_of_a_user_who_may_not_write(shared)


def test_a_second_server_is_refused_and_the_first_goes_on(file: SqliteFile, path: Path) -> None:
    assert "in use by another server" in refusal_of(path)
    holder = [sys.executable, "-c", READ_ONLY.replace("os.geteuid() == 0", "False"), str(path)]
    other = subprocess.run(holder, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert "in use by another server" in other.stdout
    assert file.append(batch_of([reading("a")])).seqs[0] == 1


def test_a_refused_file_is_not_locked(path: Path) -> None:
    path.write_bytes(b"# Notes\n" * 1_000)
    refusal_of(path)
    path.unlink()
    SqliteFile(str(path)).close()


def test_each_new_file_is_another_log_and_an_old_one_stays_the_same(tmp_path: Path) -> None:
    one, other = SqliteFile(str(tmp_path / "1.db")), SqliteFile(str(tmp_path / "2.db"))
    epoch = one.epoch
    assert epoch != other.epoch
    one.close()
    other.close()
    again = SqliteFile(str(tmp_path / "1.db"))
    assert again.epoch == epoch
    assert query(tmp_path / "1.db", "select value from meta where name = 'epoch'") == [(epoch,)]
    again.close()


def test_a_new_journal_is_its_owners_and_an_old_one_keeps_its_mode(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(SqliteFile(str(path))) as file:
            file.append(batch_of([reading("lamp")]))
            beside = sorted(path.parent.glob(f"{path.name}*"))
            assert [each.name.removeprefix(path.name) for each in beside] == ["", "-lock", "-reserve", "-shm", "-wal"]
            assert {each.stat().st_mode & 0o777 for each in beside} == {0o600}
        path.chmod(0o640)
        with closing(SqliteFile(str(path))):
            assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_the_keys_in_a_copy_of_a_shared_log_are_read_and_not_changed(path: Path) -> None:
    actor = Actor("local:me", "here")
    with AccessFile(str(path), make=True) as access:
        access.add(Key("1", "a", "d" * 64, {"read": ["*"]}, NOW_UTC), actor)
    with closing(apsw.Connection(str(path))) as db:
        db.execute("insert into meta values (?, 'lab')", (COPY_OF,))
    with AccessFile(str(path)) as access:
        changes: list[Callable[[], object]] = [
            lambda: access.clear(NOW_UTC, actor),
            lambda: access.revoke("a", NOW_UTC, actor),
            lambda: access.add(Key("2", "b", "e" * 64, {"read": ["*"]}, NOW_UTC), actor),
            lambda: access.pair(Pairing("c", "d", {}, None, None, 300), NOW_UTC, actor, life_s=300, waiting_max=9),
        ]
        for change in changes:
            with pytest.raises(JournalUnusable, match="copy of the shared log 'lab'"):
                change()
        (kept,) = access.keys()
        assert kept.revoked_at_utc is None
        assert [record.action for record in access.audit(9)] == ["keys add"]
