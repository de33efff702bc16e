"""Files that earlier versions wrote, brought to this one: positions and keys that are out there keep their worth."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.history.making import close_log
from twincast.core.audit import Actor, AuditRecord
from twincast.core.idempotency import IdempotencyRecord, digest_of
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Position
from twincast.core.producers import ProducerMark
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite import generations
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
LOG = "5f0c9a1e"
ENTRIES: list[Entry] = [
    DataUpdate("lamp", Raw(b'{"a":1.50,"b":"\\u00e9"}'), NOW_UTC, "rest"),
    DataUpdate("door", Raw('"é"'.encode()), NOW_UTC, "websocket"),
    Control("lamp", "blink", Raw(b'{"times":[1E2]}'), NOW_UTC, "rest"),
    DataUpdate("lamp", Raw(b"2"), NOW_UTC, "rest"),
]

# As they were: version 1 in the first commits, version 2 with keys of updates, version 3 with API keys, version 4 with
# the runs, digests of what keys stored, and deletions, version 5 with numbered lines, version 6 with pairing codes,
# version 7 with the servers of a shared log.
VERSION_1 = f"""
pragma application_id = {APPLICATION_ID};
pragma journal_mode = wal;
create table meta (name text primary key, value text not null) without rowid;
create table log (
    seq integer primary key, type text not null, device_id text not null, value text not null, command text,
    timestamp_utc text not null, source text not null
);
create table checkpoint (
    device_id text primary key, value text not null, updated_at_utc text not null, source text not null,
    seq integer not null
) without rowid;
create view twin as
    select device_id, value, updated_at_utc, source, max(seq) as seq from (
        select device_id, value, updated_at_utc, source, seq from checkpoint
        union all
        select device_id, value, timestamp_utc, source, seq from log
        where type = 'data_update'
          and seq > (select cast(value as integer) from meta where name = 'checkpoint_seq')
    ) group by device_id;
insert into meta values ('epoch', '{LOG}'), ('checkpoint_seq', '0'), ('created_at_utc', '{NOW_UTC}');
"""
RECEIPTS_OF_2 = """
create table receipt (
    first_seq integer primary key, last_seq integer not null, key text not null, digest integer not null
);
"""
ACCESS_OF_3 = """
create table access_key (
    id text primary key, name text not null, digest text not null unique, grants text not null,
    created_at_utc text not null, rate_per_s real, expires_s integer, revoked_at_utc text
) without rowid;
create table audit (
    id integer primary key, at_utc text not null, who text not null, address text not null, action text not null,
    target text not null, detail text not null, seq integer
);
insert into meta values ('keyring_version', '1');
"""

RUNS_OF_4 = f"""
create table generation (
    id integer primary key, name text not null unique, begin_seq integer not null, began_at_utc text not null
);
drop table receipt;
create table receipt (
    first_seq integer primary key, last_seq integer not null, key text not null, digest text not null
);
drop view twin;
create view twin as
    select device_id, value, updated_at_utc, source, seq from (
        select device_id, value, updated_at_utc, source, max(seq) as seq, type from (
            select device_id, value, updated_at_utc, source, seq, 'data_update' as type from checkpoint
            union all
            select device_id, value, timestamp_utc, source, seq, type from log
            where type in ('data_update', 'deleted')
              and seq > (select cast(value as integer) from meta where name = 'checkpoint_seq')
        ) group by device_id
    ) where type = 'data_update';
insert into generation values (1, '', 0, '{NOW_UTC}');
"""

FENCE_OF_5 = """
create table fence (
    seq integer primary key, who text not null, producer text not null, line integer not null, missing text not null
);
insert into fence values (3, 'key:b', 'q', 7, '5');
"""

PAIRING_OF_6 = """
create table pairing (
    digest text primary key, name text not null, grants text not null, rate_per_s real, lives_s integer,
    until_s integer not null, who text not null, is_used integer not null
) without rowid;
insert into audit values (1, '2026-11-23', 'local:me', 'here', 'keys add', 'key:1', 'a read *', null);
"""

SERVERS_OF_7 = "alter table audit add column server text;"


def write(path: Path, version: int, entries: Sequence[Entry] = ENTRIES) -> None:
    """Write a journal as an earlier version did."""
    schema = VERSION_1 + (RECEIPTS_OF_2 if version >= 2 else "") + (ACCESS_OF_3 if version >= 3 else "")
    schema += (RUNS_OF_4 if version >= 4 else "") + (FENCE_OF_5 if version >= 5 else "")
    schema += (PAIRING_OF_6 if version >= 6 else "") + (SERVERS_OF_7 if version >= 7 else "")
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(f"{schema} pragma user_version = {version};")
        for seq, entry in enumerate(entries, 1):
            if isinstance(entry, DataUpdate):
                said, command = entry.value, None
            else:
                assert isinstance(entry, Control)  # there was nothing else then
                said, command = entry.args, entry.command
            row = (seq, *entry.topic, bytes(said).decode(), command, entry.timestamp_utc, entry.source)
            db.execute("insert into log values (?, ?, ?, ?, ?, ?, ?)", row)


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


def objects(path: Path) -> list[Any]:
    """Return what a file's schema says, without comments and line breaks."""
    lines = query(path, "select name, sql from sqlite_schema where sql is not null order by name")
    return [(name, " ".join(" ".join(line.split("--")[0] for line in sql.splitlines()).split())) for name, sql in lines]


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7])
def test_a_journal_of_an_older_version_is_brought_to_this_one_with_all_that_it_holds(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "journal.db"
    write(path, version)
    measured = DataUpdate("door", Raw(b"1"), NOW_UTC, "rest", measured_at_utc=NOW_UTC)
    with closing(SqliteFile(str(path))) as file:
        assert (file.epoch, file.seq, file.idempotency_keys()) == (LOG, 4, [])
        assert {name: bytes(twin.value) for name, twin in file.snapshot().twins.items()} == {
            "lamp": b"2",
            "door": '"é"'.encode(),
        }
        marks = [ProducerMark("key:b", "q", 7, 3, 0b101)] if version >= 5 else []
        assert file.marks() == marks
        file.append(batch_of([ENTRIES[0]], keys={"k": (1, "01")}, marks=[ProducerMark("key:a", "p", 3, 0, 0b11)]))
    with closing(SqliteFile(str(path))) as file:
        assert file.idempotency_keys() == [IdempotencyRecord("k", 5, 5, "01")]
        assert file.marks() == [*marks, ProducerMark("key:a", "p", 3, 5, 0b11)]
        file.append(batch_of([Deleted("lamp", NOW_UTC, "rest"), measured]))
        assert (set(file.snapshot().twins), file.snapshot().deletions) == ({"door"}, {"lamp": NOW_UTC})
        assert file.snapshot().twins["door"].measured_at_utc == NOW_UTC
    assert query(path, "select device_id from twin union select device_id from checkpoint") == [("door",)]
    assert query(path, "select measured_at_utc from twin") == [(NOW_UTC,)]
    assert query(path, "select device_id, deleted_at_utc, seq from deletion") == [("lamp", NOW_UTC, 6)]
    assert query(path, "pragma user_version") == [(SCHEMA_VERSION,)]
    assert query(path, "select value from meta where name = 'keyring_version'") == [("1",)]
    with closing(SqliteFile(str(tmp_path / "new.db"))):
        assert objects(path) == objects(tmp_path / "new.db")


@pytest.mark.parametrize("version", [1, 3, 7])
def test_the_log_of_an_older_version_is_closed_as_it_was(tmp_path: Path, version: int) -> None:
    path = tmp_path / "journal.db"
    write(path, version, ENTRIES * 5)
    close_log(str(path), 6)
    with closing(SqliteFile(str(path))) as file, closing(LogReader(str(path), LOG)) as reader:
        assert [(part.first_seq, part.last_seq) for part in file.partitions.parts] == [(1, 6), (7, 12), (13, 18)]
        assert query(path, "select count(*) from log") == [(2,)]
        log = reader.read(0, 100)
    assert [(entry.kind, entry.subject, entry.detail, entry.payload, entry.timestamp_utc) for entry in log] == [
        (entry.kind, entry.subject, entry.detail, entry.payload, entry.timestamp_utc) for entry in ENTRIES * 5
    ]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_positions_of_an_older_form_count_up_to_the_upgrade(tmp_path: Path, version: int) -> None:
    path = tmp_path / "journal.db"
    write(path, version)
    for _ in range(2):  # at the upgrade, and at each start after it
        with closing(SqliteFile(str(path))) as file:
            [head_seq] = file.append(batch_of([ENTRIES[0]])).seqs
            reasons = [file.lineage.why_not(Position(LOG, seq), head_seq) for seq in (0, 4, 5)]
            assert reasons == ["", "", "epoch"]
            assert file.lineage.why_not(Position("0000dead", 1), head_seq) == "epoch"


def test_keys_of_an_older_version_are_compared_by_what_the_log_says_they_stored(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 3)
    with closing(sqlite3.connect(path)) as db, db:
        rows = [(1, 2, "a batch", crc32(b"x")), (3, 3, "a command", 0), (4, 5, "gone", 1)]
        db.executemany("insert into receipt values (?, ?, ?, ?)", rows)
    with closing(SqliteFile(str(path))) as file:
        digests = {record.key: record.digest for record in file.idempotency_keys()}
    assert digests == {
        "a batch": digest_of(ENTRIES[:2]),
        "a command": digest_of(ENTRIES[2:3]),
        "gone": "",  # what nothing has: refused as another content, neither dropped nor stored twice
    }


def test_keys_of_an_older_version_that_no_longer_count_are_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 3)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update log set seq = 2000000 where seq = 4")
        db.executemany("insert into receipt values (?, ?, ?, 1)", [(1, 1, "old"), (2_000_000, 2_000_000, "new")])
    with closing(SqliteFile(str(path))):
        assert query(path, "select key, digest from receipt") == [("new", digest_of(ENTRIES[3:]))]


def test_a_journal_that_cannot_be_brought_to_this_version_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 3)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table generation (id integer)")  # somebody's own
    before = path.read_bytes()
    with pytest.raises(Exception, match="cannot be opened"):
        SqliteFile(str(path))
    assert query(path, "pragma user_version") == [(3,)]
    assert path.read_bytes() == before


def test_keys_are_changed_in_a_file_of_version_three_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 3)
    with AccessFile(str(path)) as access:
        assert access.keys() == []
    assert query(path, "pragma user_version") == [(3,)]


def test_the_audit_trail_is_read_in_a_file_that_an_older_server_has_open_and_in_one_that_is_migrated(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    write(path, 6)
    record = AuditRecord("2026-11-23", "local:me", "here", "keys add", "key:1", "a read *")
    with AccessFile(str(path)) as access:
        assert access.audit(9) == [record]
        access.clear(NOW_UTC, Actor("local:me", "here"))
        assert [each.action for each in access.audit(9)] == ["keys clear", "keys add"]
    assert query(path, "pragma user_version") == [(6,)]
    SqliteFile(str(path)).close()
    with AccessFile(str(path)) as access:
        assert access.audit(9)[1] == record
    assert query(path, "select server from audit") == [(None,), (None,)]


# The runs on a file.


def test_each_start_opens_a_generation_where_the_log_ends(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    epochs = []
    for count in (0, 2, 1):
        with closing(SqliteFile(str(path))) as file:
            epochs.append(file.lineage.epoch)
            for _ in range(count):
                file.append(batch_of([ENTRIES[0]]))
    assert len(set(epochs)) == 3
    rows = query(path, "select name, begin_seq, began_at_utc from generation order by id")
    assert [f"{file.epoch}-{name}" for name, _, _ in rows] == epochs
    assert [begin_seq for _, begin_seq, _ in rows] == [0, 0, 2]
    assert all(began.endswith("+00:00") for _, _, began in rows)


def test_only_the_newest_runs_are_kept_and_positions_of_older_ones_are_of_another_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in sqlite_file, generations:
        monkeypatch.setattr(module, "GENERATIONS_MAX", 3)
    path = tmp_path / "journal.db"
    epochs: list[str] = []
    for _ in range(6):
        with closing(SqliteFile(str(path))) as file:
            epochs.append(file.lineage.epoch)
            assert query(path, "select count(*) from generation") == [(min(3, len(epochs)),)]
            [seq] = file.append(batch_of([ENTRIES[0]])).seqs
            reasons = [file.lineage.why_not(Position(epoch, 1), seq) for epoch in epochs]
            assert reasons == ["epoch"] * (len(epochs) - 3) + [""] * min(3, len(epochs))


class _FullDisk(apsw.VFS):
    """A disk that takes nothing while `is_full`."""

    def __init__(self) -> None:
        self.is_full = False
        super().__init__("full-disk", "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # SQLite's names
        disk = self

        class File(apsw.VFSFile):
            def xWrite(self, data: Any, offset: int) -> None:
                if disk.is_full:
                    raise apsw.FullError
                super().xWrite(data, offset)

        return File("", name, flags)


@pytest.fixture
def disk() -> Iterator[_FullDisk]:
    disk = _FullDisk()
    yield disk
    disk.unregister()


def test_a_run_that_began_on_a_full_disk_is_noted_before_its_first_entry(tmp_path: Path, disk: _FullDisk) -> None:
    path = tmp_path / "journal.db"
    with closing(SqliteFile(str(path))) as file:
        before = Position(file.lineage.epoch, file.append(batch_of([ENTRIES[0]])).seqs[-1])
    disk.is_full = True
    full = SqliteFile(str(path), vfs="full-disk")
    epoch = full.lineage.epoch
    assert (full.snapshot().seq, full.snapshot().epoch) == (1, epoch)
    assert full.lineage.why_not(before, 1) == ""
    with pytest.raises(JournalUnavailable):
        full.append(batch_of([ENTRIES[1]]))
    assert query(path, "select count(*) from generation") == [(1,)]
    disk.is_full = False
    assert [full.append(batch_of([entry])).seqs[0] for entry in ENTRIES[1:3]] == [2, 3]
    full.close()
    assert query(path, "select begin_seq from generation order by id") == [(0,), (1,)]
    with closing(SqliteFile(str(path))) as file:
        positions = [before, Position(before.epoch, 2), Position(epoch, 3)]
        assert [file.lineage.why_not(position, 3) for position in positions] == ["", "epoch", ""]


def test_a_run_that_never_got_room_leaves_nothing_behind(tmp_path: Path, disk: _FullDisk) -> None:
    path = tmp_path / "journal.db"
    SqliteFile(str(path)).close()
    disk.is_full = True
    full = SqliteFile(str(path), vfs="full-disk")
    full.close()
    with closing(SqliteFile(str(path))) as file:
        assert file.lineage.why_not(Position(full.lineage.epoch, 0), 0) == "epoch"
    assert query(path, "select count(*) from generation") == [(2,)]
