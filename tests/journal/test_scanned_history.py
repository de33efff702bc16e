"""What every history answers, held to all kinds of journal alike, against a plain look at the log (tests/history)."""

import json
import math
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from tests.fakes import batch_of
from tests.history import brute
from tests.history.questions import START_US, buckets_queries, entries_queries, logs, moments_s, text_of
from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.core.pattern import pattern_set
from twincast.errors import TooMuch, Truncated
from twincast.history import History
from twincast.history.pointer import Pointer
from twincast.history.query import BucketsQuery, EntriesQuery, Names, Place, Series
from twincast.history.times import MAX_US, MIN_US
from twincast.journal.stores import open_stores

EVERYBODY = Names(pattern_set(frozenset({"*"})), pattern_set(frozenset({"*"})))
MANY_BYTES = 1 << 26


def only(*patterns: str) -> Names:
    return Names(pattern_set(frozenset(patterns)), EVERYBODY.readable)


@asynccontextmanager
async def history_of(url: str, log: Sequence[Entry], memory_max_bytes: int = MANY_BYTES) -> AsyncIterator[History]:
    """Open a new journal that holds a log, and its history."""
    stores = await open_stores(url, memory_max_bytes=memory_max_bytes)
    try:
        for batch in [log] if memory_max_bytes == MANY_BYTES else [[entry] for entry in log]:
            if batch:
                await stores.journal.append(batch_of(batch))
        yield stores.history
    finally:
        await stores.close()


class Places:
    """Where the journals of one kind are, one after another."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self._folder, self._count = kind, folder, 0

    def next(self) -> str:
        self._count += 1
        return "memory:" if self.kind == "memory" else f"sqlite:{self._folder / f'{self._count}.db'}"


@pytest.fixture(params=["memory", "sqlite"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    return Places(request.param, tmp_path)


OFTEN = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@OFTEN
@given(data=st.data())
async def test_entries_are_those_that_a_plain_look_finds(places: Places, data: st.DataObject) -> None:
    log = data.draw(logs())
    async with history_of(places.next(), log) as history:
        for query in data.draw(st.lists(entries_queries(len(log)), min_size=1, max_size=4)):
            pages, _ = await history.entries(query)
            assert [
                (page.device_id, [entry.seq for entry in page.entries], page.has_more) for page in pages
            ] == brute.pages(log, query)


@OFTEN
@given(data=st.data())
async def test_buckets_are_those_that_a_plain_look_finds(places: Places, data: st.DataObject) -> None:
    log = data.draw(logs())
    async with history_of(places.next(), log) as history:
        for query in data.draw(st.lists(buckets_queries(len(log)), min_size=1, max_size=4)):
            found = [_plain(each, query) for each in (await history.buckets(query)).found]
            for ours, plain in zip(found, brute.series(log, query), strict=True):
                assert ours[:3] == plain[:3]
                assert [len(column) for column in ours[3]] == [len(column) for column in plain[3]]
                for column, expected, aggregate in zip(ours[3], plain[3], query.aggregates, strict=True):
                    assert all(map(_alike(aggregate), column, expected)), (aggregate, column, expected)


@OFTEN
@given(log=logs(), at_s=moments_s, share=st.floats(0, 1))
async def test_positions_and_states_are_those_that_a_plain_look_finds(
    places: Places, log: list[Entry], at_s: float, share: float
) -> None:
    at_us, seq = START_US + round(at_s * 1_000) * 1_000, round(share * len(log))
    async with history_of(places.next(), log) as history:
        assert await history.position_at(at_us, EVERYBODY) == brute.position(log, at_us)
        state = brute.state(log, seq)
        for names in (EVERYBODY, only("a"), only("lab/*", "b")):
            snapshot = await history.state_at(seq, names)
            assert snapshot.seq == seq
            assert {name: (bytes(twin.value), twin.seq) for name, twin in snapshot.twins.items()} == {
                name: twin for name, twin in state.items() if names.has(name)
            }


def _plain(series: Series, query: BucketsQuery) -> tuple[str, str, list[int], list[list[Any]]]:
    columns = [
        [_value(cell) if name in {"first", "last"} else cell for cell in column]
        for name, column in zip(query.aggregates, series.columns, strict=True)
    ]
    return series.device_id, series.path.text, list(series.starts_us), columns


def _value(cell: Any) -> Any:
    return None if cell is None else json.loads(cell)


def _alike(aggregate: str) -> Any:
    if aggregate in {"sum", "avg", "p50", "p95"}:
        return lambda ours, plain: ours == plain or math.isclose(ours, plain, rel_tol=1e-12, abs_tol=1e-12)
    return lambda ours, plain: ours == plain


def reading(seq: int, value: str, *, device_id: str = "a", at_s: float = 0) -> DataUpdate:
    return DataUpdate(device_id, Raw(value.encode()), text_of(at_s), "rest", seq, "e")


def everything(*devices: str, until_seq: int = 1_000, **changes: Any) -> EntriesQuery:
    query = EntriesQuery(devices, frozenset({"data_update"}), MIN_US, MAX_US + 1, 0, until_seq)
    return query._replace(**changes)


async def test_pages_follow_one_another_without_a_gap_while_more_is_stored(places: Places) -> None:
    log = [reading(seq, str(seq), at_s=seq // 3) for seq in range(1, 21)]
    async with history_of(places.next(), log) as history:
        seen: list[int] = []
        query = everything("a", until_seq=20, limit=6)
        while True:
            (page,), _ = await history.entries(query)
            seen += [entry.seq for entry in page.entries]
            if not page.has_more:
                break
            last = page.entries[-1]
            query = query._replace(beyond=Place(brute.micros(last.timestamp_utc), last.seq))
        assert seen == list(range(20, 0, -1))


async def test_a_page_ends_behind_the_entry_that_makes_it_too_large(places: Places) -> None:
    log = [reading(seq, f'"{"x" * 98}"') for seq in range(1, 11)]
    async with history_of(places.next(), log) as history:
        (page,), _ = await history.entries(everything("a", page_max_bytes=250))
        assert [entry.seq for entry in page.entries] == [10, 9, 8]
        assert page.has_more


async def test_devices_that_have_too_many_entries_together_are_too_much(places: Places) -> None:
    log = [reading(seq, "1", device_id="ab"[seq % 2]) for seq in range(1, 11)]
    async with history_of(places.next(), log) as history:
        assert len((await history.entries(everything("a", "b", entries_max=10))).found) == 2
        with pytest.raises(TooMuch, match="more than 9 entries"):
            await history.entries(everything("a", "b", entries_max=9))
        assert len((await history.entries(everything("a", "b", entries_max=9, limit=4))).found) == 2


async def test_percentiles_of_too_many_numbers_are_too_much(places: Places) -> None:
    log = [reading(seq, "1") for seq in range(1, 6)]
    edges = range(START_US, START_US + 2, 1)
    query = BucketsQuery(("a",), (Pointer(""),), edges, ("p50",), 5, percentile_readings_max=5)
    async with history_of(places.next(), log) as history:
        assert [series.columns for series in (await history.buckets(query)).found] == [[[1.0]]]
        with pytest.raises(TooMuch, match="at most 4"):
            await history.buckets(query._replace(percentile_readings_max=4))


async def test_names_are_of_all_that_the_log_has_an_entry_of(places: Places) -> None:
    log: list[Entry] = [
        reading(1, "1", device_id="gone"),
        Deleted("gone", text_of(1), "rest", 2, "e"),
        Control("somebody", "go", Raw(b"{}"), text_of(2), "rest", 3, "e"),
        reading(4, "1", device_id="lab/x"),
    ]
    async with history_of(places.next(), log) as history:
        assert list(await history.names(EVERYBODY)) == ["gone", "lab/x", "somebody"]
        assert list(await history.names(only("lab/*", "nobody"))) == ["lab/x"]
        assert list(await history.names(Names(EVERYBODY.wanted, only("gone").wanted))) == ["gone"]
        oldest = await history.oldest()
        assert oldest is not None
        assert oldest.seq == 1


async def test_an_empty_log_has_an_empty_history(places: Places) -> None:
    async with history_of(places.next(), []) as history:
        assert await history.oldest() is None
        assert list(await history.names(EVERYBODY)) == []
        assert await history.position_at(START_US, EVERYBODY) == 0
        assert (await history.state_at(0, EVERYBODY)).twins == {}
        assert [page.entries for page in (await history.entries(everything("a"))).found] == [[]]


async def test_a_memory_journal_knows_the_state_before_its_oldest_entry() -> None:
    log = [reading(seq, str(seq), device_id=f"d{seq % 3}") for seq in range(1, 101)]
    async with history_of("memory:", log, memory_max_bytes=10_000) as history:
        oldest = await history.oldest()
        assert oldest is not None
        since = oldest.seq - 1
        assert since > 3
        for seq in (since, since + 1, 100):
            twins = (await history.state_at(seq, EVERYBODY)).twins
            assert {name: (bytes(twin.value), twin.seq) for name, twin in twins.items()} == brute.state(log, seq)
        with pytest.raises(Truncated, match=f"position {since}, not to {since - 1}"):
            await history.state_at(since - 1, EVERYBODY)
        with pytest.raises(Truncated, match="later than that"):
            await history.position_at(START_US - 1, EVERYBODY)


async def test_a_file_that_was_trimmed_answers_only_what_its_log_still_tells(tmp_path: Path) -> None:
    log: list[Entry] = [
        *(reading(1, "1", device_id="still"), reading(2, "2", device_id="moving"), reading(3, "3", device_id="gone")),
        *(
            reading(4, "4", device_id="new"),
            reading(5, "5", device_id="moving"),
            Deleted("gone", text_of(1), "rest", 6),
        ),
    ]
    url = f"sqlite:{tmp_path / 'trimmed.db'}"
    async with history_of(url, log):
        pass
    with closing(sqlite3.connect(tmp_path / "trimmed.db")) as db, db:
        db.execute("delete from log where seq <= 3")
    async with history_of(url, []) as history:
        assert set((await history.state_at(6, EVERYBODY)).twins) == {"still", "moving", "new"}
        assert set((await history.state_at(4, only("still", "new"))).twins) == {"still", "new"}
        for name, oldest in (("moving", 5), ("gone", 6)):
            with pytest.raises(Truncated, match=f"position {oldest}, not to 4"):
                await history.state_at(4, only(name))
        with pytest.raises(Truncated, match="position 3, not to 2"):
            await history.state_at(2, only("still"))
        with pytest.raises(Truncated, match="position 6, not to 2"):
            await history.state_at(2, EVERYBODY)
