"""A history that was deleted is in no answer from then on, and at last in no byte of the journal's files."""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE, Popen

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.history.making import at, damaged, log_of, put_back, removed
from tests.running import eventually_async
from twincast.core.batch import Batch
from twincast.core.idempotency import IdempotencyKey
from twincast.core.model import KINDS, Control, DataUpdate, Deleted, Entry, Erased, Late
from twincast.core.pattern import pattern_set
from twincast.errors import HistoryDamaged, JournalUnavailable
from twincast.history.pointer import Pointer
from twincast.history.query import BucketsQuery, EntriesQuery, Names
from twincast.journal.retention import Retention
from twincast.journal.sqlite import erasures
from twincast.journal.sqlite.backup import back_up
from twincast.journal.sqlite.health import facts, problems
from twincast.journal.sqlite.history import apart, erasing, slices
from twincast.journal.sqlite.history.files import OPEN_END
from twincast.journal.sqlite.history.history import SqliteHistory
from twincast.journal.sqlite.history.layout import file_name, folder_of, summary_name
from twincast.journal.sqlite.journal import SqliteJournal

KILLS = int(os.environ.get("TWINCAST_TEST_KILLS", "12"))
TINY = Retention(partition_entries=50, keep_entries=20)
MARK = "dubious-marker"
GONE = "gone/device"
EVERYTHING = pattern_set(frozenset({"*"}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several slices of everything, made in this process."""
    monkeypatch.setattr(apart, "made_apart", apart.made_here)
    for module in "slices", "history":
        monkeypatch.setattr(f"twincast.journal.sqlite.history.{module}.BLOCK_ENTRIES", 10)
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 20)
    monkeypatch.setattr(erasures, "SLICE_ENTRIES", 7)
    monkeypatch.setattr(erasures, "ZEROS_PAGES", 3)


@asynccontextmanager
async def opened(path: Path, kept: Retention = TINY) -> AsyncIterator[tuple[SqliteJournal, SqliteHistory]]:
    journal = await SqliteJournal.open(str(path), retention=kept, now_utc=lambda: at(80_000))
    history = await SqliteHistory.open(str(path), journal)
    try:
        yield journal, history
    finally:
        await history.close()
        await journal.close()


def entry(seq: int) -> Entry:
    """Return what stands at a position: a third is of the device that is to go, of every kind."""
    if seq % 3:
        return DataUpdate(f"d{seq % 3}", Raw(b'{"x":%d}' % seq), at(seq), "rest")
    value = Raw(b'{"%s":%d,"text":"%s"}' % (MARK.encode(), seq, MARK.encode()))
    return (
        DataUpdate(GONE, value, at(seq), "rest"),
        Control(GONE, MARK, value, at(seq), "rest"),
        Late(GONE, value, at(seq), "rest", at(seq - 1)),
        DataUpdate(GONE, value, at(seq), "rest", measured_at_utc="2026-11-24T00:00:00.000000+00:00"),
        Deleted(GONE, at(seq), "rest"),
    )[seq // 3 % 5]


async def fill(journal: SqliteJournal, first: int, last: int, by: int = 5) -> None:
    for seq in range(first, last + 1, by):
        await journal.append(batch_of([entry(n) for n in range(seq, min(last + 1, seq + by))]))
    await journal.closed()


async def erase(journal: SqliteJournal, device: str = GONE) -> int:
    placed = await journal.append(batch_of([Deleted(device, at(70_000), "rest", scope="history")]))
    return placed.seqs[-1]


def bytes_of(path: Path) -> dict[str, bytes]:
    """Return all that is in the folder of a journal."""
    return {str(file): file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}


def holding(path: Path, mark: str = MARK) -> list[str]:
    """Return which files have something of it."""
    return sorted(name for name, data in bytes_of(path).items() if mark.encode() in data)


def everything(device: str) -> EntriesQuery:
    return EntriesQuery((device,), KINDS, -(1 << 60), 1 << 60, 0, 1 << 40, is_descending=False, limit=10_000)


async def told(history: SqliteHistory, device: str) -> list[Entry]:
    (page,), _ = await history.entries(everything(device))
    return list(page.entries)


async def test_no_byte_of_it_is_left_and_the_others_are_what_they_were(path: Path) -> None:
    async with opened(path) as (journal, history):
        await fill(journal, 1, 260)
        before = await journal.read(0, 1_000)
        others = {device: await told(history, device) for device in ("d1", "d2")}
        assert len(await told(history, GONE)) == 86
        assert len(holding(path)) >= 5, "control: four partitions and the journal have it"
        seq = await erase(journal)
        await journal.erased()
        assert [each.device_id for each in await journal.erasures()] == []
        assert holding(path) == []
        after = await journal.read(0, 1_000)
        assert [one.seq for one in after] == [*range(1, seq + 1)]
        assert [one for one in after[:-1] if one.seq % 3] == [one for one in before if one.seq % 3]
        assert all(isinstance(one, Erased) for one in after[:-1] if one.seq % 3 == 0)
        assert {device: await told(history, device) for device in others} == others
        (deletion,) = await told(history, GONE)
        assert deletion == after[-1] and deletion.detail == "history"
    assert problems(str(path)) == []
    assert facts(str(path)).erasing == 0
    assert holding(path) == []


async def test_without_zeros_over_what_is_deleted_it_would_be_found(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: what makes the difference is not that rows are gone."""
    monkeypatch.setattr("twincast.journal.sqlite.file.SqliteFile.overwrite", lambda self, *, is_all: None)
    monkeypatch.setattr(erasures, "fill_free_pages", lambda db: 0)
    async with opened(path) as (journal, _):
        await fill(journal, 1, 260)
        await erase(journal)
        await journal.erased()
        assert str(path) in holding(path)


async def test_from_the_answer_on_nobody_gets_anything_of_it_while_files_still_have_it(path: Path) -> None:
    async with opened(path) as (journal, history):
        await fill(journal, 1, 260)
        with closing(apsw.Connection(str(path))) as reading:
            reading.execute("begin")
            assert reading.execute("select count(*) from log").get
            seq = await erase(journal)
            assert [each.seq for each in await journal.erasures()] == [seq]
            for since in (0, 100, 240):
                entries = await journal.read(since, 1_000)
                assert [one.seq for one in entries] == [*range(since + 1, seq + 1)]
                assert [one.seq for one in entries if one.subject == GONE] == [seq]
            assert [one.seq for one in await told(history, GONE)] == [seq]
            state = await history.state_at(seq - 1, Names(EVERYTHING, EVERYTHING))
            assert set(state.twins) == {"d1", "d2"}
            assert facts(str(path)).erasing == 1
        await journal.erased()
        assert await journal.erasures() == []
        state = await history.state_at(100, Names(EVERYTHING, EVERYTHING))
        assert set(state.twins) == {"d1", "d2"}
        assert await history.names(Names(EVERYTHING, EVERYTHING)) == ["d1", "d2", GONE]


async def test_what_the_device_sends_afterwards_stays_and_can_be_erased_again(path: Path) -> None:
    async with opened(path) as (journal, history):
        await fill(journal, 1, 60)
        first = await erase(journal)
        await journal.append(batch_of([DataUpdate(GONE, Raw(b'"new"'), at(71_000), "rest")]))
        await journal.erased()
        assert [one.seq for one in await told(history, GONE)] == [first, first + 1]
        assert (await journal.snapshot()).twins[GONE].seq == first + 1
        second = await erase(journal)
        await journal.erased()
        assert [one.seq for one in await told(history, GONE)] == [second]
        assert GONE not in (await journal.snapshot()).twins
    assert problems(str(path)) == []


async def test_a_key_of_what_was_erased_says_nothing_of_it_any_more(path: Path) -> None:
    async with opened(path) as (journal, _):
        batch = Batch()
        key = IdempotencyKey("key", "digest-of-it", lambda record: None)
        batch.add_all([entry(1), entry(3)], 10, lambda error, seq: None, key=key)
        await journal.append(batch)
        assert holding(path, "digest-of-it")
        await journal.append(batch_of([entry(4)]))
        await erase(journal)
        await journal.erased()
        assert holding(path, "digest-of-it") == []
    async with opened(path) as (journal, _):
        assert [(record.key, record.digest) for record in journal.keys] == [("key", "")]


async def test_a_partition_that_is_not_of_the_device_keeps_its_file(path: Path) -> None:
    async with opened(path) as (journal, _):
        await journal.append(batch_of([entry(1)] * 100))
        await fill(journal, 101, 200)
        files = {name: data for name, data in bytes_of(path).items() if "-history/0" in name}
        await erase(journal)
        await journal.erased()
        names = sorted(Path(name).name for name in bytes_of(path) if "-history/0" in name)
        assert names == ["000000000001.db", "000000000051.db", "000000000101-1.db", "000000000151-1.db"]
        for name in names[:2]:
            file = str(Path(folder_of(str(path)), name))
            assert bytes_of(path)[file] == files[file]
    assert problems(str(path)) == []


async def test_a_partition_that_cannot_be_written_anew_keeps_none_of_the_others_from_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AGAIN_S", 0.05)
    async with opened(path) as (journal, _):
        await fill(journal, 1, 260)
    file = Path(folder_of(str(path)), file_name(51))
    async with opened(path) as (journal, _):
        content = damaged(file)
        await erase(journal)
        await eventually_async(
            lambda: f"{file} is damaged: put the file" in (journal.space().problem or ""), "it fails"
        )
        assert holding(path) == [], "the others have nothing of it"
        assert [each.device_id for each in await journal.erasures()] == [GONE]
        put_back(file, content)
        await journal.erased()
        assert await journal.erasures() == []
        assert holding(path) == []
        await eventually_async(lambda: journal.space().problem is None, "it goes on")
    assert problems(str(path)) == []


async def test_a_partition_that_is_gone_keeps_none_of_the_others_from_it_and_is_said_once(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AGAIN_S", 0.05)
    file = Path(folder_of(str(path)), file_name(51))
    async with opened(path) as (journal, _):
        await fill(journal, 1, 260)
        removed(file)
        await erase(journal)
        await journal.erased()
        assert await journal.erasures() == []
        assert holding(path) == []
    assert caplog.text.count(f"the file {file} of the log's history is gone: entries 51 to 100 are missing") == 1
    (lack,) = problems(str(path))
    assert lack == f"{file} is gone: the log lacks the entries from 51 to 100"


async def test_it_is_carried_out_by_the_next_run_if_this_one_ends_before(path: Path) -> None:
    async with opened(path) as (journal, _):
        await fill(journal, 1, 120)
        with closing(apsw.Connection(str(path))) as reading:
            reading.execute("begin")
            assert reading.execute("select count(*) from log").get
            await erase(journal)
            await asyncio.sleep(0)
            journal._upkeep.erasing._is_closed = True
            await journal._upkeep.erasing.close()
    async with opened(path) as (journal, _):
        await journal.erased()
        assert holding(path) == []
    assert problems(str(path)) == []


@pytest.mark.parametrize("run", range(KILLS))
def test_kill_9_at_any_moment_delays_it_and_loses_nothing(path: Path, run: int) -> None:
    command = [sys.executable, "-m", "tests.journal.sqlite.history.eraser", str(path)]
    with Popen(command, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        seq = int(process.stdout.readline())
        time.sleep(0.15 * run / KILLS)
        process.send_signal(signal.SIGKILL)
    asyncio.run(_finish(path, seq))


async def _finish(path: Path, seq: int) -> None:
    async with opened(path) as (journal, history):
        await journal.erased()
        entries = await journal.read(0, 1_000)
        assert [one.seq for one in entries] == [*range(1, seq + 1)]
        assert all(isinstance(one, Erased) == (one.seq % 3 == 0) for one in entries[:-1])
        assert [one.seq for one in await told(history, GONE)] == [seq]
        assert holding(path) == []
    assert problems(str(path)) == []


async def test_any_tool_reads_what_is_left(path: Path) -> None:
    async with opened(path) as (journal, _):
        await fill(journal, 1, 120)
        await erase(journal)
        await journal.erased()
    for file in bytes_of(path):
        if "-history/0" not in file:
            continue
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert {kind for (kind,) in db.execute("select distinct type from log")} == {"data_update", "erased"}
    assert {row[1] for row in log_of(path)} <= {"data_update", "erased", "deleted"}


async def test_sums_that_were_made_of_a_partition_and_not_taken_yet_go_too(path: Path) -> None:
    async with opened(path) as (journal, _):
        await fill(journal, 1, 60)
        stale = os.path.join(folder_of(str(path)), summary_name(1))
        shutil.copy(os.path.join(folder_of(str(path)), file_name(1)), stale)
        await erase(journal)
        await journal.erased()
        assert stale not in bytes_of(path)
        assert holding(path) == []


async def test_a_backup_that_is_made_again_has_it_no_more(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = str(tmp_path_factory.mktemp("elsewhere") / "backup")
    make = partial(back_up, str(path), folder, version="1", now_utc=at(0), progress=lambda done, total: None)
    async with opened(path) as (journal, _):
        await fill(journal, 1, 120)
        make()
        assert holding(Path(folder, "manifest.json")), "control: the first one has it"
        await erase(journal)
        await journal.erased()
        make()
        assert holding(Path(folder, "manifest.json")) == []


async def test_the_index_of_what_is_not_closed_has_it_no_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 60)  # then it has sums of the device
    async with opened(path, Retention(partition_entries=0)) as (journal, history):
        for second in range(60):
            marked = DataUpdate(GONE, Raw(b'{"%s":%d}' % (MARK.encode(), second)), at(second), "rest")
            await journal.append(batch_of([marked, DataUpdate("d1", Raw(b"%d" % second), at(second), "rest")]))
        index = os.path.join(folder_of(str(path)), OPEN_END)
        await eventually_async(lambda: MARK.encode() in bytes_of(path).get(index, b""), "the index has it")
        others = await told(history, "d1")
        seq = await erase(journal)
        await journal.erased()
        assert holding(path) == []
        assert await told(history, "d1") == others
        assert [one.seq for one in await told(history, GONE)] == [seq]


async def test_the_index_is_made_anew_behind_a_deletion_though_nothing_is_written_any_more(path: Path) -> None:
    async with opened(path, Retention(partition_entries=0)) as (journal, _):
        await fill(journal, 1, 60)
        await eventually_async(lambda: indexed_up_to(path) >= 50, "the index")
        await erase(journal)
        await journal.erased()
        await eventually_async(lambda: indexed_up_to(path) >= 50, "the index, made anew")


def indexed_up_to(path: Path) -> int:
    """Return up to which position the index of what is not closed has all; 0 while it is empty, or written."""
    index = Path(folder_of(str(path)), OPEN_END)
    if not index.exists():
        return 0
    with closing(apsw.Connection(str(index), flags=apsw.SQLITE_OPEN_READONLY)) as db, suppress(apsw.Error):
        return int(db.execute("select coalesce(max(seq), 0) from run").get)
    return 0


@pytest.mark.parametrize("entries", [0, 50])
async def test_whoever_asks_meanwhile_gets_what_there_is_and_nothing_of_it(path: Path, entries: int) -> None:
    everyone = Names(EVERYTHING, EVERYTHING)
    async with opened(path, Retention(partition_entries=entries, keep_entries=20)) as (journal, history):
        await fill(journal, 1, 600, by=20)
        others = {device: await told(history, device) for device in ("d1", "d2")}
        twins = {name: (await history.state_at(333, everyone)).twins[name] for name in others}
        seq = await erase(journal)
        asked = 0
        while await journal.erasures():
            asked += 1
            assert {device: await told(history, device) for device in others} == others
            assert [one.seq for one in await told(history, GONE)] == [seq]
            assert (await history.state_at(333, everyone)).twins == twins
            assert [one.seq for one in await journal.read(0, 1_000)] == [*range(1, seq + 1)]
        assert asked
        assert holding(path) == []
    assert problems(str(path)) == []


async def test_who_asks_for_what_is_damaged_is_told_the_file_and_the_log_says_it_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(folder_of(str(path)), file_name(51))
    async with opened(path) as (journal, _):
        await fill(journal, 1, 260)
    content = damaged(file)
    buckets = BucketsQuery(("d1",), (Pointer("/x"),), [0, 1 << 60], ("p50",), 260)
    async with opened(path) as (_, history):
        for _ in range(2):
            for asked in (told(history, "d1"), history.buckets(buckets)):
                with pytest.raises(HistoryDamaged, match=f"the file {file.name} of the log's history is damaged"):
                    await asked
        assert caplog.text.count(f"{file} is damaged") == 1
        put_back(file, content)
        assert len(await told(history, "d1")) == 87


async def test_a_damaged_file_is_named_to_who_reads_the_log(path: Path) -> None:
    file = Path(folder_of(str(path)), file_name(51))
    async with opened(path) as (journal, _):
        await fill(journal, 1, 260)
        damaged(file)
        with pytest.raises(JournalUnavailable, match=str(file)):
            await journal.read(50, 10)


async def test_a_file_that_goes_meanwhile_is_said_once_by_who_asks_first(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(folder_of(str(path)), file_name(51))
    async with opened(path) as (journal, history):
        await fill(journal, 1, 260)
        removed(file)
        for _ in range(2):
            assert len(await told(history, "d1")) < 87
        await fill(journal, 261, 320)  # by a partition
        assert caplog.text.count(f"the file {file} of the log's history is gone: entries 51 to 100") == 1
