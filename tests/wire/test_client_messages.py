"""The messages of a WebSocket client: what is taken, and what is refused and why."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire.strategies import ascii_or_not, compact, ids, json_values, message_ids
from twincast.core.model import Control, DataUpdate
from twincast.errors import BadMessage, BadTime, MalformedJson, TooLarge, ValidationFailed
from twincast.wire import client_messages
from twincast.wire.client_messages import decode_message, draft, id_of
from twincast.wire.messages import encode, encode_error


def telemetry(**fields: Any) -> bytes:
    return compact({"type": "telemetry", "device_id": "a", "value": 1} | fields)


def control(**fields: Any) -> bytes:
    return compact({"type": "control", "target": "a", "command": "on"} | fields)


@given(ids, json_values, st.none() | message_ids, ascii_or_not)
def test_telemetry_comes_through_as_it_was_sent(
    device_id: str, value: Any, message_id: str | int | None, ensure_ascii: bool
) -> None:
    fields = {"type": "telemetry", "device_id": device_id, "value": value}
    if message_id is not None:
        fields["id"] = message_id
    message = decode_message(compact(fields, ensure_ascii))
    assert (message.type, message.device_id, message.id) == ("telemetry", device_id, message_id)
    assert bytes(message.value) == compact(value, ensure_ascii)


@given(ids, ids, st.dictionaries(ids, json_values, max_size=4), st.none() | message_ids)
def test_a_command_comes_through_as_it_was_sent(
    target: str, command: str, args: dict[str, Any], message_id: str | int | None
) -> None:
    message = decode_message(control(target=target, command=command, args=args, id=message_id))
    assert (message.target, message.command, message.id) == (target, command, message_id)
    assert bytes(message.args) == compact(args)


@pytest.mark.parametrize("fields", [{}, {"args": None}, {"args": {}}])
def test_a_command_without_args_has_none(fields: dict[str, Any]) -> None:
    assert bytes(decode_message(control(**fields)).args) == b"{}"


def test_a_value_does_not_keep_its_message_in_memory() -> None:
    payload = telemetry(value=1, note="x" * 10_000)
    holders = sys.getrefcount(payload)
    message = decode_message(payload)
    assert bytes(message.value) == b"1"
    assert sys.getrefcount(payload) == holders


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"ping"}',
        b'{"type":"pong","x":[1]}',
        b'{"type":"??"}',
        b"{}",
        b'{"type":5}',
        b'{"type":"x","device_id":5}',
    ],
)
def test_a_message_of_another_type_passes_whatever_its_other_fields_are(payload: bytes) -> None:
    assert decode_message(payload).type not in {"telemetry", "control"}


REFUSED = [
    (b"", MalformedJson),
    (b"hello", MalformedJson),
    (b'{"type":"ping"', MalformedJson),
    (b'{"type":"ping"} x', MalformedJson),
    (b'{"type":"ping","type":"ping"}', MalformedJson),
    (b'{"type":"ping","x":NaN}', MalformedJson),
    (b'{"x":' + b"[" * 60_000, TooLarge),
    (b"[]", ValidationFailed),
    (b'"telemetry"', ValidationFailed),
    (b"null", ValidationFailed),
    (b"7", ValidationFailed),
    (b'{"type":"telemetry","value":1}', ValidationFailed),
    (b'{"type":"telemetry","device_id":"a"}', ValidationFailed),
    (b'{"type":"telemetry","device_id":null,"value":1}', ValidationFailed),
    (telemetry(device_id=""), ValidationFailed),
    (telemetry(measured_at_utc="yesterday"), BadTime),
    (telemetry(measured_at_utc=""), BadTime),
    (telemetry(measured_at_utc=1764216970), ValidationFailed),
    (
        b'{"type":"telemetry","device_id":"a","value":1,"measured_at_utc":"2026-11-27T04:16:10Z",'
        b'"measured_at_utc":"2026-11-27T04:16:11Z"}',
        MalformedJson,
    ),
    (telemetry(device_id=7), ValidationFailed),
    (telemetry(device_id="x" * 129), ValidationFailed),
    (telemetry(device_id="a\nb"), ValidationFailed),
    (telemetry(device_id="\x7f"), ValidationFailed),
    (b'{"type":"telemetry","device_id":"a","value":NaN}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":-Infinity}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":01}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":1e400}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":"\\ud800"}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":"\x01"}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":1,"value":2}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","device_id":"a","value":1}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":{"x":1,"x":2}}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":{"x":1,"\\u0078":2}}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":1,"\\u0076alue":2}', MalformedJson),
    (b'{"type":"telemetry","device_id":":","device_id":"a","value":1}', MalformedJson),
    (b'{"type":"telemetry","device_id":"\\u003a","value":1,"value":2}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","id":"\\u003a","value":1,"value":2}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","id":1,"id":1,"value":1}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","id":null,"id":1,"value":1}', MalformedJson),
    (b'{"type":"telemetry","device_id":"a","value":1,"more":{"x":1,"x":2}}', MalformedJson),
    (telemetry(value=2**64), MalformedJson),
    (telemetry(value=-(2**63) - 1), MalformedJson),
    (telemetry(value={str(n): n for n in range(1_025)}), TooLarge),
    (b'{"type":"telemetry","device_id":"a","value":' + b"[" * 33 + b"]" * 33 + b"}", TooLarge),
    (b'{"type":"telemetry","device_id":"a","value":' + b"[" * 30_000 + b"]" * 30_000 + b"}", TooLarge),
    (b'{"type":"control","command":"on"}', ValidationFailed),
    (b'{"type":"control","target":"a"}', ValidationFailed),
    (control(target=""), ValidationFailed),
    (control(command=""), ValidationFailed),
    (control(command="x" * 129), ValidationFailed),
    (control(args=[1]), ValidationFailed),
    (control(args="{}"), ValidationFailed),
    (control(args={"x": 2**64}), MalformedJson),
    (b'{"type":"control","target":"a","command":"on","args":{"x":1,"x":2}}', MalformedJson),
    (b'{"type":"control","target":"a","target":"b","command":"on"}', MalformedJson),
]


@pytest.mark.parametrize(("payload", "error"), REFUSED, ids=[f"{payload[:60]!r}" for payload, _ in REFUSED])
def test_what_is_wrong_with_a_message_has_its_own_error(payload: bytes, error: type[BadMessage]) -> None:
    with pytest.raises(error) as refusal:
        decode_message(payload)
    assert 0 < len(refusal.value.message) < 500


@pytest.mark.parametrize("message", [telemetry, control])
@pytest.mark.parametrize("message_id", ["", "x" * 129, "a\nb", 2**53, -(2**53), 10**20, 1.5, [1], True])
def test_an_id_out_of_bounds_is_refused(message: Callable[..., bytes], message_id: Any) -> None:
    with pytest.raises(ValidationFailed, match="id"):
        decode_message(message(id=message_id))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"telemetry","device_id":5,',
        b'{"type":"telemetry","device_id":5} x',
        b'{"type":5,"value":[',
        b'{"device_id":5,"value":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
    ids=["cut off", "followed by more", "of no type", "too deep"],
)
def test_a_message_that_is_wrong_in_type_and_then_in_syntax_is_a_bad_message(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_message(payload)


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    """Draw a message with a piece cut out or put in."""
    value = draw(json_values)
    field = draw(st.sampled_from(["device_id", "value", "type", "id", "target", "args", "note"]))
    text = draw(st.sampled_from([telemetry, control]))(**{field: value}).decode()
    at, until = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    junk = draw(st.sampled_from(["", "", ",", '"', "{", "]", "x", "\\", "1", ":"]))
    damaged: str = text[:at] + junk + text[until if draw(st.booleans()) else at :]
    return damaged.encode()


@given(damaged_messages())
@example(b'{"type":"telemetry","device_id":5,')
def test_any_text_is_a_message_or_a_bad_message(payload: bytes) -> None:
    try:
        message = decode_message(payload)
    except BadMessage as error:
        assert json.loads(encode_error(error, id_of(payload)))["code"] == error.code
        return
    assert isinstance(json.loads(payload), dict)
    if message.type in {"telemetry", "control"}:
        stored = json.loads(encode(draft(message, "websocket")))
        assert stored["type"] == {"telemetry": "data_update", "control": "control"}[message.type]


def test_a_refused_message_still_tells_its_id() -> None:
    assert id_of(telemetry(id=7, device_id="")) == 7
    assert id_of(control(id="mine", args=3)) == "mine"


@pytest.mark.parametrize(
    "payload", [b"", b"[", b"[1]", b"{}", telemetry(id=""), telemetry(id=2**53), telemetry(id=[1])]
)
def test_a_message_without_a_usable_id_tells_none(payload: bytes) -> None:
    assert id_of(payload) is None


def test_a_reading_says_when_it_was_measured_or_says_nothing() -> None:
    for text, claim in (("2026-11-27T05:16:10+01:00", "2026-11-27T04:16:10.000000+00:00"), (None, "")):
        assert draft(decode_message(telemetry(measured_at_utc=text, id="a:b")), "websocket").claim == claim


def test_a_draft_is_not_yet_stored_and_knows_its_way_in() -> None:
    update = draft(decode_message(telemetry(value=[1])), "websocket")
    assert update == DataUpdate("a", update.value, "", "websocket", 0)  # type: ignore[union-attr]
    command = draft(decode_message(control()), "websocket")
    assert isinstance(command, Control)
    assert (command.target, command.command, command.source, command.seq) == ("a", "on", "websocket", 0)


def test_white_space_inside_a_value_is_gone_before_the_journal() -> None:
    spaced = b'{"a": [1, 2],\n\t"b c": "d  e"}'
    message = decode_message(b'{"type":"telemetry","device_id":"a","value":' + spaced + b"}")
    assert bytes(message.value) == b'{"a":[1,2],"b c":"d  e"}'


def deletion(**fields: Any) -> bytes:
    return compact({"type": "delete", "device_id": "a"} | fields)


EVERY_UPDATE = pytest.mark.parametrize("update", [telemetry, control, deletion])


@EVERY_UPDATE
@given(producer=ids, line=st.integers(1, 2**53 - 1))
def test_a_numbered_line_comes_through(update: Callable[..., bytes], producer: str, line: int) -> None:
    message = decode_message(update(producer=producer, line=line, id=line))
    assert (message.producer, message.line, message.id) == (producer, line, line)


@EVERY_UPDATE
@pytest.mark.parametrize(
    "fields",
    [
        {"line": 1},
        {"producer": "p"},
        {"producer": "p", "line": 0},
        {"producer": "p", "line": -1},
        {"producer": "p", "line": 2**53},
        {"producer": "p", "line": 1.5},
        {"producer": "p", "line": "1"},
        {"producer": "p", "line": True},
        {"producer": "", "line": 1},
        {"producer": "p" * 129, "line": 1},
        {"producer": "p\n", "line": 1},
        {"producer": 7, "line": 1},
        {"producer": "p", "line": 1, "update_id": "u"},
    ],
)
def test_what_is_no_numbered_line_is_refused_in_words(update: Callable[..., bytes], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationFailed):
        decode_message(update(**fields))


@pytest.mark.parametrize(("name", "value"), [("producer", '"a:b"'), ("line", "1")])
def test_the_names_of_a_numbered_line_may_stand_in_it_once(name: str, value: str) -> None:
    text = telemetry(producer="a:b", line=1).decode()
    assert decode_message(text.encode()).producer == "a:b"
    with pytest.raises(MalformedJson):
        decode_message(text.replace(f'"{name}"', f'"{name}":{value},"{name}"').encode())


def test_an_escape_in_a_value_takes_no_second_parser_and_one_beside_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(client_messages, "refuse_duplicate_names", asked.append)
    decode_message(rb'{"type":"telemetry","device_id":"lab","value":{"said":"\"12:30\"\n","path":"C:\\\\"}}')
    decode_message(rb'{"type":"telemetry","device_id":"lab","value":"\u003a"}')
    assert not asked
    for beside in (rb'"device_id":"l\u0061b"', rb'"device_id":"lab","v\u0061lue":2', rb'"device_id":"lab","x":"\n"'):
        decode_message(b'{"type":"telemetry",%b,"value":"\\n"}' % beside)
    assert len(asked) == 3
