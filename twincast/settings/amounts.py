"""Amounts as a person writes them, a number and its unit: `30d` in seconds, `2GB` in bytes."""

import re
from typing import Any

from twincast.machine import cores

AMOUNT_MAX = 2.0**62
WORKERS_MAX = 64
"""Each folds everything, so that more take from each other long before."""
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_BYTES = {"B": 1, "": 1} | {
    f"{letter}{infix}B": base**power
    for power, letter in enumerate("KMGT", 1)
    for infix, base in (("", 1_000), ("i", 1_024))
}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", re.ASCII)


def seconds(given: Any) -> float | None:
    """Return a time in seconds; a number is one already.

    Raises:
        ValueError: it is none, or not more than nothing.
    """
    return _amount(given, _SECONDS, "a time: a number and s, m, h, d, w or y, such as 30d or 12h")


def whole_bytes(given: Any) -> int | None:
    """Return a size in bytes; a number is one already.

    Raises:
        ValueError: it is none, or not more than nothing.
    """
    found = _amount(given, _BYTES, "a size: a number and KB, MB, GB, TB or KiB, MiB, GiB, TiB, such as 2GB")
    return None if found is None else int(found)


def pattern_and_seconds(text: str) -> tuple[str, float]:
    """Return the pattern and the time of a text such as `lab/*=7d`.

    Raises:
        ValueError: it is none.
    """
    pattern, _, time = text.rpartition("=")
    if not pattern:
        raise ValueError(f"must be a pattern and a time, such as lab/*=7d, not {text[:40]!r}")
    found = seconds(time)
    assert found is not None
    return pattern, found


def count_of_workers(given: Any) -> Any:
    """Return how many processes are meant: a number, or `auto` for one on each core that this process may use."""
    return min(cores(), WORKERS_MAX) if given == "auto" else given


def _amount(given: Any, units: dict[str, int], expected: str) -> float | None:
    if given is None:
        return None
    amount: float
    if isinstance(given, str):
        found = _AMOUNT.fullmatch(given.strip())
        unit = next((unit for unit in units if found and unit.lower() == found[2].lower()), None)
        if found is None or unit is None:
            raise ValueError(f"must be {expected}, not {given[:40]!r}; leave it out to keep everything")
        amount = float(found[1]) * units[unit]
    else:
        amount = given
    if not 0 < amount < AMOUNT_MAX:
        raise ValueError(f"must be {expected}, not {given!r}; leave it out to keep everything")
    return amount
