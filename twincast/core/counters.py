"""What is counted while the server works: plain numbers, added to once a batch or cast, and read when somebody asks."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds for what a disk takes, from the fastest to one that hangs."""
ENTRIES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0)

refusals: Counter[str] = Counter()
"""How often which error was told, by its code: of this process, for it is counted where errors are put into words, and
there nobody knows for which server."""
closes: Counter[str] = Counter()
"""The same of the errors that ended a WebSocket."""


class Histogram:
    """How often something was at most so much."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0
        """Of all that was added."""

    def add(self, amount: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self.total += amount

    def buckets(self) -> list[tuple[float, int]]:
        """Return for each bound, and for infinity, how many were at most that."""
        return list(zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True))


class Deliveries:
    """How many changes were handed to clients, and how many a newer one took the place of."""

    __slots__ = ("drained", "merged", "offered", "queued")

    def __init__(self) -> None:
        self.offered = 0
        """To a client's connection or, where that is full, to the client's outbox."""
        self.queued = 0
        """Of these, those that waited in an outbox."""
        self.drained = 0
        """Of the queued ones, those that were handed over later."""
        self.merged = 0

    @property
    def made(self) -> int:
        """How many were handed over."""
        return self.offered - self.queued + self.drained


class Counters:
    """What a hub counts."""

    def __init__(self) -> None:
        self.readings = 0
        self.late_readings = 0
        """Of the readings, those that were measured before the newest one of their device."""
        self.disbelieved_readings = 0
        """Of the readings, those whose clock was ahead of the server's."""
        self.commands = 0
        """Commands and deletions."""
        self.commit_s = Histogram(SECONDS)
        self.commit_entries = Histogram(ENTRIES)
        self.failed_commits = 0
