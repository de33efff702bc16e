"""The answers, found by a look at every entry: exact and slow. It says what every faster way has to answer."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from twincast.core.model import Entry
from twincast.errors import TooMuch
from twincast.history.moments import place_of
from twincast.history.numbers import Number, as_double, number_of, percentile
from twincast.history.pointer import Pointer
from twincast.history.query import (
    PERCENTILES,
    READINGS,
    Aggregate,
    BucketsQuery,
    Cell,
    EntriesPage,
    EntriesQuery,
    Place,
    Series,
)

Answer_co = TypeVar("Answer_co", covariant=True)


class Scan(Protocol[Answer_co]):
    """A query at work: it takes all entries of its devices, in any order, and then has the answer."""

    def take(self, entries: Iterable[Entry]) -> None:
        """Take some entries; those that were not asked for are left out. Raises TooMuch if the answer is too large."""

    def answer(self) -> Answer_co:
        """Return the answer. Raises TooMuch if it is too large."""


class _Kept:
    """The entries of one device that may be on its page."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, Entry]] = []
        self.size_bytes = 0
        self.has_more = False


class EntriesScan:
    """Finds entries; see History.entries. Holds little more than what it answers."""

    def __init__(self, query: EntriesQuery) -> None:
        self._query = query
        self._kept = {name: _Kept() for name in query.devices}

    def take(self, entries: Iterable[Entry]) -> None:
        """See Scan."""
        query, crowded = self._query, False
        for entry in entries:
            kept = self._kept.get(entry.subject)
            if kept is None or entry.kind not in query.kinds or not query.after_seq < entry.seq <= query.until_seq:
                continue
            place = place_of(entry, by_stored=query.by_stored)
            if not (query.from_us <= place.at_us < query.to_us and self._is_beyond(place) and self._has_path(entry)):
                continue
            kept.found.append((place, entry))
            kept.size_bytes += len(entry.payload)
            if len(kept.found) > 2 * query.limit + 100 or kept.size_bytes > 2 * query.page_max_bytes:
                self._cut(kept)
                crowded = True
        if crowded:
            self._check_total()

    def _is_beyond(self, place: Place) -> bool:
        beyond = self._query.beyond
        return beyond is None or (place < beyond if self._query.is_descending else place > beyond)

    def _has_path(self, entry: Entry) -> bool:
        paths = self._query.paths
        return not paths or entry.kind not in READINGS or any(path.find(entry.payload) is not None for path in paths)

    def _cut(self, kept: _Kept) -> None:
        """Leave what fits a page, in order: what comes later can only push more of it out."""
        query = self._query
        kept.found.sort(key=_place, reverse=query.is_descending)
        kept.size_bytes = fitting = 0
        for _, entry in kept.found[: query.limit]:
            kept.size_bytes += len(entry.payload)
            fitting += 1
            if kept.size_bytes >= query.page_max_bytes:
                break
        kept.has_more |= fitting < len(kept.found)
        del kept.found[fitting:]

    def _check_total(self) -> None:
        total, query = sum(len(kept.found) for kept in self._kept.values()), self._query
        if total > query.entries_max and len(self._kept) > 1:
            for kept in self._kept.values():
                self._cut(kept)
            if sum(len(kept.found) for kept in self._kept.values()) > query.entries_max:
                raise TooMuch(
                    f"these devices have more than {query.entries_max:,} entries here; ask for fewer of each by"
                    " `limit`, for less time, or for buckets by `every` or `points`"
                )

    def answer(self) -> Sequence[EntriesPage]:
        """See Scan."""
        for kept in self._kept.values():
            self._cut(kept)
        self._check_total()
        return [
            EntriesPage(name, [entry for _, entry in kept.found], kept.has_more) for name, kept in self._kept.items()
        ]


def _place(found: tuple[Place, Entry]) -> Place:
    return found[0]


class _Bucket:
    """What a bucket of one series has seen."""

    __slots__ = ("count", "first", "largest", "last", "numbers", "smallest", "total", "total_lost")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.total_lost = 0.0
        self.smallest: tuple[Number, Place] | None = None
        self.largest: tuple[Number, Place] | None = None
        self.first: tuple[Place, bytes] | None = None
        self.last: tuple[Place, bytes] | None = None
        self.numbers: list[float] = []

    def add(self, number: Number, place: Place, *, keep: bool) -> None:
        self.count += 1
        self._add_to_total(as_double(number))
        if keep:
            self.numbers.append(as_double(number))
        if self.smallest is None or (number, place) < self.smallest:
            self.smallest = (number, place)
        if self.largest is None or number > self.largest[0] or (number == self.largest[0] and place < self.largest[1]):
            self.largest = (number, place)

    def _add_to_total(self, number: float) -> None:
        """Add as Kahan and Babuska do, which SQLite does too: what a sum of doubles loses is kept beside it."""
        total = self.total + number
        lost = (self.total - total) + number if abs(self.total) >= abs(number) else (number - total) + self.total
        self.total, self.total_lost = total, self.total_lost + lost

    @property
    def sum(self) -> float:
        exact = self.total + self.total_lost
        return self.total if math.isnan(exact) else exact  # what overflowed has lost infinitely much

    def see(self, place: Place, text: bytes) -> None:
        if self.first is None or place < self.first[0]:
            self.first = (place, text)
        if self.last is None or place > self.last[0]:
            self.last = (place, text)


_NUMERIC: dict[Aggregate, Callable[[_Bucket], Cell]] = {
    "avg": lambda bucket: bucket.sum / bucket.count,
    "min": lambda bucket: bucket.smallest[0] if bucket.smallest else None,
    "max": lambda bucket: bucket.largest[0] if bucket.largest else None,
    "sum": lambda bucket: bucket.sum,
    "p50": lambda bucket: percentile(bucket.numbers, 0.5),
    "p95": lambda bucket: percentile(bucket.numbers, 0.95),
    "min_t": lambda bucket: bucket.smallest[1].at_us // 1_000 if bucket.smallest else None,
    "max_t": lambda bucket: bucket.largest[1].at_us // 1_000 if bucket.largest else None,
}


def _cell(bucket: _Bucket, aggregate: Aggregate) -> Cell:
    if aggregate == "count":
        return bucket.count
    if aggregate == "first":
        return bucket.first[1] if bucket.first else None
    if aggregate == "last":
        return bucket.last[1] if bucket.last else None
    return _NUMERIC[aggregate](bucket) if bucket.count else None


class BucketsScan:
    """Adds readings up by buckets; see History.buckets."""

    def __init__(self, query: BucketsQuery) -> None:
        self._query = query
        self._edges = query.edges
        self._series: dict[str, tuple[tuple[Pointer, dict[int, _Bucket]], ...]] = {
            name: tuple((path, {}) for path in query.paths) for name in query.devices
        }
        self._keeps_numbers = not PERCENTILES.isdisjoint(query.aggregates)
        self._keeps_texts = not {"first", "last"}.isdisjoint(query.aggregates)
        self._kept = 0

    def take(self, entries: Iterable[Entry]) -> None:
        """See Scan."""
        query, edges = self._query, self._edges
        for entry in entries:
            series = self._series.get(entry.subject)
            if series is None or entry.kind not in READINGS or entry.seq > query.until_seq:
                continue
            place = place_of(entry, by_stored=query.by_stored)
            if not edges[0] <= place.at_us < edges[-1]:
                continue
            start = edges[bisect_right(edges, place.at_us) - 1]
            for path, buckets in series:
                text = path.find(entry.payload)
                if text is not None:
                    self._add(buckets, start, place, text)

    def _add(self, buckets: dict[int, _Bucket], start: int, place: Place, text: bytes) -> None:
        number = number_of(text)
        if number is None and not self._keeps_texts:
            return
        bucket = buckets.get(start)
        if bucket is None:
            bucket = buckets[start] = _Bucket()
        if self._keeps_texts:
            bucket.see(place, text)
        if number is None:
            return
        bucket.add(number, place, keep=self._keeps_numbers)
        self._kept += self._keeps_numbers
        if self._kept > self._query.percentile_readings_max:
            raise TooMuch(
                f"percentiles are taken of at most {self._query.percentile_readings_max:,} numbers, and here are more;"
                " ask for less time, or for avg, min and max"
            )

    def answer(self) -> Sequence[Series]:
        """See Scan."""
        return [
            _columns(name, path, buckets, self._query.aggregates)
            for name, series in self._series.items()
            for path, buckets in series
        ]


def _columns(name: str, path: Pointer, buckets: dict[int, _Bucket], aggregates: Sequence[Aggregate]) -> Series:
    starts = sorted(buckets)
    columns = [[_cell(buckets[start], aggregate) for start in starts] for aggregate in aggregates]
    return Series(name, path, starts, columns)
