"""Copies a span of the log out of a journal, in short reads: one that is open for long keeps the -wal from ending.

Rows of the log do not change, so the blocks need not be of one moment. The copy is thrown away once its partition is
built; it has times as numbers already, and their texts only where these are not what the numbers give.
"""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw

from twincast.errors import JournalUnusable
from twincast.journal.sqlite.entries import LOG_COLUMNS
from twincast.journal.sqlite.history.layout import BELIEVED_AHEAD_US, KINDS, READING, TICK_ENTRIES, address_of
from twincast.journal.sqlite.history.paced import Share, run
from twincast.journal.sqlite.history.times import add_time_us, us_of
from twincast.machine import OWNER_ALONE

BLOCK_ENTRIES = TICK_ENTRIES
"""Read at once, in one to three milliseconds; each is a tick of the partition."""
_BUSY_TIMEOUT_MS = 10_000
_CACHE_KIB = 1_024
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
"""SQLite makes no file: one that was removed, as the server has ended, is not made anew, and for everybody to read."""

_COLUMNS = """(
    seq integer primary key, type text, device_id text, value text, command text, source text, stored_us integer,
    stamped text,        -- a stored time in another form
    measured_us integer, -- if believed
    claimed text         -- a measured time that is not
)
"""
_TABLES = f"""
create table log {_COLUMNS};
create table twin {_COLUMNS};
create table tick (first_seq integer primary key, min_us integer, max_us integer);
"""


def timed(rows: str) -> str:
    """Return the SQL for rows of the log as the copy has them, from such as the log has."""
    return f"""
select seq, type, device_id, value, command, source, stored_us, stamped,
       iif(measured_us <= stored_us + {BELIEVED_AHEAD_US}, measured_us, null),
       iif(measured_us <= stored_us + {BELIEVED_AHEAD_US}, null, measured_at_utc)
from (
    select *, coalesce(us, time_us(timestamp_utc)) as stored_us, iif(us is null, timestamp_utc, null) as stamped
    from (
        select *, {us_of("timestamp_utc")} as us,
               iif(measured_at_utc is null, null, {us_of("measured_at_utc")}) as measured_us
        from ({rows}) limit -1
    )
)
"""


_OF_BLOCK = "from hot.log where seq between ? and ?"
_PLAIN = f"""
insert into log select seq, type, device_id, value, command, source, {us_of("timestamp_utc")}, null, null,
                       measured_at_utc {_OF_BLOCK}
"""
"""Enough for a block of readings that claim no time; half the work."""
_HAS_OTHERS = """
select exists (select 1 from log where seq between ? and ? and (stored_us is null or claimed is not null))
"""
_NOT_PLAIN = "delete from log where seq between ? and ?"
_LOG = f"insert into log {timed(f'select {LOG_COLUMNS} {_OF_BLOCK}')}"
_TICK = "insert into tick select min(seq), min(stored_us), max(stored_us) from log where seq between ? and ?"
# Twins that have not changed since; what the others were before is not known any more.
_TWINS = f"""
insert into twin {
    timed(f'''
    select seq, '{KINDS[READING]}' as type, device_id, value, null as command, updated_at_utc as timestamp_utc, source,
           measured_at_utc
    from hot.checkpoint where device_id > ? order by device_id limit {BLOCK_ENTRIES}
''')
} where seq < ?
"""

_TWINS_BEFORE = f"""
insert into twin {
    timed(f'''
    select seq, '{KINDS[READING]}' as type, device_id, value, null as command, updated_at_utc as timestamp_utc, source,
           measured_at_utc
    from hot.twin_before
''')
}
"""


def copy_span(journal: str, copy: str, first: int, last: int, *, with_twins: bool, share: float = 1) -> None:
    """Copy the entries of a span, and rest between reads, never within one.

    Args:
        journal: its file.
        copy: a file that is made anew.
        first: the first entry of the span.
        last: its last entry.
        with_twins: copy also the twins from before the span, as far as they are known.
        share: how much of a core this takes.

    Raises:
        JournalUnusable: the journal does not have all of the span.
        apsw.Error: a disk does not give or take it.
    """
    pace = Share(share)
    with closing(_new_copy(copy)) as db:
        run(db, "attach ? as hot", (f"{Path(journal).absolute().as_uri()}?mode=ro",))
        for start in range(first, last + 1, BLOCK_ENTRIES):
            block = start, min(last, start + BLOCK_ENTRIES - 1)
            run(db, _PLAIN, block)
            if db.changes() != block[1] - block[0] + 1:
                raise JournalUnusable(f"the log from {block[0]} to {block[1]} is not whole")
            if db.execute(_HAS_OTHERS, block).get:
                run(db, _NOT_PLAIN, block)
                run(db, _LOG, block)
            run(db, _TICK, block)
            pace.rest()
        if with_twins:
            _copy_twins(db, first, pace)


def copy_parts(sources: Sequence[str], copy: str, spans: Sequence[tuple[int, int]]) -> bool:
    """Copy the entries of neighbouring partitions, and the twins from before the first one.

    Args:
        sources: their files, oldest first.
        copy: a file that is made anew.
        spans: of each, its first and last entry.

    Returns:
        Whether the twins are all that there were.

    Raises:
        JournalUnusable: a partition does not have all of its span.
        apsw.Error: a disk does not give or take it.
    """
    is_whole = False
    with closing(_new_copy(copy)) as db:
        for number, (source, (first, last)) in enumerate(zip(sources, spans, strict=True)):
            run(db, "attach ? as hot", (address_of(source),))
            if number == 0:
                run(db, _TWINS_BEFORE)
                is_whole = db.execute("select value from hot.about where name = 'state_is_whole'").get == "1"
            for start in range(first, last + 1, BLOCK_ENTRIES):
                block = start, min(last, start + BLOCK_ENTRIES - 1)
                run(db, _LOG, block)
                if db.changes() != block[1] - block[0] + 1:
                    raise JournalUnusable(f"the partition from {first} to {last} is not whole")
                run(db, _TICK, block)
            run(db, "detach hot")
    return is_whole


def _new_copy(copy: str) -> apsw.Connection:
    """Return a new file for a copy, open, with its tables."""
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ALONE))
    db = apsw.Connection(copy, flags=_FLAGS)
    for pragma in "journal_mode = off", "synchronous = off", f"cache_size = {-_CACHE_KIB}":
        run(db, f"pragma main.{pragma}")
    add_time_us(db)
    db.set_busy_timeout(_BUSY_TIMEOUT_MS)
    run(db, _TABLES)
    return db


def _copy_twins(db: apsw.Connection, first: int, pace: Share) -> None:
    after: str | None = ""
    while after is not None:
        run(db, _TWINS, (after, first))
        after = db.execute(
            "select max(device_id) from (select device_id from hot.checkpoint where device_id > ?"
            f" order by device_id limit {BLOCK_ENTRIES})",
            (after,),
        ).get
        pace.rest()
