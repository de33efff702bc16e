"""What may be published: values that JSON has exactly one form for; all else is refused before it is sent."""

import dataclasses
import json
import math
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgspec
import pytest

from twincast.client import Rest, connect
from twincast.client.encoding import encode_args, encode_value
from twincast.client.sync import connect as connect_sync
from twincast.errors import BadMessage, MalformedJson, TooLarge, ValidationFailed
from twincast.testing import Server
from twincast.wire.requests import decode_reading


class Level(IntEnum):
    HIGH = 2


class Color(StrEnum):
    RED = "red"


class Odd(Enum):
    NOT_A_NUMBER = math.nan
    DATA = b"data"


@dataclasses.dataclass
class Reading:
    at: Any
    value: Any = None


class Point(msgspec.Struct):
    x: Any


Pair = namedtuple("Pair", "a b")
ITSELF: list[Any] = []
ITSELF.append(ITSELF)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


TAKEN: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "true"),
    ("ü🌡", '"ü🌡"'),
    (21.5, "21.5"),
    (1e308, "1e308"),
    (2**64 - 1, "18446744073709551615"),
    (-(2**63), "-9223372036854775808"),
    ([1, (2, 3)], "[1,[2,3]]"),
    (Pair(1, 2), "[1,2]"),
    ({"a": {"b": 1}}, '{"a":{"b":1}}'),
    (OrderedDict(a=1), '{"a":1}'),
    ({Color.RED: 1}, '{"red":1}'),
    (Decimal("21.50"), "21.50"),
    (Decimal("1E+2"), "1E+2"),
    (datetime(2026, 11, 23, 16, 24, tzinfo=UTC), '"2026-11-23T16:24:00Z"'),
    (date(2026, 11, 23), '"2026-11-23"'),
    (time(16, 24), '"16:24:00"'),
    (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Level.HIGH, "2"),
    (Color.RED, '"red"'),
    (Reading(date(2026, 11, 23), [1]), '{"at":"2026-11-23","value":[1]}'),
    (Point(1), '{"x":1}'),
    (msgspec.Raw(b"1.000"), "1.000"),
    (nested(32), "[" * 32 + "1" + "]" * 32),
]
REFUSED: list[tuple[Any, type[BadMessage]]] = [
    (math.nan, ValidationFailed),
    (math.inf, ValidationFailed),
    (-math.inf, ValidationFailed),
    ({"t": math.nan, "u": 1}, ValidationFailed),
    ([[{"a": (1, math.inf)}]], ValidationFailed),
    (Odd.NOT_A_NUMBER, ValidationFailed),
    (Reading(math.nan), ValidationFailed),
    (Point([math.nan]), ValidationFailed),
    (Decimal("NaN"), ValidationFailed),
    (Decimal("sNaN"), ValidationFailed),
    (Decimal("-Infinity"), ValidationFailed),
    (Decimal("1E+400"), ValidationFailed),
    (Decimal(2**64), MalformedJson),
    (b"data", ValidationFailed),
    (bytearray(b"data"), ValidationFailed),
    (memoryview(b"data"), ValidationFailed),
    (Odd.DATA, ValidationFailed),
    ({1, 2}, ValidationFailed),
    (frozenset("a"), ValidationFailed),
    ([{"a": {1}}], ValidationFailed),
    (timedelta(seconds=1), ValidationFailed),
    ({1: "a"}, ValidationFailed),
    ({None: "a"}, ValidationFailed),
    ({True: "a"}, ValidationFailed),
    ({1.5: "a"}, ValidationFailed),
    ({Level.HIGH: "a"}, ValidationFailed),
    ([{"deep": {1: 2}}], ValidationFailed),
    (2**64, MalformedJson),
    ([-(2**63) - 1], MalformedJson),
    (10**400, MalformedJson),
    ("\ud800", ValidationFailed),
    ({"\udfff": 1}, ValidationFailed),
    (["\ud800"], ValidationFailed),
    (nested(33), TooLarge),
    (nested(100_000), TooLarge),
    (ITSELF, TooLarge),
    ({str(number): 1 for number in range(1_025)}, TooLarge),
    ([{str(number): 1 for number in range(600)}] * 2, TooLarge),
    (Fraction(1, 2), ValidationFailed),
    (1 + 2j, ValidationFailed),
    (object(), ValidationFailed),
    (Reading, ValidationFailed),
    (len, ValidationFailed),
    ((n for n in [1]), ValidationFailed),
]


@pytest.mark.parametrize(("value", "text"), TAKEN, ids=range(len(TAKEN)))
def test_what_json_has_one_form_for_is_taken_in_that_form_and_by_the_server(value: Any, text: str) -> None:
    encoded = bytes(encode_value(value))
    assert encoded.decode() == text
    assert bytes(decode_reading(b'{"device_id":"a","value":%b}' % encoded, "rest").value) == encoded


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=range(len(REFUSED)))
def test_what_json_has_no_form_for_is_refused_before_it_is_sent(value: Any, kind: type[BadMessage]) -> None:
    with pytest.raises(kind) as caught:
        encode_value(value)
    assert type(caught.value) is kind
    assert len(caught.value.message) < 600


def test_arguments_of_a_command_are_an_object_of_such_values() -> None:
    assert [bytes(encode_args(args)) for args in (None, {}, {"rpm": Decimal("900.0")})] == [
        b"{}",
        b"{}",
        b'{"rpm":900.0}',
    ]
    for args in ([1], "text", 5, {1: 2}, {"rpm": math.nan}):
        with pytest.raises(ValidationFailed):
            encode_args(args)  # type: ignore[arg-type]


async def test_every_way_out_refuses_alike_and_sends_nothing(twincast_server: Server) -> None:
    url = twincast_server.url
    async with connect(url) as client:
        for value, kind in REFUSED:
            with pytest.raises(kind):
                await client.publish("a", value)
            with pytest.raises(kind):
                await client.control("a", "set", {"to": value})
        future = await client.submit("a", math.nan)
        with pytest.raises(ValidationFailed):
            await future
        with pytest.raises(ValidationFailed, match="nan"):
            await client.publish_many([("a", 1), ("a", math.nan), ("a", 3)])
    with Rest(url) as rest:
        for value, kind in REFUSED:
            with pytest.raises(kind):
                rest.publish("b", value)
            with pytest.raises(kind, match="reading 2"):
                rest.publish_all([("b", 1), ("b", value)])
            with pytest.raises(kind):
                rest.control("b", "set", {"to": value})
    assert [event["value"] for event in twincast_server.log()] == [1, 3], "each reading stands for itself"


def test_without_asyncio_it_is_the_same(twincast_server: Server) -> None:
    with connect_sync(twincast_server.url) as client:
        with pytest.raises(ValidationFailed):
            client.publish("a", {"t": math.nan})
        assert client.publish("a", Decimal("0.10")) == 1
    assert twincast_server.state["a"].value == 0.1


@pytest.mark.parametrize("name", ["\ud800", "", "x" * 129, 5, None, b"lamp"])
async def test_a_name_that_is_none_is_refused_and_the_next_reading_goes_on(twincast_server: Server, name: Any) -> None:
    async with connect(twincast_server.url) as client:
        with pytest.raises(BadMessage):
            await client.publish(name, 1)
        with pytest.raises(BadMessage):
            await client.control("lamp", name)
        assert await client.publish("lamp", 1) == 1
    with Rest(twincast_server.url) as rest:
        with pytest.raises(BadMessage):
            rest.publish(name, 1)
        with pytest.raises(BadMessage):
            rest.control(name, "on")


@pytest.mark.parametrize("key", ["ü", "a\nb", "\ud800", "", "x" * 129, 5])
def test_a_key_that_no_header_holds_is_refused_in_our_words(twincast_server: Server, key: Any) -> None:
    with Rest(twincast_server.url) as rest, pytest.raises(ValidationFailed, match="key"):
        rest.publish("lamp", 1, key=key)


def test_numbers_keep_their_digits(twincast_server: Server) -> None:
    with Rest(twincast_server.url) as rest:
        rest.publish("lamp", Decimal("0.1000000000000000055511151231257827"))
        text = rest._http.get("/api/data").text
    assert '"value":0.1000000000000000055511151231257827' in text
    assert json.loads(text)
