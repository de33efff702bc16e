"""Percentiles of numbers that come in pieces, beside those of a list that is sorted."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.journal.sqlite.history.logs import drive
from twincast.errors import TooMuch
from twincast.history.numbers import percentile
from twincast.journal.sqlite.history import percentiles
from twincast.journal.sqlite.history.percentiles import Percentiles

NUMBERS = st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e300, 1e300)), max_size=80)


@given(st.lists(st.tuples(st.integers(0, 3), NUMBERS), max_size=6), st.integers(1, 30))
def test_percentiles_are_those_of_all_numbers_of_a_bucket(
    pieces: list[tuple[int, list[float]]], sorted_at_once: int
) -> None:
    fractions = (0.0, 0.5, 0.95, 1.0)
    with patch.object(percentiles, "SORTED_ENTRIES", sorted_at_once):
        found = Percentiles(1_000)
        found.add(pieces)
        taken = drive(found.take(fractions))
        assert drive(found.take(fractions)) == {}
    whole: dict[int, list[float]] = {}
    for bucket, numbers in pieces:
        whole.setdefault(bucket, []).extend(numbers)
    assert set(taken) == {bucket for bucket, numbers in whole.items() if numbers}
    for bucket, each in taken.items():
        expected = [percentile(whole[bucket], fraction) for fraction in fractions]
        assert each == expected


def test_numbers_of_all_series_together_are_bounded() -> None:
    found = Percentiles(5)
    found.add([(0, [1.0, 2.0]), (1, [3.0])])
    drive(found.take([0.5]))
    found.add([(0, [1.0, 2.0])])
    with pytest.raises(TooMuch, match="at most 5 numbers"):
        found.add([(0, [1.0])])
