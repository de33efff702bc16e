"""The numbers of a sorted run, added up by buckets: one statement each, of which one JSON text comes back."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from twincast.history.numbers import Number
from twincast.history.pointer import Pointer
from twincast.journal.sqlite.history.buckets import Buckets, Span
from twincast.journal.sqlite.history.layout import WIDTHS_S
from twincast.journal.sqlite.history.parts import part_of
from twincast.journal.sqlite.history.ranges import SECOND_US, Range
from twincast.journal.sqlite.history.rollup import total_of
from twincast.journal.sqlite.history.sorted_run import IS_READING, KNOWN_MAX, SortedRun

_NULL = "'null'"
_DOUBLE_MAX = "1.7976931348623157e308"


class Sum(NamedTuple):
    """What the numbers of a bucket add up to. A number that JSON cannot write is a text, and none is None."""

    bucket: int
    n: int
    total: Number | str | None
    low: Number | str
    high: Number | str
    low_us: int | None
    high_us: int | None


class Text(NamedTuple):
    """The first or last value in a bucket."""

    bucket: int
    time_us: int
    seq: int
    text: msgspec.Raw


Numbers = tuple[int, list[float]]
"""A bucket, and numbers of it."""
_decode_numbers = msgspec.json.Decoder(list[Numbers]).decode
_decode_any_numbers = msgspec.json.Decoder(list[tuple[int, list[float | str]]]).decode
_decode_sums = msgspec.json.Decoder(list[Sum]).decode
_decode_texts = msgspec.json.Decoder(list[Text]).decode
_decode_widths = msgspec.json.Decoder(list[int] | None).decode


def widths(run: SortedRun, path: Pointer) -> list[int] | None:
    """Return the widths in seconds of which there are rollups, rising; None if a device has no rollups at all.

    Where it has, they are of all its numbers: if there are none of a path, there is no number at it.
    """
    if not run.is_whole:
        return None
    if run.widths is None:
        return _widths(run, path)
    key = run.device, path.text
    if key not in run.widths:
        if len(run.widths) >= KNOWN_MAX:
            run.widths.clear()
        run.widths[key] = _widths(run, path)
    return run.widths[key]


def _widths(run: SortedRun, path: Pointer) -> list[int] | None:
    has = run.columns
    sql = f"""
select coalesce(
    nullif((select json_group_array(w.value) from json_each(:widths) w
            where exists (select 1 from {has.rollups} r where {has.rolled} and r.width_s = w.value)), '[]'),
    iif(exists (select 1 from {has.rollups} r where {has.rolled_device}), '[]', 'null'))"""
    found: list[int] | None = _decode_widths(run.one(sql, {"pointer": path.text, "widths": str(list(WIDTHS_S))}))
    return found


def rolled(
    run: SortedRun, ranges: Sequence[Range], width_s: int, buckets: Buckets, path: Pointer, *, with_times: bool
) -> list[Sum]:
    """Add up the rollups of a width that lie within a range and within a bucket."""
    has = run.columns
    start, width = "r.start_s * 1000000", str(width_s * SECOND_US)
    numbers = f"""
select {buckets.of(start)} as b, r.n, r.sum as total, r.min as low, r.max as high, r.min_us as low_us,
       r.max_us as high_us
from (select value ->> 0 as from_us, value ->> 1 as to_us from json_each(:ranges) limit -1) g
     cross join {has.rollups} r
where {has.rolled} and r.width_s = {width_s}
      and r.start_s >= from_us / 1000000 - 1 and r.start_s <= to_us / 1000000
      and {start} >= from_us and {start} + {width} <= to_us and {buckets.is_in_one(start, width)}
"""
    grouped = "sum(n)", total_of("total")
    return _decode_sums(
        run.one(
            _summed(numbers, grouped, with_times=with_times),
            {**buckets.bindings, "pointer": path.text, "ranges": _text_of(ranges)},
        )
    )


def summed(
    run: SortedRun, ranges: Sequence[Range], buckets: Buckets, path: Pointer, *, by_stored: bool, with_times: bool
) -> list[Sum]:
    """Add up the numbers of the readings in some ranges of `at`."""
    numbers = f"{_numbers(run, buckets, path, by_stored=by_stored)} limit -1"
    bindings = {**buckets.bindings, **_span_of(buckets), "ranges": _text_of(ranges)}
    if with_times:
        rows = f"select b, time as low_us, time as high_us, x as low, x as high, x as total from ({numbers})"
        return _decode_sums(run.one(_summed(rows, ("count(*)", "total(total)"), with_times=True), bindings))
    # Each column more is one that is sorted by buckets.
    added = f"select b, count(*) as n, total(x) as total, min(x) as low, max(x) as high from ({numbers}) group by b"
    return _decode_sums(run.one(f"{_sums_as_json(_NULL, _NULL)} from ({added})", bindings))


def numbers_in(run: SortedRun, spans: Sequence[Span], path: Pointer) -> list[Numbers]:
    """Return the numbers of the readings in some spans of `at`, each of which is of one bucket."""
    has = run.columns

    def sql(number: str) -> str:
        return f"""
select '[' || coalesce(group_concat('[' || b || ',[' || found || ']]', ','), '') || ']' from (
    select g.value ->> 0 as b, (
        select group_concat({number}, ',') from (
            select {part_of(path, has.value)} as part from {has.rows}
            where {has.where} and {has.at} >= g.value ->> 1 and {has.at} < g.value ->> 2 and {has.kind} {IS_READING}
            limit -1
        ) where part >= '-' and part < ':'
    ) as found from json_each(:spans) g limit -1
) where found is not null"""

    return _numbers_of(run, sql, {"spans": _text_of(spans)})


def numbers_of(
    run: SortedRun, ranges: Sequence[Range], buckets: Buckets, path: Pointer, *, by_stored: bool
) -> list[Numbers]:
    """Return the numbers of the readings in some ranges of `at`, in any order."""

    def sql(number: str) -> str:
        return f"""
select '[' || coalesce(group_concat('[' || b || ',[' || {number} || ']]', ','), '') || ']'
from ({_parts(run, buckets, path, by_stored=by_stored)}) where part >= '-' and part < ':'"""

    return _numbers_of(run, sql, {**buckets.bindings, **_span_of(buckets), "ranges": _text_of(ranges)})


def _numbers_of(run: SortedRun, sql: Callable[[str], str], bindings: dict[str, str | int]) -> list[Numbers]:
    """Return numbers by buckets, of a statement that is made with the SQL for one.

    As a rule they come as the texts that they are, for SQLite takes ten times as long to write a number as to copy one.
    What is too large for a double, or no JSON, is read and written by SQLite.
    """
    try:
        return _decode_numbers(run.one(sql("part"), bindings))
    except msgspec.DecodeError:
        found = _decode_any_numbers(run.one(sql(_number("part + 0")), bindings))
        return [(bucket, [float(number_of(each)) for each in numbers]) for bucket, numbers in found]


def ends(run: SortedRun, numbers: Sequence[int], buckets: Buckets, *, is_last: bool) -> list[Text]:
    """Return the first or last reading in each of some buckets: a seek a bucket, however much is in it."""
    has, order = run.columns, "desc" if is_last else "asc"
    spans = [(number, buckets.edges[number], buckets.edges[number + 1]) for number in numbers]
    sql = f"""
select '[' || coalesce(group_concat('[' || b || ',' || found || ']', ','), '') || ']' from (
    select g.value ->> 0 as b, (
        select {has.at} || ',' || {has.seq} || ',' || {has.value} from {has.rows}
        where {has.where} and {has.at} >= g.value ->> 1 and {has.at} < g.value ->> 2 and {has.kind} {IS_READING}
        order by {has.at} {order}, {has.seq} {order} limit 1
    ) as found from json_each(:spans) g limit -1
) where found is not null"""
    return _decode_texts(run.one(sql, {"spans": msgspec.json.encode(spans).decode()}))


def sought(
    run: SortedRun, ranges: Sequence[Range], buckets: Buckets, path: Pointer, *, by_stored: bool, is_last: bool
) -> list[Text]:
    """Return the first or last part in each bucket, of all readings in some ranges of `at`."""
    order = "desc" if is_last else "asc"
    sql = f"""
select '[' || coalesce(group_concat('[' || b || ',' || time || ',' || seq || ',' || part || ']', ','), '') || ']' from (
    select *, row_number() over (partition by b order by time {order}, seq {order}) as place
    from ({_parts(run, buckets, path, by_stored=by_stored)})
) where place = 1"""
    return _decode_texts(run.one(sql, {**buckets.bindings, **_span_of(buckets), "ranges": _text_of(ranges)}))


def number_of(number: Number | str | None) -> Number:
    """Return a number as it was before it was written as JSON."""
    if number is None:
        return float("nan")
    return float(number) if isinstance(number, str) else number


def _parts(run: SortedRun, buckets: Buckets, path: Pointer, *, by_stored: bool) -> str:
    """Return the SQL for the parts of the readings in some ranges: bucket, time, seq and text."""
    has = run.columns
    time = has.stored if by_stored else has.at
    within = f" and {time} >= :from_us and {time} < :to_us" if by_stored else ""
    return f"""
select {buckets.of("time")} as b, * from (
    select {time} as time, {has.seq} as seq, {part_of(path, has.value)} as part
    from json_each(:ranges) g cross join {has.rows}
    where {has.where} and {has.at} >= g.value ->> 0 and {has.at} < g.value ->> 1 and {has.kind} {IS_READING}{within}
    limit -1
) where part is not null"""


def _numbers(run: SortedRun, buckets: Buckets, path: Pointer, *, by_stored: bool) -> str:
    """Return the SQL for the numbers among them: any other JSON begins with another character."""
    return f"""
select b, time, seq, part + 0 as x from ({_parts(run, buckets, path, by_stored=by_stored)})
where part >= '-' and part < ':'"""


def _summed(numbers: str, grouped: tuple[str, str], *, with_times: bool) -> str:
    """Return the statement that groups numbers by their bucket `b`.

    SQLite says in which row an extreme was for one of the two at a time: the first that it comes to. `limit -1` forbids
    it to flatten a subquery, whose columns would be computed again for each use.
    """
    count, total = grouped
    added = f"select b, {count} as n, {total} as total, min(low) as low, max(high) as high"
    if not with_times:
        return f"{_sums_as_json(_NULL, _NULL)} from ({added} from ({numbers} limit -1) group by b)"
    return f"""
with number as materialized ({numbers}), added as materialized ({added} from number group by b)
{_sums_as_json("l.us", "h.us")} from added
join (select b, min(low), low_us as us from (select * from number order by low_us limit -1) group by b) l using (b)
join (select b, max(high), high_us as us from (select * from number order by high_us limit -1) group by b) h using (b)
"""


def _sums_as_json(low_us: str, high_us: str) -> str:
    row = " || ',' || ".join(("b", "n", _number("total"), _number("low"), _number("high"), low_us, high_us))
    return f"select '[' || coalesce(group_concat('[' || {row} || ']', ','), '') || ']'"


def _number(x: str) -> str:
    """Return the SQL for a number as JSON, with all of its digits."""
    return (
        f"case when {x} is null then 'null' when typeof({x}) = 'integer' then {x}"
        f" when {x} > {_DOUBLE_MAX} then '\"Infinity\"' when {x} < -{_DOUBLE_MAX} then '\"-Infinity\"'"
        f" else format('%!.17g', {x}) end"
    )


def _span_of(buckets: Buckets) -> dict[str, int]:
    return {"from_us": buckets.edges[0], "to_us": buckets.edges[-1]}


def _text_of(ranges: Sequence[tuple[int, ...]]) -> str:
    return msgspec.json.encode(ranges).decode()
