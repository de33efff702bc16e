from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core.model import Position
from twincast.errors import BadCursor, BadPath, BadRange, BadTime, TooMuch, UnknownAggregate, ValidationFailed
from twincast.history.cursor import Cursor
from twincast.history.pointer import Pointer
from twincast.history.query import Place
from twincast.history.request import PARAMETERS, Span, default_span, parse_bound, parse_request
from twincast.history.times import DAY_US, HOUR_US, MAX_US, MIN_US
from twincast.history.widths import Every

NOW_US = 1_795_600_800_000_000  # 2026-11-25T10:00:00Z
HEAD = 40


def asked(**given: Any) -> Any:
    names = {name.rstrip("_"): [value] if isinstance(value, str) else value for name, value in given.items()}
    return parse_request(names, NOW_US)


def span(**given: Any) -> Span:
    return default_span(asked(**given), NOW_US, HEAD)


def test_nothing_given_asks_for_the_newest_entries_of_all_time() -> None:
    query = asked().entries(("a",), span())
    assert query == (("a",), frozenset({"data_update", "late"}), MIN_US, MAX_US + 1, 0, HEAD, False, (), True, None, 1_000, 100_000, 8 << 20)  # fmt: skip  # noqa: E501


def test_buckets_are_of_the_last_24_hours_unless_a_range_is_given() -> None:
    assert span(points="100")[:2] == (NOW_US - DAY_US, NOW_US)
    assert span(points="100", to="-1h")[:2] == (NOW_US - HOUR_US - DAY_US, NOW_US - HOUR_US)
    assert span(points="100", from_="-1h")[:2] == (NOW_US - HOUR_US, NOW_US)
    every, query = asked(points="100").added_up(("a",), span(points="100"), asked(points="100").buckets)
    assert every == Every(15, "m")
    assert query.aggregates == ("avg", "min", "max")
    assert query.paths == (Pointer(""),)
    assert len(query.edges) == 97


def test_a_position_is_told_from_a_time() -> None:
    assert parse_bound("5f0c9a1e-0b7d3c28:42", NOW_US) == Position("5f0c9a1e-0b7d3c28", 42)
    assert parse_bound("2026-11-25T10:00:00+00:00", NOW_US) == NOW_US
    assert parse_bound("-1h", NOW_US) == NOW_US - HOUR_US
    for text in ("5f0c9a1e:", ":42", "x:-1", "x:1234567890123456789", "yesterday", ""):
        with pytest.raises(BadTime):
            parse_bound(text, NOW_US)


@pytest.mark.parametrize(
    ("error", "given_here"),
    [
        (BadTime, {"from": ["2026-11-25T10:00:00"]}),
        (BadTime, {"to": ["tomorrow"]}),
        (BadRange, {"from": ["now"], "to": ["-1h"]}),
        (BadRange, {"from": ["e:5"], "to": ["e:4"]}),
        (BadRange, {"every": ["1h"], "points": ["5"]}),
        (BadRange, {"every": ["0h"]}),
        (BadRange, {"points": ["1"]}),
        (BadRange, {"points": ["10001"]}),
        (BadRange, {"points": ["x"]}),
        (BadRange, {"every": ["1d"], "tz": ["Nowhere/Else"]}),
        (BadPath, {"path": ["motor"]}),
        (BadPath, {"path": [f"/{index}" for index in range(17)]}),
        (UnknownAggregate, {"every": ["1h"], "agg": ["mean"]}),
        (UnknownAggregate, {"every": ["1h"], "agg": ["avg,AVG"]}),
        (ValidationFailed, {"every": ["1h"], "fill": ["zero"]}),
        (ValidationFailed, {"agg": ["avg"]}),
        (ValidationFailed, {"fill": ["null"]}),
        (ValidationFailed, {"tz": ["UTC"]}),
        (ValidationFailed, {"points": ["5"], "limit": ["5"]}),
        (ValidationFailed, {"every": ["1h"], "cursor": ["x"]}),
        (ValidationFailed, {"every": ["1h"], "kinds": ["late"]}),
        (ValidationFailed, {"limit": ["0"]}),
        (ValidationFailed, {"limit": ["10001"]}),
        (ValidationFailed, {"order": ["up"]}),
        (ValidationFailed, {"time": ["received"]}),
        (ValidationFailed, {"kinds": ["snapshot"]}),
        (ValidationFailed, {"format": ["xml"]}),
    ],
)
def test_what_cannot_be_is_refused_with_its_code(error: type[Exception], given_here: dict[str, list[str]]) -> None:
    with pytest.raises(error) as refused:
        parse_request(given_here, NOW_US)
    assert type(refused.value) is error


def test_parquet_is_refused_by_name() -> None:
    with pytest.raises(ValidationFailed, match="does not answer as Parquet yet; `format` is json, csv or ndjson"):
        asked(format="parquet")


def test_lists_may_be_given_one_by_one_or_with_commas() -> None:
    assert asked(every="1h", agg=["min,max", "min", "p95"]).buckets.aggregates == ("min", "max", "p95")
    assert asked(kinds="control,late").kinds == asked(kinds=["control", "late"]).kinds == {"control", "late"}
    assert asked(path=["/x", "/y", "/x"]).paths == (Pointer("/x"), Pointer("/y"))


def test_a_cursor_goes_on_with_the_range_of_its_first_page() -> None:
    first = asked(from_="-1h")
    cursor = Cursor(5, 9, 1, 30, Place(7, 3)).text(first.digest("a", "log"))
    later = parse_request({"from": ["-1h"], "cursor": [cursor], "limit": ["5"]}, NOW_US + HOUR_US)
    query = later.page("a", "log")
    assert (query.from_us, query.to_us, query.after_seq, query.until_seq, query.beyond) == (5, 9, 1, 30, Place(7, 3))
    assert query.limit == 5


@pytest.mark.parametrize(
    ("device_id", "log", "changed"),
    [
        ("b", "log", {}),
        ("a", "other", {}),
        *(
            ("a", "log", change)
            for change in ({"from": ["-2h"]}, {"order": ["asc"]}, {"path": ["/x"]}, {"time": ["stored"]})
        ),
    ],
)
def test_a_cursor_of_another_query_is_refused(device_id: str, log: str, changed: dict[str, list[str]]) -> None:
    cursor = Cursor(5, 9, 1, 30, Place(7, 3)).text(asked(from_="-1h").digest("a", "log"))
    with pytest.raises(BadCursor):
        parse_request({"from": ["-1h"], "cursor": [cursor]} | changed, NOW_US).page(device_id, log)


def test_many_devices_share_the_points_of_one_answer() -> None:
    request = asked(points="10000", from_="-30d")
    names = tuple(f"d{index}" for index in range(100))
    every, query = request.added_up(names, span(points="10000", from_="-30d"), request.buckets)
    assert (len(query.edges) - 1) * len(names) <= 100_000
    assert every == Every(1, "h")
    request = asked(every="1m", from_="-30d")
    with pytest.raises(TooMuch, match=r"at most 1000 buckets, and every=1m makes more; .* is 44m$"):
        request.added_up(names, span(every="1m", from_="-30d"), request.buckets)


texts_s = st.text(max_size=20) | st.sampled_from(
    ["now", "-1h", "1h", "e:5", "avg", "UTC", "2026-11-25T10:00:00Z", "/x", "100"]
)


@given(st.dictionaries(st.sampled_from(sorted(PARAMETERS)), st.lists(texts_s, min_size=1, max_size=3), max_size=5))
def test_any_parameters_are_a_request_or_are_refused(given_here: dict[str, list[str]]) -> None:
    try:
        request = parse_request(given_here, NOW_US)
        found = default_span(request, NOW_US, HEAD)
        if request.buckets is not None and found.from_us <= found.to_us:
            request.added_up(("a",), found, request.buckets)
    except ValidationFailed:
        pass
