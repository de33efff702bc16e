"""The time of a reading: by this machine's clock, unless the server shows it wrong; each after the one before."""

from datetime import UTC, datetime, timedelta

import pytest

from twincast.client.stamp import OFF_S, Stamps

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


class _Clocks:
    def __init__(self) -> None:
        self.now, self.monotonic_s = NOON, 1_000.0
        self.stamps = Stamps(lambda: self.now, lambda: self.monotonic_s)

    def stamp(self) -> datetime:
        return datetime.fromisoformat(self.stamps.stamp())


def test_it_is_the_time_in_utc_to_the_microsecond() -> None:
    assert _Clocks().stamps.stamp() == "2026-11-27T12:00:00.000000+00:00"
    assert abs(datetime.fromisoformat(Stamps().stamp()) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("back", [timedelta(), timedelta(milliseconds=15)])
def test_each_is_after_the_one_before_though_the_clock_stands_or_is_set_back_a_little(back: timedelta) -> None:
    clocks = _Clocks()
    first = clocks.stamp()
    clocks.now -= back
    assert [clocks.stamp() for _ in range(2)] == [first + timedelta(microseconds=each) for each in (1, 2)]


def test_a_clock_that_is_set_back_far_is_followed() -> None:
    clocks = _Clocks()
    clocks.stamp()
    clocks.now -= timedelta(hours=1)
    assert clocks.stamp() == NOON - timedelta(hours=1)


@pytest.mark.parametrize("off_s", [-OFF_S + 1, 0.0, OFF_S - 1])
def test_a_clock_near_the_servers_counts(off_s: float) -> None:
    clocks = _Clocks()
    clocks.stamps.compare((NOON + timedelta(seconds=off_s)).isoformat())
    assert clocks.stamp() == NOON


@pytest.mark.parametrize("off", [timedelta(days=-20_000), timedelta(hours=1)])
def test_beside_a_clock_that_is_wrong_the_servers_time_counts_until_it_is_right(off: timedelta) -> None:
    clocks = _Clocks()
    clocks.now += off
    assert clocks.stamp() == NOON + off, "nobody knows better yet"
    clocks.stamps.compare(NOON.isoformat())
    clocks.monotonic_s += 5
    clocks.now = NOON + timedelta(seconds=6)
    assert clocks.stamp() == NOON + timedelta(seconds=5), "whatever the clock is set to meanwhile"
    clocks.stamps.compare((NOON + timedelta(seconds=7)).isoformat())
    assert clocks.stamp() == NOON + timedelta(seconds=6)


def test_what_is_no_time_says_nothing() -> None:
    clocks = _Clocks()
    clocks.stamps.compare("soon")
    clocks.stamps.compare("")
    assert clocks.stamp() == NOON
