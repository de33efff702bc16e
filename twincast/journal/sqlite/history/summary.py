"""Makes what is left of a partition that is kept no longer: its numbers summed up by hour and day, in a small file.

It has the tables of a partition, and of these `rollup` filled for all devices, also where a row stands for few entries.
"""

import os
from contextlib import closing
from typing import Any

import apsw

from twincast.journal.sqlite.history.build import prepared
from twincast.journal.sqlite.history.layout import (
    APPLICATION_ID,
    LASTING_WIDTHS_S,
    LAYOUT_VERSION,
    TABLES,
    address_of,
    views,
)
from twincast.journal.sqlite.history.paced import Share, run
from twincast.journal.sqlite.history.rollup import CHUNK_ENTRIES, sum_up_entries, widen
from twincast.machine import OWNER_ALONE

_FINEST_S, *_WIDER_S = LASTING_WIDTHS_S

_ENTRY = "select sql from main.sqlite_schema where name = 'entry'"
_NAMES = """
insert into main.kind select * from old.kind;
insert into main.source select * from old.source;
insert into main.path select * from old.path;
"""
_ROLLED = f"insert into main.rollup select * from old.rollup where width_s = {_FINEST_S}"
_OTHERS = f"""
select device, count(*) from old.entry
where device not in (select device from old.rollup where width_s = {_FINEST_S}) group by device
"""
_TIDY = """
insert into main.device select * from old.device where id in (select device from main.rollup);
delete from main.path where id not in (select path from main.rollup);
"""
_ABOUT = """
insert into main.about select name, value from old.about where name in ('log', 'first_seq', 'last_seq', 'has_measured');
insert into main.about values ('state_is_whole', '0');
"""


def summarise(source: str, new: str, *, share: float = 1) -> None:
    """Make the file of what is left of a partition.

    Args:
        source: the partition's file, which is only read.
        new: the file that is made; what is there is replaced. It is whole then, but perhaps not yet on the disk.
        share: how much of a core this takes.

    Raises:
        apsw.Error, OSError: a disk does not give it, or takes no more.
    """
    scratch = f"{new}-scratch"
    for name in new, scratch:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ALONE))
    try:
        with closing(prepared(new, scratch=scratch, old=address_of(source))) as db:
            Share(share).pace(db)
            _summarise(db)
    finally:
        os.unlink(scratch)


def _summarise(db: apsw.Connection) -> None:
    run(db, f"pragma application_id = {APPLICATION_ID}")
    run(db, f"pragma user_version = {LAYOUT_VERSION}")
    run(db, "begin")
    run(db, TABLES)
    entry = str(db.execute(_ENTRY).get)
    run(db, "drop table main.entry")  # so that statements about entries find those of the partition
    run(db, _NAMES)
    run(db, _ROLLED)
    sum_up_entries(db, _chunks(db))
    for width_s in _WIDER_S:
        widen(db, _FINEST_S, width_s)
    run(db, entry)
    run(db, _TIDY)
    run(db, _ABOUT)
    run(db, views(has_claimed=False, has_stamped=False))
    run(db, "commit")


def _chunks(db: apsw.Connection) -> list[list[tuple[int, int]]]:
    """Return the devices whose entries are still to be added up, each with its width, in groups of so many entries."""
    chunks: list[list[tuple[int, int]]] = [[]]
    size = 0
    counted: list[Any] = db.execute(_OTHERS).fetchall()
    for device, entries in counted:
        if size + entries > CHUNK_ENTRIES and chunks[-1]:
            chunks.append([])
            size = 0
        chunks[-1].append((int(device), _FINEST_S))
        size += entries
    return [chunk for chunk in chunks if chunk]
