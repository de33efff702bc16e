"""Times as they are stored: one text for one instant, and texts compare as times."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core import times
from twincast.core.times import comparable, read_time, stored_form, time_after
from twincast.errors import BadTime

ZONES = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
    lambda offset: timedelta(minutes=offset // timedelta(minutes=1))
)
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC))


def in_zone(moment: datetime, offset: timedelta) -> str:
    sign, minutes = ("-", -offset) if offset < timedelta(0) else ("+", offset)
    hours, rest = divmod(minutes // timedelta(minutes=1), 60)
    return f"{(moment + offset).replace(tzinfo=None).isoformat()}{sign}{hours:02}:{rest:02}"


@given(MOMENTS, ZONES)
def test_an_instant_has_one_text_from_whatever_zone_it_comes(moment: datetime, offset: timedelta) -> None:
    assert read_time(in_zone(moment, offset), "it") == stored_form(moment)
    assert datetime.fromisoformat(stored_form(moment)) == moment


@given(MOMENTS, ZONES, st.sampled_from("TtZ "), st.integers(0, 9))
def test_the_short_way_reads_what_the_long_one_reads(
    moment: datetime, offset: timedelta, mark: str, digits: int
) -> None:
    text = in_zone(moment.replace(microsecond=0), offset)
    text = text.replace("T", mark).replace("+", f".{'0123456789'[:digits]}+") if digits else text
    try:
        long_way = times._read_any_time(text, "it")
    except BadTime:
        with pytest.raises(BadTime):
            read_time(text, "it")
    else:
        assert read_time(text, "it") == long_way


@given(MOMENTS, MOMENTS)
def test_texts_compare_as_times(one: datetime, other: datetime) -> None:
    assert (stored_form(one) < stored_form(other)) == (one < other)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2026-11-27T04:16:10Z", "2026-11-27T04:16:10.000000+00:00"),
        ("2026-11-27t04:16:10.5z", "2026-11-27T04:16:10.500000+00:00"),
        ("2026-11-27 04:16:10,25+0530", "2026-11-26T22:46:10.250000+00:00"),
        ("2026-11-27T04:16:10.1234569-00:00", "2026-11-27T04:16:10.123456+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000+00:00"),
        ("2016-12-31T23:59:60.9Z", "2017-01-01T00:00:00.000000+00:00"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00.000000+00:00"),
        ("1969-07-20T20:17:40-04:00", "1969-07-21T00:17:40.000000+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_time_is_taken(text: str, stored: str) -> None:
    assert read_time(text, "it") == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "now",
        "2026-11-27",
        "04:16:10Z",
        "2026-11-27T04:16:10",
        "2026-11-27T04:16Z",
        "2026-02-30T04:16:10Z",
        "2026-11-27T24:00:00Z",
        "2026-11-27T04:60:10Z",
        "2026-11-27T04:16:61Z",
        "2026-11-27T04:16:10+24:00",
        "2026-11-27T04:16:10+01:60",
        "2026-11-27T04:16:10.Z",
        "2026-11-27T04:16:10Z ",
        " 2026-11-27T04:16:10Z",
        "2026-11-27T04:16:10Z\n",
        "2026-W48-5T04:16:10Z",
        "20261127T041610Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
        "12026-11-27T04:16:10Z",
        "٢٠٢٦-11-27T04:16:10Z",
        "1764216970",
    ],
)
def test_what_is_no_time_with_a_zone_is_refused(text: str) -> None:
    with pytest.raises(BadTime, match="`measured_at_utc`") as refusal:
        read_time(text, "`measured_at_utc`")
    assert refusal.value.code == "bad_time"


@pytest.mark.parametrize(
    ("zone", "said"), [("+24:00", "hours of a zone must be in 0..23"), ("-01:60", "minutes of a zone must be in 0..59")]
)
def test_a_zone_that_cannot_be_is_named(zone: str, said: str) -> None:
    with pytest.raises(BadTime, match=said):
        read_time(f"2026-11-27T04:16:10{zone}", "it")


def test_a_refusal_is_short_however_long_the_text() -> None:
    with pytest.raises(BadTime) as refusal:
        read_time("2" * 100_000, "it")
    assert len(refusal.value.message) < 250


def test_what_another_program_wrote_is_made_comparable_or_counts_as_before_all_times() -> None:
    assert comparable("2026-11-27T04:16:10.250000+00:00") == "2026-11-27T04:16:10.250000+00:00"
    assert comparable("2026-11-27T05:16:10.25+01:00") == "2026-11-27T04:16:10.250000+00:00"
    assert comparable("2026-11-27T04:16:10") == "2026-11-27T04:16:10.000000+00:00"
    assert comparable("some day") == "" < comparable("0001-01-01T00:00:00Z")


def test_later_ends_at_the_last_time_there_is() -> None:
    assert time_after("2026-11-27T04:16:10.250000+00:00", 60) == "2026-11-27T04:17:10.250000+00:00"
    assert time_after("9999-12-31T23:59:30.000000+00:00", 60) == "9999-12-31T23:59:59.999999+00:00"
    assert time_after("some day", 60) == ""
