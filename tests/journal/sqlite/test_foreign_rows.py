"""What another program does to the log under a server: read in, or refused, and gone on with once it is gone."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.conftest import StartServer
from tests.fakes import batch_of
from tests.running import eventually
from twincast.core.model import DataUpdate, Entry
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite.entries import LOG_COLUMNS
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.wire.messages import encode_all

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
DEADLINE_S = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def readings(*values: int) -> list[Entry]:
    return [DataUpdate("lamp", Raw(b"%d" % value), NOW_UTC, "rest") for value in values]


def as_a_stranger(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql, values)


def insert(path: Path, *row: object) -> None:
    """Insert a row whose columns are those of the log, in its order; what comes behind the given ones is null."""
    named = ", ".join(LOG_COLUMNS.split(", ")[: len(row)])
    as_a_stranger(path, f"insert into log ({named}) values ({', '.join('?' * len(row))})", *row)


async def test_entries_of_another_program_come_to_the_followers_in_order_and_commits_go_on(path: Path) -> None:
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(readings(1)))
    insert(path, 2, "data_update", "door", '"open"', None, NOW_UTC, "rest")
    insert(path, 3, "control", "door", "{}", "close", NOW_UTC, "websocket")
    insert(path, 4, "deleted", "door", "null", None, NOW_UTC, "rest")
    assert (await journal.append(batch_of(readings(5, 6), keys={"k": (2, "7")}))).seqs == range(5, 7)
    found: list[Entry] = []
    async for committed in journal.follow(0):
        found += committed.entries
        if found[-1].seq == 6:
            break
    assert [(entry.seq, entry.topic[1]) for entry in found] == [
        (1, "lamp"),
        (2, "door"),
        (3, "door"),
        (4, "door"),
        (5, "lamp"),
        (6, "lamp"),
    ]
    assert (await anext(journal.follow(1))).entries[0].seq == 2
    assert set((await journal.snapshot()).twins) == {"lamp"}
    await journal.close()
    journal = await SqliteJournal.open(str(path))
    assert [(r.key, r.first_seq, r.last_seq) for r in journal.keys] == [("k", 5, 6)]
    await journal.close()


async def test_what_another_program_wrote_counts_where_it_is_decided_which_readings_are_late(path: Path) -> None:
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(readings(1)))
    insert(path, 2, "data_update", "lamp", "2", None, NOW_UTC, "rest", at(5))
    insert(path, 3, "late", "lamp", "3", None, NOW_UTC, "rest", at(9))
    insert(path, 4, "data_update", "door", "4", None, at(1), "rest", at(100))
    insert(path, 5, "deleted", "fan", "null", None, at(3), "rest")
    measured = {"lamp": (4, 5), "door": (0, 1), "fan": (2, 3), "other": (-9, -9)}
    batch = batch_of(
        DataUpdate(name, Raw(b"0"), at(20), "rest", measured_at_utc=at(seconds))
        for name, times in measured.items()
        for seconds in times
    )
    batch.horizon = {"lamp": at(0), "door": at(99), "fan": "", "other": at(-9)}.__getitem__
    await journal.append(batch)
    log = await journal.read(5, 10)
    assert [(entry.subject, entry.kind) for entry in log] == [
        *(("lamp", "late"), ("lamp", "data_update")),
        *(("door", "late"), ("door", "data_update")),
        *(("fan", "late"), ("fan", "data_update")),
        *(("other", "data_update"), ("other", "data_update")),
    ]
    assert encode_all(log) == encode_all(batch.entries)
    twins = (await journal.snapshot()).twins
    assert {name: twin.seq for name, twin in twins.items()} == {"lamp": 7, "door": 9, "fan": 11, "other": 13}
    await journal.close()


def at(seconds: float) -> str:
    return (datetime.fromisoformat(NOW_UTC) + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


NO_ENTRIES = {
    "a measured time in another form": (2, "data_update", "door", "1", None, NOW_UTC, "rest", "2026-11-23T16:24:00Z"),
    "a late reading without its time": (2, "late", "door", "1", None, NOW_UTC, "rest", None),
    "a command that was measured": (2, "control", "door", "{}", "close", NOW_UTC, "rest", NOW_UTC),
    "a gap": (9, "data_update", "door", "1", None, NOW_UTC, "rest"),
    "no JSON": (2, "data_update", "door", "open", None, NOW_UTC, "rest"),
    "JSON that readers disagree about": (2, "data_update", "door", '{"a":1,"a":2}', None, NOW_UTC, "rest"),
    "a line end that would break an event stream": (2, "data_update", "door", '{"a":\n1}', None, NOW_UTC, "rest"),
    "a number for a text": (2, "data_update", "door", b"1", None, NOW_UTC, "rest"),
    "a name with a control character": (2, "data_update", "do\nor", "1", None, NOW_UTC, "rest"),
    "a kind that nobody knows": (2, "presence", "door", "1", None, NOW_UTC, "rest"),
    "a deletion with a value": (2, "deleted", "door", "1", None, NOW_UTC, "rest"),
    "a reading with a command": (2, "data_update", "door", "1", "close", NOW_UTC, "rest"),
    "a command without its name": (2, "control", "door", "{}", None, NOW_UTC, "rest"),
    "a command whose args are a list": (2, "control", "door", "[]", "close", NOW_UTC, "rest"),
    "no time": (2, "data_update", "door", "1", None, "yesterday", "rest"),
    "a time without a zone": (2, "data_update", "door", "1", None, "2026-11-23T16:24:00", "rest"),
    "a source that clients do not know": (2, "data_update", "door", "1", None, NOW_UTC, "import"),
}


@pytest.mark.parametrize("row", NO_ENTRIES)
async def test_what_is_no_entry_is_refused_and_gone_on_after_when_it_is_gone(path: Path, row: str) -> None:
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(readings(1)))
    insert(path, *NO_ENTRIES[row])
    for _ in range(2):
        with pytest.raises(JournalUnavailable, match="another program wrote into the journal's log") as refused:
            await journal.append(batch_of(readings(2)))
    as_a_stranger(path, refused.value.message.partition("until it is gone: ")[2])
    assert (await journal.append(batch_of(readings(3)))).seqs == range(2, 3)
    assert [entry.seq for entry in await journal.read(0, 10)] == [1, 2]
    await journal.close()


async def test_acknowledged_entries_that_another_program_deleted_end_the_promises(path: Path) -> None:
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(readings(1, 2, 3)))
    as_a_stranger(path, "delete from log where seq > 1")
    with pytest.raises(JournalUnavailable, match="deleted the newest entries of the journal's log, up to 3"):
        await journal.append(batch_of(readings(4)))
    await journal.close()


async def test_an_append_that_another_program_kept_out_succeeds_once_it_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_MS", 10)
    journal = await SqliteJournal.open(str(path))
    other = apsw.Connection(str(path))
    other.execute("begin immediate")
    with pytest.raises(JournalUnavailable, match="keeps the file for itself"):
        await journal.append(batch_of(readings(1)))
    other.execute("rollback")
    assert (await journal.append(batch_of(readings(2)))).seqs == range(1, 2)
    other.close()
    await journal.close()


def test_a_server_shows_and_casts_what_another_program_wrote_before_its_own_next_commit(
    server_process: StartServer, path: Path
) -> None:
    server = server_process(f"sqlite:{path}")
    server.post("/api/data", {"device_id": "lamp", "value": 1})
    insert(path, 2, "data_update", "door", '"open"', None, NOW_UTC, "rest")
    assert server.post("/api/data", {"device_id": "lamp", "value": 3}).json()["event"]["seq"] == 3
    data = server.get("/api/data")["data"]
    assert (data["door"]["value"], data["lamp"]["value"]) == ("open", 3)
    insert(path, 4, "data_update", "door", "broken", None, NOW_UTC, "rest")
    assert server.post("/api/data", {"device_id": "lamp", "value": 5}).status_code == 503
    assert "row 4 is no entry" in server.get("/api/status")["problem"]
    assert server.get("/api/data")["data"] == data
    as_a_stranger(path, "delete from log where seq = 4")
    assert server.post("/api/data", {"device_id": "lamp", "value": 6}).json()["event"]["seq"] == 4
    eventually(lambda: server.get("/api/status")["ok"], "all is well again")
