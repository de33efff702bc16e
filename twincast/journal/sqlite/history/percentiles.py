"""Exact percentiles: the numbers of each bucket, sorted a piece at a time, for a sort holds the interpreter's lock.

Of a bucket with more numbers than one piece has, the numbers at a few places are found without merging the pieces.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from twincast.errors import TooMuch
from twincast.journal.sqlite.history.turns import Steps

SORTED_ENTRIES = 10_000
"""So many numbers are sorted at once, in some two milliseconds."""


class Percentiles:
    """The numbers of a query, one series at a time."""

    def __init__(self, most: int) -> None:
        """Begin; of so many numbers percentiles are found, in all series together."""
        self._most = most
        self._count = 0
        self._numbers: dict[int, array[float]] = {}

    def add(self, found: Iterable[tuple[int, Sequence[float]]]) -> None:
        """Take numbers of the series, by their buckets.

        Raises:
            TooMuch: these are too many.
        """
        for bucket, numbers in found:
            if not numbers:
                continue
            self._count += len(numbers)
            if self._count > self._most:
                raise TooMuch(
                    f"percentiles are taken of at most {self._most:,} numbers, and here are more;"
                    " ask for less time, or for avg, min and max"
                )
            kept = self._numbers.get(bucket)
            if kept is None:
                self._numbers[bucket] = array("d", numbers)
            else:
                kept.extend(numbers)

    def take(self, fractions: Sequence[float]) -> Steps[dict[int, list[float]]]:
        """Return the percentiles of the series by bucket, interpolated as SQL's percentile_cont; begin the next series.

        Args:
            fractions: which; each bucket has them in this order.
        """
        numbers, self._numbers = self._numbers, {}
        found: dict[int, list[float]] = {}
        size = 0
        for bucket, of_bucket in numbers.items():
            if size + len(of_bucket) > SORTED_ENTRIES:
                yield
                size = 0
            size += len(of_bucket)
            places = sorted({place for each in fractions for place in _around(each, len(of_bucket))})
            at = yield from _at(places, of_bucket)
            found[bucket] = [_between(at, each, len(of_bucket)) for each in fractions]
        return found


def _between(at: dict[int, float], fraction: float, count: int) -> float:
    below, above = (at[place] for place in _around(fraction, count))
    place = fraction * (count - 1)
    return below if below == above else below + (above - below) * (place - int(place))


def _around(fraction: float, count: int) -> tuple[int, int]:
    """Return the places of the two neighbours between which a fraction of the numbers lies."""
    below = int(fraction * (count - 1))
    return below, min(below + 1, count - 1)


def _at(places: Sequence[int], numbers: "array[float]") -> Steps[dict[int, float]]:
    """Return the numbers that would be at some places if all were sorted."""
    if len(numbers) <= SORTED_ENTRIES:
        ordered = sorted(numbers)
        return {place: ordered[place] for place in places}
    pieces: list[Sequence[float]] = []
    for start in range(0, len(numbers), SORTED_ENTRIES):
        pieces.append(array("d", sorted(numbers[start : start + SORTED_ENTRIES])))
        yield
    found = {}
    for place in places:
        found[place] = yield from _nth(pieces, place)
    return found


def _nth(pieces: Sequence[Sequence[float]], place: int) -> Steps[float]:
    """Return the number at a place of all that some sorted pieces have: a part of what is left is ruled out each time.

    The median of the middles, weighed by how much each stands for, rules out a quarter at least.
    """
    windows = [(0, len(piece)) for piece in pieces]
    while True:
        pivot = _middle(pieces, windows)
        below = [bisect_left(piece, pivot, *window) for piece, window in zip(pieces, windows, strict=True)]
        up_to = [bisect_right(piece, pivot, *window) for piece, window in zip(pieces, windows, strict=True)]
        if place < sum(below):
            windows = [(low, end) for (low, _), end in zip(windows, below, strict=True)]
        elif place >= sum(up_to):
            windows = [(start, high) for (_, high), start in zip(windows, up_to, strict=True)]
        else:
            return pivot
        yield


def _middle(pieces: Sequence[Sequence[float]], windows: Sequence[tuple[int, int]]) -> float:
    middles = sorted(
        (piece[(low + high) // 2], high - low) for piece, (low, high) in zip(pieces, windows, strict=True) if low < high
    )
    left = sum(size for _, size in middles) / 2
    for middle, size in middles:
        left -= size
        if left <= 0:
            return middle
    raise AssertionError("a place is among the numbers")
