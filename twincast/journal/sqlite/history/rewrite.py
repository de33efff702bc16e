"""Writes a partition anew without the entries of some devices. Of all others every row is what it was.

The new file has nothing of what is left out: no row, name, path or sum, and no page that once held it, for each page of
it is written anew. What is under the old name stays as it is until the catalog names the new one.
"""

import os
from collections.abc import Mapping
from contextlib import closing

import apsw
import msgspec

from twincast.journal.sqlite.history.build import Built, facts_of, prepared
from twincast.journal.sqlite.history.layout import (
    APPLICATION_ID,
    BY_SEQ,
    ERASED,
    KINDS,
    LAYOUT_VERSION,
    MARKS,
    ROOT_PATH,
    SOURCES,
    TABLES,
    TICK_ENTRIES,
    address_of,
    has_any,
    views,
)
from twincast.journal.sqlite.history.paced import Share, run
from twincast.journal.sqlite.history.rollup import roll_up
from twincast.machine import OWNER_ALONE

EVERYTHING = 1 << 62
"""As a position: all entries of a device, however many follow."""
_HOUR_US = 3_600_000_000

_SCRATCH = """
create table scratch.erased (device integer primary key, until integer not null);
create table scratch.gone (seq integer primary key);
create table scratch.gone_twin (seq integer primary key);
create table scratch.island (first_seq integer primary key, at_us integer);
"""
_FIND = """
insert into scratch.erased
select d.id, j.value ->> 1 from json_each(?) j cross join old.device d on d.name = j.value ->> 0
"""
_GONE = """
insert into scratch.gone select e.seq from scratch.erased x cross join old.entry e on e.device = x.device
where e.seq <= x.until
"""
_GONE_TWINS = """
insert into scratch.gone_twin select s.seq from scratch.erased x cross join old.state s on s.device = x.device
where s.seq <= x.until
"""
# What is left of a partition that is kept no longer has sums, and no entries.
_HAS_SOME = """
select exists (select 1 from scratch.gone), exists (select 1 from scratch.gone_twin),
       not exists (select 1 from old.entry)
           and exists (select 1 from old.rollup where device in (select device from scratch.erased))
"""
_IS_GONE = "seq in (select seq from scratch.gone)"
_IS_KEPT = "x.device is null or {table}.seq > x.until"
_KEPT = "from old.{table} {table} left join scratch.erased x on x.device = {table}.device where {is_kept}"

# A place says neither of which device it was nor when: its time is that of the entry before the stretch it is in.
_ISLANDS = """
insert into scratch.island
select seq, (select coalesce(stored_us, at_us) from old.entry e where e.seq = g.seq - 1)
from scratch.gone g where seq - 1 not in (select seq from scratch.gone)
"""
_FIRST_ISLAND = f"""
update scratch.island set at_us = coalesce(
    (select coalesce(stored_us, at_us) from old.entry e where e.seq = (
        select seq from old.entry n where n.seq > first_seq and not n.{_IS_GONE} order by n.seq limit 1)),
    (select max(max_us) from old.tick) / {_HOUR_US} * {_HOUR_US}
) where at_us is null
"""
_PLACES = f"""
insert into entry
select (select id from device where name = ''),
       (select at_us from scratch.island i where i.first_seq <= g.seq order by i.first_seq desc limit 1),
       seq, null, {next(number for number, name in SOURCES.items() if name == "application")}, {ERASED}, 'null'
from scratch.gone g order by 2, 3
"""
_TICKS = f"""
update tick set (min_us, max_us) = (
    select min(coalesce(stored_us, at_us)), max(coalesce(stored_us, at_us)) from entry
    where seq >= tick.first_seq and seq < tick.first_seq + {TICK_ENTRIES}
) where exists (
    select 1 from scratch.gone g where g.seq >= tick.first_seq and g.seq < tick.first_seq + {TICK_ENTRIES}
)
"""
_NO_TICKS = f"""
delete from tick where not exists (
    select 1 from entry where seq >= tick.first_seq and seq < tick.first_seq + {TICK_ENTRIES}
)
"""
_WITH_ROLLUPS = "select device from scratch.erased where device in (select id from device)"


def rewrite(
    source: str, new: str, without: Mapping[str, int], *, keeps_places: bool = True, share: float = 1
) -> Built | None:
    """Write a partition anew without entries of some devices: readings, late ones, deletions, and commands to them.

    Args:
        source: its file, which is only read.
        new: where the file is made; what is there is replaced. It is whole then, but perhaps not yet on the disk.
        without: by device, the position up to which its entries are left out.
        keeps_places: whether each of them leaves its place, as an entry of the kind `erased`, so that the partition
            still has all positions of its span; else it has holes, or nothing at all.
        share: how much of a core this takes.

    Returns:
        What is in the new file; None if the partition has nothing that is to be left out: no file was made then.

    Raises:
        apsw.Error, OSError: a disk does not give it, or takes no more.
    """
    scratch = f"{new}-scratch"
    for name in (new, scratch):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ALONE))
    built: Built | None = None
    try:
        with closing(prepared(new, scratch=scratch, old=address_of(source))) as db:
            Share(share).pace(db)
            built = _rewrite(db, without, keeps_places=keeps_places)
    finally:
        os.unlink(scratch)
        if built is None:
            os.unlink(new)
    return built


def _rewrite(db: apsw.Connection, without: Mapping[str, int], *, keeps_places: bool) -> Built | None:
    run(db, "begin")
    run(db, _SCRATCH)
    run(db, _FIND, (msgspec.json.encode(list(without.items())).decode(),))
    run(db, _GONE)
    run(db, _GONE_TWINS)
    if not any(db.execute(_HAS_SOME).get):
        return None
    run(db, f"pragma application_id = {APPLICATION_ID}")
    run(db, f"pragma user_version = {LAYOUT_VERSION}")
    run(db, TABLES)
    _copy_kept(db)
    if keeps_places:
        _add_places(db)
    run(db, BY_SEQ)
    run(db, MARKS)
    run(db, "insert into tick select * from old.tick")
    run(db, _NO_TICKS)
    run(db, _TICKS)
    _copy_rollups(db)
    has_claimed, has_stamped = has_any(db, "claimed"), has_any(db, "stamped")
    run(db, views(has_claimed=has_claimed, has_stamped=has_stamped))
    run(db, "commit")
    return facts_of(db)


def _copy_kept(db: apsw.Connection) -> None:
    for table in "kind", "source", "about":
        run(db, f"insert into {table} select * from old.{table}")
    run(db, "insert or ignore into kind values (?, ?)", (ERASED, KINDS[ERASED]))
    for table, order in ("entry", "order by entry.device, entry.at_us, entry.seq"), ("state", ""):
        kept = _KEPT.format(table=table, is_kept=_IS_KEPT.format(table=table))
        run(db, f"insert into {table} select {table}.* {kept} {order}")
    for table in "command", "claimed", "stamped":
        run(
            db,
            f"insert into {table} select * from old.{table}"
            f" where not {_IS_GONE} and seq not in (select seq from scratch.gone_twin)",
        )
    run(
        db,
        "insert into device select * from old.device where id not in (select device from scratch.erased)"
        " or exists (select 1 from entry where device = id) or id in (select device from state)",
    )
    run(db, "insert into unordered select * from old.unordered where device in (select id from device)")


def _add_places(db: apsw.Connection) -> None:
    """Leave a place of each entry that is gone, of the device without a name."""
    run(db, "insert or ignore into device (name) values ('')")
    for sql in _ISLANDS, _FIRST_ISLAND, _PLACES:
        run(db, sql)


def _copy_rollups(db: apsw.Connection) -> None:
    """Copy the rollups of devices that have all of their entries; those of the others are summed up anew."""
    kept = "from old.rollup where device not in (select device from scratch.erased)"
    run(db, f"insert into path select * from old.path where id = {ROOT_PATH} or id in (select path {kept})")
    devices = [int(row[0]) for row in db.execute(_WITH_ROLLUPS)]
    if devices:
        roll_up(db, devices)
    run(db, f"insert into rollup select * {kept}")
