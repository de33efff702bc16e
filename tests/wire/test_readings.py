"""Plain readings are taken in one loop, and exactly as one message at a time is."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import compact, ids, json_values
from twincast.core.model import Entry
from twincast.errors import BadMessage
from twincast.wire.client_messages import decode_message, draft
from twincast.wire.readings import plain_readings

pytestmark = pytest.mark.usefixtures("implementation")
MAX_BYTES = 64 * 1024
PLAIN = b'{"type":"telemetry","device_id":"a","value":1}'


def taken(*payloads: bytes) -> list[Entry]:
    readings, size_bytes = plain_readings(payloads, "websocket", MAX_BYTES)
    assert size_bytes == sum(map(len, payloads[: len(readings)]))
    return list(readings)


def one_by_one(payload: bytes) -> Entry:
    return draft(decode_message(payload), "websocket")


@given(ids, json_values, st.booleans())
def test_what_clients_send_is_plain_in_each_of_their_spellings(device_id: str, value: Any, is_ascii: bool) -> None:
    message = {"type": "telemetry", "device_id": device_id, "value": value}
    payload = compact(message, is_ascii)
    assert taken(payload) in ([one_by_one(payload)], [])
    if device_id.isprintable() and not is_ascii and not {'"', "\\"} & {*device_id}:  # nothing is written as an escape
        assert len(taken(payload)) == len(taken(json.dumps(message, ensure_ascii=False).encode())) == 1


def test_the_order_of_the_fields_says_nothing() -> None:
    payload = b'{"value":[1,2],"device_id":"a","type":"telemetry"}'
    assert taken(payload) == [one_by_one(payload)]


members = st.sampled_from(
    [
        '"type":"telemetry"',
        '"type":"control"',
        '"\\u0074ype":"telemetry"',
        '"device_id":"a"',
        '"device_id":"b\\/c"',
        '"device_id":""',
        '"device_id":"\\u0000"',
        '"device_id":"ü"',
        f'"device_id":"{"x" * 129}"',
        '"device_id":1',
        '"value":1',
        '"value": 2',
        '"value":1e400',
        '"value":18446744073709551616',
        '"value":{"a":1,"a":2}',
        '"value":{"a":{"b":[1, 2]}}',
        '"value":"a:b"',
        '"value":null',
        '"id":1',
        '"id":"x"',
        '"":1',
        '"":2',
        '"x":1',
        '"update_id":"u"',
        '"mode":"latest"',
        '"line":1',
        '"measured_at_utc":"2026-11-27T04:16:10Z"',
        '"measured_at_utc":""',
        '"measured_at_utc":null',
    ]
)
spaces = st.sampled_from(["", "", "", " ", "\n", "\t "])


@given(st.lists(members, max_size=6), spaces, spaces, spaces)
def test_whatever_is_taken_is_what_one_message_at_a_time_gives(
    members: list[str], before: str, between: str, behind: str
) -> None:
    payload = f"{before}{{{(',' + between).join(members)}{between}}}{behind}".encode()
    for reading in taken(payload):
        assert reading == one_by_one(payload)


@given(st.data())
def test_a_mutated_reading_is_taken_only_if_one_message_at_a_time_takes_it(data: st.DataObject) -> None:
    payload = bytearray(
        data.draw(st.sampled_from([PLAIN, b'{"type": "telemetry", "device_id": "a", "value": {"b": 2}}']))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(['"', ":", ",", "{", "}", "a", " ", "\\"])
        ).encode()
    for reading in taken(bytes(payload)):
        assert reading == one_by_one(bytes(payload))


@pytest.mark.parametrize(
    "other",
    [
        b'{"type":"telemetry","device_id":"a","value":1,"id":1}',
        b'{"type":"telemetry","device_id":"a","value":1,"measured_at_utc":"2026-11-27T04:16:10Z"}',
        b'{"type":"telemetry","device_id":"a","value":1,"measured_at_utc":""}',
        b'{"type":"telemetry","device_id":"a","device_id":"a","value":1}',
        b'{"type":"telemetry","device_id":"a","value":{"b":1,"b":2}}',
        b'{"type":"telemetry","device_id":"a","value":18446744073709551616}',
        b'{"type":"telemetry","device_id":"a","value":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"type":"telemetry","device_id":"","value":1}',
        b'{"type":"telemetry","device_id":"a"}',
        b'{"type":"control","target":"a","command":"on"}',
        b'{"type":"ping"}',
        b"not JSON",
        b"[" * 5_000,
    ],
)
def test_the_first_message_that_is_anything_else_ends_it(other: bytes) -> None:
    assert len(taken(PLAIN, PLAIN, other, PLAIN)) == 2
    assert taken(other, PLAIN) == []


def test_a_message_above_the_limit_is_left_to_be_refused() -> None:
    assert len(plain_readings([PLAIN, PLAIN], "websocket", len(PLAIN))[0]) == 2
    assert plain_readings([PLAIN], "websocket", len(PLAIN) - 1) == ([], 0)


def test_a_value_does_not_keep_its_message_in_memory() -> None:
    payload = b'{"type":"telemetry","device_id":"a","value":"%b"}' % (b"x" * 10_000)
    references = sys.getrefcount(payload)
    (reading,) = taken(payload)
    assert len(reading.payload) == 10_002
    assert sys.getrefcount(payload) == references


def test_a_refused_value_is_put_into_words_one_message_at_a_time() -> None:
    payload = b'{"type":"telemetry","device_id":"a","value":{"b":1,"b":2}}'
    assert taken(payload) == []
    with pytest.raises(BadMessage, match="the name 'b' twice"):
        decode_message(payload)
