"""The catalog of closed partitions: the table `part` of the journal. It alone says which files belong to the log."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from twincast.journal.sqlite.history.times import iso

CLOSED = "closed"
"""The kind of a partition that has all entries of its span."""
THINNED = "thinned"
"""The kind of one that lacks entries of devices whose history is kept for a shorter time."""
ROLLUP = "rollup"
"""The kind of what is left of one that is kept no longer: sums by hour and day, and no entries."""
_COLUMNS = (
    "first_seq, last_seq, file, min_us, max_us, stored_min_us, stored_max_us, entries, bytes, sha256, kind,"
    " closed_at_utc"
)


class Part(NamedTuple):
    """A closed partition, as the catalog has it."""

    first_seq: int
    last_seq: int
    file: str
    """Its name in the folder of partitions."""
    min_us: int
    """The first time that counts of its entries, in microseconds since 1970."""
    max_us: int
    stored_min_us: int
    """The first time at which any of its entries was stored."""
    stored_max_us: int
    entries: int
    """How many it has; of what is left of one, how many it had."""
    bytes: int
    sha256: str
    kind: str
    closed_at_utc: str

    @property
    def oldest_at_utc(self) -> str:
        """The first time at which any of its entries was stored, as the log has times."""
        return iso(self.stored_min_us)

    @property
    def newest_at_utc(self) -> str:
        """The last time at which any of its entries was stored."""
        return iso(self.stored_max_us)


def parts(db: apsw.Connection, journal: str = "main") -> list[Part]:
    """Return all of a journal's partitions, oldest first.

    Args:
        db: a connection.
        journal: the name by which it has the journal attached.

    Raises:
        apsw.Error: the disk does not give them.
    """
    return [Part(*row) for row in db.execute(f"select {_COLUMNS} from {journal}.part order by first_seq")]


def of_log(parts: Iterable[Part]) -> list[Part]:
    """Return the partitions that have entries."""
    return [part for part in parts if part.kind != ROLLUP]


def summaries(parts: Iterable[Part]) -> list[Part]:
    """Return what is left of partitions that are kept no longer."""
    return [part for part in parts if part.kind == ROLLUP]


def has_parts(db: apsw.Connection) -> bool:
    """Return whether a database is a journal whose version has a catalog."""
    return bool(db.execute("select count(*) from sqlite_schema where type = 'table' and name = 'part'").get)


def add(db: apsw.Connection, part: Part) -> None:
    """Make a file part of the log, perhaps in place of one that is gone. It must be on the disk."""
    db.execute(f"insert or replace into part ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", part)


def replace(db: apsw.Connection, part: Part) -> None:
    """Put a file in the place of those that have its span. It must be on the disk; only then may they go."""
    db.execute("delete from part where first_seq >= ? and last_seq <= ?", (part.first_seq, part.last_seq))
    add(db, part)


def remove(db: apsw.Connection, parts: Iterable[Part]) -> None:
    """Take partitions out of the log. Their files may go once that is on the disk."""
    db.executemany("delete from part where first_seq = ? and file = ?", [(part.first_seq, part.file) for part in parts])


def holding(db: apsw.Connection, seq: int) -> Part | None:
    """Return the partition that has an entry."""
    row = db.execute(
        f"select {_COLUMNS} from part where first_seq <= ?1 and last_seq >= ?1 and kind = '{CLOSED}'"
        " order by first_seq desc limit 1",
        (seq,),
    ).fetchone()
    return None if row is None else Part(*row)


def reaches_back_to(parts: Sequence[Part], hot_since: int) -> int:
    """Return the position behind which the log has every entry up to the newest.

    So it is the position of the newest entry that is not there any more, or not whole: dropped, thinned, or in a file
    that is gone. What lies before it has a hole behind it.

    Args:
        parts: its partitions whose files are there, oldest first.
        hot_since: the position before the oldest entry that is in the journal itself.
    """
    since = hot_since
    for part in reversed(of_log(parts)):
        if part.kind != CLOSED or part.last_seq < since:
            break
        since = min(since, part.first_seq - 1)
    return since
