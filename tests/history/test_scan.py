"""The scan is compared with a plain look at the log in tests/journal/test_scanned_history; here are its edges."""

from msgspec import Raw

from twincast.core.model import DataUpdate, Entry
from twincast.history.pointer import Pointer
from twincast.history.query import Aggregate, BucketsQuery, Cell, EntriesQuery
from twincast.history.scan import BucketsScan, EntriesScan
from twincast.history.times import MAX_US, MIN_US


def readings(*values: str) -> list[Entry]:
    at_utc = "1970-01-01T00:00:00.000000+00:00"
    return [DataUpdate("a", Raw(value.encode()), at_utc, "rest", seq, "e") for seq, value in enumerate(values, 1)]


def added_up(aggregate: Aggregate, *values: str) -> list[Cell]:
    scan = BucketsScan(BucketsQuery(("a",), (Pointer(""),), (0, 10), (aggregate,), 1_000))
    scan.take(readings(*values))
    (series,) = scan.answer()
    return list(series.columns[0])


def test_numbers_that_are_texts_are_no_numbers() -> None:
    assert added_up("avg", '"5"', "1", '"7"') == [1.0]
    assert added_up("count", '"5"') == []
    assert added_up("last", "1", '"5"') == [b'"5"']


def test_integers_stay_exact_in_min_and_max() -> None:
    assert added_up("max", "9007199254740993", "9007199254740992") == [9007199254740993]
    assert added_up("min", "-9223372036854775808", "0.5") == [-9223372036854775808]


def test_a_sum_loses_nothing_that_doubles_can_keep() -> None:
    assert added_up("sum", "1e16", "1", "-1e16") == [1.0]
    assert added_up("sum", *["0.1"] * 10) == [1.0]


def test_a_sum_that_overflows_is_infinite_and_not_nothing() -> None:
    assert added_up("sum", "1e308", "1e308") == [float("inf")]


def test_a_scan_of_many_entries_keeps_little_more_than_its_page() -> None:
    query = EntriesQuery(("a",), frozenset({"data_update"}), MIN_US, MAX_US, 0, 1_000_000, limit=10)
    scan = EntriesScan(query)
    for start in range(1, 10_000, 100):
        scan.take(entry for entry in _numbered(start, start + 100))
        assert len(scan._kept["a"].found) <= 220
    (page,) = scan.answer()
    assert [entry.seq for entry in page.entries] == list(range(10_000, 9_990, -1))
    assert page.has_more


def _numbered(first: int, end: int) -> list[Entry]:
    at_utc = "1970-01-01T00:00:00.000000+00:00"
    return [DataUpdate("a", Raw(b"1"), at_utc, "rest", seq, "e") for seq in range(first, end)]
