"""Each query and state, compared with a look at every entry of the log; however that is closed, sliced and trimmed."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from tests.journal.sqlite.history.logs import EPOCH, SMALL, OpenLog, drive
from twincast.core.lateness import NEVER, decide
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Twin
from twincast.core.pattern import pattern_set
from twincast.errors import TooMuch, Truncated
from twincast.history.moments import stored_us
from twincast.history.pointer import Pointer
from twincast.history.query import AGGREGATES, BucketsQuery, EntriesQuery, Names, Place
from twincast.history.scan import BucketsScan, EntriesScan
from twincast.history.times import text_of
from twincast.journal.scanned_history import apply_to
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.queries import Queries

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
DEVICES = ("a", "lab/b", "ü", "d")
_EVERY_NAME = pattern_set(frozenset(["*"]))
EVERYBODY = Names(_EVERY_NAME, _EVERY_NAME)
NAMES = st.sampled_from(DEVICES)
VALUES = st.sampled_from(
    [
        *("1", "2", "3", "-1", "0", "-0.0", "1.50", "1E2", "-7e-3", "9007199254740993", "9223372036854775807"),
        *("123456789012345678901234567890", "0.1", "0.2", "0.30000000000000004", "true", "null", '"5"', '"x"'),
        *('{"n":1}', '{"n":2.5,"m":{"0":7}}', '{"n":"3"}', '{"m":[4,5]}', "[1,2,3]", '{"0":[{"n":1}]}', "{}", "[]"),
        *('{"a b":1,"q\\"x":2,"\\u0041":3,"~/":4}', '{"":{"":6}}', '{"n":{"n":null}}', '{"n":false}'),
        *('{"n":%s5}' % (" " * spaces) for spaces in (57, 58, 59, 900)),  # of 64 bytes, and of more
        *(f"0.{'3' * digits}" for digits in (62, 63)),
    ]
)
SOURCES = st.sampled_from(["rest", "websocket", "nats", "application"])
PATHS = st.sampled_from(["", "/n", "/m/0", "/0", "/0/0/n", "/a b", '/q"x', "/A", "/~0~1", "/", "//", "/nowhere"])
STEPS_US = st.sampled_from([0, 1, 300_000, 7 * SECOND, 61 * SECOND, HOUR, 7 * HOUR, DAY, -5 * SECOND, -2 * HOUR])
MEASURED_US = st.sampled_from(
    [None, None, None, 0, -1, -30 * SECOND, -3 * HOUR, -400 * DAY, 30 * SECOND, 60 * SECOND, 60 * SECOND + 1, 90 * DAY]
)


@st.composite
def logs(draw: Any) -> list[Entry]:
    """Draw the entries of a log: few devices, all kinds, and clocks that do what clocks do."""
    at_us = 0 if draw(st.booleans()) else 1_774_728_000 * SECOND + 500_000
    at_us -= draw(st.sampled_from([0, 60 * SECOND, 3 * DAY]))
    entries: list[Entry] = []
    for _ in range(draw(st.integers(1, 60))):
        at_us += draw(STEPS_US)
        entries += _batch(draw, text_of(at_us))
    decide(entries, lambda device: NEVER)
    for seq, entry in enumerate(entries, 1):
        entry.seq, entry.epoch = seq, EPOCH
    return entries


def _batch(draw: Any, stored: str) -> list[Entry]:
    name = draw(NAMES)
    stored = draw(st.sampled_from([stored] * 9 + [stored.replace("+00:00", "Z")]))  # another program writes it so
    kind = draw(st.sampled_from(["reading"] * 8 + ["control", "deleted"]))
    if kind == "control":
        return [Control(name, "turn", Raw(b'{"n":1}'), stored, "rest")]
    if kind == "deleted":
        return [Deleted(name, stored, "rest")]
    readings: list[Entry] = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 5]))):
        reading = DataUpdate(name, Raw(draw(VALUES).encode()), stored, draw(SOURCES))
        measured = draw(MEASURED_US)
        if measured is not None:
            reading.measured_at_utc = text_of(stored_us(reading) + measured)
        readings.append(reading)
    return readings


@pytest.fixture(autouse=True, scope="module")
def _small_steps() -> Iterator[None]:
    with ExitStack() as patches:
        for module, sizes in SMALL.items():
            patches.enter_context(patch.multiple(module, **sizes))
        yield


@contextmanager
def closed(draw: Any, log: list[Entry]) -> Iterator[Queries]:
    """Write a log, close and slice some of it, and let it be asked."""
    with TemporaryDirectory() as folder:
        file = OpenLog(Path(folder))
        seq = 0
        queries = Queries(file.path, file)
        try:
            while seq < len(log):
                upto = draw(st.integers(seq + 1, len(log)))
                file.write(log[seq:upto])
                seq = upto
                if file.closed < seq and draw(st.booleans()):
                    file.close_up_to(draw(st.integers(file.closed + 1, seq)))
                for _ in range(draw(st.sampled_from([0, 1, 3, 100]))):
                    if not queries.go_on(is_busy=draw(st.booleans())):
                        break
            if file.closed and draw(st.booleans()):
                file.trim_up_to(draw(st.integers(1, file.closed)))
            yield queries
        finally:
            queries.close()
            file.db.close()


MOMENTS_US = [0, 1, -1, SECOND, -60 * SECOND, HOUR, -3 * HOUR, 5 * DAY, -5 * DAY, 1000 * DAY, -1000 * DAY]


def _moment(draw: Any, log: list[Entry]) -> int:
    moment: int = stored_us(draw(st.sampled_from(log))) + draw(st.sampled_from(MOMENTS_US))
    return moment


@settings(max_examples=40)
@given(st.data())
def test_pages_are_those_of_a_look_at_every_entry(data: Any) -> None:
    log = data.draw(logs())
    with closed(data.draw, log) as queries:
        for _ in range(4):
            query = _entries_query(data.draw, log)
            scan = EntriesScan(query)
            assert _pages(query, log, scan) == _answered(queries, query)


def _entries_query(draw: Any, log: list[Entry]) -> EntriesQuery:
    since, until = sorted((_moment(draw, log), _moment(draw, log)))
    beyond = Place(_moment(draw, log), draw(st.integers(0, len(log) + 1))) if draw(st.booleans()) else None
    return EntriesQuery(
        tuple(draw(st.lists(st.sampled_from([*DEVICES, "never"]), min_size=1, max_size=3, unique=True))),
        frozenset(draw(st.sets(st.sampled_from(["data_update", "late", "control", "deleted"]), min_size=1))),
        since,
        until + 1,
        draw(st.sampled_from([0, 0, len(log) // 2])),
        draw(st.sampled_from([len(log), len(log), len(log) // 2])),
        by_stored=draw(st.booleans()),
        paths=tuple(map(Pointer, draw(st.lists(PATHS, max_size=2, unique=True)))) if draw(st.booleans()) else (),
        is_descending=draw(st.booleans()),
        beyond=beyond,
        limit=draw(st.sampled_from([1, 2, 5, 1_000])),
        entries_max=draw(st.sampled_from([3, 100_000])),
        page_max_bytes=draw(st.sampled_from([8, 8_000_000])),
    )


def _pages(query: EntriesQuery, log: list[Entry], scan: EntriesScan) -> Any:
    try:
        scan.take(log)
        return [(page.device_id, list(page.entries), page.has_more) for page in scan.answer()]
    except TooMuch:
        return TooMuch


def _answered(queries: Queries, query: EntriesQuery) -> Any:
    try:
        found = drive(queries.entries(query)).found
        return [(page.device_id, list(page.entries), page.has_more) for page in found]
    except TooMuch:
        return TooMuch


@settings(max_examples=40)
@given(st.data())
def test_buckets_are_those_of_a_look_at_every_entry(data: Any) -> None:
    log = data.draw(logs())
    with closed(data.draw, log) as queries:
        for _ in range(4):
            query = _buckets_query(data.draw, log)
            scan = BucketsScan(query)
            try:
                scan.take(log)
                expected = scan.answer()
            except TooMuch:
                expected = None
            try:
                found = drive(queries.buckets(query)).found
            except TooMuch:
                assert expected is None
                continue
            assert expected is not None
            assert [each[:3] for each in found] == [each[:3] for each in expected]
            for one, other in zip(found, expected, strict=True):
                _check_columns(query, one.columns, other.columns)


def _buckets_query(draw: Any, log: list[Entry]) -> BucketsQuery:
    width = draw(st.sampled_from([1, 500_000, SECOND, 7 * SECOND, 60 * SECOND, 2_592 * SECOND, HOUR, 6 * HOUR, DAY]))
    start = _moment(draw, log)
    start -= start % draw(st.sampled_from([1, SECOND, width]))
    edges: Any = range(start, start + width * draw(st.integers(1, 40)) + 1, width)
    if draw(st.booleans()):
        steps = draw(
            st.lists(st.sampled_from([1, 60 * SECOND, HOUR, 23 * HOUR, DAY, 30 * DAY]), min_size=1, max_size=9)
        )
        edges = [start]
        for step in steps:
            edges.append(edges[-1] + step)
    return BucketsQuery(
        tuple(draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))),
        tuple(map(Pointer, draw(st.lists(PATHS, min_size=1, max_size=2, unique=True)))),
        edges,
        tuple(draw(st.lists(st.sampled_from(AGGREGATES), min_size=1, max_size=6, unique=True))),
        draw(st.sampled_from([len(log), len(log), len(log) // 2])),
        by_stored=draw(st.booleans()),
        percentile_readings_max=draw(st.sampled_from([4, 2_000_000])),
    )


def _check_columns(query: BucketsQuery, found: Any, expected: Any) -> None:
    for name, one, other in zip(query.aggregates, found, expected, strict=True):
        if name in {"sum", "avg", "p50", "p95"}:  # doubles that are added in another order
            assert [cell is None for cell in one] == [cell is None for cell in other]
            numbers = [(a, b) for a, b in zip(one, other, strict=True) if a is not None]
            assert all(abs(a - b) <= 1e-9 * max(1.0, abs(a), _GREATEST) for a, b in numbers), (name, numbers)
        else:
            assert list(one) == list(other), name


_GREATEST = 123456789012345678901234567890.0
"""Of the values; what adding it loses is some of its digits."""


@settings(max_examples=40)
@given(st.data())
def test_positions_states_and_askedare_those_of_a_look_at_every_entry(data: Any) -> None:
    log = data.draw(logs())
    with closed(data.draw, log) as queries:
        for _ in range(4):
            at_us = _moment(data.draw, log)
            early = [entry.seq for entry in log if stored_us(entry) <= at_us]
            assert drive(queries.position_at(at_us, EVERYBODY)) == max(early, default=0)
        for _ in range(4):
            seq = data.draw(st.integers(0, len(log)))
            asked = Names(
                pattern_set(frozenset(data.draw(st.sampled_from([["*"], ["a"], ["l*", "ü"]])))),
                pattern_set(frozenset(["*"])),
            )
            twins: dict[str, Twin] = {}
            for entry in log[:seq]:
                if asked.has(entry.subject):
                    apply_to(twins, entry)
            snapshot = drive(queries.state_at(seq, asked))
            assert (snapshot.epoch, snapshot.seq, snapshot.twins) == (EPOCH, seq, twins)
        assert drive(queries.names(asked)) == sorted({entry.subject for entry in log if asked.has(entry.subject)})
        oldest = drive(queries.oldest())
        assert oldest == log[0]


READING = DataUpdate("a", Raw(b"1"), text_of(0), "rest", epoch=EPOCH)


@pytest.mark.parametrize("steps_before", range(12))
def test_a_query_is_right_while_the_log_is_closed_and_trimmed(tmp_path: Path, steps_before: int) -> None:
    log: list[Entry] = [replace(READING, seq=seq, timestamp_utc=text_of(seq * SECOND)) for seq in range(1, 61)]
    file = OpenLog(tmp_path)
    file.write(log)
    queries = Queries(file.path, file)
    while queries.go_on(is_busy=False):
        pass
    query = EntriesQuery(("a",), frozenset(("data_update",)), 0, DAY, 0, 60, is_descending=False)
    steps = queries.steady(lambda: queries.entries(query))
    for _ in range(steps_before):
        next(steps)
    file.close_up_to(30)
    file.trim_up_to(30)
    assert [list(page.entries) for page in drive(steps).found] == [log]
    queries.close()


def test_twins_from_before_a_log_that_was_trimmed_are_not_made_up(tmp_path: Path) -> None:
    file = OpenLog(tmp_path)
    file.write([replace(READING, device_id=name, seq=seq) for seq, name in enumerate("abcab", 1)])
    with file.db:
        file.db.execute(
            "insert into checkpoint (device_id, value, updated_at_utc, source, seq)"
            " select device_id, value, timestamp_utc, source, max(seq) from log group by device_id"
        )
        file.db.execute("update meta set value = '5' where name = 'checkpoint_seq'")
    file.trim_up_to(3)
    queries = Queries(file.path, file)
    some = Names(pattern_set(frozenset(["a", "c"])), _EVERY_NAME)
    for closed in False, True:
        if closed:
            file.close_up_to(5)
        with pytest.raises(Truncated):
            drive(queries.state_at(4, EVERYBODY))  # what b was then is not known any more
        assert set(drive(queries.state_at(5, EVERYBODY)).twins) == {"a", "b", "c"}
        assert {name: twin.seq for name, twin in drive(queries.state_at(4, some)).twins.items()} == {"a": 4, "c": 3}
        with pytest.raises(Truncated):
            drive(queries.state_at(2, some))
    queries.close()


def _named(error: Truncated) -> int:
    """Return the position that an error names as the oldest one."""
    found = re.search(r"known back to position (\d+)", error.message)
    assert found, error.message
    return int(found[1])


@settings(max_examples=40)
@given(st.data())
def test_a_refused_state_names_the_oldest_position_that_is_answered(data: Any) -> None:
    """Of a log that has lost its beginning, with what was before it, as where sums alone are left of that."""
    names = data.draw(st.lists(st.sampled_from("abcde"), min_size=3, max_size=30))
    log: list[Entry] = [replace(READING, device_id=name, seq=seq) for seq, name in enumerate(names, 1)]
    trimmed = data.draw(st.integers(1, len(log) - 2))
    asked = Names(pattern_set(frozenset(data.draw(st.sampled_from([["*"], ["a"], ["b", "c"]])))), _EVERY_NAME)
    with TemporaryDirectory() as folder:
        file = OpenLog(Path(folder))
        file.write(log)
        with file.db:
            file.db.execute(
                "insert into checkpoint (device_id, value, updated_at_utc, source, seq)"
                " select device_id, value, timestamp_utc, source, max(seq) from log group by device_id"
            )
            file.db.execute("update meta set value = ? where name = 'checkpoint_seq'", (str(len(log)),))
        file.trim_up_to(trimmed)
        queries = Queries(file.path, file)
        for closed in sorted(data.draw(st.sets(st.integers(trimmed + 1, len(log)), max_size=2))):
            file.close_up_to(closed)
        while data.draw(st.booleans()) and queries.go_on(is_busy=False):
            pass
        before: dict[str, Twin] = {}
        for entry in log[:trimmed]:
            apply_to(before, entry)
        behind = {name: names.index(name, trimmed) + 1 for name in {*names[trimmed:]} if asked.has(name)}
        oldest = max([trimmed, *behind.values()])
        with pytest.raises(Truncated) as info:
            drive(queries.position_at(stored_us(log[0]) - 1, asked))
        assert _named(info.value) == oldest
        for seq in range(oldest):
            with pytest.raises(Truncated) as info:
                drive(queries.state_at(seq, asked))
            assert _named(info.value) == oldest
        for seq in range(oldest, len(log) + 1):
            twins = before.copy()
            for entry in log[trimmed:seq]:
                apply_to(twins, entry)
            assert drive(queries.state_at(seq, asked)).twins == {n: twin for n, twin in twins.items() if asked.has(n)}
        queries.close()
        file.db.close()


def test_buckets_are_right_while_the_index_of_the_open_end_grows(tmp_path: Path) -> None:
    log: list[Entry] = [
        replace(READING, value=Raw(b"%d" % (seq % 7)), seq=seq, timestamp_utc=text_of(seq * SECOND))
        for seq in range(1, 201)
    ]
    file = OpenLog(tmp_path)
    query = BucketsQuery(("a",), (Pointer(""),), range(0, 240 * SECOND, 60 * SECOND), ("sum", "count", "min"), 0)
    queries = Queries(file.path, file)
    for seq in range(10, 201, 5):
        file.write(log[seq - 10 : seq] if seq == 10 else log[seq - 5 : seq])
        scan = BucketsScan(query._replace(until_seq=seq))
        scan.take(log)
        steps = queries.steady(partial(queries.buckets, query._replace(until_seq=seq)))
        found = None
        while found is None:
            queries.go_on(is_busy=True)
            try:
                next(steps)
            except StopIteration as end:
                found = end.value.found
        assert [(each[:3], list(each.columns)) for each in found] == [
            (each[:3], list(each.columns)) for each in scan.answer()
        ]
    queries.close()


def test_commands_are_found_in_partitions_that_have_no_index_of_them(tmp_path: Path) -> None:
    log: list[Entry] = [replace(READING, seq=seq, timestamp_utc=text_of(seq * SECOND)) for seq in range(1, 50)]
    log.append(Control("a", "turn", Raw(b"{}"), text_of(50 * SECOND), "rest", 50, EPOCH))
    file = OpenLog(tmp_path)
    file.write(log)
    file.close_up_to(50)
    file.trim_up_to(49)
    (part,) = Path(folder_of(file.path)).glob("0*.db")
    with closing(apsw.Connection(str(part))) as db:
        db.execute("drop index marks")
    queries = Queries(file.path, file)
    query = EntriesQuery(("a",), frozenset(("control", "deleted")), 0, DAY, 0, 50)
    assert [list(page.entries) for page in drive(queries.entries(query)).found] == [[log[-1]]]
    queries.close()
