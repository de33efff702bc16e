"""The keys of updates that may come again: the table `receipt` of an SQLite journal."""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from twincast.core.idempotency import KEYS_MAX, WINDOW_ENTRIES, IdempotencyRecord
from twincast.wire.messages import encode

_APPEND = """
insert into receipt select value ->> 1, value ->> 2, value ->> 0, value ->> 3 from jsonb_each(?)
"""

_READ = "select key, first_seq, last_seq, digest from receipt where first_seq > ? order by first_seq desc limit ?"

# Those whose last entry is between two positions. The entries of one key are neighbours, so no other key is among
# them: at most one key begins up to the first position and ends after it.
_READ_BETWEEN = """
select key, first_seq, last_seq, digest from receipt
where first_seq >= coalesce((select max(first_seq) from receipt where first_seq <= ?1), 0)
  and first_seq <= ?2 and last_seq > ?1 and last_seq <= ?2
order by first_seq
"""

_CLEAR = "delete from receipt where first_seq <= ?"


def append(db: apsw.Connection, keys: Sequence[IdempotencyRecord]) -> None:
    """Store the keys of a batch; part of a transaction."""
    db.execute(_APPEND, (encode(keys).decode(),))


def read(db: apsw.Connection, newest_seq: int) -> list[IdempotencyRecord]:
    """Return the keys that still count where the log ends at a position, oldest first."""
    return _records(db.execute(_READ, (newest_seq - WINDOW_ENTRIES, KEYS_MAX)))[::-1]


def read_between(db: apsw.Connection, since: int, until: int) -> list[IdempotencyRecord]:
    """Return the keys of entries after `since`, up to and with `until`, oldest first."""
    return _records(db.execute(_READ_BETWEEN, (since, until)))


def clear(db: apsw.Connection, newest_seq: int) -> None:
    """Remove keys that no longer count where the log ends at a position."""
    db.execute(_CLEAR, (newest_seq - WINDOW_ENTRIES,))


def _records(rows: Iterable[tuple[Any, ...]]) -> list[IdempotencyRecord]:
    return [IdempotencyRecord(*row) for row in rows]
