"""Buckets of the history, a series for each device and path: added up from its sorted runs and their rollups."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from twincast.history.numbers import Number
from twincast.history.pointer import Pointer
from twincast.history.query import PERCENTILES, Aggregate, BucketsQuery, Cell, Series
from twincast.journal.sqlite.history import sums
from twincast.journal.sqlite.history.buckets import Buckets
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, LASTING_WIDTHS_S
from twincast.journal.sqlite.history.percentiles import Percentiles
from twincast.journal.sqlite.history.ranges import SECOND_US, Range, after, at_edges, ends, groups, meet, narrowest
from twincast.journal.sqlite.history.sorted_run import SortedRun
from twincast.journal.sqlite.history.sums import Sum, Text
from twincast.journal.sqlite.history.turns import Steps

RAW_ENTRIES = 10_000
"""So many entries one statement adds up: some five milliseconds."""
ROLLUPS = 20_000
"""So many rollups."""
SEEKS = 500
"""So many buckets in which one statement looks for the first or last entry."""
WIDE_US = 86_400 * SECOND_US
"""A range that is wider is narrowed to where the device has entries, which takes two seeks; but not for few sums."""
FEW = 2_000
"""So many of the narrowest buckets are few."""
EDGES = 100
"""At so many edges between buckets one statement adds up what no rollup has for itself."""


class _Bucket:
    """What is known of a bucket so far."""

    __slots__ = ("first", "high", "high_us", "last", "low", "low_us", "n", "total")

    def __init__(self) -> None:
        self.n = 0
        self.total = 0.0
        self.low: Number = 0
        self.high: Number = 0
        self.low_us = self.high_us = 0
        self.first: Text | None = None
        self.last: Text | None = None

    def add(self, found: Sum) -> None:
        """Add numbers of another place."""
        low, high = sums.number_of(found.low), sums.number_of(found.high)
        low_us, high_us = found.low_us or 0, found.high_us or 0
        if not self.n or (low, low_us) < (self.low, self.low_us):
            self.low, self.low_us = low, low_us
        if not self.n or high > self.high or (high == self.high and high_us < self.high_us):
            self.high, self.high_us = high, high_us
        self.n += found.n
        self.total += sums.number_of(found.total)


class SeriesOfOne:
    """The series of one device and path, as it is added up. All methods must be called in the history's thread."""

    def __init__(self, query: BucketsQuery, device: str, path: Pointer, buckets: Buckets, numbers: Percentiles) -> None:
        """Begin with nothing.

        Args:
            query: the query.
            device: the device.
            path: the path.
            buckets: those of the query.
            numbers: takes the numbers of which percentiles are asked.
        """
        self._query = query
        self._device, self._path = device, path
        self._buckets = buckets
        self._numbers = numbers
        asked = set(query.aggregates)
        self._has_fractions = not PERCENTILES.isdisjoint(asked)
        self._has_sums = bool(asked - _TEXTS - PERCENTILES)
        self._has_times = bool(asked & {"min_t", "max_t"})
        self._ends = [is_last for name, is_last in _ENDS if name in asked]
        self._has_only_sums = self._has_sums and not self._has_fractions and not self._ends
        self._found: dict[int, _Bucket] = {}

    def add(self, run: SortedRun) -> Steps[None]:
        """Add the readings of a run."""
        edges = self._query.edges
        is_mixed = self._query.by_stored and run.has_measured
        asked = (_FAR_US[0], edges[-1] + BELIEVED_AHEAD_US) if is_mixed else ends(edges)
        extent = meet(after(run.times_us), asked)
        if extent is None:
            return
        with self._buckets.on(run.db, None if is_mixed else extent):
            widths, narrow = self._outline(run, extent)
            if narrow is None:
                return
            if self._has_sums and not is_mixed:
                yield from self._add_sums(run, narrow, widths)
            for each in run.members or (run,):
                if (within := meet(after(each.times_us), narrow)) is not None:
                    yield from self._add_mixed(each, within) if is_mixed else self._add_others(each, within)

    def add_summed(self, run: SortedRun) -> Steps[None]:
        """Add the sums of a run that has no readings any more. Only where `is_of_sums`."""
        extent = meet(after(run.times_us), ends(self._query.edges))
        if extent is not None and self._has_sums:
            with self._buckets.on(run.db, extent):
                yield from self._add_sums(run, extent, sums.widths(run, self._path))

    def _outline(self, run: SortedRun, extent: Range) -> tuple[list[int] | None, Range | None]:
        """Return of which widths there are rollups, and where in a wide range the device has entries."""
        if run.is_short:
            return None, extent
        widths = sums.widths(run, self._path) if self._has_sums else None
        width_us = extent[1] - extent[0]
        are_few = self._has_only_sums and width_us <= FEW * narrowest(self._query.edges)
        return widths, extent if run.members or width_us <= WIDE_US or are_few else run.narrowed(extent)

    def _add_others(self, run: SortedRun, extent: Range) -> Steps[None]:
        """Add what is no sum, of a run that is in order by the time of the query."""
        if self._has_fractions:
            yield from self._add_numbers(run, extent)
        for is_last in self._ends:
            yield from self._add_ends(run, extent, is_last=is_last)

    def _add_numbers(self, run: SortedRun, extent: Range) -> Steps[None]:
        for part in _parts(run, extent):
            if run.is_short:
                found = sums.numbers_of(run, [part], self._buckets, self._path, by_stored=False)
                self._numbers.add(found)
                yield
                continue
            for spans in groups(self._buckets.spans(part), SEEKS):
                self._numbers.add(sums.numbers_in(run, spans, self._path))
                yield

    def _add_mixed(self, run: SortedRun, extent: Range) -> Steps[None]:
        """Add readings by stored times, which are not in order."""
        for part in _parts(run, extent):
            where = run, [part], self._buckets, self._path
            if self._has_sums:
                self._add_all(sums.summed(*where, by_stored=True, with_times=self._has_times))
            if self._has_fractions:
                self._numbers.add(sums.numbers_of(*where, by_stored=True))
            for is_last in self._ends:
                self._see_all(sums.sought(*where, by_stored=True, is_last=is_last), is_last=is_last)
            yield

    def _add_sums(self, run: SortedRun, extent: Range, widths: list[int] | None) -> Steps[None]:
        """Add up what rollups have, the widest that fit; and at the edges, where these do not fit, finer ones."""
        if widths == []:
            return
        edges = self._query.edges
        ranges = [(edges[0], edges[-1])]
        fitting = [width for width in widths or () if width * SECOND_US <= narrowest(edges)]
        for width_s in reversed(fitting):
            for part in _in_pieces(ranges, extent, width_s):
                found = sums.rolled(run, part, width_s, self._buckets, self._path, with_times=self._has_times)
                self._add_all(found)
                yield
            ranges = at_edges(edges, width_s * SECOND_US)
            if not ranges:
                return
        for each in run.members or (run,):
            if (within := meet(after(each.times_us), extent)) is not None:
                yield from self._add_raw(each, within, ranges)

    def _add_raw(self, run: SortedRun, extent: Range, ranges: Sequence[Range]) -> Steps[None]:
        """Add up the entries themselves in some ranges."""
        ranges = [each for each in (meet(each, extent) for each in ranges) if each is not None]
        pieces = [[part] for part in _parts(run, ranges[0])] if len(ranges) == 1 else groups(ranges, EDGES)
        for piece in pieces:
            where = run, piece, self._buckets, self._path
            self._add_all(sums.summed(*where, by_stored=False, with_times=self._has_times))
            yield

    def _add_ends(self, run: SortedRun, extent: Range, *, is_last: bool) -> Steps[None]:
        if self._path.tokens or run.is_short:
            for part in _parts(run, extent):
                where = run, [part], self._buckets, self._path
                self._see_all(sums.sought(*where, by_stored=False, is_last=is_last), is_last=is_last)
                yield
            return
        edges = self._query.edges
        first, last = (bisect_right(edges, time) - 1 for time in (extent[0], extent[1] - 1))
        for numbers in groups(range(first, last + 1), SEEKS):
            self._see_all(sums.ends(run, numbers, self._buckets, is_last=is_last), is_last=is_last)
            yield

    def _add_all(self, found: Sequence[Sum]) -> None:
        for each in found:
            bucket = self._found.get(each.bucket)
            if bucket is None:
                bucket = self._found[each.bucket] = _Bucket()
            bucket.add(each)

    def _see_all(self, found: Sequence[Text], *, is_last: bool) -> None:
        for each in found:
            bucket = self._found.get(each.bucket)
            if bucket is None:
                bucket = self._found[each.bucket] = _Bucket()
            place = each.time_us, each.seq
            if is_last and (bucket.last is None or place > (bucket.last.time_us, bucket.last.seq)):
                bucket.last = each
            elif not is_last and (bucket.first is None or place < (bucket.first.time_us, bucket.first.seq)):
                bucket.first = each

    def result(self) -> Steps[Series]:
        """Return the series, once all runs are added."""
        percentiles = (yield from self._numbers.take(list(_FRACTIONS.values()))) if self._has_fractions else {}
        for number in percentiles:
            self._found.setdefault(number, _Bucket())
        numbers = sorted(self._found)
        found = [self._found[number] for number in numbers]
        columns: list[list[Cell]] = []
        for name in self._query.aggregates:
            if name in _FRACTIONS:
                place = list(_FRACTIONS).index(name)
                columns.append([percentiles[number][place] if number in percentiles else None for number in numbers])
            else:
                columns.append(list(map(_CELLS[name], found)))
        starts = [self._query.edges[number] for number in numbers]
        return Series(self._device, self._path, starts, columns)


def is_of_sums(query: BucketsQuery) -> bool:
    """Return whether a query is answered by what is left of partitions: sums by the hour, by the times that count."""
    if query.by_stored or set(query.aggregates) & (_TEXTS | PERCENTILES):
        return False
    edges, hour_us = query.edges, LASTING_WIDTHS_S[0] * SECOND_US
    if isinstance(edges, range):
        return edges[0] % hour_us == 0 and edges.step % hour_us == 0
    return not any(edge % hour_us for edge in edges)


_FAR_US = (-(1 << 62), 1 << 62)
_TEXTS: frozenset[Aggregate] = frozenset({"first", "last"})
_ENDS: tuple[tuple[Aggregate, bool], ...] = (("first", False), ("last", True))
_FRACTIONS: dict[Aggregate, float] = {"p50": 0.5, "p95": 0.95}
_CELLS: dict[Aggregate, Callable[[_Bucket], Cell]] = {
    "avg": lambda bucket: bucket.total / bucket.n if bucket.n else None,
    "min": lambda bucket: bucket.low if bucket.n else None,
    "max": lambda bucket: bucket.high if bucket.n else None,
    "sum": lambda bucket: bucket.total if bucket.n else None,
    "count": lambda bucket: bucket.n,
    "first": lambda bucket: bytes(bucket.first.text) if bucket.first else None,
    "last": lambda bucket: bytes(bucket.last.text) if bucket.last else None,
    "min_t": lambda bucket: bucket.low_us // 1_000 if bucket.n else None,
    "max_t": lambda bucket: bucket.high_us // 1_000 if bucket.n else None,
}


def _parts(run: SortedRun, extent: Range) -> Iterator[Range]:
    """Yield neighbouring ranges that have about RAW_ENTRIES entries each."""
    since_us, until_us = extent
    if run.is_short:
        yield extent
        return
    while since_us < until_us:
        border_us = run.border(since_us, until_us, RAW_ENTRIES)
        yield since_us, border_us
        since_us = border_us


def _in_pieces(ranges: Sequence[Range], extent: Range, width_s: int) -> Iterator[Sequence[Range]]:
    """Yield ranges of which one statement adds up the rollups: one range in pieces, or many in groups."""
    width_us = width_s * SECOND_US
    extent = extent[0] // width_us * width_us, -(-extent[1] // width_us) * width_us  # as far as its rollups reach
    ranges = [each for each in (meet(each, extent) for each in ranges) if each is not None]
    if len(ranges) > 1:
        yield from groups(ranges, SEEKS)
    elif ranges:
        since_us, until_us = -(-ranges[0][0] // width_us) * width_us, ranges[0][1]
        for start in range(since_us, until_us, ROLLUPS * width_us):
            yield [(start, min(start + ROLLUPS * width_us, until_us))]
