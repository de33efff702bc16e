from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.errors import BadTime
from twincast.history.times import (
    DAY_US,
    HOUR_US,
    MAX_US,
    MIN_US,
    is_time,
    parse_moment,
    parse_time,
    stamp_us,
    text_of,
    us_of,
)

TEN = 1_795_600_800_000_000  # 2026-11-25T10:00:00Z


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T10:00:00Z",
        "2026-11-25T10:00:00+00:00",
        "2026-11-25t10:00:00z",
        "2026-11-25 10:00:00Z",
        "2026-11-25T10:00Z",
        "2026-11-25T11:00:00+01:00",
        "2026-11-25T11:00:00+0100",
        "2026-11-25T11:00:00+01",
        "2026-11-25T11:00:00 01:00",  # a plus that an address was not encoded for
        "2026-11-25T05:30:00-04:30",
        "2026-11-25T10:00:00.000000999Z",
        "2026-11-25T10:00:00,0Z",
        "2026-11-25T09:59:60Z",
        "2026-11-25T09:59:60.5Z",
    ],
)
def test_a_time_is_read_in_every_way_that_it_is_written(text: str) -> None:
    assert parse_time(text) == TEN


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "2026-11-25", "10:00", "1795600800", "2026-W48-3T10:00Z", "20261125T100000Z", "2026-11-25T10Z"),
        *("2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-25T24:00:00Z", "2026-11-25T10:60:00Z"),
        *("2026-11-25T10:00:61Z", "2026-11-25T10:00:00+24:00", "2026-11-25T10:00:00+01:60", "0000-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "9999-12-31T23:59:60Z", "2026-11-25T10:00:00Z "),
        *("٢٠٢٦-11-25T10:00:00Z", "2026-11-25T10:00:00.Z", "-1d", "now", "2026-11-25T10:00:00Z\n"),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadTime):
        parse_time(text)


def test_a_time_without_a_zone_is_told_what_it_lacks() -> None:
    with pytest.raises(BadTime, match=r"a time needs its zone, as in 2026-11-25T10:00:00Z for UTC or .*\+01:00"):
        parse_time("2026-11-25T10:00:00")


def test_the_ends_of_the_calendar_are_times() -> None:
    assert parse_time("0001-01-01T00:00:00Z") == MIN_US
    assert parse_time("9999-12-31T23:59:59.999999Z") == MAX_US
    assert text_of(MIN_US - 1) == "0001-01-01T00:00:00.000000+00:00"
    assert text_of(MAX_US + 10**18) == "9999-12-31T23:59:59.999999+00:00"


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
)
def test_a_time_comes_back_as_it_was_also_before_1970(time: datetime, offset_min: int) -> None:
    zoned = time.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    at_us = parse_time(zoned.isoformat())
    assert at_us == us_of(zoned)
    assert datetime.fromisoformat(text_of(at_us)) == zoned
    assert stamp_us(text_of(at_us)) == at_us


@given(st.text(max_size=40) | st.from_regex(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?\Z"))
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    try:
        at_us = parse_moment(text, TEN)
    except BadTime:
        return
    assert MIN_US <= at_us <= MAX_US


@pytest.mark.parametrize(
    ("text", "ago_us"),
    [
        ("now", 0),
        ("-90s", 90_000_000),
        ("-15m", HOUR_US // 4),
        ("-1h", HOUR_US),
        ("-7d", 7 * DAY_US),
        ("-2w", 14 * DAY_US),
    ],
)
def test_a_moment_may_be_said_from_now(text: str, ago_us: int) -> None:
    assert parse_moment(text, TEN) == TEN - ago_us


def test_nothing_is_before_the_year_1() -> None:
    assert parse_moment("-999999999w", TEN) == MIN_US


@pytest.mark.parametrize("text", ["-1mo", "+1h", "1h", "-h", "-1.5h", "yesterday", "5f0c9a1e-0b7d3c28:42"])
def test_other_words_are_no_moments(text: str) -> None:
    with pytest.raises(BadTime, match="now, -15m, -1h, -7d"):
        parse_moment(text, TEN)


def test_a_time_is_told_from_a_position() -> None:
    assert is_time("2026-11-25T10:00:00+01:00")
    assert is_time("2026-11-25")
    assert not is_time("5f0c9a1e-0b7d3c28:42")
    assert not is_time("20261125-0b7d3c28:42")


def test_now_is_utc() -> None:
    assert parse_time("1970-01-01T00:00:00Z") == 0 == us_of(datetime(1970, 1, 1, tzinfo=UTC))
