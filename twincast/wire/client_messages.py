"""What a client says on the WebSocket: JSON bytes to a checked message, and to the entry that it asks for.

Decoding checks all that a message promises (shape, names, limits, I-JSON), so what comes out may be stored as it is.
"""

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw, Struct

from twincast.core.model import Control, DataUpdate, Deleted, Entry, Source
from twincast.core.names import check_id
from twincast.errors import BadMessage, ValidationFailed
from twincast.wire.checks import check_command, check_measured, explain, not_json
from twincast.wire.messages import MessageId
from twincast.wire.values import check_value, compact, has_escapes_beside, refuse_duplicate_names

_ABSENT = Raw(b"")


class ClientMessage(Struct):
    """A message of a WebSocket client; `type` decides which of the other fields count."""

    type: str = ""
    id: MessageId | None = None
    device_id: str | None = None
    value: Raw = _ABSENT
    measured_at_utc: str | None = None
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


class _Typed(Struct):
    type: str = ""


class _Identified(Struct):
    id: MessageId | None = None


_decode_message = msgspec.json.Decoder(ClientMessage).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode


def decode_message(payload: bytes) -> ClientMessage:
    """Decode and check one WebSocket text message, valid UTF-8.

    What `CHECKS` has of its type was checked. A message of a type that is not known comes back as it is.

    Raises:
        BadMessage: one of its kinds, with a text for the person who wrote the client.
    """
    try:
        message = _decode_message(payload)
    except msgspec.ValidationError as error:
        if _type_of(payload) in CHECKS:
            raise ValidationFailed(explain(error)) from None
        message = ClientMessage(type="")
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_json(error) from None
    check = CHECKS.get(message.type)
    if check is None:
        refuse_duplicate_names(payload)
    else:
        check(message, payload)
    return message


def id_of(payload: bytes) -> MessageId | None:
    """Return the `id` of a message that was refused, for the reply to carry; None if it has no valid one."""
    try:
        message_id = _decode_identified(payload).id
        _check_message_id(message_id)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, BadMessage):
        return None
    return message_id


def draft(message: ClientMessage, source: Source) -> Entry:
    """Make the entry that a checked telemetry, control or delete message asks for."""
    if message.type == "telemetry":
        assert message.device_id is not None  # decode_message saw to it
        measured_at_utc = UNSET if message.measured_at_utc is None else message.measured_at_utc
        return DataUpdate(message.device_id, message.value, "", source, measured_at_utc=measured_at_utc)
    if message.type == "delete":
        assert message.device_id is not None
        return Deleted(message.device_id, "", source)
    assert message.target is not None and message.command is not None
    return Control(message.target, message.command, message.args, "", source)


def _check_telemetry(message: ClientMessage, payload: bytes) -> None:
    device_id = message.device_id
    if device_id is None:
        raise ValidationFailed("telemetry needs a `device_id`; this message has none")
    value = bytes(message.value)
    if not value:
        raise ValidationFailed("telemetry needs a `value`; this message has none")
    check_id(device_id, "`device_id`")
    # Three names and the colons inside the texts; any other count may hide a duplicate name.
    colons = 3 + check_value(value) + device_id.count(":")
    if message.id is not None:
        _check_message_id(message.id)
        colons += 1 + str(message.id).count(":")
    if message.measured_at_utc is not None:
        colons += 1 + message.measured_at_utc.count(":")
        message.measured_at_utc = check_measured(message.measured_at_utc)
    if message.update_id is not None:
        check_id(message.update_id, "`update_id`")
        colons += 1 + message.update_id.count(":")
    if message.line is not None or message.producer is not None:
        _check_line(message)
        colons += 2 + (message.producer or "").count(":")
    if payload.count(b":") != colons or has_escapes_beside(payload, (value,)):
        refuse_duplicate_names(payload)
    message.value = Raw(compact(value))  # a copy: a value must not keep a whole message in memory


def _check_control(message: ClientMessage, payload: bytes) -> None:
    _check_names_of_update(message, payload)
    message.args = check_command(message.target, message.command, message.args)


def _check_delete(message: ClientMessage, payload: bytes) -> None:
    _check_names_of_update(message, payload)
    if message.device_id is None:
        raise ValidationFailed("delete needs a `device_id`; this message has none")
    check_id(message.device_id, "`device_id`")


def _check_auth(message: ClientMessage, payload: bytes) -> None:
    _check_names(message, payload)
    if not message.token:
        raise ValidationFailed("auth needs a `token`; this message has none")


def _check_names(message: ClientMessage, payload: bytes) -> None:
    refuse_duplicate_names(payload)
    _check_message_id(message.id)


def _check_names_of_update(message: ClientMessage, payload: bytes) -> None:
    _check_names(message, payload)
    if message.update_id is not None:
        check_id(message.update_id, "`update_id`")
    if message.line is not None or message.producer is not None:
        _check_line(message)


CHECKS: dict[str, Callable[[ClientMessage, bytes], None]] = {
    "telemetry": _check_telemetry,
    "control": _check_control,
    "delete": _check_delete,
    "restart": _check_names,
    "ping": _check_names,
    "subscribe": _check_names,  # the patterns are read where they become a subscription
    "unsubscribe": _check_names,
    "auth": _check_auth,
}
"""The types of message that are known, and what checks each. A new type is a row here and its fields in ClientMessage,
a row of `ACTIONS` in delivery/session, and a shape in transports/documents/conversation."""


def _check_message_id(message_id: MessageId | None) -> None:
    if isinstance(message_id, str):
        check_id(message_id, "`id`")
    elif message_id is not None and not -(1 << 53) < message_id < 1 << 53:
        raise ValidationFailed("`id` must be a string or an integer of up to 53 bits")


def _check_line(message: ClientMessage) -> None:
    if message.producer is None or message.line is None:
        raise ValidationFailed("a numbered line needs both a `producer` and a `line`; this message has one of them")
    check_id(message.producer, "`producer`")
    if not 0 < message.line < 1 << 53:
        raise ValidationFailed("`line` must be an integer from 1 on, of up to 53 bits")
    if message.update_id is not None:
        raise ValidationFailed("an update has an `update_id` or a numbered line; this message has both")


def _type_of(payload: bytes) -> str:
    """Return the type of a message whose other fields do not fit; empty if it has none."""
    try:
        return _decode_typed(payload).type
    except msgspec.ValidationError as error:
        if payload.lstrip()[:1] != b"{":
            raise ValidationFailed(explain(error)) from None
        return ""
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_json(error) from None  # msgspec reports a wrong type before it has seen the end
