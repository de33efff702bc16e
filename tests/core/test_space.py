"""How fast a journal grows, and for how long its disk lasts."""

import pytest

from twincast.core.space import PACE_WINDOW_S, Pace, full_in_s


def test_the_pace_is_known_after_a_minute() -> None:
    pace = Pace(0.0, 1_000)
    pace.note(30.0, 4_000)
    assert pace.bytes_per_s(59.0) is None
    pace.note(60.0, 7_000)
    assert pace.bytes_per_s(60.0) == 100.0


def test_the_pace_is_of_the_last_hour_and_falls_while_nobody_writes() -> None:
    pace = Pace(0.0, 0)
    for minute in range(1, 181):
        pace.note(minute * 60.0, 60_000 * minute if minute <= 120 else 7_200_000)
    assert pace.bytes_per_s(180 * 60.0) == 0.0
    pace.note(180 * 60.0 + 20, 7_200_000 + 36_000)
    assert pace.bytes_per_s(181 * 60.0) == pytest.approx(10.0, rel=0.05)


def test_what_shrinks_does_not_grow() -> None:
    pace = Pace(0.0, 9_000)
    pace.note(100.0, 1_000)
    assert pace.bytes_per_s(100.0) == 0.0


def test_measurements_take_no_more_room_than_an_hour_of_them() -> None:
    pace = Pace(0.0, 0)
    for tenth in range(200_000):
        pace.note(tenth / 10, tenth)
    assert len(pace._known) <= PACE_WINDOW_S / 10 + 2


@pytest.mark.parametrize(
    ("free_bytes", "growth", "until_bound_bytes", "until_aged_s", "lasts_s"),
    [
        (1_000, 10.0, None, None, 100.0),
        (1_000, None, None, None, None),  # not known yet
        (1_000, 0.0, None, None, None),  # does not grow
        (None, 10.0, None, None, None),  # the disk does not say
        (1_000, 10.0, 900, None, None),  # the bound comes first
        (1_000, 10.0, 1_100, None, 100.0),  # the disk is smaller than the bound
        (1_000, 10.0, None, 90.0, None),  # the oldest goes for its age first
        (1_000, 10.0, 1_100, 90.0, None),
        (1_000, 10.0, 1_100, 110.0, 100.0),  # the disk is full before anything is that old
    ],
)
def test_a_disk_lasts_as_long_as_there_is_room(
    free_bytes: int | None,
    growth: float | None,
    until_bound_bytes: int | None,
    until_aged_s: float | None,
    lasts_s: float | None,
) -> None:
    assert full_in_s(free_bytes, growth, until_bound_bytes, until_aged_s) == lasts_s
