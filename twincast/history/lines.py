"""Answers as lines, for other programs: CSV with a header (RFC 4180, lines end with LF), or a JSON object a line.

No column has a name that a query language reserves, as `at` and `from` are.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import msgspec
from msgspec import Raw

from twincast.core.model import Entry
from twincast.history.answers import in_pieces, leaf_of, shown
from twincast.history.moments import at_us
from twincast.history.numbers import number_of
from twincast.history.pointer import Pointer
from twincast.history.query import READINGS, Aggregate, Cell, Series
from twincast.history.times import text_of

Row = Sequence[object]
_encode = msgspec.json.Encoder().encode
ENTRY_COLUMNS = ("device_id", "seq", "time", "stored_time", "source", "value", "number")
MARK_COLUMNS = ("type", "command")
"""Beside them where more than readings is asked for."""


def entries_csv(entries: Iterable[Entry], paths: Sequence[Pointer], *, has_marks: bool) -> Iterator[bytes]:
    """Yield entries as CSV; `has_marks` if others than readings may be among them."""
    header = (*ENTRY_COLUMNS, *MARK_COLUMNS) if has_marks else ENTRY_COLUMNS
    return in_pieces(_csv(header, (_entry_row(entry, paths, has_marks=has_marks) for entry in entries)))


def entries_ndjson(entries: Iterable[Entry], paths: Sequence[Pointer]) -> Iterator[bytes]:
    """Yield entries as lines of JSON."""
    return in_pieces(_encode(shown(entry, paths, device_id=entry.subject)) + b"\n" for entry in entries)


def buckets_csv(series: Iterable[Series], aggregates: Sequence[Aggregate]) -> Iterator[bytes]:
    """Yield buckets as CSV, one row each."""
    rows = (
        (each.device_id, each.path.text, text_of(start), *map(_csv_cell, cells))
        for each in series
        for start, *cells in zip(each.starts_us, *each.columns, strict=True)
    )
    return in_pieces(_csv(("device_id", "path", "time", *aggregates), rows))


def buckets_ndjson(series: Iterable[Series], aggregates: Sequence[Aggregate]) -> Iterator[bytes]:
    """Yield buckets as lines of JSON, one each."""
    return in_pieces(
        _encode(
            {
                "device_id": each.device_id,
                "path": each.path.text,
                "time_ms": start // 1_000,
                **dict(zip(aggregates, map(_json_cell, cells), strict=True)),
            }
        )
        + b"\n"
        for each in series
        for start, *cells in zip(each.starts_us, *each.columns, strict=True)
    )


def _entry_row(entry: Entry, paths: Sequence[Pointer], *, has_marks: bool) -> Row:
    is_reading = entry.kind in READINGS
    value = leaf_of(entry, paths) if is_reading else bytes(entry.payload)
    number = number_of(value) if is_reading else None
    marks = (entry.kind, entry.detail) if has_marks else ()
    return (
        *(entry.subject, entry.seq, text_of(at_us(entry)), entry.timestamp_utc, entry.source, value.decode()),
        *("" if number is None else repr(number), *marks),
    )


def _csv_cell(cell: Cell) -> object:
    if cell is None:
        return ""
    return cell.decode() if isinstance(cell, bytes) else repr(cell)


def _json_cell(cell: Cell) -> object:
    return Raw(cell) if isinstance(cell, bytes) else cell


def _csv(header: Row, rows: Iterable[Row]) -> Iterator[bytes]:
    writer = csv.writer(_Returning(), lineterminator="\n")
    for row in chain((header,), rows):
        line: str = writer.writerow(row)
        yield line.encode()


class _Returning:
    """What a csv writer writes to, and returns the result of."""

    def write(self, line: str) -> str:
        return line
