"""What the server says, on every wire. The events themselves are the entries of the log: see core/model."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from twincast.core.model import Entry, Epoch, Position, Seq, TimeUtc
from twincast.errors import TwincastError

MessageId = str | int
Reason = Annotated[str, Meta(description="why it was not resumed: epoch, too_old or ahead")]
Ordered = Annotated[bool, Meta(description="whether the updates behind a refused one are refused too")]
StoredLine = Annotated[int, Meta(description="of a numbered line that was sent again: up to which line all are stored")]
Twins = Annotated[
    Raw,
    Meta(
        description="the newest state of each device",
        extra_json_schema={"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Twin"}},
    ),
]


class SizeLimits(Struct, frozen=True, kw_only=True):
    """How long a message of a client may be, and a value in it."""

    message_max_bytes: int = 64 * 1024
    value_max_bytes: int = 63 * 1024


class Hello(Struct, tag_field="type", tag="hello"):
    """The first message to a client: the state as of a position, or that the stream resumes behind its cursor."""

    message: str
    timestamp_utc: TimeUtc
    epoch: Epoch
    seq: Seq
    resumed: bool
    subscription: dict[str, Any]
    data_snapshot: Twins
    reason: Reason | msgspec.UnsetType = msgspec.UNSET
    more: bool | msgspec.UnsetType = msgspec.UNSET
    limits: SizeLimits = SizeLimits()
    ordered: Ordered | msgspec.UnsetType = msgspec.UNSET


class AuthRequired(Struct, tag_field="type", tag="auth_required"):
    """Sent to an unauthenticated client; the server waits `auth_timeout_s` for `auth`."""

    message: str = "the first message is `auth`, with a `token`"


class SnapshotPage(Struct, tag_field="type", tag="snapshot"):
    """Part of the state as of a position."""

    epoch: Epoch
    seq: Seq
    data_snapshot: Twins
    more: bool | msgspec.UnsetType = msgspec.UNSET


class Gap(Struct, tag_field="type", tag="gap", rename={"from_seq": "from", "to_seq": "to"}):
    """Which entries the client may lack: the first and the last seq. The state follows."""

    epoch: str
    from_seq: int
    to_seq: int


class Pong(Struct, tag_field="type", tag="pong"):
    """The answer to a `ping` message; with a position if the client has everything up to it."""

    timestamp_utc: TimeUtc
    epoch: str | msgspec.UnsetType = msgspec.UNSET
    seq: int | msgspec.UnsetType = msgspec.UNSET


class Echo(Struct, tag_field="type", tag="echo"):
    """The answer to a message of a type that is not known."""

    timestamp_utc: TimeUtc
    received: Raw
    note: str = "Unrecognized message type"


class Ack(Struct, tag_field="type", tag="ack"):
    """The answer to a message with an `id`, once it is durable or in force."""

    id: MessageId
    epoch: str
    seq: int
    replayed: bool | msgspec.UnsetType = msgspec.UNSET
    line: StoredLine | msgspec.UnsetType = msgspec.UNSET


class Receipt(Struct):
    """The answer on NATS to what was stored: its position, and whether it was stored before, under the same key."""

    ok: bool
    epoch: str
    seq: int
    replayed: bool | msgspec.UnsetType = msgspec.UNSET


class ErrorMessage(Struct, tag_field="type", tag="error"):
    """What was wrong with a message; the conversation goes on."""

    code: str
    message: str
    retryable: bool
    id: MessageId | msgspec.UnsetType = msgspec.UNSET


encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
_encode_lines: Callable[[Sequence[object]], bytes] = msgspec.json.Encoder().encode_lines


def encode_all(entries: Sequence[Entry]) -> list[bytes]:
    """Encode the entries of the log as the events that they are."""
    texts = _encode_lines(entries).split(b"\n")
    texts.pop()  # nothing stands behind the last end of line
    if len(texts) == len(entries):
        return texts
    return [encode(entry) for entry in entries]  # another program wrote an end of line into a value


def encode_merged(newest: Entry, merged: int) -> bytes:
    """Encode the newest entry of a device for a client that missed `merged` - 1 entries before it."""
    event = encode(newest)
    return event if merged == 1 else b'%b,"merged":%d}' % (event[:-1], merged)


def encode_error(error: TwincastError, message_id: MessageId | None = None) -> bytes:
    """Encode an error for the client whose message caused it."""
    known_id = msgspec.UNSET if message_id is None else message_id
    return encode(ErrorMessage(error.code, error.message, error.retryable, known_id))


def encode_ack(message_id: MessageId, position: Position, *, replayed: bool = False, line: int | None = None) -> bytes:
    """Encode the answer to a message that was stored or is in force."""
    stored_line = msgspec.UNSET if line is None else line
    return encode(Ack(message_id, position.epoch, position.seq, replayed or msgspec.UNSET, stored_line))


def encode_receipt(position: Position, *, replayed: bool = False) -> bytes:
    """Encode the answer on NATS to what was stored."""
    return encode(Receipt(True, position.epoch, position.seq, replayed or msgspec.UNSET))


def encode_pong(now_utc: str, position: Position | None) -> bytes:
    """Encode the answer to a ping; `position` is None for a client that has not caught up."""
    return encode(Pong(now_utc) if position is None else Pong(now_utc, position.epoch, position.seq))
