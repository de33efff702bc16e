"""What a client sends by REST, or by NATS: the body of a request to the entries that it asks for.

Decoding checks all that an entry promises (shape, names, limits, I-JSON), so what comes out may be stored as it is.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, field

from twincast.core.model import Args, Command, Control, DataUpdate, Deleted, DeviceId, MeasuredAt, Source, Target, Value
from twincast.core.names import check_id
from twincast.errors import BadMessage, TooLarge, ValidationFailed
from twincast.wire.checks import check_command, check_measured, explain, not_json
from twincast.wire.values import check_value, compact, has_escapes_beside, refuse_duplicate_names

T = TypeVar("T")


class Reading(Struct):
    """One reading of one device: what `POST /api/data` takes, alone or in an array."""

    device_id: DeviceId
    value: Value
    measured_at_utc: MeasuredAt | None = None


class CommandRequest(Struct):
    """What `POST /api/control` takes."""

    target: Target
    command: Command
    args: Args = field(default_factory=Raw)


class CommandHere(Struct):
    """A command whose target stands elsewhere: in the subject of NATS."""

    command: Command
    args: Args = field(default_factory=Raw)


_decode_reading = msgspec.json.Decoder(Reading)
_decode_readings = msgspec.json.Decoder(list[Reading]).decode
_decode_command = msgspec.json.Decoder(CommandRequest).decode
_decode_command_here = msgspec.json.Decoder(CommandHere).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_CLAIM = b"measured_at_utc"


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
    """Decode and check NDJSON, one reading a line, all or nothing. Empty lines are skipped.

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
    """Decode each line by itself; msgspec's own `decode_lines` lets a reading go on over the end of a line."""
    decode = _decode_reading.decode
    return [decode(line) for line in body.split(b"\n") if line.strip()]


def decode_command(body: bytes, source: Source) -> Control:
    """Decode and check the body of a command.

    Raises:
        BadMessage: one of its kinds.
    """
    command = _strictly(_decode_command, body)
    refuse_duplicate_names(body)
    args = check_command(command.target, command.command, command.args)
    return Control(command.target, command.command, args, "", source)


def decode_value_of(device_id: str, body: bytes, source: Source, measured: str = "") -> DataUpdate:
    """Decode and check a body that is the value of a reading, and nothing else.

    Args:
        device_id: the device.
        body: the value.
        source: the way by which it came.
        measured: when it claims to have been measured; empty if it does not say.

    Raises:
        BadMessage: one of its kinds.
    """
    check_id(device_id, "`device_id`")
    value = bytes(_strictly(_decode_raw, body))
    check_value(value)
    measured_at_utc = check_measured(measured) if measured else UNSET
    return DataUpdate(device_id, Raw(compact(value)), "", source, measured_at_utc=measured_at_utc)


def decode_command_to(target: str, body: bytes, source: Source) -> Control:
    """Decode and check the body of a command to a target.

    Raises:
        BadMessage: one of its kinds.
    """
    command = _strictly(_decode_command_here, body)
    refuse_duplicate_names(body)
    return Control(target, command.command, check_command(target, command.command, command.args), "", source)


def may_claim(body: bytes) -> bool:
    """Whether a body may have a reading that says when it was measured: cheaper than a look at each of many."""
    return _CLAIM in body or b"\\" in body  # a name may be written with escapes


def draft_deletion(device_id: str, source: Source) -> Deleted:
    """Make the entry that deletes a device.

    Raises:
        BadMessage: no device can have that name.
    """
    check_id(device_id, "`device_id`")
    return Deleted(device_id, "", source)


def _drafts(readings: Sequence[Reading], body: bytes, source: Source) -> list[DataUpdate]:
    updates = []
    colons = 0
    try:
        for reading in readings:
            check_id(reading.device_id, "`device_id`")
            value = bytes(reading.value)
            colons += 2 + check_value(value) + reading.device_id.count(":")
            update = DataUpdate(reading.device_id, Raw(compact(value)), "", source)
            if (measured := reading.measured_at_utc) is not None:
                colons += 1 + measured.count(":")
                update.measured_at_utc = check_measured(measured)
            updates.append(update)
    except BadMessage as error:
        if len(readings) == 1:
            raise
        raise type(error)(f"reading {len(updates) + 1}: {error.message}") from None
    if body.count(b":") != colons or has_escapes_beside(body, (bytes(reading.value) for reading in readings)):
        for text in body.split(b"\n") if len(readings) > 1 and body.lstrip()[:1] == b"{" else (body,):
            if text.strip():
                refuse_duplicate_names(text)
    return updates


def _bounded(readings: list[Reading], max_updates: int) -> list[Reading]:
    if not readings:
        raise ValidationFailed("a batch must have at least one reading; this one is empty")
    if len(readings) > max_updates:
        raise TooLarge(f"a request must have at most {max_updates} readings; this one has {len(readings)}")
    return readings


def _strictly(decoder: Callable[[bytes], T], body: bytes) -> T:
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into strings that it skips
        return decoder(body)
    except msgspec.ValidationError as error:
        raise ValidationFailed(explain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from None
