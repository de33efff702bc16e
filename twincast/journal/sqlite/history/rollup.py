"""Rollups of a partition: each device's numbers summed up in buckets of time, where one stands for many entries."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import apsw
import msgspec

from twincast.journal.sqlite.history.layout import LATE, READING, ROOT_PATH, WIDTHS_S
from twincast.journal.sqlite.history.paced import run

CONDENSES = 16
"""A rollup is kept from the width on at which a row stands for so many entries: then it takes little room, and reading
it saves much."""
CHUNK_ENTRIES = 50_000
"""Numbers within values are taken out for devices with so many entries together, which bounds what that takes of the
disk."""

_IS_READING = f"e.kind in ({READING}, {LATE})"
IS_NUMBER = "value >= '-' and value < ':'"
"""What a value that is a number begins with: a look at its text is cheaper than to parse it."""
_IS_NESTED = "e.value >= '[' and substr(e.value, 1, 1) in ('[', '{')"


def _floor(us: str, width_us: str) -> str:
    """Return the SQL for the number of the bucket that a time is in; a division alone rounds times before 1970 up."""
    return f"iif({us} >= 0, {us} / ({width_us}), -(({width_us} - 1 - {us}) / ({width_us})))"


_ENTRIES = "scratch.finest f cross join entry e on e.device = f.device"
_VALUES = f"""
select e.device, {ROOT_PATH} as path, f.width_s, e.at_us, e.value + 0 as x from {_ENTRIES}
where {IS_NUMBER} and {_IS_READING}
"""
_NEW_PATHS = f"""
insert or ignore into path (key, pointer) select key, pointer_of(key) from (
    select distinct t.fullkey as key from {_ENTRIES} cross join json_tree(e.value) t
    where {_IS_NESTED} and {_IS_READING} and t.type in ('integer', 'real')
)
"""
_NESTED_NUMBERS = f"""
insert into scratch.number select e.device, p.id, e.at_us, t.atom
from {_ENTRIES} cross join json_tree(e.value) t cross join path p on p.key = t.fullkey
where {_IS_NESTED} and {_IS_READING} and t.type in ('integer', 'real')
"""
_FILLED = f"""
with recursive bucket (at_us) as (
    select min(at_us) from entry where device = :device
    union all
    select (
        select at_us from entry where device = :device
            and at_us >= ({_floor("bucket.at_us", ":width")} + 1) * :width order by at_us limit 1
    ) from bucket where at_us is not null limit :most + 1
)
select count(at_us) from bucket
"""
_NUMBERS = "select n.device, n.path, f.width_s, n.at_us, n.x from scratch.number n join scratch.finest f using (device)"


def roll_up(db: apsw.Connection, devices: Sequence[int] | None = None) -> None:
    """Fill the tables `rollup` and `path` of a partition from its entries.

    Args:
        db: the partition, with an empty `rollup`, and a database `scratch` beside it.
        devices: of which; None for all.
    """
    chunks = _chunks(db, devices)
    run(db, "insert or ignore into path values (?, '$', '')", (ROOT_PATH,))
    sum_up_entries(db, chunks)
    for finer, wider in pairwise(WIDTHS_S):
        widen(db, finer, wider)


def sum_up_entries(db: apsw.Connection, chunks: Sequence[Sequence[tuple[int, int]]]) -> None:
    """Add rollups of some devices, each at one width, and the paths that they have.

    Args:
        db: with the tables, those of the partition, and a database `scratch` beside it.
        chunks: devices with their widths, in groups; what that takes of the disk goes by the largest.
    """
    run(
        db,
        "create table scratch.number (device integer not null, path integer not null, at_us integer not null, x);"
        "create table scratch.finest (device integer primary key, width_s integer not null)",
    )
    for chunk in chunks:
        run(db, "delete from scratch.finest")
        run(
            db,
            "insert into scratch.finest select value ->> 0, value ->> 1 from json_each(?)",
            (msgspec.json.encode(chunk).decode(),),
        )
        _sum_up(db, _VALUES)
        run(db, _NEW_PATHS)
        run(db, _NESTED_NUMBERS)
        _sum_up(db, _NUMBERS)
        run(db, "delete from scratch.number")


def total_of(sums: str) -> str:
    """Return the SQL for the sum of sums: null, as any of them is that is no number, and as `total` is of numbers."""
    return f"iif(count({sums}) < count(*), null, total({sums}))"


def pointer_of(key: str) -> str:
    """Return the JSON Pointer (RFC 6901) of a path as json_tree writes it, such as `$."a b".c[0]`."""
    tokens, at = [], 1
    while at < len(key):
        if key[at] == "[":
            end = key.index("]", at)
            tokens.append(key[at + 1 : end])
            at = end + 1
        elif key.startswith('."', at):
            end = at + 2
            while key[end] != '"':
                end += 2 if key[end] == "\\" else 1
            tokens.append(_unescaped(key[at + 1 : end + 1]))
            at = end + 1
        else:
            end = min((found for sign in ".[" if (found := key.find(sign, at + 1)) > 0), default=len(key))
            tokens.append(key[at + 1 : end])
            at = end
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def _unescaped(quoted: str) -> str:
    try:
        return str(msgspec.json.decode(quoted.encode()))
    except (msgspec.DecodeError, UnicodeEncodeError):
        return quoted[1:-1]


def _chunks(db: apsw.Connection, only: Sequence[int] | None) -> list[list[tuple[int, int]]]:
    """Return the devices that are summed up, each with its finest width, in groups of about so many entries."""
    chunks: list[list[tuple[int, int]]] = [[]]
    size = 0
    which = "true" if only is None else f"device in ({', '.join(map(str, only))})"
    devices = f"select device, count(*), min(at_us), max(at_us) from entry where {which} group by device"
    counted: list[Any] = db.execute(f"{devices} having count(*) >= ?", (CONDENSES,)).fetchall()
    for device, entries, min_us, max_us in counted:
        width_s = _finest(db, device, entries // CONDENSES, min_us, max_us)
        if width_s is None:
            continue
        if size + entries > CHUNK_ENTRIES and chunks[-1]:
            chunks.append([])
            size = 0
        chunks[-1].append((device, width_s))
        size += entries
    return [chunk for chunk in chunks if chunk]


def _finest(db: apsw.Connection, device: int, buckets_max: int, min_us: int, max_us: int) -> int | None:
    """Return the finest width of which a device fills at most so many buckets; None if there is none.

    Over the span of its times there cannot be more than fit into that. Where a device pauses there are fewer: they are
    counted by seeks from one to the next.
    """
    found: int | None = None
    for width_s in reversed(WIDTHS_S):
        width_us = width_s * 1_000_000
        if max_us // width_us - min_us // width_us >= buckets_max:
            filled = int(db.execute(_FILLED, {"device": device, "width": width_us, "most": buckets_max + 1}).get)
            if filled > buckets_max:
                break
        found = width_s
    return found


def _sum_up(db: apsw.Connection, numbers: str) -> None:
    """Add the finest rollups of numbers: rows of device, path, width and time, in which x is the number.

    SQLite says at which row an extreme was for one of the two at a time. `limit -1` forbids it to flatten the numbers
    into the outer query, where x would be computed again for each aggregate.
    """
    bucket = _floor("at_us", "width_s * 1000000")
    found = f"from (select *, {bucket} as b from ({numbers} limit -1) limit -1) group by device, path, width_s, b"
    run(
        db,
        "insert into rollup select device, path, width_s, b * width_s, count(*), total(x), min(x), null, at_us, 0"
        f" {found}",
    )
    run(
        db,
        f"insert into rollup select device, path, width_s, b * width_s, 0, 0, null, max(x), 0, at_us {found}"
        " on conflict do update set max = excluded.max, max_us = excluded.max_us",
    )


def widen(db: apsw.Connection, finer: int, wider: int) -> None:
    """Add rollups of a width from those of another one that divides it."""
    start = f"{_floor('start_s', str(wider))} * {wider}"
    found = f"from (select *, {start} as s from rollup where width_s = {finer} limit -1) group by device, path, s"
    run(
        db,
        f"insert into rollup select device, path, {wider}, s, sum(n), {total_of('sum')}, min(min), null, min_us, 0"
        f" {found}",
    )
    run(
        db,
        f"insert into rollup select device, path, {wider}, s, 0, 0, null, max(max), 0, max_us {found}"
        " on conflict do update set max = excluded.max, max_us = excluded.max_us",
    )
