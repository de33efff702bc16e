"""The words of the system, as they stand on the wire."""

import json

from msgspec import Raw

from twincast.core.model import NOT_YET, Control, DataUpdate, Snapshot, Twin
from twincast.core.protocol import encode


def test_a_data_update_encodes_to_the_event_of_the_contract() -> None:
    update = DataUpdate("lamp", Raw(b'{"on":true}'), "2026-11-23T16:24:00.123456+00:00", "rest", 7)
    assert json.loads(encode(update)) == {
        "type": "data_update",
        "device_id": "lamp",
        "value": {"on": True},
        "timestamp_utc": "2026-11-23T16:24:00.123456+00:00",
        "source": "rest",
        "seq": 7,
    }


def test_a_control_encodes_to_the_event_of_the_contract() -> None:
    control = Control("lamp", "dim", Raw(b'{"to":3}'), "2026-11-23T16:24:00.123456+00:00", "websocket", 8)
    assert json.loads(encode(control)) == {
        "type": "control",
        "target": "lamp",
        "command": "dim",
        "args": {"to": 3},
        "timestamp_utc": "2026-11-23T16:24:00.123456+00:00",
        "source": "websocket",
        "seq": 8,
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
    }
