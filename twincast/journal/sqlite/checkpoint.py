"""The checkpoint: the state as of a position, so that a start replays no more of the log than what came since.

It has the newest reading of each device, and when devices were deleted, for a reading from before makes none anew.
"""

from typing import Final

import apsw
from msgspec import Raw

from twincast.core.lateness import DELETIONS_MAX, clock_of
from twincast.core.model import Source, Twin

SEQ: Final = "checkpoint_seq"
"""In the table `meta`, up to where it has everything."""

_TAKE = """
insert or replace into checkpoint
select device_id, value, timestamp_utc, source, seq, measured_at_utc from log where type = 'data_update' and seq in (
    select max(seq) from log where seq > ?1 and seq <= ?2 and type in ('data_update', 'deleted') group by device_id
)
"""

_HAS_DELETIONS = "select exists (select 1 from log where seq > ? and seq <= ? and type = 'deleted')"

# Runs before the checkpoint takes the newest readings: it removes all deleted devices, also those that came again.
_FORGET_DELETED = """
delete from checkpoint where device_id in (
    select device_id from log where seq > ?1 and seq <= ?2 and type = 'deleted'
)
"""

# Of the other columns, SQLite takes those of the row with the greatest seq.
_NOTE_DELETIONS = """
insert or replace into deletion
select device_id, timestamp_utc, max(seq) from log where seq > ?1 and seq <= ?2 and type = 'deleted' group by device_id
"""
_KEEP_DELETIONS = """
delete from deletion where seq <= (select seq from deletion order by seq desc limit 1 offset ?)
"""
_DELETIONS = """
select device_id, deleted_at_utc from (
    select device_id, deleted_at_utc, max(seq) as seq from (
        select device_id, deleted_at_utc, seq from deletion
        union all
        select device_id, timestamp_utc, seq from log where seq > ?1 and type = 'deleted'
    ) group by device_id order by seq desc limit ?2
) order by seq
"""


def take(db: apsw.Connection, since: int, until: int, *, notes_deletions: bool) -> None:
    """Fold the log between two positions into the checkpoint, which is as of the first. Within a transaction.

    Args:
        db: the connection.
        since: the first position.
        until: the second one.
        notes_deletions: whether to remember when devices were deleted; else that is stored beside the entries.
    """
    span = (since, until)
    if db.execute(_HAS_DELETIONS, span).get:
        db.execute(_FORGET_DELETED, span)
        if notes_deletions:
            db.execute(_NOTE_DELETIONS, span)
            keep_deletions(db)
    db.execute(_TAKE, span)
    move_to(db, until)


def move_to(db: apsw.Connection, seq: int) -> None:
    """Say up to where it has everything. Within a transaction."""
    db.execute("update meta set value = ? where name = ?", (str(seq), SEQ))


def keep_deletions(db: apsw.Connection) -> None:
    """Forget the oldest deletions of too many. Within a transaction."""
    db.execute(_KEEP_DELETIONS, (DELETIONS_MAX,))


def deletions(db: apsw.Connection, since: int) -> dict[str, str]:
    """Return when devices were deleted, oldest first, with what the log has behind the checkpoint's position."""
    return dict(db.execute(_DELETIONS, (since, DELETIONS_MAX)))


def twins(db: apsw.Connection) -> dict[str, Twin]:
    """Return the newest state of each device, with what the log has behind the checkpoint."""
    rows = db.execute("select device_id, value, updated_at_utc, seq, source, measured_at_utc from twin")
    return {device: _twin(*columns) for device, *columns in rows}


def _twin(value: str, at_utc: str, seq: int, source: Source, measured_at_utc: str | None) -> Twin:
    twin = Twin(Raw(value.encode()), at_utc, seq, source)
    if measured_at_utc is not None:
        twin.measured_at_utc = measured_at_utc
        twin.clock = clock_of(measured_at_utc, at_utc)
    return twin
