"""The bodies of REST requests: what is taken, and what is refused and why."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import ascii_or_not, compact, ids, json_values
from twincast.core.model import Deleted
from twincast.errors import BadMessage, BadTime, MalformedJson, TooLarge, ValidationFailed
from twincast.wire import requests


def test_white_space_inside_a_value_is_gone_before_the_journal() -> None:
    spaced = b'{"a": [1, 2],\n\t"b c": "d  e"}'
    tight = b'{"a":[1,2],"b c":"d  e"}'
    body = b'{"device_id":"a","value":' + spaced + b"}"
    assert bytes(requests.decode_reading(body, "rest").value) == tight
    assert bytes(requests.decode_readings(b"[" + body + b"]", "rest", 1)[0].value) == tight
    command = b'{"target":"a","command":"on","args":' + spaced + b"}"
    assert bytes(requests.decode_command(command, "rest").args) == tight


@given(ids, json_values, ascii_or_not)
def test_a_reading_comes_through_as_it_was_sent(device_id: str, value: Any, ensure_ascii: bool) -> None:
    update = requests.decode_reading(compact({"device_id": device_id, "value": value}, ensure_ascii), "rest")
    assert (update.device_id, bytes(update.value), update.source) == (device_id, compact(value, ensure_ascii), "rest")


@given(st.lists(st.tuples(ids, json_values), min_size=1, max_size=5), ascii_or_not)
def test_an_array_and_lines_of_readings_come_through_in_order(batch: list[tuple[str, Any]], ensure_ascii: bool) -> None:
    bodies = [compact({"device_id": device_id, "value": value}, ensure_ascii) for device_id, value in batch]
    expected = [(device_id, compact(value, ensure_ascii)) for device_id, value in batch]
    array = requests.decode_readings(b"[" + b",".join(bodies) + b"]", "rest", 5)
    lines = requests.decode_reading_lines(b"\n".join(bodies), "rest", 5)
    spaced = requests.decode_reading_lines(b"\n" + b"\r\n\n".join(bodies) + b"\r\n", "rest", 5)
    for updates in (array, lines, spaced):
        assert [(update.device_id, bytes(update.value)) for update in updates] == expected


@pytest.mark.parametrize("name", [b"measured_at_utc", b"m\\u0065asured_at_utc", b"measured\\u005fat_utc"])
def test_a_look_at_a_body_misses_no_claim(name: bytes) -> None:
    plain = b'{"device_id":"a","value":1}'
    measured = b'{"device_id":"a","value":1,"%b":"2026-11-27T04:16:10Z"}' % name
    assert not requests.may_claim(b"[%b,%b]" % (plain, plain))
    updates = requests.decode_readings(b"[%b,%b]" % (plain, measured), "rest", 2)
    assert [update.claim for update in updates] == ["", "2026-11-27T04:16:10.000000+00:00"]
    assert requests.may_claim(measured)


@pytest.mark.parametrize(
    ("time", "error"),
    [
        (b'"yesterday"', BadTime),
        (b'""', BadTime),
        (b"1764216970", ValidationFailed),
        (b"{}", ValidationFailed),
        (b'"2026-11-27T04:16:10Z","measured_at_utc":"2026-11-27T04:16:10Z"', MalformedJson),
        (b'"2026-11-27T04:16:10Z","value":2', MalformedJson),
    ],
)
def test_a_claim_that_cannot_be_is_refused(time: bytes, error: type[BadMessage]) -> None:
    body = b'{"device_id":"a","value":1,"measured_at_utc":%b}' % time
    with pytest.raises(error):
        requests.decode_reading(body, "rest")
    with pytest.raises(error, match="line 2"):
        requests.decode_reading_lines(b'{"device_id":"a","value":1}\n%b' % body, "rest", 2)


READING_FAULTS = [
    (b"", MalformedJson),
    (b"{", MalformedJson),
    (b"{}", ValidationFailed),
    (b'{"device_id":"a"}', ValidationFailed),
    (b'{"value":1}', ValidationFailed),
    (b'{"device_id":"","value":1}', ValidationFailed),
    (b'{"device_id":null,"value":1}', ValidationFailed),
    (b'{"device_id":1,"value":1}', ValidationFailed),
    (b'{"device_id":"a","value":NaN}', MalformedJson),
    (b'{"device_id":"a","value":18446744073709551616}', MalformedJson),
    (b'{"device_id":"a","value":1,"value":1}', MalformedJson),
    (b'{"device_id":"\\u003a","value":1,"value":1}', MalformedJson),
    (b'{"device_id":"a","value":1,"x":{"y":1,"y":1}}', MalformedJson),
    (b'{"device_id":"a","value":{"y":1,"\\u0079":1}}', MalformedJson),
    (b'{"device_id":"a","value":"\xff"}', MalformedJson),
    (b'{"device_id":"a","value":"\xed\xa0\x80"}', MalformedJson),
    (b'{"device_id":"a","value":' + b"[" * 33 + b"]" * 33 + b"}", TooLarge),
    (b'{"device_id":"a","value":' + b"[" * 90_000 + b"]" * 90_000 + b"}", TooLarge),
]
GOOD = b'{"device_id":"good","value":{"a:b":":"}}'


@pytest.mark.parametrize(("body", "error"), READING_FAULTS, ids=[f"{body[:60]!r}" for body, _ in READING_FAULTS])
def test_one_bad_reading_is_refused_alone_and_keeps_out_every_batch_that_it_is_in(
    body: bytes, error: type[BadMessage]
) -> None:
    with pytest.raises(error):
        requests.decode_reading(body, "rest")
    with pytest.raises(BadMessage):
        requests.decode_readings(b"[" + b",".join([GOOD, body, GOOD]) + b"]", "rest", 10)
    if body:
        with pytest.raises(error, match="line 3"):
            requests.decode_reading_lines(b"\n".join([GOOD, b"", body, GOOD]), "rest", 10)


def test_a_bad_reading_of_an_array_is_named_by_its_place() -> None:
    with pytest.raises(ValidationFailed, match="reading 3"):
        requests.decode_readings(b"[" + GOOD + b"," + GOOD + b',{"device_id":"","value":1}]', "rest", 10)


@pytest.mark.parametrize("body", [b"{}", b'"x"', b"7", b"null", b"[[]]", b"[1]"])
def test_an_array_of_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationFailed):
        requests.decode_readings(body, "rest", 10)


def test_a_batch_is_bounded_at_both_ends() -> None:
    for count, error in ((0, ValidationFailed), (4, TooLarge)):
        with pytest.raises(error, match=r"at least one|at most 3 readings; this one has 4"):
            requests.decode_readings(b"[" + b",".join([GOOD] * count) + b"]", "rest", 3)
        with pytest.raises(error, match=r"at least one|at most 3 readings; this one has 4"):
            requests.decode_reading_lines(b"\n".join([GOOD] * count), "rest", 3)
    assert len(requests.decode_readings(b"[" + b",".join([GOOD] * 3) + b"]", "rest", 3)) == 3


@given(ids, ids, st.dictionaries(ids, json_values, max_size=3))
def test_a_command_comes_through_as_it_was_sent(target: str, command: str, args: dict[str, Any]) -> None:
    entry = requests.decode_command(compact({"target": target, "command": command, "args": args}), "rest")
    assert (entry.target, entry.command, bytes(entry.args), entry.source) == (target, command, compact(args), "rest")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", MalformedJson),
        (b"[]", ValidationFailed),
        (b'{"target":"a"}', ValidationFailed),
        (b'{"target":"","command":"on"}', ValidationFailed),
        (b'{"target":"a","command":""}', ValidationFailed),
        (b'{"target":"a","command":"on","args":[]}', ValidationFailed),
        (b'{"target":"a","command":"on","args":{"x":1,"x":1}}', MalformedJson),
        (b'{"target":"a","command":"on","args":{"x":1e999}}', MalformedJson),
        (b'{"target":"a","command":"on","args":{"x":' + b"[" * 32 + b"]" * 32 + b"}}", TooLarge),
        (b'{"target":"\xff","command":"on"}', MalformedJson),
    ],
)
def test_a_bad_command_is_refused(body: bytes, error: type[BadMessage]) -> None:
    with pytest.raises(error):
        requests.decode_command(body, "rest")


def test_a_deletion_names_a_device_that_there_could_be() -> None:
    assert requests.draft_deletion("a", "rest") == Deleted("a", "", "rest")
    with pytest.raises(ValidationFailed):
        requests.draft_deletion("", "rest")


def test_an_escape_in_a_value_takes_no_second_parser_and_one_beside_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(requests, "refuse_duplicate_names", asked.append)
    plain = rb'{"device_id":"lab","value":{"said":"\"12:30\"\n"}}'
    requests.decode_readings(b"[%b,%b]" % (plain, plain), "rest", 10)
    assert not asked
    requests.decode_readings(rb'[%b,{"device_id":"l\u0061b","value":"\n"}]' % plain, "rest", 10)
    assert len(asked) == 1
