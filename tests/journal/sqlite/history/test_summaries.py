"""What is left of partitions that are kept no longer: sums by hour and day, which are those of all entries."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.history.logs import OpenLog, drive
from tests.journal.sqlite.history.making import close_log, reading, rows, write
from tests.journal.sqlite.history.open_journals import MINUTE_US, START_US, Clock, names_in, opened, until
from tests.journal.sqlite.history.test_power_cut import left_of
from tests.journal.sqlite.history.test_queries import (
    DAY,
    HOUR,
    NAMES,
    PATHS,
    _check_columns,
    _moment,
    logs,
)
from twincast.core.model import KINDS, DataUpdate, Deleted, Entry
from twincast.core.pattern import pattern_set
from twincast.errors import SettingUnusable
from twincast.history.pointer import Pointer
from twincast.history.query import Aggregate, BucketsQuery, EntriesQuery, Names
from twincast.history.scan import BucketsScan
from twincast.history.times import text_of
from twincast.journal import retention
from twincast.journal.retention import Retention
from twincast.journal.sqlite import trim_schedule
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import facts, problems
from twincast.journal.sqlite.history import apart, catalog, files, rollup, summaries
from twincast.journal.sqlite.history.closer import Closed, Job, Summing, sum_up
from twincast.journal.sqlite.history.layout import folder_of, summary_name
from twincast.journal.sqlite.history.queries import Queries
from twincast.journal.sqlite.journal import SqliteJournal
from twincast.journal.sqlite.trim import Look

SUMS: tuple[Aggregate, ...] = ("avg", "min", "max", "sum", "count", "min_t", "max_t")
ALL = pattern_set(frozenset(["*"]))


def sum_up_oldest(file: OpenLog, count: int) -> None:
    """Put what is left of the oldest partitions in their place."""
    for part in catalog.of_log(catalog.parts(file.db))[:count]:
        new = str(Path(folder_of(file.path)) / "some.new")
        made = sum_up(Summing(files.path_of(file.path, part), new, share=1.0))
        name = files.settle_as(new, summary_name(part.first_seq))
        with file.db:
            catalog.remove(file.db, [part])
            catalog.add(file.db, part._replace(file=name, bytes=made.bytes, sha256=made.sha256, kind=catalog.ROLLUP))
        files.unlink(file.path, [part])


@contextmanager
def summed(draw: Any, log: Sequence[Entry]) -> Iterator[tuple[Queries, int]]:
    """Write a log, close some of it and leave the sums of the oldest partitions; yield up to where these are."""
    with TemporaryDirectory() as folder:
        file = OpenLog(Path(folder))
        file.write(log)
        queries = Queries(file.path, file)
        try:
            while file.closed < len(log) and draw(st.sampled_from([True, True, False])):
                file.close_up_to(draw(st.integers(file.closed + 1, len(log))))
            if file.closed:
                file.trim_up_to(file.closed)
            sum_up_oldest(file, draw(st.integers(0, 3)))
            yield queries, max((part.last_seq for part in catalog.summaries(catalog.parts(file.db))), default=0)
        finally:
            queries.close()
            file.db.close()


@pytest.mark.parametrize("condenses", [2, 16])
@settings(max_examples=40)
@given(st.data())
def test_sums_by_the_hour_are_those_of_all_entries(condenses: int, data: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollup, "CONDENSES", condenses)
        patch.setattr(summaries, "SHARE_MIN", 1.0)
        log = data.draw(logs())
        with summed(data.draw, log) as (queries, _):
            for _ in range(4):
                query = _query(data.draw, log)
                scan = BucketsScan(query)
                scan.take(log)
                found, expected = drive(queries.buckets(query)).found, scan.answer()
                assert [each[:3] for each in found] == [each[:3] for each in expected]
                for one, other in zip(found, expected, strict=True):
                    _check_columns(query, one.columns, other.columns)


def _query(draw: Any, log: list[Entry]) -> BucketsQuery:
    start = _moment(draw, log) // HOUR * HOUR
    width = draw(st.sampled_from([HOUR, 2 * HOUR, 5 * HOUR, DAY, 7 * DAY]))
    edges: Any = range(start, start + width * draw(st.integers(1, 40)) + 1, width)
    if draw(st.booleans()):
        edges = [start]
        for step in draw(st.lists(st.sampled_from([HOUR, 23 * HOUR, DAY, 30 * DAY]), min_size=1, max_size=9)):
            edges.append(edges[-1] + step)
    return BucketsQuery(
        tuple(draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))),
        tuple(map(Pointer, draw(st.lists(PATHS, min_size=1, max_size=2, unique=True)))),
        edges,
        tuple(draw(st.lists(st.sampled_from(SUMS), min_size=1, max_size=6, unique=True))),
        len(log),
    )


@settings(max_examples=20)
@given(st.data())
def test_entries_are_those_that_are_left(data: Any) -> None:
    log = data.draw(logs())
    with summed(data.draw, log) as (queries, until):
        names = tuple(sorted({entry.subject for entry in log}))
        query = EntriesQuery(names, KINDS, -(1 << 60), 1 << 60, 0, len(log), limit=10_000)
        found = [entry.seq for page in drive(queries.entries(query)).found for entry in page.entries]
        assert sorted(found) == list(range(until + 1, len(log) + 1))
        oldest = drive(queries.oldest())
        assert (oldest.seq if oldest else len(log) + 1) == until + 1


def entries(count: int) -> list[Entry]:
    return [
        DataUpdate("lab/a" if n % 2 else "lab/b", Raw(b"%d" % n), text_of(START_US + n * 7 * MINUTE_US), "rest", seq=n)
        for n in range(1, count + 1)
    ]


@pytest.fixture
def queries(tmp_path: Path) -> Iterator[Queries]:
    """Of 300 readings, 7 minutes apart, of which the first 100 are sums, and the next 100 closed."""
    file = OpenLog(tmp_path)
    file.write(entries(300))
    file.close_up_to(100)
    file.close_up_to(200)
    file.trim_up_to(200)
    sum_up_oldest(file, 1)
    with closing(Queries(file.path, file)) as queries:
        yield queries
    file.db.close()


def buckets(width_us: int, *aggregates: Aggregate, by_stored: bool = False, first_us: int = 0) -> BucketsQuery:
    first_us += START_US // DAY * DAY
    edges = range(first_us, first_us + 3 * DAY + width_us, width_us)
    return BucketsQuery(("lab/a", "lab/b"), (Pointer(""),), edges, aggregates or ("count",), 300, by_stored=by_stored)


def counted(queries: Queries, query: BucketsQuery) -> int:
    return sum(
        cell for each in drive(queries.buckets(query)).found for cell in each.columns[0] if isinstance(cell, int)
    )


@pytest.mark.parametrize(
    ("query", "is_of_all"),
    [
        (buckets(HOUR), True),
        (buckets(DAY), True),
        (buckets(7 * HOUR), True),
        (buckets(HOUR, *("count", *SUMS)), True),
        (buckets(30 * MINUTE_US), False),
        (buckets(90 * MINUTE_US), False),
        (buckets(HOUR, first_us=30 * MINUTE_US), False),
        (buckets(HOUR, "count", "first"), False),
        (buckets(HOUR, "count", "last"), False),
        (buckets(HOUR, "count", "p50"), False),
        (buckets(HOUR, by_stored=True), False),
        (buckets(HOUR)._replace(until_seq=99), False),
    ],
)
def test_a_query_reaches_back_as_far_as_it_can_be_answered_and_says_how_far(
    queries: Queries, query: BucketsQuery, is_of_all: bool
) -> None:
    oldest = 1 if is_of_all else 101
    assert drive(queries.buckets(query)).reaches_back_to == text_of(START_US + oldest * 7 * MINUTE_US)
    if query.until_seq == 300:
        assert counted(queries, query) == (300 if is_of_all else 200)


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_behind_a_hole_nothing_is_said_to_be_whole(tmp_path: Path, gone: int) -> None:
    file = OpenLog(tmp_path)
    file.write(entries(300))
    for last in 50, 100, 150, 200:
        file.close_up_to(last)
    file.trim_up_to(200)
    sum_up_oldest(file, 3)
    files.unlink(file.path, catalog.parts(file.db)[gone - 1 : gone])
    with closing(Queries(file.path, file)) as queries:
        first = {1: 51, 2: 101, 3: 151}[gone]
        assert drive(queries.buckets(buckets(HOUR))).reaches_back_to == text_of(START_US + first * 7 * MINUTE_US)
        assert counted(queries, buckets(HOUR)) == 250, "what is there is answered"
    file.db.close()


def test_devices_of_which_only_sums_are_left_are_still_known(tmp_path: Path) -> None:
    file = OpenLog(tmp_path)
    log = entries(30)
    log[3].device_id, log[5].device_id, log[5].value = "gone", "never a number", Raw(b'"on"')  # type: ignore[union-attr]
    file.write(log)
    file.close_up_to(10)
    file.trim_up_to(10)
    sum_up_oldest(file, 1)
    with closing(Queries(file.path, file)) as queries:
        assert drive(queries.names(Names(ALL, ALL))) == ["gone", "lab/a", "lab/b"]
        assert drive(queries.names(Names(ALL, pattern_set(frozenset(["lab/*"]))))) == ["lab/a", "lab/b"]
    file.db.close()


# Of a journal that is open.


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, made_here: None) -> None:
    """Look often for what is to be dropped, and sum it up in this process."""
    monkeypatch.setattr("twincast.journal.sqlite.trim_schedule.AGED_LOOK_S", 0.02)
    monkeypatch.setattr("twincast.journal.sqlite.trim_schedule.AGAIN_S", 0.02)
    monkeypatch.setattr(summaries, "AGAIN_S", 0.02)


KEPT = Retention(keep_s=3_600.0, keep_entries=5, partition_entries=10, keep_rollups_s=86_400.0)


async def append(journal: SqliteJournal, clock: Clock, count: int) -> None:
    for _ in range(count):
        clock.at_us += MINUTE_US
        await journal.append(batch_of([DataUpdate("d", Raw(b"1"), clock(), "rest")]))
    await journal.closed()


def bytes_in(path: str) -> int:
    return sum(os.path.getsize(Path(folder_of(path)) / name) for name in names_in(path))


def leave_half(path: str) -> None:
    Path(path).write_bytes(b"half")


SUMMED = [summary_name(1), summary_name(11)]


async def test_sums_are_left_of_what_is_dropped_and_go_when_they_are_too_old(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 28)
        clock.at_us += 59 * MINUTE_US
        await append(journal, clock, 1)
        await until(lambda: names_in(path) == SUMMED)
        await until(lambda: facts(path).oldest_seq == 21)  # what is not closed stays
        await until(lambda: (journal.oldest_since, journal.space().oldest_seq) == (20, 21))
        assert facts(path).partitions == 0
        assert [row[0] for row in rows(Path(path), "select kind from part")] == ["rollup"] * 2
        assert journal.space().history_bytes == bytes_in(path)
        assert problems(path) == []
        clock.at_us += 86_400_000_000
        await until(lambda: names_in(path) == [])
    assert rows(Path(path), "select * from part") == []
    assert problems(path) == []


async def test_a_history_that_is_deleted_is_in_no_sum_either(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        for n in range(28):
            clock.at_us += MINUTE_US
            await journal.append(batch_of([DataUpdate("me" if n % 2 else "d", Raw(b"%d" % n), clock(), "rest")]))
        await journal.closed()
        clock.at_us += 60 * MINUTE_US
        await append(journal, clock, 1)
        await until(lambda: names_in(path) == SUMMED)
        assert all("me" in devices_in(path, name) for name in SUMMED)
        await journal.append(batch_of([Deleted("me", clock(), "rest", scope="history")]))
        await journal.erased()
        left = [name for name in names_in(path) if "rollup" in name]
        assert left == [f"{first:012}-1.rollup.db" for first in (1, 11)]
        assert all(devices_in(path, name) == ["d"] for name in left)
    assert problems(path) == []


def devices_in(path: str, name: str) -> list[str]:
    found = rows(Path(folder_of(path), name), "select name from device where id in (select device from rollup)")
    return sorted(str(device) for (device,) in found)


async def test_what_is_left_survives_a_restart_without_the_setting(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 28)
        clock.at_us += 60 * MINUTE_US
        await append(journal, clock, 1)
        await until(lambda: names_in(path) == SUMMED)
    assert names_in(path) == SUMMED
    async with opened(path, KEPT._replace(keep_rollups_s=None), clock) as journal:
        await append(journal, clock, 30)
        assert set(SUMMED) < set(names_in(path))
    assert problems(path) == []


async def test_without_room_for_the_sums_the_entries_stay_and_it_is_said(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, room = str(tmp_path / "journal.db"), [1 << 40]
    monkeypatch.setattr(apart, "free_bytes", lambda _path: room[0])
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 28)
        room[0] = 0
        clock.at_us += 60 * MINUTE_US
        await append(journal, clock, 1)
        await until(lambda: "the oldest entries stay" in (journal.space().problem or ""))
        assert names_in(path) == [f"{first:012}.db" for first in (1, 11)]
        room[0] = 1 << 40
        await until(lambda: names_in(path) == SUMMED)
        await until(lambda: journal.space().problem is None)


async def test_of_a_damaged_partition_nothing_is_left_and_the_others_are_not_held_up(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(job: Job | Summing) -> Closed:
        if isinstance(job, Summing) and job.source.endswith("000000000001.db"):
            return Closed(0, 0, 0, 0, 0, 0, "", 0.0, "it is damaged")
        return await apart.made_here(job)

    path = str(tmp_path / "journal.db")
    monkeypatch.setattr(apart, "made_apart", failing)
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 28)
        file = Path(folder_of(path)) / "000000000001.db"
        file.write_bytes(file.read_bytes()[:-1] + b"!")
        clock.at_us += 60 * MINUTE_US
        await append(journal, clock, 1)
        await until(lambda: names_in(path) == SUMMED[1:])
        await until(lambda: journal.space().problem is None)


async def test_an_end_while_sums_are_made_leaves_the_entries(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def endless(job: Job | Summing) -> Closed:
        if isinstance(job, Job):
            return await apart.made_here(job)
        leave_half(job.new)
        begun.set()
        await asyncio.sleep(3_600)
        raise AssertionError

    path = str(tmp_path / "journal.db")
    monkeypatch.setattr(apart, "made_apart", endless)
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 28)
        clock.at_us += 60 * MINUTE_US
        await append(journal, clock, 1)
        await asyncio.wait_for(begun.wait(), 30)
    assert names_in(path) == [f"{first:012}.db" for first in (1, 11)]
    assert problems(path) == []


async def test_under_a_bound_in_bytes_the_oldest_sums_go_when_nothing_else_can(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(retention, "CLOSING_BYTES", 1)
    monkeypatch.setattr("twincast.journal.sqlite.trim.SLACK_BYTES", 0)
    path = str(tmp_path / "journal.db")
    kept = Retention(keep_bytes=300_000, keep_entries=5, partition_entries=10, keep_rollups_s=86_400.0)
    async with opened(path, kept, clock) as journal:
        await append(journal, clock, 100)
        await until(lambda: journal.space().used_bytes <= 300_000 and "000000000001.rollup.db" not in names_in(path))
        left = [name for name in names_in(path) if "rollup" in name]
        assert left, "the newer ones stay"
        assert left == sorted(left)[-len(left) :]
    assert problems(path) == []


async def test_sums_are_left_of_entries_that_are_so_large_that_few_of_them_fit(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(retention, "CLOSING_BYTES", 1)
    monkeypatch.setattr("twincast.journal.sqlite.trim.SLACK_BYTES", 0)
    path, text = str(tmp_path / "journal.db"), "x" * 20_000
    kept = Retention(keep_bytes=8_000_000, keep_entries=5, partition_entries=1_000, keep_rollups_s=86_400.0)
    journal = await SqliteJournal.open(path, retention=kept, now_utc=clock)
    try:
        for n in range(1, 601):
            value = Raw(b'{"n":%d,"text":"%s"}' % (n, text.encode()))
            await journal.append(batch_of([DataUpdate("d", value, clock(), "rest")]))
            if n % 5 == 0:
                await journal.closed()
        await until(lambda: journal.oldest_since > 0 and not journal._upkeep.trimming._is_busy)
        spans = [
            (part.first_seq, part.last_seq)
            for part in (*journal._file.partitions.summaries, *journal._file.partitions.parts)
        ]
        assert [first for first, _ in spans] == [1, *(last + 1 for _, last in spans[:-1])]
        assert journal.oldest_since == journal._file.partitions.summaries[-1].last_seq
    finally:
        await journal.close()
    assert problems(path) == []


def test_what_was_never_closed_goes_once_neither_partitions_nor_sums_are_left_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "HEADROOM_BYTES", 0)
    monkeypatch.setattr(retention, "CLOSING_BYTES", 1)
    path = tmp_path / "journal.db"
    write(path, [reading("d", str(n), n) for n in range(1, 61)])
    close_log(str(path), 20)
    kept = Retention(keep_bytes=1_000, keep_entries=5, partition_entries=20, keep_rollups_s=1e9)
    with closing(SqliteFile(str(path), retention=kept)) as file:
        look = file.look(text_of(START_US))
        assert (look.hot_since, look.dropped, look.forgotten, look.until) == (40, file.partitions.parts, [], None)
        file.partitions.drop(look.dropped, [left_of(str(path), part) for part in look.dropped])
        assert len(file.partitions.summaries) == 2
        look = file.look(text_of(START_US))
        assert (look.dropped, look.forgotten, look.until) == ([], file.partitions.summaries, 55)


def part_of(first: int, last: int) -> catalog.Part:
    return catalog.Part(first, last, f"{first:012}.db", 0, 0, 0, 0, last - first + 1, 1, "ab", catalog.CLOSED, "")


def test_while_a_partition_waits_for_its_sums_nothing_behind_it_is_trimmed() -> None:
    parts = [part_of(1, 10), part_of(11, 20)]
    look = Look(0, 0, 0, 0, None, 0, 24, parts, (), is_short=False)
    assert trim_schedule._until(look, parts) == 24
    assert trim_schedule._until(look, parts[:1]) == 20
    assert trim_schedule._until(look, []) == 20
    assert trim_schedule._until(look._replace(hot_since=20), []) is None
    assert trim_schedule._until(look._replace(until=None), []) is None


def test_sums_of_a_partition_that_was_written_anew_meanwhile_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, [reading("d", str(n), n) for n in range(1, 31)])
    close_log(str(path), 10)
    with closing(SqliteFile(str(path))) as file:
        before = list(file.partitions.parts)
        assert file.partitions.drop([before[0]._replace(sha256="of the one before")], [part_of(1, 10)]) == []
        assert (file.partitions.parts, file.partitions.summaries) == (before, [])
        assert file.partitions.drop(before[:1]) == before[:1]
        assert (file.partitions.parts, file.partitions.summaries) == (before[1:], [])


def test_sums_that_would_go_before_their_entries_are_refused() -> None:
    with pytest.raises(SettingUnusable, match="--keep-rollups must be longer than --keep"):
        KEPT._replace(keep_rollups_s=3_600.0).check()
    KEPT.check()
