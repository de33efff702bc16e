"""Data frames of histories, by the libraries themselves: types, time zones, and each value as it was."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest

from twincast.client import Rest
from twincast.client.frames import columns_of, pandas_frame, polars_frame
from twincast.testing import Clock, Server

START = datetime(2026, 11, 25, 10, tzinfo=UTC)
LONG_AGO = datetime(1066, 10, 14, 9, tzinfo=UTC)  # no nanoseconds reach back to it
ENTRIES = ["device_id", "seq", "time", "stored_time", "source", "value", "number"]
LIBRARIES = ("pandas", "polars")
MIXTURES: list[list[Any]] = [
    [1, "a"],
    [1, {"a": 1}],
    [True, 1],
    [{"a": 1}, {"a": "x"}],
    [{"a": 1}, {"a": True}],
    [{"a": 1}] * 200 + [{"c": [1, {"d": None}]}],
    [[1, 2], ["a"], []],
    [2**70, 1.5],
    [2**53 + 1, 0.5],
    [2**53 + 1, None],
    [{}, {"a": {}}],
    ["7", None, "x"],
    [None, None],
    [False, None],
    ["2026-11-25T10:00:00Z"],
]


@pytest.fixture(scope="module")
def rest() -> Iterator[Rest]:
    with Server(clock=Clock(START.isoformat())) as server, Rest(server.url) as rest:
        rest.publish_all([("lab/a", number, START - timedelta(minutes=10 - number)) for number in range(5)])
        rest.publish_all([("lab/b", {"rpm": number * 1.5, "on": True}) for number in range(3)])
        rest.publish("lab/a", "off")
        rest.publish("old", 1, measured_at=LONG_AGO)
        yield rest


def types_of(frame: Any) -> dict[str, str]:
    """Return each column's type, by the name that both libraries have for it, more or less."""
    if hasattr(frame, "schema"):
        return {name: str(dtype) for name, dtype in frame.schema.items()}
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def rows_of(frame: Any) -> list[tuple[Any, ...]]:
    if hasattr(frame, "schema"):
        return list(frame.rows())
    return [tuple(clean(value) for value in row) for row in frame.itertuples(index=False)]


def frame_of(history: Any, library: str) -> Any:
    return history.to_pandas() if library == "pandas" else history.to_polars()


TIME = {"pandas": "datetime64[us, UTC]", "polars": "Datetime(time_unit='us', time_zone='UTC')"}
WHOLE = {"pandas": "int64", "polars": "Int64"}
FLOAT = {"pandas": "float64", "polars": "Float64"}
TEXT = {"pandas": ("str", "object"), "polars": ("String",)}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "question", [{"device_id": "lab/a"}, {"devices": ["lab/*"]}, {"device_id": "lab/a", "to": "-9d"}]
)
def test_entries_have_the_same_types_however_many_there_are(rest: Rest, library: str, question: Any) -> None:
    history = rest.history(**question)
    frame = frame_of(history, library)
    types = types_of(frame)
    assert list(types) == ENTRIES
    assert types["time"] == types["stored_time"] == TIME[library]
    assert (types["seq"], types["number"]) == (WHOLE[library], FLOAT[library])
    assert types["device_id"] in TEXT[library] and types["source"] in TEXT[library]
    assert rows_of(frame) == [tuple(row) for row in history.rows()[1]]
    assert len(frame) == {"lab/a": 6}.get(question.get("device_id", ""), 9) if "to" not in question else len(frame) == 0


@pytest.mark.parametrize("library", LIBRARIES)
def test_times_are_in_utc_and_reach_back_as_far_as_the_log_may(rest: Rest, library: str) -> None:
    frame = frame_of(rest.history("old"), library)
    (row,) = rows_of(frame)
    assert row[2] == LONG_AGO and row[2].utcoffset() == timedelta(0)
    assert row[5:] == (1, 1.0)
    zoned = (
        frame["time"].dt.tz_convert("Asia/Kathmandu")
        if library == "pandas"
        else frame["time"].dt.convert_time_zone("Asia/Kathmandu")
    )
    assert next(iter(zoned)) == LONG_AGO


@pytest.mark.parametrize("library", LIBRARIES)
def test_buckets_of_several_devices_are_rows_with_the_aggregates_that_were_asked_for(rest: Rest, library: str) -> None:
    aggregates = ["count", "avg", "min", "max", "max_t", "last"]
    asked: Any = {"every": "5m", "agg": aggregates, "from_": START - timedelta(minutes=10), "to": START, "fill": "null"}
    history = rest.history(devices=["lab/*"], **asked)
    frame = frame_of(history, library)
    types = types_of(frame)
    assert list(types) == ["device_id", "path", "time", *aggregates]
    assert (types["time"], types["max_t"], types["count"]) == (TIME[library], TIME[library], WHOLE[library])
    assert types["avg"] == FLOAT[library]
    first = rows_of(frame)[0]
    assert first[:3] == ("lab/a", "", START - timedelta(minutes=10))
    assert first[3:8] == (5, 2.0, 0, 4, START - timedelta(minutes=6))
    assert first[8] == 4


@pytest.mark.parametrize("library", LIBRARIES)
def test_buckets_of_nothing_have_their_columns_and_types(rest: Rest, library: str) -> None:
    for asked in ({"devices": ["nobody/*"]}, {"device_id": "lab/a", "path": "/nowhere"}):
        frame = frame_of(rest.history(**asked, every="1h", agg="avg,max,min_t"), library)
        types = types_of(frame)
        assert list(types) == ["device_id", "path", "time", "avg", "max", "min_t"]
        assert (types["time"], types["min_t"]) == (TIME[library], TIME[library])
        assert types["avg"] == types["max"] == FLOAT[library]
        assert len(frame) == 0
    frame = frame_of(rest.history(devices=["nobody/*"], every="1h"), library)
    assert list(types_of(frame)) == ["device_id", "path", "time", "avg", "min", "max"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("values", MIXTURES, ids=lambda values: str(values[:2] + values[-1:]))
def test_no_value_becomes_another(library: str, values: list[Any]) -> None:
    make = pandas_frame if library == "pandas" else polars_frame
    found = make(columns_of(["value"], [(value,) for value in values]))["value"].to_list()
    assert [clean(each) for each in found] == [clean(each) for each in values]
    assert [kind(each) for each in found] == [kind(each) for each in values]


def kind(value: Any) -> str:
    """Return which of JSON's kinds a value is: `true` equals 1 in Python, and is none of its numbers."""
    cleaned = clean(value)
    return "number" if type(cleaned) in {int, float} else type(cleaned).__name__


def clean(value: Any) -> Any:
    """Return a value without what is null in it: a name that another value has, and this one has not."""
    if isinstance(value, dict):
        return {name: clean(each) for name, each in value.items() if clean(each) not in (None, {})}
    if isinstance(value, list):
        return [clean(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def test_numbers_and_objects_of_one_form_have_types_to_calculate_with() -> None:
    polars: Any = import_module("polars")
    frame = polars_frame({"value": [{"rpm": 1.5, "on": True}, {"rpm": 2.5, "on": False}]})
    assert frame.unnest("value")["rpm"].sum() == 4.0
    assert polars_frame({"value": [1, 2, None]})["value"].dtype == polars.Int64
    assert polars_frame({"min": [1, 2.5]})["min"].dtype == polars.Float64
    assert str(pandas_frame({"value": [1, 2]})["value"].dtype) == "int64"
    assert str(pandas_frame({"value": [1, 2.5]})["value"].dtype) == "float64"
