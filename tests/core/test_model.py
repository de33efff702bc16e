"""The words of the system, as they stand on the wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.model import NOT_YET, Control, DataUpdate, Position, Snapshot, Twin
from twincast.errors import ValidationFailed
from twincast.wire.messages import encode


def test_a_data_update_encodes_to_the_event_of_the_contract() -> None:
    update = DataUpdate("lamp", Raw(b'{"on":true}'), "2026-11-23T16:24:00.123456+00:00", "rest", 7, "e")
    assert json.loads(encode(update)) == {
        "type": "data_update",
        "device_id": "lamp",
        "value": {"on": True},
        "timestamp_utc": "2026-11-23T16:24:00.123456+00:00",
        "source": "rest",
        "seq": 7,
        "epoch": "e",
    }


def test_a_control_encodes_to_the_event_of_the_contract() -> None:
    control = Control("lamp", "dim", Raw(b'{"to":3}'), "2026-11-23T16:24:00.123456+00:00", "websocket", 8, "e")
    assert json.loads(encode(control)) == {
        "type": "control",
        "target": "lamp",
        "command": "dim",
        "args": {"to": 3},
        "timestamp_utc": "2026-11-23T16:24:00.123456+00:00",
        "source": "websocket",
        "seq": 8,
        "epoch": "e",
    }


def test_a_value_keeps_every_digit_that_came_in() -> None:
    text = b"0.1000000000000000055511151231257827021181583404541015625"
    assert b'"value":' + text + b"," in encode(DataUpdate("a", Raw(text), "", "rest"))


def test_an_entry_that_no_journal_has_stored_has_a_seq_that_none_gives() -> None:
    assert DataUpdate("a", Raw(b"1"), "", "rest").seq == NOT_YET == 0


def test_a_snapshot_encodes_its_twins_under_their_devices() -> None:
    snapshot = Snapshot("e", 3, {"a": Twin(Raw(b"[1]"), "then", 3, "rest")})
    assert json.loads(encode(snapshot)) == {
        "epoch": "e",
        "seq": 3,
        "twins": {"a": {"value": [1], "updated_at_utc": "then", "seq": 3, "source": "rest"}},
        "deletions": {},
    }


@given(st.text("abc:0", min_size=1), st.integers(0, 10**18 - 1))
def test_a_position_is_read_as_it_is_written(epoch: str, seq: int) -> None:
    assert Position.parse(str(Position(epoch, seq))) == Position(epoch, seq)


@pytest.mark.parametrize("text", ["", "5", ":5", "e:", "e:-1", "e:1.5", "e:x", "e:" + "9" * 19, "e:٣"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed, match="EPOCH:SEQ"):
        Position.parse(text)


def test_the_topic_of_an_entry_is_its_kind_and_whom_it_is_about() -> None:
    assert DataUpdate("lamp", Raw(b"1"), "", "rest").topic == ("data_update", "lamp")
    assert Control("lamp", "on", Raw(b"{}"), "", "rest").topic == ("control", "lamp")
