"""What the SQLite journal does beyond the contract: it lasts, and its followers may be slower than its memory."""

import asyncio
import logging
import sqlite3
import threading
from pathlib import Path

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from twincast.core.model import DataUpdate, Entry
from twincast.errors import JournalUnavailable, JournalUnusable, Truncated
from twincast.journal.sqlite import checkpoint, stored_log
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite import journal as sqlite
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.stores import open_stores

DEADLINE_S = 10


def readings(count: int, device_id: str = "a") -> list[Entry]:
    return [DataUpdate(device_id, Raw(b"%d" % n), "now", "rest") for n in range(count)]


async def test_a_follower_slower_than_the_window_reads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "TAIL_MAX_BYTES", 1)  # the newest batch only
    monkeypatch.setattr(stored_log, "READ_BATCH", 7)
    journal = await SqliteJournal.open(str(tmp_path / "j.db"))
    for _ in range(10):
        await journal.append(batch_of(readings(5)))
    found: list[int] = []
    async for committed in journal.follow(3):
        found += [entry.seq for entry in committed.entries]
        if found[-1] == 50:
            break
    assert found == list(range(4, 51))
    await journal.close()


async def test_a_follower_after_a_restart_reads_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "j.db")
    journal = await SqliteJournal.open(path)
    await journal.append(batch_of(readings(5)))
    await journal.close()
    journal = await SqliteJournal.open(path)
    assert [entry.seq for entry in (await anext(journal.follow(2))).entries] == [3, 4, 5]
    await journal.close()


async def test_a_follower_of_what_was_pruned_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j.db"
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(readings(10)))
    await journal.close()
    with sqlite3.connect(path) as db:
        db.execute("delete from log where seq <= 4")
    db.close()
    journal = await SqliteJournal.open(str(path))
    with pytest.raises(Truncated, match="back to 4, not to 3"):
        await anext(journal.follow(3))
    assert [entry.seq for entry in (await anext(journal.follow(4))).entries] == [5, 6, 7, 8, 9, 10]
    await journal.close()


async def test_the_checkpoint_follows_the_log_while_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 10)
    path = tmp_path / "j.db"
    journal = await SqliteJournal.open(str(path))
    for _ in range(8):
        await journal.append(batch_of(readings(10)))
    await journal.read(0, 1)  # behind the last checkpoint in the journal's own thread
    with sqlite3.connect(path) as db:
        [(checkpoint_seq,)] = db.execute("select cast(value as integer) from meta where name = 'checkpoint_seq'")
        [(twin_seq,)] = db.execute("select seq from checkpoint")
    db.close()
    assert checkpoint_seq >= 60
    assert twin_seq == checkpoint_seq
    await journal.close()


async def test_a_follower_that_reads_the_file_takes_little_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_log, "READ_BATCH_BYTES", 3)
    path = str(tmp_path / "j.db")
    journal = await SqliteJournal.open(path)
    await journal.append(batch_of(readings(8)))
    await journal.close()
    journal = await SqliteJournal.open(path)
    sizes: list[int] = []
    async for committed in journal.follow(0):
        sizes.append(len(committed.entries))
        if committed.seqs[-1] == 8:
            break
    assert sizes == [3, 3, 2]
    await journal.close()


async def test_keys_and_the_audit_trail_are_read_while_a_read_of_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, may_end = threading.Event(), threading.Event()

    def read_long(*_: object) -> list[Entry]:
        reading.set()
        assert may_end.wait(DEADLINE_S)
        return []

    monkeypatch.setattr(LogReader, "read", read_long)
    stores = await open_stores(f"sqlite:{tmp_path / 'j.db'}", memory_max_bytes=0)
    log = asyncio.create_task(stores.journal.read(0, 1))
    assert await asyncio.to_thread(reading.wait, DEADLINE_S)
    async with asyncio.timeout(DEADLINE_S):
        assert await stores.access.keyring() is not None
        assert not await stores.access.audit(1)
    assert not log.done()
    may_end.set()
    await log
    await stores.close()


async def test_a_journal_in_use_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "j.db")
    first = await SqliteJournal.open(path)
    with pytest.raises(JournalUnusable, match="in use by another server"):
        await SqliteJournal.open(path)
    await first.append(batch_of(readings(1)))
    await first.close()
    second = await SqliteJournal.open(path)
    assert len(await second.read(0, 10)) == 1
    await second.close()


async def test_appends_that_were_accepted_are_stored_before_a_close_returns(tmp_path: Path) -> None:
    path = str(tmp_path / "j.db")
    journal = await SqliteJournal.open(path)
    appends = [asyncio.create_task(journal.append(batch_of(readings(10, str(n))))) for n in range(10)]
    await asyncio.sleep(0)  # all of them have begun
    await journal.close()
    await asyncio.gather(*appends)
    journal = await SqliteJournal.open(path)
    assert (await journal.snapshot()).seq == 100
    await journal.close()


async def test_a_failed_append_stores_nothing_tells_no_follower_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await SqliteJournal.open(str(tmp_path / "j.db"))
    await journal.append(batch_of(readings(2)))
    bad = [*readings(3), DataUpdate("a", Raw(b"1"), None, "rest")]  # type: ignore[arg-type]  # the schema refuses it
    assert journal.problem is None
    with pytest.raises(JournalUnavailable) as raised:
        await journal.append(batch_of(bad))
    assert journal.problem is raised.value
    assert (await journal.append(batch_of(readings(1)))).seqs == range(3, 4)
    assert journal.problem is None
    assert [entry.seq for entry in await journal.read(0, 10)] == [1, 2, 3]
    assert [entry.seq for entry in (await anext(journal.follow(2))).entries] == [3]
    await journal.close()


async def test_the_checkpoint_goes_on_when_no_commit_comes_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 10)
    path = tmp_path / "j.db"
    journal = await SqliteJournal.open(str(path))
    await journal.append(batch_of(readings(200)))
    async with asyncio.timeout(10):
        while journal.space().checkpoint_lag >= 10:  # noqa: ASYNC110  # nothing tells when it is done
            await asyncio.sleep(0.01)
    await journal.close()


async def test_a_checkpoint_that_fails_while_the_journal_closes_is_logged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 5)
    monkeypatch.setattr(checkpoint, "_TAKE", "insert into nowhere values (?1, ?2)")
    journal = await SqliteJournal.open(str(tmp_path / "j.db"))
    closing = threading.Event()
    take = SqliteFile.checkpoint

    def late(file: SqliteFile, until: int | None = None) -> None:
        closing.wait(10)
        take(file, until)

    monkeypatch.setattr(SqliteFile, "checkpoint", late)
    with caplog.at_level(logging.WARNING):
        await journal.append(batch_of(readings(7)))
        close = asyncio.create_task(journal.close())
        await asyncio.sleep(0)
        closing.set()
        await close
    assert "the checkpoint waits, nothing is lost" in caplog.text
    assert "never retrieved" not in caplog.text


async def test_a_failed_checkpoint_is_logged_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 5)
    path = str(tmp_path / "j.db")
    journal = await SqliteJournal.open(path)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "twincast.journal"):
        patch.setattr(checkpoint, "_TAKE", "insert into nowhere values (?1, ?2)")
        await journal.append(batch_of(readings(7)))
        await journal.read(0, 1)
        await journal.close()
    assert "the checkpoint waits, nothing is lost" in caplog.text
    assert "the journal closed on a failing disk" in caplog.text
    journal = await SqliteJournal.open(path)
    assert (await journal.snapshot()).twins["a"].seq == 7
    await journal.close()
