"""The buckets of a query, as SQL: of one width by arithmetic, of several by a table of their edges."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import apsw
import msgspec

from twincast.journal.sqlite.history.layout import WIDTHS_S
from twincast.journal.sqlite.history.paced import run as execute
from twincast.journal.sqlite.history.ranges import SECOND_US, Range

Span = tuple[int, int, int]
"""A bucket, and a range within it."""
_REACH_US = max(WIDTHS_S) * SECOND_US
EDGE_TABLE = """
create temp table edge (
    query integer not null, start_us integer not null, bucket integer not null, primary key (query, start_us)
) without rowid;
"""
"""What a connection needs for buckets of several widths, as those of a calendar are."""


class Buckets:
    """The buckets of a query, as SQL."""

    def __init__(self, edges: Sequence[int], query: int) -> None:
        """Take their edges. If these are no `range`, the table `edge` has them, of this query."""
        self.edges = edges
        self.bindings = {"origin": edges[0], "width": edges.step} if isinstance(edges, range) else {"query": query}
        self.is_even = isinstance(edges, range)
        self._query = query

    @contextmanager
    def on(self, db: apsw.Connection, extent: Range | None) -> Iterator[None]:
        """Let statements on a connection find the buckets meanwhile, of times in an extent; of all times, if None."""
        if self.is_even:
            yield
            return
        first, last = 0, len(self.edges)
        if extent is not None:  # and what rollups reach beyond it
            first = max(0, bisect_right(self.edges, extent[0] - _REACH_US) - 1)
            last = bisect_right(self.edges, extent[1] + _REACH_US)
        numbered = msgspec.json.encode(list(enumerate(self.edges[first:last], first))).decode()
        execute(
            db, "insert into temp.edge select ?, value ->> 1, value ->> 0 from json_each(?)", (self._query, numbered)
        )
        try:
            yield
        finally:
            execute(db, "delete from temp.edge where query = ?", (self._query,))

    def of(self, time: str) -> str:
        """Return the SQL for the number of the bucket that a time is in, which is in one of them."""
        if self.is_even:
            return f"({time} - :origin) / :width"
        return (
            f"(select bucket from temp.edge where query = :query and start_us <= {time} order by start_us desc limit 1)"
        )

    def spans(self, extent: Range) -> list[Span]:
        """Return the buckets that a range is in, each with what it has of that."""
        edges = self.edges
        first, last = (bisect_right(edges, time) - 1 for time in (extent[0], extent[1] - 1))
        return [
            (number, max(edges[number], extent[0]), min(edges[number + 1], extent[1]))
            for number in range(first, last + 1)
        ]

    def is_in_one(self, start: str, width: str) -> str:
        """Return the SQL for whether all of a span is in one bucket."""
        if self.is_even:
            return f"({start} - :origin) / :width = ({start} + {width} - 1 - :origin) / :width"
        return (
            f"not exists (select 1 from temp.edge where query = :query"
            f" and start_us > {start} and start_us < {start} + {width})"
        )
