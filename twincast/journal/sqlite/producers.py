"""Up to where producers' numbered lines are stored: the table `fence` of an SQLite journal.

A commit appends a row for each of its producers, as it appends to the log; to update the older rows instead would
write all over the file. The checkpoint clears them away.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from twincast.core.producers import PRODUCERS_MAX, ProducerMark
from twincast.wire.messages import encode

_APPEND = """
insert into fence
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from jsonb_each(?)
"""

# Of the other columns, SQLite takes those of the row with the greatest seq.
_NEWEST = "select who, producer, line, max(seq) as seq, missing from fence group by who, producer"

_READ = f"select * from (select * from ({_NEWEST}) order by seq desc limit ?) order by seq"

_READ_BETWEEN = "select who, producer, line, seq, missing from fence where seq > ? and seq <= ? order by seq"

_CLEAR = f"delete from fence where seq not in (select seq from ({_NEWEST}) order by seq desc limit ?)"


def append(db: apsw.Connection, marks: Sequence[ProducerMark]) -> None:
    """Store the marks of a batch; part of a transaction."""
    rows = [(mark.seq, mark.identity, mark.producer, mark.line, f"{mark.missing:x}") for mark in marks]
    db.execute(_APPEND, (encode(rows).decode(),))


def read(db: apsw.Connection) -> list[ProducerMark]:
    """Return the marks of the producers that wrote last, in the order of seq."""
    return _marks(db.execute(_READ, (PRODUCERS_MAX,)))


def read_between(db: apsw.Connection, since: int, until: int) -> list[ProducerMark]:
    """Return the marks of entries after `since`, up to and with `until`; perhaps not those that are out of date."""
    return _marks(db.execute(_READ_BETWEEN, (since, until)))


def clear(db: apsw.Connection) -> None:
    """Remove marks that newer ones replace, and producers beyond those that wrote last."""
    db.execute(_CLEAR, (PRODUCERS_MAX,))


def _marks(rows: Iterable[tuple[Any, ...]]) -> list[ProducerMark]:
    return [ProducerMark(who, producer, line, seq, int(missing, 16)) for who, producer, line, seq, missing in rows]
