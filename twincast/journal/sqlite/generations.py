"""The runs on a log, see core/lineage: the table `generation` of an SQLite journal."""

import secrets
from collections.abc import Sequence

import apsw

from twincast.core.lineage import GENERATIONS_MAX, Generation

_READ = "select name, begin_seq from generation order by id"
_STORE = """
insert into generation (name, begin_seq, began_at_utc) values (?, ?, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))
"""
_CLEAR = "delete from generation where id <= (select max(id) from generation) - ?"


def read(db: apsw.Connection) -> list[Generation]:
    """Return the runs that are known, oldest first."""
    return [Generation(*row) for row in db.execute(_READ)]


def has_any(db: apsw.Connection) -> bool:
    """Return whether a run has begun."""
    return bool(db.execute("select exists (select 1 from generation)").get)


def new(known: Sequence[Generation], begin_seq: int) -> Generation:
    """Return a run that begins behind a position, of a name that none of the known ones has."""
    taken = {generation.name for generation in known}
    while (name := secrets.token_hex(4)) in taken:
        pass
    return Generation(name, begin_seq)


def store(db: apsw.Connection, generation: Generation) -> None:
    """Note for good that a run has begun. Within a transaction.

    Only the oldest runs are forgotten: without one between two others, the end of the one before it would be wrong.
    """
    db.execute(_STORE, generation)
    db.execute(_CLEAR, (GENERATIONS_MAX,))
