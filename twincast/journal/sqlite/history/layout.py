"""The layout of a closed partition: a span of the log, clustered by device and time. It is public: docs/journal.md.

A partition is a file that stands alone and never changes. Its tables have numbers where the log has texts; its view
`log` has the columns of the journal's log, and their texts byte for byte.
"""

import os
from urllib.parse import quote

import apsw

from twincast.core.lateness import AHEAD_MAX_S
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.failing import unavailable_if_failing

APPLICATION_ID = 0x54574950  # "TWIP", as a journal has "TWIN"
LAYOUT_VERSION = 1

READING, COMMAND, DELETION, LATE, ERASED = range(5)
KINDS = {READING: "data_update", COMMAND: "control", DELETION: "deleted", LATE: "late", ERASED: "erased"}
"""By the numbers of the table `kind`, the types of the log; kept for good. A reading has 0, which takes no byte."""
SOURCES = {0: "websocket", 1: "rest", 2: "application", 3: "nats"}
"""By the numbers of the table `source`. The first two take no byte; a partition may have more, from 4 on."""

WIDTHS_S = (1, 10, 60, 600, 3_600, 21_600, 86_400)
"""Rollups: each width divides the next one, so each is made from the one before."""
LASTING_WIDTHS_S = (3_600, 86_400)
"""Of what is left of a partition that is kept no longer."""
BELIEVED_AHEAD_US = round(AHEAD_MAX_S * 1e6)
"""How far ahead of its stored time a measured time may be to be believed."""
TICK_ENTRIES = 1_000
ROOT_PATH = 1
"""The number of the path `$`: the whole value."""

_CACHE_KIB = 1_024

# Every column that a join or a condition compares has a type: without one SQLite does not use an index on it.
TABLES = """
create table device (id integer primary key, name text not null unique);  -- and targets of commands
create table kind (id integer primary key, type text not null);           -- as the log has it
create table source (id integer primary key, name text not null unique);
create table path (                     -- where in a value a number stands
    id      integer primary key,
    key     text not null unique,       -- as json_tree writes it: $."motor"."rpm"
    pointer text not null               -- JSON Pointer: /motor/rpm
);
create table entry (
    device    integer not null,
    at_us     integer not null,         -- the time that counts: measured if believed, else stored; from 1970 on
    seq       integer not null,
    stored_us integer,                  -- only where a measured time is believed, which is then at_us
    source    integer not null,
    kind      integer not null,
    value     text not null,            -- as in the log
    primary key (device, at_us, seq)
) without rowid;
create table command (seq integer primary key, name text not null);  -- of kind 1; of kind 2: its scope, if any
create table claimed (seq integer primary key, measured_at_utc text not null);  -- measured times not believed
create table stamped (seq integer primary key, timestamp_utc text not null);  -- stored times in another form than ours
create table unordered (device integer primary key);  -- whose times went back: its twin is not that of the last at_us
create table tick (                     -- for each 1,000 entries, from first_seq on
    first_seq integer primary key,
    min_us    integer not null,         -- the stored times among them
    max_us    integer not null
);
create table state (                    -- each device's twin before the first entry here; columns as in entry
    device    integer primary key,
    at_us     integer not null,
    seq       integer not null,
    stored_us integer,
    source    integer not null,
    value     text not null
);
create table rollup (                   -- the numbers of a device and path in [start_s, start_s + width_s) by at_us
    device  integer not null,
    path    integer not null,
    width_s integer not null,
    start_s integer not null,
    n       integer not null,
    sum     real,                       -- null if it is no number: of infinities of both signs
    min,                                -- integer or real, as it was in the value
    max,
    min_us  integer not null,           -- the first time of the minimum, of the maximum
    max_us  integer not null,
    primary key (device, path, width_s, start_s)
) without rowid;
create table about (name text primary key, value text not null) without rowid;  -- log, first_seq, last_seq,
                                        -- state_is_whole: 1, or 0 if twins before first_seq are not all known;
                                        -- has_measured: 1 if it has believed measured times
"""

BY_SEQ = "create index by_seq on entry (seq)"
IS_MARK = f"in ({COMMAND}, {DELETION})"
"""Of a kind: there are few of these, and an index of their own finds them among many readings."""
MARK_KINDS = {KINDS[COMMAND], KINDS[DELETION]}
MARKS = f"create index marks on entry (device, at_us, seq) where kind {IS_MARK}"
"""Partitions of before have none."""


def iso_of(us: str) -> str:
    """Return the SQL for the text of a time in microseconds, as the log has times. Right before 1970 too."""
    micros = f"(({us}) % 1000000 + 1000000) % 1000000"
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', (({us}) - {micros}) / 1000000, 'unixepoch') || printf('.%06d+00:00', {micros})"
    )


def views(*, has_claimed: bool, has_stamped: bool) -> str:
    """Return the statements that make the views; what a partition does not have costs its readers nothing.

    `log` has the columns of the journal's log, and `twin_before` the twins of `state` as the journal's view `twin`.
    """
    log_stored, log_measured = _times_of("entry", has_claimed=has_claimed, has_stamped=has_stamped)
    twin_stored, twin_measured = _times_of("state", has_claimed=has_claimed, has_stamped=has_stamped)
    return f"""
create view log as
select entry.seq as seq, kind.type as type, device.name as device_id, value,
       iif(kind in ({COMMAND}, {DELETION}), (select command.name from command where command.seq = entry.seq), null)
           as command,
       {log_stored} as timestamp_utc, source.name as source, {log_measured} as measured_at_utc
from entry join device on device.id = entry.device join kind on kind.id = entry.kind
     join source on source.id = entry.source;
create view twin_before as
select device.name as device_id, value, {twin_stored} as updated_at_utc, source.name as source, state.seq as seq,
       {twin_measured} as measured_at_utc
from state join device on device.id = state.device join source on source.id = state.source;
"""


def _times_of(table: str, *, has_claimed: bool, has_stamped: bool) -> tuple[str, str]:
    """Return the SQL for the texts of the stored and of the measured time of a row."""
    stored = iso_of("coalesce(stored_us, at_us)")
    measured = f"iif(stored_us is null, null, {iso_of('at_us')})"
    if has_stamped:
        stored = f"coalesce((select timestamp_utc from stamped where stamped.seq = {table}.seq), {stored})"
    if has_claimed:
        measured = f"coalesce((select measured_at_utc from claimed where claimed.seq = {table}.seq), {measured})"
    return stored, measured


def folder_of(journal: str) -> str:
    """Return the folder of a journal's partitions, made when the first one is."""
    return f"{os.path.realpath(journal)}-history"


def file_name(first_seq: int) -> str:
    """Return what the file of a partition is called."""
    return f"{first_seq:012}.db"


def summary_name(first_seq: int) -> str:
    """Return what the file of what is left of a partition is called."""
    return f"{first_seq:012}.rollup.db"


def address_of(path: str) -> str:
    """Return the URI by which SQLite opens a partition without locks: nothing changes it, or makes it anew."""
    return f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"


def open_partition(path: str, *, vfs: str | None = None) -> apsw.Connection:
    """Open a partition to be read. See `address_of`.

    Raises:
        JournalUnavailable: it is gone, is something else, of a newer layout, or the disk does not give it.
    """
    with unavailable_if_failing(path):
        db = apsw.Connection(address_of(path), flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI, vfs=vfs)
        try:
            kind, version = db.pragma("application_id"), db.pragma("user_version")
            if kind != APPLICATION_ID or version > LAYOUT_VERSION:
                raise JournalUnavailable(f"{path} is no partition of the log that this twincast reads")
            db.pragma("cache_size", -_CACHE_KIB)
        except BaseException:
            db.close(True)
            raise
    return db


def has_any(db: apsw.Connection, table: str) -> bool:
    """Return whether a table has a row."""
    return bool(db.execute(f"select exists (select 1 from {table})").get)


def oldest_stored_from(db: apsw.Connection, time_us: int, last_seq: int) -> int:
    """Return the first entry of a partition that was stored at a time or later; one behind its last if none was."""
    block = db.execute("select first_seq from tick where max_us >= ? order by first_seq limit 1", (time_us,)).get
    if block is None:
        return last_seq + 1
    sql = "select seq from entry where seq >= ? and coalesce(stored_us, at_us) >= ? order by seq limit 1"
    return int(db.execute(sql, (block, time_us)).get)


def newest_stored(db: apsw.Connection, max_us: int) -> int:
    """Return the first entry of a partition that has its greatest stored time."""
    block = db.execute("select first_seq from tick where max_us = ? order by first_seq limit 1", (max_us,)).get
    sql = "select seq from entry where seq >= ? and coalesce(stored_us, at_us) = ? order by seq limit 1"
    return int(db.execute(sql, (block, max_us)).get)
