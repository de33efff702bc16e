"""What the server says, field for field."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.wire.strategies import ids, json_values
from twincast.core.model import DataUpdate, Position
from twincast.errors import FellBehind, JournalUnavailable, MalformedJson
from twincast.wire import messages
from twincast.wire.messages import encode, encode_ack, encode_error, encode_merged, encode_pong
from twincast.wire.values import compact


def json_bytes(value: Any) -> bytes:
    return compact(json.dumps(value).encode())


@given(ids, json_values, st.integers(1, 2**53), st.integers(1, 2**53))
def test_a_merged_event_says_how_many_it_stands_for(device_id: str, value: Any, seq: int, merged: int) -> None:
    newest = DataUpdate(device_id, Raw(json_bytes(value)), "now", "rest", seq, "e")
    event = json.loads(encode_merged(newest, merged))
    assert event.pop("merged", 1) == merged
    assert event == {
        "type": "data_update",
        "device_id": device_id,
        "value": value,
        "timestamp_utc": "now",
        "source": "rest",
        "seq": seq,
        "epoch": "e",
    }


@pytest.mark.parametrize("error", [MalformedJson("m"), FellBehind("m"), JournalUnavailable("m")])
@pytest.mark.parametrize("message_id", [None, 0, 7, "", "x"])
def test_an_error_message_always_says_whether_to_try_again_and_echoes_an_id(
    error: MalformedJson | FellBehind | JournalUnavailable, message_id: str | int | None
) -> None:
    said = json.loads(encode_error(error, message_id))
    assert said.pop("id", None) == message_id
    assert said == {"type": "error", "code": error.code, "message": "m", "retryable": error.retryable}


HELLO = {
    "type": "hello",
    "message": "connected",
    "timestamp_utc": "now",
    "epoch": "e",
    "seq": 3,
    "resumed": False,
    "subscription": {},
    "data_snapshot": {"a": {}},
    "limits": {"message_max_bytes": 65_536, "value_max_bytes": 64_512},
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (messages.Hello("connected", "now", "e", 3, False, {}, Raw(b'{"a":{}}')), HELLO),
        (
            messages.Hello("connected", "now", "e", 3, False, {}, Raw(b'{"a":{}}'), "epoch", True),
            HELLO | {"reason": "epoch", "more": True},
        ),
        (
            messages.SnapshotPage("e", 3, Raw(b"{}")),
            {"type": "snapshot", "epoch": "e", "seq": 3, "data_snapshot": {}},
        ),
        (messages.Gap("e", 3, 9), {"type": "gap", "epoch": "e", "from": 3, "to": 9}),
        (
            messages.Echo("now", Raw(b'{"x":1}')),
            {"type": "echo", "timestamp_utc": "now", "received": {"x": 1}, "note": "Unrecognized message type"},
        ),
    ],
)
def test_a_message_has_the_fields_of_the_contract(message: msgspec.Struct, expected: dict[str, Any]) -> None:
    assert json.loads(encode(message)) == expected


def test_an_ack_says_where_and_whether_it_was_before() -> None:
    ack = {"type": "ack", "id": "mine", "epoch": "e", "seq": 9}
    assert json.loads(encode_ack("mine", Position("e", 9))) == ack
    assert json.loads(encode_ack("mine", Position("e", 9), replayed=True)) == ack | {"replayed": True}


def test_a_pong_has_a_position_only_if_there_is_one() -> None:
    pong = {"type": "pong", "timestamp_utc": "now"}
    assert json.loads(encode_pong("now", None)) == pong
    assert json.loads(encode_pong("now", Position("e", 9))) == pong | {"epoch": "e", "seq": 9}


def test_entries_are_encoded_one_by_one_where_a_value_has_an_end_of_line() -> None:
    values = [b"[1,\n2]", b"3"]
    entries = [DataUpdate(f"d{number}", Raw(value), "now", "rest") for number, value in enumerate(values)]
    for some in (entries, entries[1:], []):
        assert messages.encode_all(some) == [messages.encode(entry) for entry in some]
