import csv
import io
import json
from collections.abc import Iterable

from msgspec import Raw

from twincast.core.model import Control, DataUpdate
from twincast.history.lines import buckets_csv, buckets_ndjson, entries_csv, entries_ndjson
from twincast.history.pointer import Pointer
from twincast.history.query import Aggregate, Series

AT = "2026-11-25T10:00:00.000000+00:00"
READINGS = (
    DataUpdate('a,"b"', Raw(b'{"rpm":1.50,"on":true}'), AT, "rest", 1, "e"),
    DataUpdate("a", Raw(b'"open"'), AT, "rest", 2, "e"),
)
MARKED = (*READINGS, Control("a", "go", Raw(b'{"x":1}'), AT, "websocket", 3, "e"))
SERIES = Series("a", Pointer("/x"), [0, 60_000_000], [[1.5, 2.0], [1, 2**53 + 1], [b'"x"', b"2"], [None, 3]])


def rows(pieces: Iterable[bytes]) -> list[list[str]]:
    return list(csv.reader(io.StringIO(b"".join(pieces).decode())))


def test_entries_are_rows_with_the_text_and_the_number_of_their_value() -> None:
    assert rows(entries_csv(READINGS, (), has_marks=False)) == [
        ["device_id", "seq", "time", "stored_time", "source", "value", "number"],
        ['a,"b"', "1", AT, AT, "rest", '{"rpm":1.50,"on":true}', ""],
        ["a", "2", AT, AT, "rest", '"open"', ""],
    ]
    assert [row[5:] for row in rows(entries_csv(READINGS[:1], (Pointer("/rpm"),), has_marks=False))] == [
        ["value", "number"],
        ["1.50", "1.5"],
    ]


def test_marks_say_what_they_are() -> None:
    assert [row[4:] for row in rows(entries_csv(MARKED, (), has_marks=True))] == [
        ["source", "value", "number", "type", "command"],
        ["rest", '{"rpm":1.50,"on":true}', "", "data_update", ""],
        ["rest", '"open"', "", "data_update", ""],
        ["websocket", '{"x":1}', "", "control", "go"],
    ]


def test_entries_are_lines_of_json_that_stand_alone() -> None:
    found = [
        json.loads(line) for line in b"".join(entries_ndjson(MARKED, (Pointer("/rpm"), Pointer("/on")))).splitlines()
    ]
    assert found == [
        {"device_id": 'a,"b"', "seq": 1, "timestamp_utc": AT, "value": {"/rpm": 1.5, "/on": True}, "source": "rest"},
        {"device_id": "a", "seq": 2, "timestamp_utc": AT, "value": {}, "source": "rest"},
        *(
            {"device_id": "a", "seq": 3, "type": "control", "timestamp_utc": AT, "command": "go", "args": {"x": 1}}
            | {"source": "websocket"},
        ),
    ]


def test_buckets_are_rows_and_lines() -> None:
    aggregates: tuple[Aggregate, ...] = ("avg", "max", "last", "min_t")
    assert rows(buckets_csv([SERIES], aggregates)) == [
        ["device_id", "path", "time", *aggregates],
        ["a", "/x", "1970-01-01T00:00:00.000000+00:00", "1.5", "1", '"x"', ""],
        ["a", "/x", "1970-01-01T00:01:00.000000+00:00", "2.0", "9007199254740993", "2", "3"],
    ]
    assert [json.loads(line) for line in b"".join(buckets_ndjson([SERIES], aggregates)).splitlines()] == [
        {"device_id": "a", "path": "/x", "time_ms": 0, "avg": 1.5, "max": 1, "last": "x", "min_t": None},
        {"device_id": "a", "path": "/x", "time_ms": 60_000, "avg": 2.0, "max": 2**53 + 1, "last": 2, "min_t": 3},
    ]
