"""Up to where producers' numbered lines are stored, as an SQLite journal keeps it.

A commit appends a row for each producer in it, as it appends to the log: the rows of before would lie all over the
file. They are cleared away with the checkpoint.
"""

from collections.abc import Sequence
from typing import Any

import apsw

from twincast.core.producers import PRODUCERS_MAX, ProducerMark
from twincast.wire.messages import encode

_APPEND = """
insert into fence
select ?1 + (value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4 from jsonb_each(?2)
"""

# Of the other columns, SQLite takes those of the row with the greatest seq.
_NEWEST = "select who, producer, line, max(seq) as seq, missing from fence group by who, producer"

_READ = f"select * from (select * from ({_NEWEST}) order by seq desc limit ?) order by seq"

_CLEAR = f"delete from fence where seq not in (select seq from ({_NEWEST}) order by seq desc limit ?)"


def append(db: apsw.Connection, first_seq: int, marks: Sequence[ProducerMark]) -> None:
    """Store marks whose seqs count from `first_seq`; part of a transaction."""
    rows = [(mark.seq, mark.identity, mark.producer, mark.line, f"{mark.missing:x}") for mark in marks]
    db.execute(_APPEND, (first_seq, encode(rows).decode()))


def read(db: apsw.Connection) -> list[ProducerMark]:
    """Return the marks of the producers that wrote last, in the order of seq."""
    rows: list[Any] = db.execute(_READ, (PRODUCERS_MAX,)).fetchall()
    return [ProducerMark(who, producer, line, seq, int(missing, 16)) for who, producer, line, seq, missing in rows]


def clear(db: apsw.Connection) -> None:
    """Remove what newer marks have taken the place of, and producers beyond those that wrote last."""
    db.execute(_CLEAR, (PRODUCERS_MAX,))
