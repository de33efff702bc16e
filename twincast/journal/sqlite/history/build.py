"""Makes the file of a partition from a copied span of the log, by a handful of statements.

Each is a single one over the whole span: a thread asks for the interpreter's lock at each row that comes to Python.
"""

import os
from contextlib import closing
from typing import NamedTuple

import apsw

from twincast.errors import JournalUnusable
from twincast.journal.sqlite.history.layout import (
    APPLICATION_ID,
    BY_SEQ,
    DELETION,
    KINDS,
    LAYOUT_VERSION,
    MARKS,
    READING,
    SOURCES,
    TABLES,
    address_of,
    has_any,
    views,
)
from twincast.journal.sqlite.history.paced import Share, run
from twincast.journal.sqlite.history.rollup import pointer_of, roll_up
from twincast.journal.sqlite.history.span import timed
from twincast.journal.sqlite.history.times import add_function, add_time_us
from twincast.machine import OWNER_ALONE

_CACHE_KIB = 4_096
_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
"""Without leave to make the file, as in `span`."""
_KIND = f"case type {' '.join(f'when {name!r} then {number}' for number, name in KINDS.items())} end"
_TWIN_KINDS = f"({READING}, {DELETION})"
"""What makes a device's twin, and what ends it."""

# A command's target is a device here, too. In the order of names, so that devices of one prefix are neighbours.
_DEVICES = """
insert into device (name)
select distinct device_id from (select device_id from copy.log union all select device_id from copy.twin) order by 1
"""
_SOURCES = "insert or ignore into source (name) select distinct source from copy.log union select source from copy.twin"

_ENTRIES = f"""
insert into entry
select d.id, coalesce(measured_us, stored_us), seq, iif(measured_us is null, null, stored_us), s.id, {_KIND}, value
from copy.log cross join device d on d.name = device_id cross join source s on s.name = source
order by 1, 2, 3
"""
_STATE = """
insert into state
select d.id, coalesce(measured_us, stored_us), seq, iif(measured_us is null, null, stored_us), s.id, value
from copy.twin cross join device d on d.name = device_id cross join source s on s.name = source
"""
_COMMANDS = "insert into command select seq, command from copy.log where command is not null"
_CLAIMED, _STAMPED = (
    f"insert into {name} select seq, {name} from (select * from copy.log union all select * from copy.twin)"
    f" where {name} is not null"
    for name in ("claimed", "stamped")
)
_TICKS = "insert into tick select * from copy.tick"
# A clock that was set back, or measured times: then the order of a device's times may not be that of its entries.
_MAY_BE_UNORDERED = """
select exists (select 1 from copy.log where measured_us is not null)
    or exists (select 1 from copy.log a join copy.log b on b.seq = a.seq + 1 where b.stored_us < a.stored_us)
"""
_UNORDERED = f"""
insert into unordered select distinct device from (
    select device, seq, lag(seq) over (partition by device order by at_us, seq) as before
    from entry where kind in {_TWIN_KINDS}
) where before > seq
"""

_NO_TWINS = "delete from copy.twin"
# Of the partition before: the newest of each device that makes or ends its twin, one seek each; where times went back,
# by a look at all; and the twins from before it that it left as they were.
_TWINS_OF_BEFORE = "insert into copy.twin" + timed(f"""
with newest (seq) as materialized (
    select iif(id in (select device from before.unordered),
        (select max(seq) from before.entry where device = id and kind in {_TWIN_KINDS}),
        (select seq from before.entry where device = id and kind in {_TWIN_KINDS}
         order by at_us desc, seq desc limit 1))
    from before.device
)
select log.seq, type, device_id, value, command, timestamp_utc, source, measured_at_utc
from newest cross join before.log on log.seq = newest.seq where type = '{KINDS[READING]}'
union all
select seq, '{KINDS[READING]}', device_id, value, null, updated_at_utc, source, measured_at_utc
from before.twin_before where device_id not in (
    select name from before.device where id in (select device from before.entry where kind in {_TWIN_KINDS})
)
""")


_READ_ONLY = {"before", "old"}
_IS_WHOLE_BEFORE = "select value from before.about where name = 'state_is_whole'"


class Built(NamedTuple):
    """A partition's file that is whole, but perhaps not yet on the disk."""

    entries: int
    min_us: int
    max_us: int
    stored_min_us: int
    stored_max_us: int


def build(
    copy: str,
    path: str,
    first: int,
    last: int,
    *,
    log: str,
    before: str | None = None,
    has_all_twins: bool | None = None,
    share: float = 1,
) -> Built:
    """Make the file of a span of the log.

    Args:
        copy: a database whose table `log` is the span, and `twin` the state before it as far as it is known.
        path: where the file is made; what is there is replaced.
        first: the first entry of the span.
        last: its last entry.
        log: the name of the log.
        before: the file of the partition that ends before `first`, from which the state comes, instead of `twin`.
        has_all_twins: whether `twin` has all that there were; None if only the beginning of the log says so.
        share: how much of a core this takes.

    Raises:
        JournalUnusable: the copy is not that span.
        apsw.Error: the disk takes no more, or gives something else than it was given.
    """
    for name in (path, f"{path}-scratch"):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ALONE))
    try:
        attached = {"copy": copy, "scratch": f"{path}-scratch"}
        if before is not None:
            attached["before"] = address_of(before)
        with closing(prepared(path, **attached)) as db:
            Share(share).pace(db)
            return _build(db, (first, last), log, before, has_all_twins)
    finally:
        os.unlink(f"{path}-scratch")


def prepared(path: str, **attached: str) -> apsw.Connection:
    """Open a file that is there, empty, without a rollback journal, for one that is not finished is thrown away.

    Args:
        path: the file.
        attached: others beside it, by the names that statements have for them; of a partition, its URI.
    """
    db = apsw.Connection(path, flags=_FLAGS)
    try:
        for name, file in attached.items():
            run(db, f"attach ? as {name}", (file,))
        for name in ("main", *attached):
            if name not in _READ_ONLY:
                run(db, f"pragma {name}.journal_mode = off")
                run(db, f"pragma {name}.synchronous = off")
            run(db, f"pragma {name}.cache_size = {-_CACHE_KIB}")
        add_time_us(db)
        add_function(db, "pointer_of", pointer_of)
    except BaseException:
        db.close(True)
        raise
    return db


def _build(
    db: apsw.Connection, span: tuple[int, int], log: str, before: str | None, has_all_twins: bool | None
) -> Built:
    first, last = span
    run(db, f"pragma application_id = {APPLICATION_ID}")
    run(db, f"pragma user_version = {LAYOUT_VERSION}")
    run(db, "begin")
    run(db, TABLES)
    db.executemany("insert into kind values (?, ?)", KINDS.items())
    db.executemany("insert into source values (?, ?)", SOURCES.items())
    # Of a log that was trimmed before its first partition, later ones do not know all twins either.
    is_whole = first == 1 if has_all_twins is None else has_all_twins
    if before is not None:
        is_whole = db.execute(_IS_WHOLE_BEFORE).get == "1"
    has_measured = db.execute("select exists (select 1 from copy.log where measured_us is not null)").get
    if before is not None:
        run(db, _NO_TWINS)
        run(db, _TWINS_OF_BEFORE)
    for sql in _DEVICES, _SOURCES, _ENTRIES, BY_SEQ, MARKS, _COMMANDS, _CLAIMED, _STAMPED, _STATE:
        run(db, sql)
    entries = db.execute("select count(*) from copy.log where seq between ? and ?", (first, last)).get
    if entries != last - first + 1 or entries != db.execute("select count(*) from entry").get:
        raise JournalUnusable(f"the log from {first} to {last} is not whole: {entries} entries are of a known kind")
    run(db, _TICKS)
    if db.execute(_MAY_BE_UNORDERED).get:
        run(db, _UNORDERED)
    roll_up(db)
    db.executemany(
        "insert into about values (?, ?)",
        [
            *(("log", log), ("first_seq", str(first)), ("last_seq", str(last))),
            *(("state_is_whole", str(int(is_whole))), ("has_measured", str(has_measured))),
        ],
    )
    has_claimed, has_stamped = (has_any(db, table) for table in ("claimed", "stamped"))
    run(db, views(has_claimed=has_claimed, has_stamped=has_stamped))
    run(db, "commit")
    return facts_of(db)


def facts_of(db: apsw.Connection) -> Built:
    """Return what the catalog says of a partition that is whole."""
    return Built(
        db.execute("select count(*) from entry").get,
        *db.execute("select coalesce(min(at_us), 0), coalesce(max(at_us), 0) from entry").get,
        *db.execute("select coalesce(min(min_us), 0), coalesce(max(max_us), 0) from tick").get,
    )
