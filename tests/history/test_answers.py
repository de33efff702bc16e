import json

from msgspec import Raw

from twincast.core.model import Control, DataUpdate, Snapshot, Twin
from twincast.history.answers import (
    ENCODED_BYTES,
    PIECE_BYTES,
    Columns,
    DeviceEntries,
    HistoryEntries,
    ManyHistoryBuckets,
    ManyHistoryEntries,
    buckets_json,
    columns_of,
    entries_json,
    here,
    leaf_of,
    many_entries_json,
    state_json,
)
from twincast.history.pointer import Pointer
from twincast.history.query import Series

AT = "2026-11-25T10:00:00.000000+00:00"
READING = DataUpdate("a", Raw(b'{"x":1.50,"y":"z"}'), AT, "rest", 1, "e")


def test_an_entry_is_shown_with_its_value_as_it_was_stored() -> None:
    head = HistoryEntries(device_id="a", epoch="e", seq=9, reaches_back_to=AT, entries=here())
    pieces = list(entries_json(head, [READING, Control("a", "go", Raw(b"{}"), AT, "rest", 2, "e")], ()))
    assert pieces == [
        b'{"device_id":"a","epoch":"e","seq":9,"reaches_back_to":"%b","entries":['
        b'{"seq":1,"timestamp_utc":"%b","value":{"x":1.50,"y":"z"},"source":"rest"},'
        b'{"seq":2,"type":"control","timestamp_utc":"%b","command":"go","args":{},"source":"rest"}]}'
        % ((AT.encode(),) * 3)
    ]


def test_of_one_path_the_part_is_shown_and_of_several_their_names() -> None:
    x, y, nowhere = Pointer("/x"), Pointer("/y"), Pointer("/nowhere")
    assert leaf_of(READING, ()) == b'{"x":1.50,"y":"z"}'
    assert leaf_of(READING, (x,)) == b"1.50"
    assert leaf_of(READING, (x, nowhere, y)) == b'{"/x":1.50,"/y":"z"}'


def test_a_large_answer_comes_in_pieces_that_are_one_json_text() -> None:
    entries = [DataUpdate("a", Raw(b'"%b"' % (b"x" * 1_000)), AT, "rest", seq, "e") for seq in range(1, 301)]
    head = HistoryEntries(device_id="a", epoch="e", seq=9, reaches_back_to=None, entries=here())
    pieces = list(entries_json(head, entries, ()))
    assert len(pieces) > 3
    assert all(len(piece) < PIECE_BYTES + ENCODED_BYTES + 2_000 for piece in pieces)
    assert [entry["seq"] for entry in json.loads(b"".join(pieces))["entries"]] == list(range(1, 301))


def test_entries_of_several_devices_stand_under_their_names() -> None:
    head = ManyHistoryEntries(epoch="e", seq=9, reaches_back_to=AT, devices=here())
    devices = [
        (DeviceEntries(device_id="a", cursor="c", entries=here()), [READING]),
        (DeviceEntries(device_id="b", entries=here()), []),
    ]
    found = json.loads(b"".join(many_entries_json(head, devices, ())))
    assert [(each["device_id"], each.get("cursor"), len(each["entries"])) for each in found["devices"]] == [
        ("a", "c", 1),
        ("b", None, 0),
    ]


def test_buckets_come_by_columns_those_that_were_asked_for() -> None:
    series = Series("a", Pointer("/x"), [-1_000, 2_000], [[1, None], [b'"x"', b"1.50"]])
    head = ManyHistoryBuckets(
        epoch="e",
        seq=9,
        reaches_back_to=None,
        every="1ms",
        tz="UTC",
        from_utc=AT,
        to_utc=AT,
        is_open=False,
        series=here(),
    )
    (piece,) = buckets_json(head, [Columns(**columns_of(series, ("min", "last")))])
    assert piece.endswith(
        b'"open":false,"series":[{"device_id":"a","path":"/x","time_ms":[-1,2],"min":[1,null],"last":["x",1.50]}]}'
    )


def test_a_state_stands_where_its_head_says() -> None:
    snapshot = Snapshot("e", 2, {'a"b': Twin(Raw(b"1.50"), AT, 1, "rest"), "c": Twin(Raw(b"{}"), AT, 2, "rest")})
    head = DeviceEntries(device_id="x", entries=here())
    assert json.loads(b"".join(state_json(head, snapshot)))["entries"]['a"b']["value"] == 1.5
