import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.history.numbers import as_double, number_of, percentile


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *((b"0", 0), (b"-7", -7), (b"1.5", 1.5), (b"1e2", 100.0), (b"-0.0", -0.0), (b"9223372036854775807", 2**63 - 1)),
        *((b"-9223372036854775808", -(2**63)), (b"9223372036854775808", 2.0**63), (b"18446744073709551615", 2.0**64)),
        *((b"1" * 300, float("1" * 300)), (b"1e308", 1e308)),
    ],
)
def test_numbers_are_as_exact_as_sqlite_has_them(text: bytes, number: float) -> None:
    found = number_of(text)
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize("text", [b'"5"', b'"1.5"', b"true", b"null", b"[1]", b'{"x":1}', b"", b'""'])
def test_a_text_of_digits_is_no_number_and_nor_is_anything_else(text: bytes) -> None:
    assert number_of(text) is None


@given(st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_of_json_is_one(number: float) -> None:
    found = number_of(json.dumps(number).encode())
    assert found is not None
    assert as_double(found) == float(number)


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=60))
def test_percentiles_are_those_of_the_standard_library(numbers: list[float]) -> None:
    cuts = statistics.quantiles(numbers, n=100, method="inclusive")
    assert math.isclose(percentile(numbers, 0.95), cuts[94], rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(percentile(numbers, 0.5), statistics.median(numbers), rel_tol=1e-9, abs_tol=1e-6)


def test_of_one_number_every_percentile_is_that() -> None:
    assert percentile([4.0], 0.95) == 4.0
