"""Exact percentiles: all numbers of a series, sorted by SQLite in a table that only its connection sees.

In Python, sorting a million numbers would hold the interpreter's lock for a second.
"""

from collections.abc import Mapping, Sequence

import apsw
import msgspec

from twincast.errors import TooMuch
from twincast.journal.sqlite.history.paced import run
from twincast.journal.sqlite.history.turns import Steps

SORTED_ENTRIES = 10_000
"""Of about so many numbers the percentiles are found by one statement."""
NUMBER_TABLE = """
create temp table number (
    query integer not null, bucket integer not null, x real not null, seq integer not null,
    primary key (query, bucket, x, seq)
) without rowid;
"""
_ADD = "insert into number select ?, value ->> 0, value ->> 1, value ->> 2 from json_each(?) order by 2, 3, 4"
_PLACED = """
select '[' || coalesce(group_concat('[' || n.bucket || ',' || n.place || ',' || format('%!.17g', n.x) || ']', ','), '')
    || ']'
from (
    select bucket, x, row_number() over (partition by bucket order by x) - 1 as place from number
    where query = :query and bucket between :first and :last
) n
where (n.bucket, n.place) in (select value ->> 0, value ->> 1 from json_each(:places))
"""
_FAR = "select x from number where query = ? and bucket = ? order by x limit 1 offset ?"
_decode = msgspec.json.Decoder(list[tuple[int, int, float]]).decode


class Percentiles:
    """The numbers of a query, one series at a time."""

    def __init__(self, db: apsw.Connection, query: int, most: int) -> None:
        """Begin.

        Args:
            db: a connection that has NUMBER_TABLE.
            query: its number.
            most: of so many numbers percentiles are found, in all series together.
        """
        self._db = db
        self._query = query
        self._most = most
        self._count = 0

    def add(self, numbers: str) -> None:
        """Take numbers of the series, `[bucket, number, seq]` each, as JSON.

        Raises:
            TooMuch: these are too many.
        """
        self._db.execute(_ADD, (self._query, numbers))
        self._count += self._db.changes()
        if self._count > self._most:
            raise TooMuch(
                f"percentiles are taken of at most {self._most:,} numbers, and here are more;"
                " ask for less time, or for avg, min and max"
            )

    def of(self, counts: Mapping[int, int], fractions: Sequence[float]) -> Steps[dict[tuple[int, float], float]]:
        """Return the percentiles of the series by bucket and fraction, interpolated as SQL's percentile_cont.

        Args:
            counts: how many numbers each bucket has, rising by bucket.
            fractions: which.
        """
        found: dict[tuple[int, float], float] = {}
        group: list[int] = []
        size = 0
        for bucket, count in counts.items():
            if group and size + count > SORTED_ENTRIES:
                found |= self._of_group(group, counts, fractions)
                yield
                group, size = [], 0
            group.append(bucket)
            size += count
        if group:
            found |= self._of_group(group, counts, fractions)
        return found

    def close(self) -> None:
        """Let go of the numbers, before the next series too."""
        run(self._db, "delete from number where query = ?", (self._query,))

    def _of_group(
        self, group: Sequence[int], counts: Mapping[int, int], fractions: Sequence[float]
    ) -> dict[tuple[int, float], float]:
        wanted = {(bucket, place) for bucket in group for each in fractions for place in _around(each, counts[bucket])}
        placed = self._placed(group, wanted, counts)
        found = {}
        for bucket in group:
            for each in fractions:
                below, above = (placed[bucket, place] for place in _around(each, counts[bucket]))
                place = each * (counts[bucket] - 1)
                found[bucket, each] = below if below == above else below + (above - below) * (place - int(place))
        return found

    def _placed(
        self, group: Sequence[int], wanted: set[tuple[int, int]], counts: Mapping[int, int]
    ) -> dict[tuple[int, int], float]:
        if counts[group[0]] > SORTED_ENTRIES:  # and it is alone: a step over so many is cheaper than to number them
            return {
                (bucket, place): self._db.execute(_FAR, (self._query, bucket, place)).get for bucket, place in wanted
            }
        which = {"query": self._query, "first": group[0], "last": group[-1]}
        text = self._db.execute(_PLACED, {**which, "places": msgspec.json.encode(sorted(wanted)).decode()}).get
        return {(bucket, place): x for bucket, place, x in _decode(text)}


def _around(fraction: float, count: int) -> tuple[int, int]:
    """Return the places of the two neighbours between which a fraction of the numbers lies."""
    below = int(fraction * (count - 1))
    return below, min(below + 1, count - 1)
