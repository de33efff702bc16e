"""JSON bytes to model: whatever a client may send, on every wire.

Decoding checks all that a message promises (shape, names, limits, I-JSON), so what comes out may be stored as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct, field

from twincast.core.model import (
    Args,
    Command,
    Control,
    DataUpdate,
    Deleted,
    DeviceId,
    Entry,
    Source,
    Target,
    Value,
    value_bytes,
)
from twincast.core.names import check_id
from twincast.errors import BadMessage, MalformedJson, TooLarge, TwincastError, ValidationFailed
from twincast.wire.messages import MessageId
from twincast.wire.values import check_value, compact, refuse_duplicate_names

T = TypeVar("T")
_ABSENT = Raw(b"")
_BACKSLASH = ord("\\")  # a byte is found five times as fast as bytes of one
_NO_ARGS = Raw(b"{}")
_KNOWN = {"telemetry", "control", "delete", "ping", "subscribe", "unsubscribe", "auth", "restart"}


class ClientMessage(Struct):
    """Whatever a WebSocket client may say; `type` decides which of the rest counts."""

    type: str = ""
    id: MessageId | None = None
    device_id: str | None = None
    value: Raw = _ABSENT
    target: str | None = None
    command: str | None = None
    args: Raw = _ABSENT
    update_id: str | None = None
    devices: list[str] | None = None
    kinds: list[str] | None = None
    mode: str | None = None
    max_hz: float | None = None
    token: str | None = None
    producer: str | None = None
    line: int | None = None


class Reading(Struct):
    """One reading of one device: what `POST /api/data` takes, alone or in an array."""

    device_id: DeviceId
    value: Value


class CommandRequest(Struct):
    """What `POST /api/control` takes."""

    target: Target
    command: Command
    args: Args = field(default_factory=Raw)


class _Typed(Struct):
    type: str = ""


class _Identified(Struct):
    id: MessageId | None = None


_decode_message = msgspec.json.Decoder(ClientMessage).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode
_decode_reading = msgspec.json.Decoder(Reading)
_decode_readings = msgspec.json.Decoder(list[Reading]).decode
_decode_order = msgspec.json.Decoder(CommandRequest).decode


def decode_message(payload: bytes) -> ClientMessage:
    """Decode and check one WebSocket text message, valid UTF-8.

    Telemetry comes back with `device_id` and `value` set and checked, control with `target`, `command` and `args`,
    delete with `device_id`.
    Messages of other types come back as they are.

    Raises:
        BadMessage: one of its kinds, with a text for the person who wrote the client.
    """
    try:
        message = _decode_message(payload)
    except msgspec.ValidationError as error:
        if _type_of(payload) in _KNOWN:
            raise ValidationFailed(_explain(error)) from None
        message = ClientMessage(type="")
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if message.type == "telemetry":
        _check_telemetry(message, payload)
        return message
    refuse_duplicate_names(payload)
    if message.type in _KNOWN:
        _check_message_id(message.id)
    if message.type in {"control", "delete"}:
        if message.update_id is not None:
            check_id(message.update_id, "`update_id`")
        if message.line is not None or message.producer is not None:
            _check_line(message)
    if message.type == "control":
        message.args = _check_order(message.target, message.command, message.args)
    elif message.type == "delete":
        if message.device_id is None:
            raise ValidationFailed("delete takes a `device_id`; this message has none")
        check_id(message.device_id, "`device_id`")
    elif message.type == "auth" and not message.token:
        raise ValidationFailed("auth takes a `token`; this message has none")
    return message


def id_of(payload: bytes) -> MessageId | None:
    """Return the `id` of a message that was refused, for its answer to carry; None if it has none to tell."""
    try:
        message_id = _decode_identified(payload).id
        _check_message_id(message_id)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, BadMessage):
        return None
    return message_id


def decode_reading(body: bytes, source: Source) -> DataUpdate:
    """Decode and check the body of a single reading.

    Raises:
        BadMessage: one of its kinds.
    """
    reading = _strictly(_decode_reading.decode, body)
    return _drafts([reading], body, source)[0]


def decode_readings(body: bytes, source: Source, max_updates: int) -> list[DataUpdate]:
    """Decode and check a JSON array of readings, all or nothing.

    Raises:
        BadMessage: one of its kinds.
    """
    return _drafts(_bounded(_strictly(_decode_readings, body), max_updates), body, source)


def decode_reading_lines(body: bytes, source: Source, max_updates: int) -> list[DataUpdate]:
    """Decode and check NDJSON, one reading a line, all or nothing. Empty lines are passed over.

    Raises:
        BadMessage: one of its kinds; it names the line.
    """
    try:
        return _drafts(_bounded(_strictly(_decode_lines, body), max_updates), body, source)
    except BadMessage:
        for number, line in enumerate(body.split(b"\n"), 1):
            if line.strip():
                try:
                    decode_reading(line, source)
                except BadMessage as error:
                    raise type(error)(f"line {number}: {error.message}") from None
        raise


def _decode_lines(body: bytes) -> list[Reading]:
    """Decode each line by itself; msgspec's own `decode_lines` minds no line's end."""
    decode = _decode_reading.decode
    return [decode(line) for line in body.split(b"\n") if line.strip()]


def decode_command(body: bytes, source: Source) -> Control:
    """Decode and check the body of a command.

    Raises:
        BadMessage: one of its kinds.
    """
    order = _strictly(_decode_order, body)
    refuse_duplicate_names(body)
    args = _check_order(order.target, order.command, order.args)
    return Control(order.target, order.command, args, "", source)


def draft_deletion(device_id: str, source: Source) -> Deleted:
    """Make the entry that deletes a device.

    Raises:
        BadMessage: no device can have that name.
    """
    check_id(device_id, "`device_id`")
    return Deleted(device_id, "", source)


def draft(message: ClientMessage, source: Source) -> Entry:
    """Make the entry that a checked telemetry, control or delete message asks for."""
    if message.type == "telemetry":
        assert message.device_id is not None  # decode_message saw to it
        return DataUpdate(message.device_id, message.value, "", source)
    if message.type == "delete":
        assert message.device_id is not None
        return Deleted(message.device_id, "", source)
    assert message.target is not None and message.command is not None
    return Control(message.target, message.command, message.args, "", source)


def check_value_sizes(entries: Iterable[Entry], max_bytes: int) -> None:
    """Check that no value, and no command's args, is longer than a limit.

    Raises:
        TooLarge: one of them is.
    """
    for entry in entries:
        size_bytes = value_bytes(entry)
        if size_bytes > max_bytes:
            name = entry.topic[1]
            raise TooLarge(f"a value takes {max_bytes} bytes; the one for {name[:128]!r} has {size_bytes}")


def _check_telemetry(message: ClientMessage, payload: bytes) -> None:
    device_id = message.device_id
    if device_id is None:
        raise ValidationFailed("telemetry takes a `device_id`; this message has none")
    value = bytes(message.value)
    if not value:
        raise ValidationFailed("telemetry takes a `value`; this message has none")
    check_id(device_id, "`device_id`")
    # Three names and the colons inside the texts; any other count may hide a duplicate name.
    colons = 3 + check_value(value) + device_id.count(":")
    if message.id is not None:
        _check_message_id(message.id)
        colons += 1 + str(message.id).count(":")
    if message.update_id is not None:
        check_id(message.update_id, "`update_id`")
        colons += 1 + message.update_id.count(":")
    if message.line is not None or message.producer is not None:
        _check_line(message)
        colons += 2 + (message.producer or "").count(":")
    if payload.count(b":") != colons or _BACKSLASH in payload:
        refuse_duplicate_names(payload)
    message.value = Raw(compact(value))  # a copy: a value must not keep a whole message in memory


def _check_order(target: str | None, command: str | None, args: Raw) -> Raw:
    for text, what in ((target, "`target`"), (command, "`command`")):
        if text is None:
            raise ValidationFailed(f"control takes a {what}; this message has none")
        check_id(text, what)
    text_bytes = bytes(args)
    if not text_bytes or text_bytes == b"null":
        return _NO_ARGS
    if not text_bytes.startswith(b"{"):
        raise ValidationFailed("`args` takes a JSON object")
    check_value(text_bytes)
    return Raw(compact(text_bytes))


def _check_message_id(message_id: MessageId | None) -> None:
    if isinstance(message_id, str):
        check_id(message_id, "`id`")
    elif message_id is not None and not -(1 << 53) < message_id < 1 << 53:
        raise ValidationFailed("`id` takes a string or an integer of up to 53 bits")


def _check_line(message: ClientMessage) -> None:
    if message.producer is None or message.line is None:
        raise ValidationFailed("a numbered line takes both a `producer` and a `line`; this message has one of them")
    check_id(message.producer, "`producer`")
    if not 0 < message.line < 1 << 53:
        raise ValidationFailed("`line` takes an integer from 1 on, of up to 53 bits")
    if message.update_id is not None:
        raise ValidationFailed("an update takes an `update_id` or a numbered line; this message has both")


def _drafts(readings: Sequence[Reading], body: bytes, source: Source) -> list[DataUpdate]:
    updates = []
    colons = 0
    try:
        for reading in readings:
            check_id(reading.device_id, "`device_id`")
            value = bytes(reading.value)
            colons += 2 + check_value(value) + reading.device_id.count(":")
            updates.append(DataUpdate(reading.device_id, Raw(compact(value)), "", source))
    except BadMessage as error:
        if len(readings) == 1:
            raise
        raise type(error)(f"reading {len(updates) + 1}: {error.message}") from None
    if body.count(b":") != colons or _BACKSLASH in body:
        for text in body.split(b"\n") if len(readings) > 1 and body.lstrip()[:1] == b"{" else (body,):
            if text.strip():
                refuse_duplicate_names(text)
    return updates


def _bounded(readings: list[Reading], max_updates: int) -> list[Reading]:
    if not readings:
        raise ValidationFailed("a batch takes at least one reading; this one is empty")
    if len(readings) > max_updates:
        raise TooLarge(f"a request takes {max_updates} readings; this one has {len(readings)}")
    return readings


def _strictly(decoder: Callable[[bytes], T], body: bytes) -> T:
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into the strings that it passes over
        return decoder(body)
    except msgspec.ValidationError as error:
        raise ValidationFailed(_explain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None


def _type_of(payload: bytes) -> str:
    """Return the type of a message whose other fields do not fit; empty if it has none."""
    try:
        return _decode_typed(payload).type
    except msgspec.ValidationError as error:
        if payload.lstrip()[:1] != b"{":
            raise ValidationFailed(_explain(error)) from None
        return ""
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_json(error) from None  # msgspec told of the wrong type before it had seen the end


def _not_json(error: Exception) -> TwincastError:
    if isinstance(error, RecursionError):
        return TooLarge("the message is nested too deep")
    return MalformedJson(f"expected JSON: {error}")


def _explain(error: msgspec.ValidationError) -> str:
    return str(error).replace(" - at `$", " at `$")
