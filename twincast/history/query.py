"""What can be asked of the log's past, resolved: times in microseconds since 1970, positions, names, pointers."""

import sys
from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from twincast.core.model import Entry, Kind
from twincast.core.pattern import PatternSet
from twincast.history.pointer import Pointer

Aggregate = Literal["avg", "min", "max", "sum", "count", "first", "last", "p50", "p95", "min_t", "max_t"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
PERCENTILES: frozenset[Aggregate] = frozenset({"p50", "p95"})
READINGS: tuple[Kind, ...] = ("data_update", "late")
"""The kinds of entries that are readings; only these are in buckets."""

ENTRIES_MAX = 100_000
"""How many entries, or points, one answer holds for several devices together."""
PAGE_MAX_BYTES = 8 * 1024 * 1024
"""A page of one device ends behind the entry whose value makes it so many bytes of values."""
PERCENTILE_READINGS_MAX = 2_000_000
"""Of how many numbers percentiles are taken, of all series of a query together: each has to be looked at."""
SEQ_MAX = sys.maxsize

Found = TypeVar("Found")


class Told(NamedTuple, Generic[Found]):
    """What was found in the log, as it was at one moment, and how far it went back then."""

    found: Found
    reaches_back_to: str | None
    """When the first of those entries was stored behind which the log had everything; or the first of those of which it
    has sums, if they are in what was found. None if it had none."""


class Place(NamedTuple):
    """Where an entry stands in its device's history: by the time that counts, then by position."""

    at_us: int
    seq: int


class Names(NamedTuple):
    """The devices that a query is about: those that are wanted, of those that may be read."""

    wanted: PatternSet
    readable: PatternSet

    @property
    def are_all(self) -> bool:
        """Whether every name is selected."""
        return self.wanted.is_all and self.readable.is_all

    @property
    def listed(self) -> frozenset[str] | None:
        """The selected names, where all of them are known without a look at the log; None where patterns select."""
        if self.wanted.is_listed:
            return frozenset(name for name in self.wanted.exact if self.readable.has(name))
        return None

    def has(self, name: str) -> bool:
        """Whether a name is selected."""
        return self.wanted.has(name) and self.readable.has(name)


class EntriesQuery(NamedTuple):
    """Which entries: those of some devices, in one order, from one place on.

    The time of an entry is the one that counts (`at`: what was measured, where that is believed, else when it was
    stored); with `by_stored`, it is when it was stored. Times, order and places go by it.
    """

    devices: tuple[str, ...]
    """The names, each once. Rights have narrowed them."""
    kinds: frozenset[Kind]
    from_us: int
    """The first microsecond that is asked for."""
    to_us: int
    """The first one that is not."""
    after_seq: int
    """Only entries behind this position: 0 for all."""
    until_seq: int
    """Only entries up to this position, which the log has: so an answer is of a prefix of the log, and repeatable."""
    by_stored: bool = False
    paths: tuple[Pointer, ...] = ()
    """Only readings whose value has one of these, if there are any. Entries that are no readings are marks on the same
    axis: all of them are in. The answer has whole values."""
    is_descending: bool = True
    beyond: Place | None = None
    """Only entries that follow this place in the order of the query: the last one of the page before."""
    limit: int = 1_000
    """How many entries of each device at most."""
    entries_max: int = ENTRIES_MAX
    """How many of all devices together; more are TooMuch."""
    page_max_bytes: int = PAGE_MAX_BYTES


class EntriesPage(NamedTuple):
    """Entries of one device, in the order of the query."""

    device_id: str
    entries: Sequence[Entry]
    has_more: bool
    """Whether entries follow the last one."""


class BucketsQuery(NamedTuple):
    """Readings of some devices, late ones too, added up by spans of time.

    Only JSON numbers count (a string of digits is none), but for `first` and `last`, which are the texts of whatever is
    at the path. Numbers that are integers of 64 bits stay exact in `min` and `max`; `sum` and `avg` are doubles.
    Percentiles are those of all numbers of a bucket, interpolated between neighbours (SQL's percentile_cont).
    `min_t` and `max_t` are the times of the first smallest and the first largest, in milliseconds.
    """

    devices: tuple[str, ...]
    """The names, each once. Rights have narrowed them."""
    paths: tuple[Pointer, ...]
    """At least one; the empty pointer is the whole value."""
    edges: Sequence[int]
    """The starts of the buckets, and the end of the last one, in microseconds since 1970, rising; a `range` where all
    buckets have one width. A reading is in the bucket whose start is the last one up to its time."""
    aggregates: tuple[Aggregate, ...]
    until_seq: int
    """See EntriesQuery."""
    by_stored: bool = False
    percentile_readings_max: int = PERCENTILE_READINGS_MAX


Cell = int | float | bytes | None
"""A number; the JSON text of a first or last value; or nothing, where a bucket has no number."""


class Series(NamedTuple):
    """The buckets of one device and path that have something of what was asked for, by columns, in order of time."""

    device_id: str
    path: Pointer
    starts_us: Sequence[int]
    columns: Sequence[Sequence[Cell]]
    """One for each aggregate of the query, as long as `starts_us`."""
