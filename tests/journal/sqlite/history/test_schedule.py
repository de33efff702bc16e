"""The log is closed behind its newest entries, by another process, and goes on as it was for whoever reads it."""

import asyncio
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, closing
from hashlib import sha256
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.history import open_journals
from tests.journal.sqlite.history.making import at, rows
from tests.journal.sqlite.history.open_journals import names_in, until
from tests.running import ROOT
from twincast.core.audit import Actor
from twincast.core.model import Control, DataUpdate, Entry
from twincast.errors import JournalUnavailable, Truncated
from twincast.journal import retention
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import trim, trim_schedule
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import facts, problems
from twincast.journal.sqlite.history import apart, build, files, schedule, span, writing_out
from twincast.journal.sqlite.history.closer import Closed, Job, Work
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.paced import Share
from twincast.journal.sqlite.journal import SqliteJournal

TINY = Retention(partition_entries=10, keep_entries=5)
NOW = at(80_000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


def opened(
    path: str, kept: Retention = TINY, now_utc: Callable[[], str] = lambda: NOW
) -> AbstractAsyncContextManager[SqliteJournal]:
    return open_journals.opened(path, kept, now_utc)


def readings(first: int, count: int, at_utc: Callable[[int], str] = at) -> list[Entry]:
    numbers = range(first, first + count)
    return [DataUpdate(f"d{seq % 3}", Raw(b"%d" % seq), at_utc(seq), "rest") for seq in numbers]


async def append(journal: SqliteJournal, first: int, count: int) -> None:
    """Append readings that say where they are, one by one with times of their own."""
    for reading in readings(first, count):
        await journal.append(batch_of([reading]))
    await journal.closed()


def hot(path: str) -> Sequence[int]:
    """Return what is in the journal's own log."""
    return [seq for (seq,) in rows(Path(path), "select seq from log order by seq")]


async def trimmed(path: str, oldest: int) -> None:
    await until(lambda: hot(path)[0] == oldest)


def exists(path: str, *names: str) -> bool:
    """Return whether a file of the folder of partitions is there; or the folder, without a name."""
    return Path(folder_of(path), *names).exists()


def leave(path: str, *names: str) -> None:
    """Put files into the folder of partitions."""
    Path(folder_of(path)).mkdir()
    for name in names:
        Path(folder_of(path), name).write_text("left")


def flip_a_bit(path: str, name: str) -> None:
    """Change a partition a little."""
    file = Path(folder_of(path), name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def values(entries: Sequence[Entry]) -> list[int]:
    return [int(bytes(entry.payload)) for entry in entries]


async def test_the_log_is_closed_by_another_process_and_read_as_before(path: str) -> None:
    async with opened(path) as journal:
        await append(journal, 1, 34)
        assert names_in(path) == [f"{first:012}.db" for first in (1, 11, 21)]
        await trimmed(path, 30)
        assert journal.oldest_since == 0
        assert values(await journal.read(0, 100)) == list(range(1, 35))
        assert values(await journal.read(8, 4)) == [9, 10, 11, 12]
        assert values(await journal.read(27, 100)) == list(range(28, 35))
        assert values(await journal.read(3, 100, max_bytes=3)) == [4, 5, 6]
        assert values(await journal.read(8, 100, max_bytes=4)) == [9, 10, 11]
        space = journal.space()
        assert (space.oldest_seq, space.oldest_at_utc, space.entries) == (1, at(1), 34)
        assert space.history_bytes == sum(entry.stat().st_size for entry in os.scandir(folder_of(path)))
        assert space.problem is None
    assert problems(path) == []
    said = facts(path)
    assert (said.oldest_seq, said.entries, said.partitions, said.oldest_at_utc) == (1, 34, 3, at(1))


async def test_a_small_journal_makes_no_other_file(path: str) -> None:
    async with opened(path, KEEP_ALL) as journal:
        await append(journal, 1, 100)
    assert not exists(path)


async def test_nothing_is_closed_where_partitions_are_turned_off(path: str) -> None:
    async with opened(path, Retention(partition_entries=0)) as journal:
        await append(journal, 1, 100)
    assert not exists(path)


@pytest.mark.usefixtures("made_here")
async def test_a_restart_goes_on_with_closing_and_removes_what_a_crash_has_left(path: str) -> None:
    async with opened(path, Retention(partition_entries=0)) as journal:
        await append(journal, 1, 25)
    left = [
        "000000000001.db",
        "000000000011.db.77.new",
        "000000000011.db.77.new-copy",
        "000000000011.db.77.new-scratch",
    ]
    leave(path, *left, "mine.txt", "000000000001.db.broken")
    async with opened(path) as journal:
        await journal.closed()
        names = ["000000000001.db", "000000000001.db.broken", "000000000011.db", "mine.txt"]
        assert names_in(path) == names
        assert values(await journal.read(0, 100)) == list(range(1, 26))
    assert problems(path) == []


@pytest.mark.usefixtures("made_here")
async def test_followers_resume_from_partitions_and_go_on_with_what_comes(path: str) -> None:
    async with opened(path) as journal:
        await append(journal, 1, 34)
    async with opened(path) as journal:
        seen: list[int] = []

        async def follow() -> None:
            async for committed in journal.follow(0):
                seen.extend(values(committed.entries))

        following = asyncio.create_task(follow())
        await append(journal, 35, 20)
        await until(lambda: len(seen) == 54)
        following.cancel()
        assert seen == list(range(1, 55))


@pytest.mark.usefixtures("made_here")
async def test_a_partition_whose_file_is_gone_is_a_hole_that_is_told(path: str) -> None:
    async with opened(path) as journal:
        await append(journal, 1, 40)
        await trimmed(path, 36)
    os.unlink(Path(folder_of(path), "000000000011.db"))
    async with opened(path) as journal:
        assert journal.oldest_since == 20
        with pytest.raises(Truncated, match="reaches back to 20"):
            await journal.read(5, 100)
        assert values(await journal.read(20, 100)) == list(range(21, 41))
        assert journal._reader.read(0, 100)[-1].seq == 10
        with pytest.raises(Truncated, match="reaches back to 20, not to 12"):
            journal._reader.read(12, 100)
    found = problems(path)
    assert len(found) == 1
    assert "lacks the entries from 11 to 20" in found[0]


@pytest.mark.usefixtures("made_here")
async def test_a_file_that_was_changed_is_found_by_its_digest(path: str) -> None:
    async with opened(path) as journal:
        await append(journal, 1, 20)
    flip_a_bit(path, "000000000011.db")
    file = f"{folder_of(path)}/000000000011.db"
    assert problems(path) == [f"{file} was changed since it was closed: its SHA-256 is not that of the catalog"]


@pytest.mark.usefixtures("made_here")
async def test_the_log_keeps_what_a_lost_file_had_and_it_does_still_have(path: str) -> None:
    async with opened(path, TINY._replace(keep_entries=1_000)) as journal:
        await append(journal, 1, 20)
        assert hot(path)[0] == 1
        os.unlink(Path(folder_of(path), "000000000001.db"))
    async with opened(path) as journal:
        await until(lambda: "is gone" in (journal.space().problem or ""))
        assert values(await journal.read(0, 100)) == list(range(1, 21))
    assert hot(path)[0] == 1


@pytest.mark.usefixtures("made_here")
async def test_what_is_too_old_is_read_no_more_at_once_and_its_file_goes_as_a_whole(path: str) -> None:
    now = at(50)
    kept = Retention(keep_s=100.0, partition_entries=10, keep_entries=5)
    async with opened(path, kept, lambda: now) as journal:
        await append(journal, 1, 40)
        await trimmed(path, 36)
        now = at(115)
        journal._upkeep.trimming.closed()
        await until(lambda: journal.oldest_since == 14)
        await until(lambda: not exists(path, "000000000001.db"))
        assert names_in(path) == [f"{first:012}.db" for first in (11, 21, 31)]
        with pytest.raises(Truncated, match="reaches back to 14"):
            await journal.read(12, 100)
        assert values(await journal.read(14, 100)) == list(range(15, 41))
        assert journal.space().oldest_at_utc == at(15)
        now = at(79_000)
        journal._upkeep.trimming.closed()
        await until(lambda: journal.oldest_since == 35)
        assert values(await journal.read(35, 100)) == [36, 37, 38, 39, 40]
    assert problems(path) == []


@pytest.mark.usefixtures("made_here")
async def test_what_is_there_to_see_while_the_log_is_looked_at_is_seen_next(path: str) -> None:
    now, waits, looks, goes_on = at(50), False, threading.Event(), threading.Event()

    def now_utc() -> str:
        seen = now
        if waits:
            looks.set()
            goes_on.wait()
        return seen

    kept = Retention(keep_s=1_000.0, partition_entries=10, keep_entries=5)
    async with opened(path, kept, now_utc) as journal:
        await append(journal, 1, 40)
        await trimmed(path, 36)
        await until(lambda: not journal._upkeep.trimming._is_busy)
        waits = True
        journal._upkeep.trimming.closed()
        await until(looks.is_set)
        now, waits = at(1_015), False
        journal._upkeep.trimming.closed()
        goes_on.set()
        await until(lambda: journal.oldest_since == 14)


@pytest.mark.usefixtures("made_here")
async def test_a_clock_that_was_ahead_for_a_while_does_not_keep_everything(path: str) -> None:
    now = at(50)
    kept = Retention(keep_s=100.0, partition_entries=10, keep_entries=5)
    async with opened(path, kept, lambda: now) as journal:
        for seq in range(1, 41):
            ahead = at(0, day=30) if seq == 3 else at(seq)
            await journal.append(batch_of([DataUpdate("a", Raw(b"%d" % seq), ahead, "rest")]))
        await journal.closed()
        now = at(125)
        journal._upkeep.trimming.closed()
        await until(lambda: journal.oldest_since >= 20)


@pytest.mark.usefixtures("made_here")
async def test_too_much_goes_by_whole_partitions_and_the_bound_holds(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(retention, "CLOSING_BYTES", 1)
    kept = Retention(keep_bytes=600_000, partition_entries=10, keep_entries=5)
    async with opened(path, kept) as journal:
        await append(journal, 1, 100)
        await until(lambda: len(names_in(path)) < 7)
        await trimmed(path, 96)
        space = journal.space()
        assert space.used_bytes <= 600_000
        assert 0 < journal.oldest_since < 90
        assert values(await journal.read(journal.oldest_since, 200))[-1] == 100
    assert problems(path) == []


class Gate:
    """Holds up who closes, until it is let through; then it is done in a thread."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.is_whole: list[bool] = []
        """Of what was made, whether it has all twins from before it."""
        self._may_pass = asyncio.Semaphore(0)

    def let_through(self, number: int = 1) -> None:
        for _ in range(number):
            self._may_pass.release()

    async def __call__(self, job: Work) -> Closed:
        if not isinstance(job, Job):
            return await apart.made_here(job)
        self.spans.append((job.first, job.last))
        await self._may_pass.acquire()
        made = await apart.made_here(job)
        if not made.problem:
            told = rows(Path(job.new), "select value from about where name = 'state_is_whole'")
            self.is_whole.append(told == [("1",)])
        return made


async def test_a_partition_is_not_dropped_while_the_next_one_takes_its_twins_from_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, now = Gate(), at(50)
    monkeypatch.setattr(apart, "made_apart", gate)
    async with opened(path, Retention(keep_s=100.0, partition_entries=10, keep_entries=5), lambda: now) as journal:
        gate.let_through()
        for reading in readings(1, 25):
            await journal.append(batch_of([reading]))
        await until(lambda: gate.spans == [(1, 10), (11, 20)])
        now = at(79_000)
        journal._upkeep.trimming.closed()
        await until(lambda: bool(journal._upkeep.trimming._look.dropped) and not journal._upkeep.trimming._is_busy)
        assert exists(path, "000000000001.db")
        gate.let_through()
        await until(lambda: len(gate.is_whole) == 2)
        assert gate.is_whole == [True, True]
        await until(lambda: names_in(path) == [])
        assert journal.oldest_since == 20


async def test_where_sums_are_left_what_is_being_closed_is_left_in_peace_once_it_was_not(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(retention, "CLOSING_BYTES", 1)
    monkeypatch.setattr(trim, "SLACK_BYTES", 0)
    for module in trim, trim_schedule:
        monkeypatch.setattr(module, "SLICE_ENTRIES", 50)
    monkeypatch.setattr(retention, "LARGE_PARTS", 1)
    gate = Gate()
    monkeypatch.setattr(apart, "made_apart", gate)
    kept = Retention(keep_bytes=700_000, partition_entries=1_000, keep_entries=5, keep_rollups_s=1e9)
    async with opened(path, kept) as journal:

        async def write(count: int) -> None:
            for first in range(journal._file.seq + 1, journal._file.seq + count, 50):
                await journal.append(batch_of(readings(first, 50)))
                await until(lambda: not journal._upkeep.trimming._is_busy)

        while not (gone := journal._file.hot_since()):
            await write(50)
        assert gate.spans == [(1, 1_000)]
        gate.let_through()
        await until(lambda: len(gate.spans) == 2)
        assert gate.spans[1] == (gone + 1, gone + 1_000), "what is left of it is closed at once"
        await write(500)
        assert journal._file.hot_since() == gone
        gate.let_through(100)
        await journal.closed()
        assert journal._upkeep.closing.problem is None
        assert len(gate.is_whole) == len(gate.spans) - 1


def test_what_is_kept_is_at_least_several_partitions_or_nothing_is_closed() -> None:
    assert Retention().closes_at_entries == 1_000_000
    assert Retention(keep_bytes=20_000_000_000).closes_at_entries == 1_000_000
    middle = Retention(keep_bytes=1_000_000_000)
    assert 300_000 < middle.closes_at_entries < 330_000
    assert middle.log_max_bytes is not None
    assert middle.log_max_bytes > 900_000_000
    assert Retention(keep_bytes=200_000_000).closes_at_entries == 0
    assert Retention(keep_s=3_600).closes_at_age_s == 900
    assert Retention().closes_at_age_s == 31 * 86_400


@pytest.mark.usefixtures("made_here")
async def test_what_is_old_is_closed_if_it_is_enough(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AGED_PARTITION_ENTRIES", 8)
    now = at(50)
    kept = Retention(keep_s=4_000.0, partition_entries=100)
    async with opened(path, kept, lambda: now) as journal:
        await append(journal, 1, 20)
        assert not journal._file.partitions.parts
        now = at(1_100)
        journal._upkeep.closing._looks_at_s = 0
        await append(journal, 21, 1)
        assert [(part.first_seq, part.last_seq) for part in journal._file.partitions.parts] == [(1, 21)]


@pytest.mark.usefixtures("made_here")
async def test_the_audit_trail_keeps_what_partitions_have_and_loses_what_is_dropped(path: str) -> None:
    now = at(50)
    kept = Retention(keep_s=100.0, partition_entries=10, keep_entries=5)
    async with opened(path, kept, lambda: now) as journal:
        for seq in range(1, 31):
            command = Control("fan", "set", Raw(b"{}"), at(seq), "rest")
            await journal.append(batch_of([command], actors={0: Actor("key:a", "")}))
        await journal.closed()
        await trimmed(path, 26)
        assert rows(Path(path), "select count(*), min(seq) from audit") == [(30, 1)]
        now = at(111)
        journal._upkeep.trimming.closed()
        await until(lambda: len(journal._file.partitions.parts) == 2)
        assert rows(Path(path), "select count(*), min(seq) from audit") == [(20, 11)]


async def test_a_closing_that_fails_is_said_and_tried_again(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, fails = apart.made_here, True

    async def sometimes(job: Job) -> Closed:
        return Closed(0, 0, 0, 0, 0, 0, "", 0.0, "it is full") if fails else await made(job)

    monkeypatch.setattr(apart, "made_apart", sometimes)
    monkeypatch.setattr(schedule, "AGAIN_S", 0.01)
    async with opened(path) as journal:
        for reading in readings(1, 12):
            await journal.append(batch_of([reading]))
        await until(lambda: journal.space().problem is not None)
        assert "it is full" in (journal.space().problem or "")
        assert caplog.text.count("the log is not closed from 1 to 10") == 1
        assert values(await journal.read(0, 100)) == list(range(1, 13))
        fails = False
        await journal.closed()
        assert journal.space().problem is None
        assert len(journal._file.partitions.parts) == 1


@pytest.mark.usefixtures("made_here")
async def test_a_disk_without_room_for_a_partition_is_left_to_commits(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 16 << 20
    monkeypatch.setattr(apart, "free_bytes", lambda path: room)
    monkeypatch.setattr(schedule, "AGAIN_S", 0.01)
    async with opened(path) as journal:
        for reading in readings(1, 12):
            await journal.append(batch_of([reading]))
        await until(lambda: "of the disk are free" in (journal.space().problem or ""))
        assert not exists(path)
        room = 17 << 20
        await journal.closed()
        assert len(journal._file.partitions.parts) == 1


async def test_a_process_that_dies_is_a_closing_that_fails(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_PROCESS", "twincast.version")
    job = Job(path, f"{path}.new", 1, 10, "log", None, share=1)
    with pytest.raises(JournalUnavailable, match="has ended with status"):
        await apart.made_apart(job)


async def test_where_no_process_can_be_started_a_thread_does_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "")
    async with opened(path) as journal:
        await append(journal, 1, 12)
        assert len(journal._file.partitions.parts) == 1


async def test_a_journal_that_is_closed_ends_the_process_and_leaves_nothing_half(path: str) -> None:
    async with opened(path) as journal:
        for reading in readings(1, 12):
            await journal.append(batch_of([reading]))
    assert [name for name in names_in(path) if "new" in name] == []
    with closing(SqliteFile(path)) as file:
        assert file.seq == 12


def test_a_span_is_copied_in_blocks_between_which_the_wal_can_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteFile(path)) as file:
        file.append(batch_of(readings(1, 3_500, lambda seq: at(1))))
        free: list[bool] = []

        class Looking(Share):
            def rest(self) -> bool:
                with closing(apsw.Connection(path)) as db:
                    pages, done = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                    free.append(pages == done)
                return False

        monkeypatch.setattr(span, "Share", Looking)
        span.copy_span(path, f"{path}-copy", 1, 3_500, with_twins=False)
        assert free == [True] * 4


def test_a_file_is_written_out_while_it_grows(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with writing_out.written_out(str(file)):
        file.write_bytes(b"x" * (2 * writing_out.STEP_BYTES))
    assert file.stat().st_size == 2 * writing_out.STEP_BYTES


@pytest.mark.parametrize(
    ("entries_per_s", "lag", "expected"),
    [
        *((0, 0, 0.15), (0, 2, 0.45), (0, 9, 1.0)),
        *((20_000, 0, 0.15), (25_000, 0, 0.179), (20_000, 0.3, 0.195)),
        *((100_000, 0, 0.2), (100_000, 2, 0.2), (100_000, 4, 0.6), (100_000, 7, 1.0)),
    ],
)
def test_a_closing_keeps_up_with_what_comes_but_lets_commits_go_first(
    entries_per_s: float, lag: float, expected: float
) -> None:
    assert schedule.share(5e-6, entries_per_s, lag) == pytest.approx(expected, rel=0.01)


def test_a_steady_load_is_kept_up_with_at_any_speed_that_leaves_half_a_core() -> None:
    for entries_per_s in (10_000, 50_000, 90_000):
        lag = 0.0
        for _ in range(100):  # closings of a partition each, one behind the other
            takes_s = 5e-6 * 1e6 / schedule.share(5e-6, entries_per_s, lag)
            lag = max(0.0, lag + takes_s * entries_per_s / 1e6 - 1)
        assert lag < 5


def test_the_process_that_closes_imports_nothing_of_the_server() -> None:
    """What it takes to start is taken from whatever is live on that core."""
    code = f"import sys, {apart._PROCESS}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"asyncio", "fastapi", "uvicorn", "twincast.journal.sqlite.file"}.isdisjoint(loaded.split())


def test_a_digest_is_the_sha256_of_the_file_however_much_it_rests(tmp_path: Path) -> None:
    file = tmp_path / "partition.db"
    file.write_bytes(random.Random(1).randbytes(600_001))
    assert files.digest(str(file)) == files.digest(str(file), share=0.5) == sha256(file.read_bytes()).hexdigest()


def test_what_is_removed_as_the_server_has_ended_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, close = tmp_path / "some.new-copy", os.close

    def removing(descriptor: int) -> None:
        close(descriptor)
        copy.unlink(missing_ok=True)

    monkeypatch.setattr(os, "close", removing)
    for begin in span._new_copy, build.prepared:
        with pytest.raises(apsw.CantOpenError):
            begin(str(copy))
    assert not copy.exists()
