"""The oldest part of the log goes, in slices, and never what somebody needs."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.full_disk import full_disk
from tests.running import eventually_async
from twincast.core.audit import Actor
from twincast.core.batch import Batch
from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.errors import JournalUnavailable, Truncated
from twincast.journal import retention
from twincast.journal.retention import Retention
from twincast.journal.sqlite import file as sqlite_file
from twincast.journal.sqlite import journal as sqlite
from twincast.journal.sqlite import trim as sqlite_trim
from twincast.journal.sqlite import trim_schedule
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import facts, problems
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.open_journal import OpenJournal
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.trim_schedule import TrimSchedule
from twincast.journal.sqlite.worker import Worker

NOW_UTC = "2026-11-23T16:24:00.000000+00:00"
VALUE = b'"%b"' % (b"x" * 1_000)


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a hundred readings be much."""
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(sqlite_trim, "SLICE_ENTRIES", 50)
    monkeypatch.setattr(sqlite_trim, "SLACK_BYTES", 8_192)
    monkeypatch.setattr(trim_schedule, "SLICE_ENTRIES", 50)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


def at(minute: int) -> str:
    return f"2026-11-23T16:{minute:02}:00.000000+00:00"


def readings(count: int, at_utc: str = NOW_UTC, devices: int = 7) -> list[Entry]:
    return [DataUpdate(f"d{number % devices}", Raw(VALUE), at_utc, "rest") for number in range(count)]


def trim_all(file: SqliteFile, now_utc: str = NOW_UTC) -> int:
    """Trim as long as something is due; return in how many slices."""
    slices = 0
    while (until := file.look(now_utc).until) is not None:
        before = file.look(now_utc).oldest_since
        file.trim(until)
        assert before < file.look(now_utc).oldest_since <= before + 2 * sqlite_trim.SLICE_ENTRIES
        slices += 1
    return slices


def is_later(journal: SqliteJournal, than: int) -> bool:
    return journal.oldest_since > than


def seqs(path: str) -> list[int]:
    with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return [seq for (seq,) in db.execute("select seq from log order by seq")]


def test_without_a_bound_nothing_ever_goes(path: str) -> None:
    with closing(SqliteFile(path)) as file:
        file.append(batch_of(readings(300)))
        assert file.look("2099-01-01T00:00:00+00:00").until is None


def test_what_is_too_old_goes_in_slices_and_the_rest_stays(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=300))) as file:
        for minute in range(10):
            file.append(batch_of(readings(30, at(minute))))
        assert trim_all(file, at(10)) == 3  # 150 of them, from before minute 5
        assert seqs(path) == list(range(151, 301))
        assert file.look(at(10)).oldest_at_utc == at(5)
        assert len(file.snapshot().twins) == 7
    assert problems(path) == []


def test_a_slice_is_bounded_however_much_came_since_the_last_look(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=60))) as file:
        file.append(batch_of(readings(1)))
        file.look(NOW_UTC)
        file.append(batch_of(readings(2_000)))
        until = file.look("2026-11-24T16:24:00+00:00").until
        assert until == sqlite_trim.SLICE_MAX * sqlite_trim.SLICE_ENTRIES


def test_a_clock_that_was_wrong_for_a_while_does_not_keep_everything(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=60))) as file:
        file.append(batch_of(readings(10, "2099-01-01T00:00:00+00:00")))
        file.append(batch_of(readings(40, at(1))))
        file.append(batch_of(readings(10, at(20))))
        trim_all(file, at(20))
        assert seqs(path) == list(range(51, 61))


def test_a_clock_that_is_behind_trims_nothing(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=60))) as file:
        file.append(batch_of(readings(50)))
        assert file.look("1970-01-01T00:00:00+00:00").until is None


def test_a_time_longer_than_there_are_dates_keeps_everything(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=1e13))) as file:
        file.append(batch_of(readings(50)))
        assert file.look(NOW_UTC).until is None


def test_the_file_stays_at_its_bound_while_more_and_more_comes(path: str) -> None:
    bound = 400_000
    with closing(SqliteFile(path, retention=Retention(keep_bytes=bound))) as file:
        for _ in range(100):
            file.append(batch_of(readings(40)))
            trim_all(file)
            assert file.look(NOW_UTC).used_bytes <= bound
        assert file.seq == 4_000
        assert seqs(path)[-1] == 4_000
    assert Path(path).stat().st_size < 2 * bound  # of 4 MB that were written: freed pages are written anew
    assert problems(path) == []


def test_whichever_bound_trims_more_decides(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=300, keep_bytes=50_000))) as file:
        file.append(batch_of(readings(100, at(10))))
        trim_all(file, at(10))
        assert 0 < len(seqs(path)) < 50  # none is too old
    with closing(SqliteFile(path, retention=Retention(keep_s=300, keep_bytes=10_000_000))) as file:
        trim_all(file, at(20))
        assert seqs(path) == [100]  # all are too old, and the newest says where the log goes on


def test_what_clients_resume_from_stays_whatever_the_bounds(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(60, 50_000, keep_entries=120))) as file:
        file.append(batch_of(readings(200, at(1))))
        trim_all(file, at(59))
        assert seqs(path) == list(range(81, 201))
        assert file.look(at(59)).is_short, "and it is said that the bound is not kept"


def test_no_newest_value_is_lost_and_no_deleted_device_comes_back(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=60))) as file:
        file.append(batch_of(readings(20, at(1), devices=20)))
        file.append(batch_of([Deleted("d3", at(1), "rest"), Control("d4", "on", Raw(b"{}"), at(1), "rest")]))
        file.append(batch_of(readings(30, at(1), devices=2)))
        before = file.snapshot().twins
        assert trim_all(file, at(59)) == 2
        assert seqs(path) == [52]
        assert file.snapshot().twins == before
    with closing(SqliteFile(path)) as file:
        assert file.snapshot().twins == before
        assert "d3" not in before and len(before) == 19
        assert (file.append(batch_of(readings(1))).seqs, file.seq) == (range(53, 54), 53)


def test_records_of_what_goes_leave_the_audit_trail_and_those_of_keys_stay(path: str) -> None:
    def order(number: int) -> Batch:
        entry = Control("fan", f"c{number}", Raw(b"{}"), at(number), "rest")
        return batch_of([entry], actors={0: Actor("key:a", "here")})

    with closing(SqliteFile(path, retention=Retention(keep_s=300))) as file:
        with closing(apsw.Connection(path)) as db:
            for number in range(10):
                file.append(order(number))
                if number % 4 == 0:
                    db.execute(
                        "insert into audit (at_utc, who, address, action, target, detail)"
                        " values ('then', 'local:me', '', 'keys add', 'k', '')"
                    )
        for now in (7, 10):
            trim_all(file, at(now))
        with closing(apsw.Connection(path)) as db:
            left = [(action, seq) for action, seq in db.execute("select action, seq from audit order by id")]
    assert [seq for action, seq in left if action == "command"] == [6, 7, 8, 9, 10]
    assert [action for action, _ in left].count("keys add") == 3


def test_a_log_that_is_trimmed_while_it_is_read_gives_all_or_says_so(path: str) -> None:
    with closing(SqliteFile(path, retention=Retention(keep_s=60))) as file:
        file.append(batch_of(readings(150, at(1))))
        with closing(LogReader(path, "epoch")) as reader:
            since, found = 40, []
            while since < 100:
                entries = reader.read(since, 20)
                found += [entry.seq for entry in entries]
                since = found[-1]
                file.trim(30)  # behind what is read
            assert found == list(range(41, 101))
            file.trim(120)
            with pytest.raises(Truncated, match="reaches back to 120, not to 100"):
                reader.read(since, 20)


def test_a_full_disk_while_trimming_loses_nothing_and_trimming_goes_on_later(path: str) -> None:
    with full_disk() as disk, closing(SqliteFile(path, retention=Retention(keep_s=60), vfs=disk.vfs)) as file:
        file.append(batch_of(readings(120, at(1))))
        disk.is_full = True
        until = file.look(at(59)).until
        assert until is not None
        with pytest.raises(JournalUnavailable, match="full"):
            file.trim(until)
        assert len(seqs(path)) == 120
        disk.is_full = False
        trim_all(file, at(59))
        assert seqs(path) == [120]
        file.append(batch_of(readings(1)))
    assert problems(path) == []


# Beside a running loop.


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("journal")
    yield worker
    await worker.close()


async def test_a_full_disk_is_told_while_it_lasts_and_trimmed_again_later(
    path: str, worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trim_schedule, "AGAIN_S", 0.01)
    with full_disk() as disk, closing(SqliteFile(path, retention=Retention(keep_s=60), vfs=disk.vfs)) as file:
        file.append(batch_of(readings(120, at(1))))
        disk.is_full = True
        bounds = Retention(keep_s=60)
        trimming = TrimSchedule(OpenJournal(file, worker, bounds, lambda: at(59)))
        trimming.start()
        await eventually_async(lambda: trimming.space().problem, "the status says it")
        assert "full" in (trimming.space().problem or "")
        disk.is_full = False
        await eventually_async(lambda: trimming.space().entries == 1, "it is trimmed")
        assert trimming.space().problem is None
        trimming.close()
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2 and "not trimmed" in said[0] and "again" in said[1]


class Grown:
    """A journal that has grown for 100 s, on a disk with as much room as is said."""

    def __init__(self, file: SqliteFile, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self._room_bytes = 0.0, 1 << 40
        self._file, self._worker = file, worker
        monkeypatch.setattr(trim_schedule, "free_of_disk_bytes", lambda path: self._room_bytes)

    async def under(self, bounds: Retention, now_utc: str = at(2)) -> TrimSchedule:
        trimming = TrimSchedule(
            OpenJournal(self._file, self._worker, bounds, lambda: now_utc), clock_s=lambda: self.now_s
        )
        self._file.append(batch_of(readings(200, at(1))))
        self.now_s += 100.0
        trimming.appended(self._file.seq)
        await eventually_async(lambda: trimming.space().growth_bytes_per_s, "the pace is known")
        return trimming

    def full_in_s(self, trimming: TrimSchedule, room_bytes: float) -> float | None:
        """Return in how long it is full, with so much room on the disk and in the file together."""
        self._room_bytes = round(room_bytes) - trimming._look.free_bytes
        return trimming.space().full_in_s


@pytest.fixture
async def grown(path: str, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Grown]:
    with closing(SqliteFile(path)) as file:
        yield Grown(file, worker, monkeypatch)


@pytest.mark.parametrize("keep_rollups_s", [None, 1e9])
async def test_a_disk_lasts_if_the_oldest_goes_for_its_size_before_it_is_full(
    grown: Grown, keep_rollups_s: float | None
) -> None:
    bounds = Retention(keep_bytes=2_000_000, keep_entries=10, partition_entries=100, keep_rollups_s=keep_rollups_s)
    assert bounds.closes_at_entries == 100
    trimming = await grown.under(bounds)
    goes_at_bytes = 2_000_000 - retention.CLOSING_BYTES * 100
    if keep_rollups_s is not None:
        goes_at_bytes -= retention.ENTRY_MIN_BYTES * 100
    room_bytes = goes_at_bytes - trimming.space().used_bytes
    assert grown.full_in_s(trimming, room_bytes) is None
    growth = trimming.space().growth_bytes_per_s
    assert growth is not None
    assert grown.full_in_s(trimming, room_bytes - 1) == pytest.approx(room_bytes / growth, rel=0.01)
    trimming.close()


async def test_a_disk_lasts_if_the_oldest_goes_for_its_age_before_it_is_full(grown: Grown) -> None:
    hour = Retention(keep_s=3_600.0, keep_entries=10)
    trimming = await grown.under(hour)
    growth = trimming.space().growth_bytes_per_s
    assert growth is not None
    goes_in_s = 3_600 + 900 - 60  # it is a minute old, and closed with what comes within a quarter of an hour
    assert grown.full_in_s(trimming, growth * goes_in_s * 1.01) is None
    assert grown.full_in_s(trimming, growth * goes_in_s * 0.99) == pytest.approx(goes_in_s, rel=0.02)
    trimming.close()
    for less in hour._replace(keep_entries=1_000_000), hour._replace(keep_rollups_s=1e9):
        trimming = await grown.under(less)
        assert grown.full_in_s(trimming, 1e9) is not None, "this many always stay, or something is left of what goes"
        trimming.close()


async def test_a_bound_that_is_not_kept_is_not_relied_on(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    trimming = await grown.under(Retention(keep_bytes=2_000_000, keep_s=3_600.0, keep_entries=10))
    assert grown.full_in_s(trimming, 1e9) is None
    trimming._fail(JournalUnavailable("the disk does not take it"))
    assert trimming.space().problem
    assert grown.full_in_s(trimming, 1e9) is not None
    trimming.close()


async def test_commits_and_slices_take_turns_and_the_position_moves_with_them(path: str) -> None:
    journal = await SqliteJournal.open(path, retention=Retention(keep_bytes=300_000, keep_entries=10))
    for _ in range(60):
        await journal.append(batch_of(readings(20)))
    await eventually_async(lambda: journal.space().used_bytes <= 300_000, "the log is trimmed")
    space = journal.space()
    assert space.oldest_seq + space.entries == 1_201
    with pytest.raises(Truncated):
        await journal.read(0, 10)
    await journal.close()
    assert 1 < facts(path).oldest_seq == journal.oldest_since + 1
    assert problems(path) == []


async def test_under_load_a_slice_goes_for_each_half_of_one_that_comes(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim_schedule, "REST", 1e9)
    monkeypatch.setattr(trim_schedule, "PAUSE_MAX_S", 3_600.0)  # no slice goes for the time that has passed
    monkeypatch.setattr(trim_schedule, "PACE_STEP_S", 3_600.0)
    now_utc = at(1)
    journal = await SqliteJournal.open(path, retention=Retention(keep_s=60, keep_entries=1), now_utc=lambda: now_utc)
    await journal.append(batch_of(readings(1_000, at(1))))
    now_utc = at(3)
    for _ in range(3):  # the first slice is found
        await journal.append(batch_of(readings(25, at(3))))
    for _ in range(8):
        before = journal.oldest_since
        await journal.append(batch_of(readings(25, at(3))))
        await eventually_async(partial(is_later, journal, before), "a slice goes")
        assert journal.oldest_since - before <= 2 * sqlite_trim.SLICE_ENTRIES
    before = journal.oldest_since
    await journal.append(batch_of(readings(400, at(3))))  # at once: what a slice leaves of it is not left to a timer
    await eventually_async(partial(is_later, journal, before + 350), "as much goes as has come")
    await journal.close()


async def test_what_is_too_old_goes_also_where_nobody_writes(path: str) -> None:
    now_utc = at(1)
    journal = await SqliteJournal.open(path, retention=Retention(keep_s=0.5), now_utc=lambda: now_utc)
    await journal.append(batch_of(readings(60, at(1))))
    assert journal.oldest_since == 0
    now_utc = at(2)
    await eventually_async(lambda: journal.oldest_since == 59, "the clock alone has it trimmed")
    await journal.close()


async def test_a_follower_is_given_everything_however_slow_it_is(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub drives the state by it: a hole would be a state that is wrong."""
    monkeypatch.setattr(sqlite, "TAIL_MAX_BYTES", 1)  # the newest batch only; the rest is in the file
    journal = await SqliteJournal.open(path, retention=Retention(keep_bytes=100_000))
    follower = journal.follow(0)
    await journal.append(batch_of(readings(20)))
    first = await anext(follower)
    for _ in range(30):
        await journal.append(batch_of(readings(20)))
    await eventually_async(lambda: journal.space().oldest_seq > 1, "what it has been given is trimmed")
    found = [entry.seq for entry in first.entries]
    while found[-1] < 620:
        found += [entry.seq for entry in (await anext(follower)).entries]
    assert found == list(range(1, 621))
    await journal.close()


async def test_a_journal_that_was_moved_is_not_trimmed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trim_schedule, "AGAIN_S", 0.01)
    now_utc = at(1)
    journal = await SqliteJournal.open(path, retention=Retention(keep_s=0.5), now_utc=lambda: now_utc)
    await journal.append(batch_of(readings(60, at(1))))
    os.rename(path, f"{path}.moved")
    now_utc = at(2)
    await eventually_async(lambda: "removed or renamed" in (journal.space().problem or ""), "it is told why")
    os.rename(f"{path}.moved", path)
    await eventually_async(lambda: journal.oldest_since == 59 and journal.space().problem is None, "it goes on")
    await journal.close()


def test_the_checkpoint_goes_before_what_it_lacks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "CHECKPOINT_ENTRIES", 30)  # so that one slice of it is not enough
    with closing(SqliteFile(path, retention=Retention(keep_s=60))) as file:
        file.append(batch_of(readings(100, at(1), devices=100)))
        file.trim(50)
        assert seqs(path) == list(range(31, 101))
        assert len(file.snapshot().twins) == 100
    assert problems(path) == []


def test_a_checkpoint_that_lacks_what_was_trimmed_is_seen(path: str) -> None:
    with closing(SqliteFile(path)) as file:
        file.append(batch_of(readings(10)))
    with closing(apsw.Connection(path)) as db:
        db.execute("delete from log where seq <= 5; update meta set value = '3' where name = 'checkpoint_seq'")
    assert "the checkpoint is of 3, and the log begins at 6: what was between lacks" in problems(path)
