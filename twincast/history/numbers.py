"""The numbers of values: which JSON is one, how exactly, and percentiles of many."""

import re
from collections.abc import Sequence

Number = int | float
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_IS_INTEGER = re.compile(rb"-?\d{1,20}").fullmatch
_BEGINS = frozenset(b"-0123456789")


def number_of(text: bytes) -> Number | None:
    """Return the number that a JSON text is; None for any other JSON, a text of digits among it.

    Integers of 64 bits (signed, as SQLite has them) stay exact; all other numbers are doubles.
    """
    if not text or text[0] not in _BEGINS:
        return None
    if _IS_INTEGER(text) and _INT_MIN <= (number := int(text)) <= _INT_MAX:
        return number
    return float(text)


def as_double(number: Number) -> float:
    """Return a number as a double."""
    return float(number)


def percentile(numbers: Sequence[float], fraction: float) -> float:
    """Return the number below which a fraction of some numbers is, interpolated between neighbours.

    The same as SQL's percentile_cont and numpy's default. There must be at least one number.
    """
    ordered = sorted(numbers)
    place = fraction * (len(ordered) - 1)
    below = int(place)
    if below + 1 >= len(ordered):
        return ordered[-1]
    return ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below)
