"""What is answered about the past: shapes, and their JSON in pieces, for an answer may be large."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from twincast.core.model import (
    Clock,
    Command,
    Control,
    DataUpdate,
    Deleted,
    DeviceId,
    Entry,
    Epoch,
    ErasedScope,
    Kind,
    Late,
    MeasuredAt,
    Seq,
    Snapshot,
    Source,
    TimeUtc,
    Twin,
    Value,
)
from twincast.history.pointer import Pointer
from twincast.history.query import Aggregate, Cell, Series

T = TypeVar("T")
ENCODED_BYTES = 8 * 1024
"""Items of about so much are encoded by one call."""
ITEM_BYTES = 128
"""What an item has beside its value, about."""
PIECE_BYTES = 64 * 1024
"""About so much of an answer is made at once: a millisecond's work."""
_encode = msgspec.json.Encoder().encode
_HERE = Raw(b"\0")
"""Stands in an answer for what is put in piece by piece: no JSON text has this character in it."""


def _list_of(name: str) -> Meta:
    return Meta(extra_json_schema={"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}})


Cursor = Annotated[str, Meta(description="the parameter `cursor` of the next page; not there on the last one")]
ReachesBackTo = Annotated[
    TimeUtc | None,
    Meta(
        description="the time from which on the log lacks nothing: when the first of those entries was stored; null if"
        " it has none"
    ),
]
UpTo = Annotated[
    int,
    Meta(description="everything up to this position is in the answer: events go on after it, with `since=EPOCH:SEQ`"),
]
Path = Annotated[str, Meta(description="a JSON Pointer; empty for the whole value", examples=["/motor/rpm"])]
TimesMs = Annotated[list[int], Meta(description="when each bucket begins, in milliseconds since 1970")]
Numbers = Annotated[list[float | None], Meta(description="one for each bucket; null where it has no number")]
Counts = Annotated[list[int], Meta(description="how many numbers each bucket has")]
Texts = Annotated[list[Raw], Meta(description="the value as it was stored, of each bucket", extra_json_schema={})]
Moments = Annotated[list[int | None], Meta(description="in milliseconds since 1970")]
Every = Annotated[str, Meta(description="the width of the buckets", examples=["1h"])]
Zone = Annotated[str, Meta(description="the time zone of the calendar that buckets of days and more follow")]
From = Annotated[TimeUtc, Meta(description="when the first bucket begins")]
To = Annotated[TimeUtc, Meta(description="when the last bucket ends")]
IsOpen = Annotated[bool, Meta(description="whether the last bucket has not ended yet")]


class HistoryEntry(Struct, kw_only=True):
    """One entry of a device's history: a reading, unless `type` says something else."""

    device_id: Annotated[DeviceId, Meta(description="in answers that are lines")] | UnsetType = UNSET
    seq: Seq
    type: Annotated[Kind, Meta(description="control or deleted; not there for readings")] | UnsetType = UNSET
    timestamp_utc: Annotated[TimeUtc, Meta(description="when it was stored")]
    measured_at_utc: MeasuredAt | UnsetType = UNSET
    clock: Clock | UnsetType = UNSET
    late: Annotated[bool, Meta(description="true: stored behind readings of a later time")] | UnsetType = UNSET
    value: Value | UnsetType = UNSET
    command: Command | UnsetType = UNSET
    args: Annotated[Raw, Meta(extra_json_schema={"type": "object"})] | UnsetType = UNSET
    scope: ErasedScope | UnsetType = UNSET
    source: Source


class HistoryEntries(Struct, kw_only=True):
    """Entries of one device, in the order that was asked for."""

    device_id: DeviceId
    epoch: Epoch
    seq: UpTo
    reaches_back_to: ReachesBackTo
    cursor: Cursor | UnsetType = UNSET
    entries: Annotated[Raw, _list_of("HistoryEntry")]


class DeviceEntries(Struct, kw_only=True):
    """The entries of one of several devices."""

    device_id: DeviceId
    cursor: Annotated[str, Meta(description="of the next page of this device, at its own address")] | UnsetType = UNSET
    entries: Annotated[Raw, _list_of("HistoryEntry")]


class ManyHistoryEntries(Struct, kw_only=True):
    """Entries of several devices; those that have none are left out."""

    epoch: Epoch
    seq: UpTo
    reaches_back_to: ReachesBackTo
    devices: Annotated[Raw, _list_of("DeviceEntries")]


class Columns(Struct, kw_only=True, omit_defaults=True):
    """The buckets of one device and path, by columns: those that were asked for, one row for each bucket."""

    device_id: DeviceId
    path: Path
    time_ms: TimesMs
    avg: Numbers | UnsetType = UNSET
    min: Numbers | UnsetType = UNSET
    max: Numbers | UnsetType = UNSET
    sum: Numbers | UnsetType = UNSET
    count: Counts | UnsetType = UNSET
    first: Texts | UnsetType = UNSET
    last: Texts | UnsetType = UNSET
    p50: Numbers | UnsetType = UNSET
    p95: Numbers | UnsetType = UNSET
    min_t: Moments | UnsetType = UNSET
    max_t: Moments | UnsetType = UNSET


class HistoryBuckets(Columns, kw_only=True, rename={"from_utc": "from", "to_utc": "to", "is_open": "open"}):
    """Buckets of one device and path."""

    epoch: Epoch
    seq: UpTo
    reaches_back_to: ReachesBackTo
    every: Every
    tz: Zone
    from_utc: From
    to_utc: To
    is_open: IsOpen


class ManyHistoryBuckets(Struct, kw_only=True, rename={"from_utc": "from", "to_utc": "to", "is_open": "open"}):
    """Buckets of several devices or paths, each by columns of its own."""

    epoch: Epoch
    seq: UpTo
    reaches_back_to: ReachesBackTo
    every: Every
    tz: Zone
    from_utc: From
    to_utc: To
    is_open: IsOpen
    series: Annotated[Raw, _list_of("Columns")]


def shown(entry: Entry, paths: Sequence[Pointer], *, device_id: str | UnsetType = UNSET) -> HistoryEntry:
    """Return an entry as it is answered; of its value, if there are paths, what is there."""
    if isinstance(entry, DataUpdate):  # nearly all are, so this is as short as it can be
        return HistoryEntry(
            device_id=device_id,
            seq=entry.seq,
            timestamp_utc=entry.timestamp_utc,
            measured_at_utc=entry.measured_at_utc,
            clock=entry.clock,
            value=Raw(leaf_of(entry, paths)) if paths else entry.value,
            source=entry.source,
        )
    answer = HistoryEntry(device_id=device_id, seq=entry.seq, timestamp_utc=entry.timestamp_utc, source=entry.source)
    if isinstance(entry, Late):
        answer.late, answer.measured_at_utc = True, entry.measured_at_utc
        answer.value = Raw(leaf_of(entry, paths))
        return answer
    answer.type = entry.kind
    if isinstance(entry, Control):
        answer.command, answer.args = entry.command, entry.args
    elif isinstance(entry, Deleted):
        answer.scope = entry.scope
    return answer


def leaf_of(entry: Entry, paths: Sequence[Pointer]) -> bytes:
    """Return the JSON text of an entry's value, of what is at a path, or of several paths by their names."""
    value = bytes(entry.payload)
    if not paths:
        return value
    found = [(path, part) for path in paths if (part := path.find(value)) is not None]
    if len(paths) == 1:
        return found[0][1] if found else b"null"
    return b"{%b}" % b",".join(b"%b:%b" % (_encode(path.text), part) for path, part in found)


def columns_of(series: Series, aggregates: Sequence[Aggregate]) -> dict[str, Any]:
    """Return the fields of Columns for a series."""
    columns: dict[str, Any] = {
        name: [_json(cell) for cell in column] for name, column in zip(aggregates, series.columns, strict=True)
    }
    times_ms = [start // 1_000 for start in series.starts_us]
    return {"device_id": series.device_id, "path": series.path.text, "time_ms": times_ms, **columns}


def _json(cell: Cell) -> Any:
    return Raw(cell) if isinstance(cell, bytes) else cell


def entries_json(head: HistoryEntries, entries: Iterable[Entry], paths: Sequence[Pointer]) -> Iterator[bytes]:
    """Yield an answer with the entries of one device, in pieces."""
    return in_pieces(_with(head, _entry_texts(entries, paths)))


def many_entries_json(
    head: ManyHistoryEntries, devices: Iterable[tuple[DeviceEntries, Iterable[Entry]]], paths: Sequence[Pointer]
) -> Iterator[bytes]:
    """Yield an answer with the entries of several devices, in pieces."""
    parts = (_with(device, _entry_texts(entries, paths)) for device, entries in devices)
    return in_pieces(_with(head, _array(parts)))


def buckets_json(head: ManyHistoryBuckets, columns: Iterable[Columns]) -> Iterator[bytes]:
    """Yield an answer with several series, in pieces."""
    return in_pieces(_with(head, _array((_encode(each),) for each in columns)))


def state_json(head: Struct, snapshot: Snapshot) -> Iterator[bytes]:
    """Yield an answer with a state, in pieces; the head has `here()` where the state belongs."""
    return in_pieces(_with(head, _members(snapshot.twins)))


def here() -> Raw:
    """Return what stands in a head for what comes in pieces."""
    return _HERE


def _payload_of(entry: Entry) -> Any:
    return entry.payload


def _value_of(member: tuple[str, Twin]) -> Any:
    return bytes(member[1].value)


def _members(twins: dict[str, Twin]) -> Iterator[bytes]:
    yield b"{"
    for index, some in enumerate(_groups(twins.items(), _value_of)):
        yield b"%b%b" % (b"," if index else b"", _encode(dict(some))[1:-1])
    yield b"}"


def _entry_texts(entries: Iterable[Entry], paths: Sequence[Pointer]) -> Iterator[bytes]:
    return _array((_encode([shown(entry, paths) for entry in some])[1:-1],) for some in _groups(entries, _payload_of))


def _array(items: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    yield b"["
    for index, item in enumerate(items):
        if index:
            yield b","
        yield from item
    yield b"]"


def _groups(items: Iterable[T], value_of: Callable[[T], Any]) -> Iterator[list[T]]:
    """Yield some items at a time: a call that encodes one costs as much as the work itself."""
    some: list[T] = []
    size_bytes = 0
    for item in items:
        some.append(item)
        size_bytes += ITEM_BYTES + len(value_of(item))
        if size_bytes >= ENCODED_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some


def _with(head: Struct, inner: Iterable[bytes]) -> Iterator[bytes]:
    before, _, after = _encode(head).partition(_HERE)
    return chain((before,), inner, (after,))


def in_pieces(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Join texts to pieces of some size."""
    parts: list[bytes] = []
    size_bytes = 0
    for text in texts:
        parts.append(text)
        size_bytes += len(text)
        if size_bytes >= PIECE_BYTES:
            yield b"".join(parts)
            parts, size_bytes = [], 0
    yield b"".join(parts)
