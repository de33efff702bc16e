"""The schema of an SQLite journal, and how the files of older versions come to it. It is public: docs/journal.md."""

from collections.abc import Callable
from typing import Any

import apsw

from twincast.core.idempotency import WINDOW_ENTRIES, digest_of
from twincast.journal.sqlite.entries import entry_of

APPLICATION_ID = 0x5457494E  # "TWIN", where `file` and SQLite look for a file's kind
SCHEMA_VERSION = 10
COPY_OF = "copy_of"
"""In the table `meta`, of which shared log a file is the copy."""
MOVED_TO = "moved_to"
"""In the table `meta`, the URL of the journal that has this log now."""

_LOG = """
create table meta (name text primary key, value text not null) without rowid;
create table log (
    seq           integer primary key,  -- 1, 2, 3, ... without gaps
    type          text not null,        -- data_update, control, deleted, late or erased
    device_id     text not null,        -- of a control: its target
    value         text not null,        -- JSON; of a control: its args; of a deleted or erased: null
    command       text,                 -- of a control; of a deleted that erases: history
    timestamp_utc text not null,        -- ISO 8601
    source        text not null         -- rest, websocket, application or nats
);
create table checkpoint (               -- the state as of meta 'checkpoint_seq'
    device_id      text primary key,
    value          text not null,
    updated_at_utc text not null,
    source         text not null,
    seq            integer not null
) without rowid;
"""

_TWIN_BEFORE_MEASURED = """
create view twin as                     -- the state now: the checkpoint and what the log has since
    select device_id, value, updated_at_utc, source, seq from (
        select device_id, value, updated_at_utc, source, max(seq) as seq, type from (
            select device_id, value, updated_at_utc, source, seq, 'data_update' as type from checkpoint
            union all
            select device_id, value, timestamp_utc, source, seq, type from log
            where type in ('data_update', 'deleted')
              and seq > (select cast(value as integer) from meta where name = 'checkpoint_seq')
        ) group by device_id
    ) where type = 'data_update';
"""

_TWIN = """
create view twin as                     -- the state now: the checkpoint and what the log has since
    select device_id, value, updated_at_utc, source, seq, measured_at_utc from (
        select device_id, value, updated_at_utc, source, max(seq) as seq, measured_at_utc, type from (
            select device_id, value, updated_at_utc, source, seq, measured_at_utc, 'data_update' as type from checkpoint
            union all
            select device_id, value, timestamp_utc, source, seq, measured_at_utc, type from log
            where type in ('data_update', 'deleted')
              and seq > (select cast(value as integer) from meta where name = 'checkpoint_seq')
        ) group by device_id
    ) where type = 'data_update';
"""

_RECEIPTS = """
create table receipt (                  -- the keys of updates that may come again
    first_seq integer primary key,      -- the entries that were stored under the key
    last_seq  integer not null,
    key       text not null,
    digest    text not null             -- SHA-256 of what they say, its first half, in hexadecimal
);
"""

_ACCESS = """
create table access_key (               -- API keys; a revoked one stays, so that a login stays asked for
    id             text primary key,
    name           text not null,
    digest         text not null unique, -- SHA-256 of the secret, in hexadecimal
    grants         text not null,       -- JSON: patterns by action
    created_at_utc text not null,
    rate_per_s     real,                -- updates a second; null for the server's setting
    expires_s      integer,             -- seconds since 1970
    revoked_at_utc text
) without rowid;
create table audit (                    -- who did what
    id      integer primary key,
    at_utc  text not null,
    who     text not null,              -- key:ID, jwt:SUBJECT, anonymous, or local:USER
    address text not null,
    action  text not null,              -- command, delete, keys add, keys revoke, keys clear, pair, paired
    target  text not null,
    detail  text not null,
    seq     integer                     -- of a command, a deletion: where it is in the log
);
insert into meta values ('keyring_version', '1');
"""

_GENERATIONS = """
create table generation (               -- the runs of a server on this file, the newest 10,000
    id           integer primary key,
    name         text not null unique,  -- random; '' for what was written before there were any
    begin_seq    integer not null,      -- the newest entry when it began
    began_at_utc text not null
);
"""

_FENCE = """
create table fence (                    -- up to which numbered line a producer's are stored: its newest row says it
    seq      integer primary key,       -- where that line is in the log
    who      text not null,             -- whose producer: key:ID, jwt:SUBJECT; '' without a login
    producer text not null,
    line     integer not null,
    missing  text not null              -- hexadecimal: bit n says that line `line - 1 - n` is not stored
);
"""

_PAIRING = """
create table pairing (                  -- codes by which devices get an API key; they are kept for a day
    digest     text primary key,        -- of the code, by scrypt, in hexadecimal
    name       text not null,           -- of the key that it becomes, as the three below
    grants     text not null,
    rate_per_s real,
    lives_s    integer,                 -- from when it is made; null for no end
    until_s    integer not null,        -- of the code: seconds since 1970
    who        text not null,           -- who made it
    is_used    integer not null
) without rowid;
"""

_SERVERS = """
alter table audit add column server text; -- of several on a shared log, the one that took it
"""

_MEASURED = """
alter table log add column measured_at_utc text;        -- of a reading that says when it was measured: ISO 8601, UTC
alter table checkpoint add column measured_at_utc text;
create table deletion (                 -- when devices were deleted, as of the checkpoint: the 100,000 last ones
    device_id      text primary key,
    deleted_at_utc text not null,
    seq            integer not null
) without rowid;
create index deletion_by_seq on deletion (seq);
"""

_PARTS = """
create table part (                     -- the closed partitions of the log: files in the folder beside the journal
    first_seq     integer primary key,
    last_seq      integer not null,
    file          text not null,
    min_us        integer not null,     -- the times that count, in microseconds since 1970: measured, else stored
    max_us        integer not null,
    stored_min_us integer not null,
    stored_max_us integer not null,
    entries       integer not null,
    bytes         integer not null,
    sha256        text not null,
    kind          text not null,        -- closed
    closed_at_utc text not null
);
"""

_ERASURES = """
create table erasure (                  -- deletions of histories that are not carried out yet, by this file's server
    seq        integer primary key,     -- of the deletion in the log: what stands before it is erased
    device_id  text not null,
    at_utc     text not null,
    is_erased  integer not null,        -- whether nothing of it is in the file and the partitions any more
    stream_seq integer                  -- of a shared log: the message that brought it, while its stream has that
);
"""

_RECEIPTS_WITH_CRC = """
create table receipt (first_seq integer primary key, last_seq integer not null, key text not null, digest integer)
"""
"""As version 2 had it."""


def create(db: apsw.Connection, log: str) -> None:
    """Make an empty database the journal of a log with this name."""
    with db:
        db.pragma("application_id", APPLICATION_ID)
        db.pragma("user_version", SCHEMA_VERSION)
        db.execute(
            _LOG
            + _RECEIPTS
            + _ACCESS
            + _GENERATIONS
            + _FENCE
            + _PAIRING
            + _SERVERS
            + _MEASURED
            + _TWIN
            + _PARTS
            + _ERASURES
        )
        db.execute(
            "insert into meta values ('epoch', ?), ('checkpoint_seq', '0'),"
            " ('created_at_utc', strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))",
            (log,),
        )


def upgrade(db: apsw.Connection, version: int) -> None:
    """Bring a journal of an older version to this one, or leave it as it is if that cannot be."""
    with db:
        for older in range(version, SCHEMA_VERSION):
            _UPGRADES[older](db)
        db.pragma("user_version", SCHEMA_VERSION)


def _to_2(db: apsw.Connection) -> None:
    db.execute(_RECEIPTS_WITH_CRC)


def _to_3(db: apsw.Connection) -> None:
    db.execute(_ACCESS)


def _to_4(db: apsw.Connection) -> None:
    db.execute(_GENERATIONS)
    # Positions that are out there name the log alone. They count up to where the first named generation begins: here.
    db.execute("insert into generation values (1, '', 0, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))")
    _digest_receipts(db)
    db.execute("drop view twin;" + _TWIN_BEFORE_MEASURED)  # there were no deletions


def _to_5(db: apsw.Connection) -> None:
    db.execute(_FENCE)


def _to_6(db: apsw.Connection) -> None:
    db.execute(_PAIRING)


def _to_7(db: apsw.Connection) -> None:
    db.execute(_SERVERS)


def _to_8(db: apsw.Connection) -> None:
    # Deletions from before the checkpoint are not looked for, in a log of any size: nothing claimed an older time then.
    db.execute("drop view twin;" + _MEASURED + _TWIN)


def _to_9(db: apsw.Connection) -> None:
    db.execute(_PARTS)


def _to_10(db: apsw.Connection) -> None:
    db.execute(_ERASURES)


_UPGRADES: dict[int, Callable[[apsw.Connection], None]] = {
    1: _to_2,
    2: _to_3,
    3: _to_4,
    4: _to_5,
    5: _to_6,
    6: _to_7,
    7: _to_8,
    8: _to_9,
    9: _to_10,
}
"""By version, what brings it to the next one."""


def _digest_receipts(db: apsw.Connection) -> None:
    """Compare keys by a real digest from now on: the log has what they were given for.

    A key whose entries somebody has deleted gets a digest that nothing has: it is refused, neither dropped nor doubled.
    """
    old: list[Any] = db.execute(
        "select first_seq, last_seq, key from receipt where first_seq > (select max(seq) from log) - ?",
        (WINDOW_ENTRIES,),
    ).fetchall()
    db.execute("drop table receipt;" + _RECEIPTS)
    for first_seq, last_seq, key in old:
        rows = db.execute(
            "select seq, type, device_id, value, command, timestamp_utc, source, null from log"
            " where seq between ? and ? order by seq",
            (first_seq, last_seq),
        )
        entries = [entry_of(row, "") for row in rows]
        digest = digest_of(entries) if len(entries) == last_seq - first_seq + 1 else ""
        db.execute("insert into receipt values (?, ?, ?, ?)", (first_seq, last_seq, key, digest))
