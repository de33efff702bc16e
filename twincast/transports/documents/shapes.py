"""The shapes on the wire, for the OpenAPI and the AsyncAPI document: the structs themselves, and what only those need.

What a client may send is checked by wire/client_messages and wire/requests. Tests hold real messages against both.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from twincast.core.audit import AuditRecord
from twincast.core.model import (
    Args,
    Command,
    Control,
    DataUpdate,
    Deleted,
    DeviceId,
    Epoch,
    Seq,
    Source,
    Target,
    TimeUtc,
    Twin,
    Value,
)
from twincast.core.space import Space
from twincast.core.subscription import Mode
from twincast.wire import messages
from twincast.wire.messages import MessageId, Twins
from twincast.wire.requests import CommandRequest, Reading

UpdateId = Annotated[str, Meta(description="the same again stores nothing twice", extra_json_schema={"maxLength": 128})]
Producer = Annotated[
    str, Meta(description="who numbers its lines; 1 to 128 characters, random", extra_json_schema={"maxLength": 128})
]
LineNumber = Annotated[
    int,
    Meta(
        description="1, 2, 3, … of a `producer`, on `/ws?ordered=1`; sent again, it stores nothing twice",
        extra_json_schema={"minimum": 1},
    ),
]
Patterns = Annotated[list[str], Meta(description="`*` stands for any characters", examples=[["lab/*"]])]
Kinds = Annotated[list[str], Meta(description="data_update, control, deleted; or all", examples=[["data_update"]])]
MaxHz = Annotated[float, Meta(description="in mode latest: how often a second at most", examples=[10])]


class Telemetry(Struct, tag_field="type", tag="telemetry"):
    """A reading of a device."""

    device_id: DeviceId
    value: Value
    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    update_id: UpdateId | msgspec.UnsetType = msgspec.UNSET
    producer: Producer | msgspec.UnsetType = msgspec.UNSET
    line: LineNumber | msgspec.UnsetType = msgspec.UNSET


class ControlMessage(Struct, tag_field="type", tag="control"):
    """A command to a target."""

    target: Target
    command: Command
    args: Args | msgspec.UnsetType = msgspec.UNSET
    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    update_id: UpdateId | msgspec.UnsetType = msgspec.UNSET
    producer: Producer | msgspec.UnsetType = msgspec.UNSET
    line: LineNumber | msgspec.UnsetType = msgspec.UNSET


class Delete(Struct, tag_field="type", tag="delete"):
    """A wish that a device be no more; a later reading makes it anew."""

    device_id: DeviceId
    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    update_id: UpdateId | msgspec.UnsetType = msgspec.UNSET
    producer: Producer | msgspec.UnsetType = msgspec.UNSET
    line: LineNumber | msgspec.UnsetType = msgspec.UNSET


class Auth(Struct, tag_field="type", tag="auth"):
    """A credential: as the first message of a client that could send no header, or to renew one before it expires."""

    token: str
    id: MessageId | msgspec.UnsetType = msgspec.UNSET


class Restart(Struct, tag_field="type", tag="restart"):
    """On an ordered connection: what was refused behind an update that could not be stored comes again from here."""

    id: MessageId | msgspec.UnsetType = msgspec.UNSET


class Ping(Struct, tag_field="type", tag="ping"):
    """A question whether the server is there, and how far it is."""


class Subscribe(Struct, tag_field="type", tag="subscribe"):
    """A wish to be told of more, or otherwise."""

    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    devices: Patterns | msgspec.UnsetType = msgspec.UNSET
    kinds: Kinds | msgspec.UnsetType = msgspec.UNSET
    mode: Mode | msgspec.UnsetType = msgspec.UNSET
    max_hz: MaxHz | msgspec.UnsetType = msgspec.UNSET


class Unsubscribe(Struct, tag_field="type", tag="unsubscribe"):
    """A wish to be told of less; of nothing, without `devices`."""

    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    devices: Patterns | msgspec.UnsetType = msgspec.UNSET


class Stored(Struct):
    """The answer to one reading, once it is durable."""

    ok: bool
    stored: bool
    event: DataUpdate


class StoredBatch(Struct):
    """The answer to a batch, once all of it is durable."""

    ok: bool
    stored: Annotated[int, Meta(description="how many readings")]
    epoch: Epoch
    seq: Annotated[int, Meta(description="the same as last_seq")]
    first_seq: Seq
    last_seq: Seq


class Dispatched(Struct):
    """The answer to a command, once it is durable and sent to everyone who watches."""

    ok: bool
    dispatched: bool
    event: Control


class Deletion(Struct):
    """The answer to a deletion, once it is durable and sent to everyone who watches."""

    ok: bool
    deleted: bool
    event: Deleted


class Ticket(Struct):
    """What opens one event stream, once."""

    ticket: str
    expires_in_s: float


class Code(Struct, forbid_unknown_fields=True):
    """What a pairing code is brought with."""

    code: Annotated[str, Meta(description="as `twincast pair` shows it; dashes, spaces and case do not matter")]


class Paired(Struct):
    """A key that was made for whoever brought a code. It is not shown again."""

    token: Annotated[str, Meta(description="the API key: what goes behind `Authorization: Bearer`")]
    identity: str
    name: str
    rights: dict[str, list[str]]


class Audit(Struct):
    """Who commanded or deleted what, and who changed the keys, newest first."""

    epoch: Annotated[Epoch, Meta(description="of the records' seqs")]
    records: list[AuditRecord]


class Data(Struct):
    """The newest state of every device."""

    timestamp_utc: TimeUtc
    epoch: Epoch
    seq: Seq
    data: Twins


class Device(Struct):
    """The newest state of one device."""

    device_id: DeviceId
    value: Value
    updated_at_utc: TimeUtc
    source: Source
    seq: Seq
    epoch: Epoch


class Events(Struct):
    """Changes behind a position, or the state where they cannot be had."""

    timestamp_utc: TimeUtc
    epoch: Epoch
    seq: Annotated[int, Meta(description="the cursor for the next call")]
    resumed: bool
    events: list[DataUpdate | Control | Deleted]
    more: Annotated[bool, Meta(description="the limit was reached before the end")]
    reason: messages.Reason | msgspec.UnsetType = msgspec.UNSET
    data_snapshot: Twins | msgspec.UnsetType = msgspec.UNSET


class Status(Struct):
    """How the server is."""

    ok: Annotated[bool, Meta(description="false while the journal takes nothing")]
    devices_known: int
    websocket_clients_connected: int
    timestamp_utc: TimeUtc
    version: str
    epoch: Epoch
    seq: Seq
    edge: Annotated[str, Meta(description="picows or portable")]
    uptime_s: float
    identity: Annotated[str, Meta(description="who you are: anonymous, key:… or jwt:…")]
    rights: Annotated[dict[str, list[str]], Meta(description="patterns of devices, by what you may do to them")]
    journal: Annotated[str, Meta(description="for administrators")] | msgspec.UnsetType = msgspec.UNSET
    space: Annotated[Space, Meta(description="for administrators")] | msgspec.UnsetType = msgspec.UNSET
    problem: Annotated[str, Meta(description="why ok is false")] | msgspec.UnsetType = msgspec.UNSET


class Problem(Struct):
    """What went wrong: RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Meta(description="the same word on every wire")]
    retryable: bool


FROM_CLIENT: tuple[type[Struct], ...] = (
    Auth,
    Telemetry,
    ControlMessage,
    Delete,
    Restart,
    Ping,
    Subscribe,
    Unsubscribe,
)
"""What a client may say on the WebSocket."""
TO_CLIENT: tuple[type[Struct], ...] = (
    messages.AuthRequired,
    messages.Hello,
    messages.SnapshotPage,
    DataUpdate,
    Control,
    Deleted,
    messages.Ack,
    messages.Pong,
    messages.Gap,
    messages.Echo,
    messages.ErrorMessage,
)
"""What it may be told, there and on the event stream."""
IN_REST: tuple[type[Struct], ...] = (
    Reading,
    CommandRequest,
    Stored,
    StoredBatch,
    Dispatched,
    Deletion,
    Data,
    Device,
    Events,
    Status,
    Ticket,
    Code,
    Paired,
    Audit,
    Problem,
)

_EVENTS = {"DataUpdate", "Control", "Deleted"}


def components(*types: type[Struct]) -> dict[str, Any]:
    """Return the JSON Schemas of structs and of all that they refer to, by name, as both documents hold them."""
    _, schemas = msgspec.json.schema_components((*types, Twin), ref_template="#/components/schemas/{name}")
    for name in _EVENTS & schemas.keys():  # every entry that leaves the server has a position
        schemas[name]["required"] = [*schemas[name]["required"], "seq", "epoch"]
        for position in ("seq", "epoch"):
            schemas[name]["properties"][position].pop("default", None)
    if "Order" in schemas:
        schemas["Order"]["properties"]["args"].pop("default", None)
    return schemas


def reference(*types: type[Struct]) -> dict[str, Any]:
    """Return a schema that is one of some structs, which stand under components."""
    references = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in types]
    return references[0] if len(references) == 1 else {"anyOf": references}


READINGS: dict[str, Any] = {
    "schema": {"anyOf": [reference(Reading), {"type": "array", "items": reference(Reading)}]},
    "examples": {
        "one": {"summary": "one reading", "value": {"device_id": "lab/thermometer", "value": 21.5}},
        "many": {
            "summary": "many, all or nothing",
            "value": [{"device_id": "lab/thermometer", "value": 21.5}, {"device_id": "lab/door", "value": "open"}],
        },
    },
}
"""What `POST /api/data` takes as JSON: an OpenAPI media type object."""

READING_LINES: dict[str, Any] = {
    "schema": {"type": "string", "description": "one reading a line"},
    "example": '{"device_id":"lab/thermometer","value":21.5}\n{"device_id":"lab/door","value":"open"}\n',
}
"""What `POST /api/data` takes as NDJSON."""

ORDER: dict[str, Any] = {
    "schema": reference(CommandRequest),
    "example": {"target": "device-1", "command": "set_interval", "args": {"seconds": 5}},
}
"""What `POST /api/control` takes."""


def _parameter(name: str, schema: dict[str, Any], description: str, *, where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "required": False, "schema": schema, "description": description}


_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_DEVICES = _parameter(
    "devices", {**_TEXTS, "examples": [["lab/*"]]}, "patterns, such as `lab/*`; `*` stands for any characters"
)
_SINCE = _parameter(
    "since",
    {**_TEXT, "examples": ["5f0c9a1e-0b7d3c28:42"]},
    "a position, `EPOCH:SEQ`, as each answer and each change has one; what came after it is returned",
)
_KINDS = _parameter(
    "kinds", {"type": "array", "items": {"enum": ["data_update", "control", "deleted"]}}, "which events"
)

_MIN_SEQ = _parameter(
    "min_seq",
    _TEXT,
    "`SEQ` or `EPOCH:SEQ`: answer from this position or a later one, within 5 s or not at all (503); 410 if the "
    "log does not know the epoch, or has another past",
)
DATA_PARAMETERS = (_DEVICES, _MIN_SEQ)
DEVICE_PARAMETERS = (
    _MIN_SEQ,
    _parameter("If-None-Match", _TEXT, "the `ETag` of what you have: 304 if it is still the newest", where="header"),
)
CODE: dict[str, Any] = {"schema": reference(Code), "example": {"code": "7KQ4-9XTM"}}
"""What `POST /api/pair` takes."""
NOTHING: dict[str, Any] = {"schema": {"type": "object"}, "example": {}}
"""What a call takes that needs no more than to be asked."""

AUDIT_PARAMETERS = (
    _parameter("limit", {"type": "integer", "minimum": 0, "maximum": 1_000, "default": 100}, "how many records"),
)
DEVICE_IN_PATH = {
    **_parameter("device_id", {**_TEXT, "minLength": 1}, "the device's name, percent-encoded", where="path"),
    "required": True,
    "example": "device-1",
}
DEVICE_IN_QUERY = {
    **_parameter("device_id", {**_TEXT, "minLength": 1, "maxLength": 128}, "the device's name"),
    "required": True,
    "example": "device-2",
}
READ_BACK = {
    "read_back": {
        "operationId": "data",
        "parameters": {"min_seq": "$response.body#/event/seq"},
        "description": "the state that has the reading",
    },
    "read_batch_back": {
        "operationId": "data",
        "parameters": {"min_seq": "$response.body#/last_seq"},
        "description": "the state that has all of the batch",
    },
    "delete": {
        "operationId": "delete_device",
        "parameters": {"device_id": "$response.body#/event/device_id"},
        "description": "the end of the device",
    },
}
USE_TICKET = {
    "use": {
        "operationId": "poll",
        "parameters": {"ticket": "$response.body#/ticket"},
        "description": "what the ticket is for",
    }
}
"""Which call may follow which: OpenAPI link objects."""

WRITE_PARAMETERS = (
    _parameter(
        "Idempotency-Key",
        {**_TEXT, "minLength": 1, "maxLength": 128, "examples": ["door-2026-11-24-0001"]},
        "a name for this very request: under the same key again it stores nothing twice",
        where="header",
    ),
)
EVENTS_PARAMETERS = (
    _SINCE,
    _DEVICES,
    _KINDS,
    _parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 1_000},
        "long poll: how many events at most",
    ),
    _parameter(
        "wait_s",
        {"type": "integer", "minimum": 0, "maximum": 60, "default": 0},
        "long poll: how long to wait for the first",
    ),
    _parameter(
        "mode",
        {"enum": ["latest", "every"]},
        "stream: whether a slow reader gets merged changes; `latest` if not given",
    ),
    _parameter("max_hz", {"type": "number", "minimum": 0.01, "maximum": 1_000}, "stream: how often a second at most"),
    _parameter(
        "page", {"type": "integer", "minimum": 1, "maximum": 10_000}, "stream: devices in one page of the state"
    ),
    _parameter("ticket", _TEXT, "what `POST /api/tickets` gave; for an EventSource, which can send no credential"),
    _parameter(
        "Last-Event-ID",
        _TEXT,
        "stream: what a browser sends when it comes back; counts more than `since`",
        where="header",
    ),
    _parameter("lastEventId", _TEXT, "stream: the same, as stand-ins for a browser's EventSource say it"),
)
"""What the calls take beside their bodies: OpenAPI parameter objects."""
