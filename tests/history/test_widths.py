import re
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.history import brute
from twincast.errors import BadRange, TooMuch
from twincast.history.times import DAY_US, HOUR_US, MAX_US, MIN_US, MINUTE_US, parse_time, text_of
from twincast.history.widths import LADDER, Every, edges, fit, zone_of

UTC, BERLIN = zone_of("UTC"), zone_of("Europe/Berlin")
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo"),
    *("Pacific/Apia", "America/St_Johns", "Africa/Casablanca", "Asia/Tehran"),
)


def starts(every: str, zone: str, since: str, until: str) -> list[str]:
    found = edges(Every.parse(every), zone_of(zone), parse_time(since), parse_time(until), 10_000)
    return [text_of(edge).removesuffix(":00.000000+00:00") for edge in found]


def test_fixed_buckets_are_aligned_to_1970_never_to_what_was_asked_for() -> None:
    assert starts("7m", "UTC", "1969-12-31T23:50:00Z", "1970-01-01T00:05:00Z") == [
        "1969-12-31T23:46",
        "1969-12-31T23:53",
        "1970-01-01T00:00",
        "1970-01-01T00:07",
    ]


def test_weeks_begin_on_monday() -> None:
    assert starts("1w", "UTC", "2026-11-25T10:00:00Z", "2026-11-25T10:00:01Z") == [
        "2026-11-23T00:00",
        "2026-11-30T00:00",
    ]
    assert starts("1w", "UTC", "1969-12-25T00:00:00Z", "1969-12-25T00:00:01Z") == [
        "1969-12-22T00:00",
        "1969-12-29T00:00",
    ]


def test_days_are_as_long_as_the_clocks_make_them() -> None:
    spring = starts("1d", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z")
    assert spring == ["2026-03-27T23:00", "2026-03-28T23:00", "2026-03-29T22:00", "2026-03-30T22:00"]  # 24, 23, 24 h
    autumn = starts("1d", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z")
    assert autumn == ["2026-10-23T22:00", "2026-10-24T22:00", "2026-10-25T23:00", "2026-10-26T23:00"]  # 24, 25, 24 h


def test_a_day_that_a_zone_left_out_is_no_bucket() -> None:
    days = starts("1d", "Pacific/Apia", "2011-12-29T12:00:00Z", "2011-12-31T09:00:00Z")
    assert days == ["2011-12-29T10:00", "2011-12-30T10:00", "2011-12-31T10:00"]  # the 29th, and then the 31st


def test_a_day_without_a_midnight_begins_when_the_clocks_have_passed_it() -> None:
    days = starts("1d", "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T12:00:01Z")
    assert days == ["2018-11-04T03:00", "2018-11-05T02:00"]  # 0:00 does not exist; the day has 23 hours


def test_months_and_years_follow_the_calendar() -> None:
    assert starts("1mo", "Europe/Berlin", "2024-02-10T00:00:00Z", "2024-03-10T00:00:00Z") == [
        "2024-01-31T23:00",
        "2024-02-29T23:00",
        "2024-03-31T22:00",
    ]
    assert starts("3mo", "UTC", "2026-11-25T00:00:00Z", "2026-11-25T00:00:01Z") == [
        "2026-10-01T00:00",
        "2027-01-01T00:00",
    ]
    assert starts("10y", "UTC", "1969-11-25T00:00:00Z", "1970-11-25T00:00:01Z") == [
        "1960-01-01T00:00",
        "1970-01-01T00:00",
        "1980-01-01T00:00",
    ]


@settings(max_examples=150, deadline=None)
@given(
    at_us=st.integers(parse_time("1972-01-01T00:00:00Z") // 10**6, parse_time("2037-06-01T00:00:00Z") // 10**6),
    unit=st.sampled_from(["d", "w", "mo", "y"]),
    zone=st.sampled_from(ZONES),
)
@example(at_us=parse_time("2011-12-30T10:00:00Z") // 10**6, unit="d", zone="Pacific/Apia")
@example(at_us=parse_time("2006-10-29T02:31:00Z") // 10**6, unit="d", zone="America/St_Johns")
def test_a_calendar_bucket_is_what_clocks_on_the_wall_show(at_us: int, unit: str, zone: str) -> None:
    at_us *= 10**6
    found = edges(Every(1, unit), zone_of(zone), at_us, at_us + 1, 10)
    start, end = found[0], found[1]
    assert start <= at_us < end
    expected = brute.period(at_us, unit, zone)
    if not expected[0] <= at_us < expected[1]:  # an hour that came twice, and with it the midnight in it
        expected = brute.period(at_us + 2 * HOUR_US, unit, zone)
    assert (start, end) == expected


@settings(max_examples=300, deadline=None)
@given(
    ends=st.tuples(st.integers(MIN_US, MAX_US), st.integers(0, 400 * DAY_US)),
    every=st.sampled_from(LADDER)
    | st.builds(Every, st.integers(1, 50), st.sampled_from(["s", "m", "h", "d", "w", "mo", "y"])),
    zone=st.sampled_from(ZONES),
)
@example(ends=(MIN_US, 0), every=Every(1, "d"), zone="Asia/Kathmandu")
@example(ends=(MAX_US - 1, DAY_US), every=Every(1, "mo"), zone="America/New_York")
def test_buckets_cover_what_is_asked_for_and_no_more(ends: tuple[int, int], every: Every, zone: str) -> None:
    from_us = ends[0]
    to_us = min(from_us + ends[1], MAX_US + 1)
    try:
        found = edges(every, zone_of(zone), from_us, to_us, 2_000)
    except TooMuch:
        assert (to_us - from_us) / every.about_us > 1_000
        return
    assert all(left < right for left, right in pairwise(found))
    assert found[0] <= from_us
    assert found[-1] >= to_us
    if to_us > from_us:
        assert found[1] > from_us
        assert found[-2] < to_us
        middle = (from_us + to_us) // 2
        alone = edges(every, zone_of(zone), middle, middle + 1, 2)  # aligned: whatever is asked for, the same bucket
        assert alone[0] == found[bisect_right(found, middle) - 1]


NAMED = re.compile(r"; the smallest `every` of whole (\w+) that fits a range of this length is (\d+)(\w+)$")


def named(every: Every, zone: str, from_us: int, to_us: int, buckets_max: int) -> Every | None:
    """Return the width that a refusal names; None if there is no refusal, or it names none as the smallest."""
    try:
        edges(every, zone_of(zone), from_us, to_us, buckets_max)
    except TooMuch as error:
        found = NAMED.search(error.message)
        return Every.parse(f"{found[2]}{found[3]}") if found else None
    return None


@pytest.mark.parametrize(
    ("every", "days", "buckets_max", "smallest"),
    [
        ("1s", 30, 10_000, "260s"),
        ("1m", 30, 1_000, "44m"),
        ("5ms", 1, 10_000, "9s"),
        ("1ms", 0.001, 1_000, "87ms"),
        ("1h", 700, 10_000, "2h"),
        ("1d", 36_525, 10_000, "4d"),
        ("1w", 365_250, 10_000, "6w"),
        ("1mo", 3_652_000, 10_000, "12mo"),
    ],
)
def test_a_refusal_names_the_smallest_width_that_fits(every: str, days: float, buckets_max: int, smallest: str) -> None:
    from_us = parse_time("0001-01-01T00:00:00Z") if days > 1e6 else parse_time("1950-03-04T05:06:07Z")
    found = named(Every.parse(every), "UTC", from_us, from_us + round(days * DAY_US), buckets_max)
    assert str(found) == smallest


@given(
    every=st.builds(Every, st.integers(1, 50), st.sampled_from(["ms", "s", "m", "h", "d", "w", "mo"])),
    zone=st.sampled_from(ZONES),
    days=st.floats(0.001, 20_000),
    begins_us=st.tuples(
        st.integers(parse_time("1972-01-01T00:00:00Z"), parse_time("2037-06-01T00:00:00Z")), st.integers(0, DAY_US)
    ),
    buckets_max=st.integers(2, 300),
)
@settings(deadline=None)
def test_what_a_refusal_names_is_accepted_and_nothing_much_smaller_is(
    every: Every, zone: str, days: float, begins_us: tuple[int, int], buckets_max: int
) -> None:
    (from_us, later_us), length_us = begins_us, round(days * DAY_US)
    found = named(every, zone, from_us, from_us + length_us, buckets_max)
    if found is None:
        return
    assert len(edges(found, zone_of(zone), from_us, from_us + length_us, buckets_max)) <= buckets_max + 1
    if found.unit in {"ms", "s", "m", "h"}:  # also when that is asked a moment later
        edges(found, zone_of(zone), from_us + later_us, from_us + later_us + length_us, buckets_max)
        smaller_us = (found.many - 1) * Every(1, found.unit).about_us
        assert not smaller_us or length_us / smaller_us > buckets_max - 1


def test_a_refusal_where_hardly_any_bucket_fits_names_a_width_that_does() -> None:
    with pytest.raises(TooMuch, match=r"at most 1 buckets, and every=1s makes more; every=1h fits$"):
        edges(Every(1, "s"), UTC, 0, 40 * MINUTE_US, 1)
    with pytest.raises(TooMuch, match=r"at most 0 buckets, and every=1s makes more$"):
        edges(Every(1, "s"), UTC, 0, 40 * MINUTE_US, 0)


def test_the_next_width_of_the_ladder_fits() -> None:
    assert fit(UTC, 0, 24 * HOUR_US, 1_000) == Every(2, "m")
    assert len(edges(Every(2, "m"), UTC, 0, 24 * HOUR_US, 1_000)) == 721


@given(st.integers(1, 10**17), st.integers(2, 10_000), st.sampled_from(["UTC", "Europe/Berlin"]))
@settings(deadline=None)
def test_the_width_for_so_many_points_is_the_next_of_the_ladder(length_us: int, points: int, zone: str) -> None:
    every = fit(zone_of(zone), 0, length_us, points)
    if every is None:
        assert points < 2 + length_us // (1_000 * 365 * DAY_US)
        return
    assert len(edges(every, zone_of(zone), 0, length_us, points)) <= points + 1
    narrower = LADDER.index(every) - 1
    if narrower >= 0:
        with pytest.raises(TooMuch):
            edges(LADDER[narrower], zone_of(zone), 0, length_us, points)


@pytest.mark.parametrize(
    "text", ["", "1", "h", "0h", "-1h", "1.5h", "1 h", "1H", "1min", "1M", "\u0661h", "01h", "1h ", "1e3s"]
)
def test_what_is_no_width_is_refused(text: str) -> None:
    with pytest.raises(BadRange, match="such as 500ms, 5m, 1d or 1mo"):
        Every.parse(text)


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "UTC\0", "x" * 500, "."]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(BadRange, match="`tz` is an IANA name"):
        zone_of(name)
