"""Days, weeks and months as a calendar has them, through the whole stack: on either journal, and closed or not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.running import eventually
from twincast.client import Rest
from twincast.testing import Clock, Server

BERLIN = ZoneInfo("Europe/Berlin")
STORED = "2026-11-25T10:00:00+00:00"


class Log:
    """A client of a server with one meter, whose log may be closed."""

    def __init__(self, rest: Rest, folder: Path | None) -> None:
        self.rest = rest
        self.history = rest.history
        self._folder = folder

    def publish(self, first: datetime, step: timedelta, count: int) -> None:
        """Store readings, one each step."""
        self.rest.publish_all([("meter", 1, first + number * step) for number in range(count)])
        self.settle()

    def settle(self) -> None:
        """Fill the log up to where a part of it is closed, and wait for that."""
        last = self.rest.publish_all([("other", number) for number in range(150)])[-1]
        if self._folder is not None:
            names = [f"{first:012}.db" for first in range(1, last - 100, 100)]
            eventually(lambda: all((self._folder / name).exists() for name in names), "it is closed")  # type: ignore[operator]


@pytest.fixture(params=["memory", "open", "closed"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    path = tmp_path / "journal.db"
    is_closed = request.param == "closed"
    entries: dict[str, Any] = {"partition_entries": 100, "resume_max_entries": 10} if is_closed else {}
    journal = "memory:" if request.param == "memory" else f"sqlite:{path}"
    with Server(journal, clock=Clock(STORED), **entries) as server, Rest(server.url) as rest:
        yield Log(rest, Path(f"{path}-history") if is_closed else None)


def local_starts(found: Any, zone: ZoneInfo) -> list[str]:
    return [
        datetime.fromtimestamp(time_ms / 1_000, zone).isoformat(timespec="minutes")
        for time_ms in found.series[0].time_ms
    ]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)])
def test_a_day_has_as_many_hours_as_the_clocks_on_the_wall(log: Log, day: str, hours: int) -> None:
    midnight = datetime.fromisoformat(day).replace(tzinfo=BERLIN)
    begins, local = midnight.astimezone(UTC), midnight.isoformat(timespec="minutes")
    log.publish(begins - timedelta(hours=24), timedelta(minutes=15), 4 * 24 * 3)
    day_after = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=BERLIN)
    found = log.history("meter", every="1d", agg="count", tz="Europe/Berlin", from_=begins, to=day_after)
    assert (local_starts(found, BERLIN), found.series[0]["count"]) == (
        [local],
        [4 * hours],
    )
    by_hour = log.history("meter", every="1h", agg="count", tz="Europe/Berlin", from_=begins, to=day_after)
    assert by_hour.series[0]["count"] == [4] * hours


def test_months_are_as_long_as_they_are_and_february_too(log: Log) -> None:
    log.publish(datetime(2023, 12, 15, 12, tzinfo=UTC), timedelta(days=1), 120)
    bounds = {"from_": "2024-01-01T00:00:00Z", "to": "2024-04-01T00:00:00Z"}
    found = log.history("meter", every="1mo", agg="count", **bounds)  # type: ignore[arg-type]
    assert found.series[0]["count"] == [31, 29, 31]
    year = log.history("meter", every="1y", agg="count", from_="2023-01-01T00:00:00Z", to="2025-01-01T00:00:00Z")
    assert year.series[0]["count"] == [17, 103]
    weeks = log.history("meter", every="1w", agg="count", from_="2024-02-26T00:00:00Z", to="2024-03-11T00:00:00Z")
    assert (local_starts(weeks, ZoneInfo("UTC")), weeks.series[0]["count"]) == (
        ["2024-02-26T00:00+00:00", "2024-03-04T00:00+00:00"],
        [7, 7],
    )


def test_a_leap_second_is_the_first_instant_of_the_next_minute(log: Log) -> None:
    log.rest.publish("meter", "before", measured_at="2016-12-31T23:59:59.5Z")
    log.rest.publish("meter", "leap", measured_at="2016-12-31T23:59:60Z")
    log.rest.publish("meter", "the same", measured_at="2017-01-01T00:00:00Z")
    log.settle()
    found = log.history("meter", from_="2016-12-31T23:59:60Z", to="2017-01-01T00:00:60Z", order="asc")
    assert [(entry.value, entry.measured_at_utc) for entry in found.entries] == [
        ("leap", "2017-01-01T00:00:00.000000+00:00"),
        ("the same", "2017-01-01T00:00:00.000000+00:00"),
    ]
    assert log.history("meter", from_="2016-12-31T23:59:00Z", to="2016-12-31T23:59:60Z").entries[0].value == "before"
    by_year = log.history("meter", every="1y", agg="last", from_="2016-01-01T00:00:00Z", to="2018-01-01T00:00:00Z")
    assert by_year.series[0]["last"] == ["before", "the same"]


def test_years_before_1970_are_years_like_others(log: Log) -> None:
    log.publish(datetime(1914, 7, 28, 12, tzinfo=UTC), timedelta(days=10), 200)
    found = log.history(
        "meter", every="1y", agg=["count", "min_t"], from_="1914-01-01T00:00:00Z", to="1921-01-01T00:00:00Z"
    )
    assert sum(found.series[0]["count"]) == 200
    starts = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=each) for each in found.series[0].time_ms]
    assert [each.year for each in starts] == list(range(1914, 1921))
    assert {each.replace(year=1914) for each in starts} == {datetime(1914, 1, 1, tzinfo=UTC)}
    entries = log.history("meter", limit=3, order="asc").entries
    assert [entry.at_utc[:10] for entry in entries] == ["1914-07-28", "1914-08-07", "1914-08-17"]
    odd = log.history("meter", every="7m", agg="count", from_="1914-07-28T11:55:00Z", to="1914-07-28T12:08:00Z")
    (start_ms,) = odd.series[0].time_ms
    noon_ms = int(datetime(1914, 7, 28, 12, tzinfo=UTC).timestamp()) * 1_000
    assert start_ms % (7 * 60_000) == 0 and start_ms <= noon_ms < start_ms + 7 * 60_000


def test_a_state_at_a_time_is_by_when_it_was_stored_and_one_of_the_future_waits_for_nothing(log: Log) -> None:
    """The traps of others: a time of the future that blocks, and one that answers with the newest state."""
    log.rest.publish("meter", 1)
    log.rest.publish("meter", 0, measured_at="2020-01-01T00:00:00Z")  # late: it was the state at no time
    log.settle()
    assert log.rest.state_at("now").state["meter"].value == 1
    assert log.rest.state_at("2020-06-01T00:00:00Z").state == {}
    for ahead in ("2026-11-25T10:00:01Z", "2099-01-01T00:00:00Z"):
        with pytest.raises(Exception, match="in the future") as refused:
            log.rest.state_at(ahead)
        assert getattr(refused.value, "code", "") == "ahead"
