"""The shapes of REST as `/docs` shows them. The checks themselves are in core/protocol; a test holds the two equal."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

Id = Annotated[str, Field(min_length=1, max_length=128, description="no control characters")]


class Reading(BaseModel):
    """One reading of one device."""

    device_id: Id = Field(examples=["lab/thermometer"])
    value: Any = Field(description="any JSON", examples=[21.5])


class Order(BaseModel):
    """One command to a target."""

    target: Id = Field(examples=["lab/fan"])
    command: Id = Field(examples=["set_speed"])
    args: dict[str, Any] = Field(default={}, examples=[{"rpm": 900}])


class DataEvent(BaseModel):
    """What every watcher receives for a reading."""

    type: str = "data_update"
    device_id: str
    value: Any
    timestamp_utc: str
    source: str = Field(description="rest or websocket")
    seq: int = Field(description="the change's position in the log")
    epoch: str = Field(description="the log's name")


class ControlEvent(BaseModel):
    """What every watcher receives for a command."""

    type: str = "control"
    target: str
    command: str
    args: dict[str, Any]
    timestamp_utc: str
    source: str
    seq: int
    epoch: str


class Stored(BaseModel):
    """The answer to one reading, once it is durable."""

    ok: bool
    stored: bool
    event: DataEvent


class StoredBatch(BaseModel):
    """The answer to a batch, once all of it is durable."""

    ok: bool
    stored: int = Field(description="how many readings")
    epoch: str
    seq: int = Field(description="the same as last_seq")
    first_seq: int
    last_seq: int


class Dispatched(BaseModel):
    """The answer to a command, once it is durable and sent to everyone who watches."""

    ok: bool
    dispatched: bool
    event: ControlEvent


class Twin(BaseModel):
    """The newest state of one device."""

    value: Any
    updated_at_utc: str
    seq: int
    source: str


class Data(BaseModel):
    """The newest state of every device."""

    timestamp_utc: str
    epoch: str
    seq: int
    data: dict[str, Twin]


class Events(BaseModel):
    """Changes behind a position, or the state where they cannot be had."""

    timestamp_utc: str
    epoch: str
    seq: int = Field(description="the cursor for the next call")
    resumed: bool
    reason: str | None = Field(default=None, description="why not: epoch, too_old or ahead")
    data_snapshot: dict[str, Twin] | None = Field(default=None, description="the state at `seq`, if not resumed")
    events: list[DataEvent | ControlEvent]
    more: bool = Field(description="the limit was reached; the next call finds some at once")


class Status(BaseModel):
    """How the server is."""

    ok: bool = Field(description="false while the journal takes nothing")
    devices_known: int
    websocket_clients_connected: int
    timestamp_utc: str
    version: str
    epoch: str = Field(description="the name of this log; positions of another one mean nothing here")
    seq: int = Field(description="the newest position")
    journal: str
    edge: str = Field(description="picows or portable")
    uptime_s: float
    problem: str | None = Field(default=None, description="why ok is false")


class Problem(BaseModel):
    """What went wrong: RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


READINGS: dict[str, Any] = {
    "schema": {"anyOf": [Reading.model_json_schema(), {"type": "array", "items": Reading.model_json_schema()}]},
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

ORDER: dict[str, Any] = {"schema": Order.model_json_schema()}
"""What `POST /api/control` takes."""


def _parameter(name: str, schema: dict[str, Any], description: str, *, where: str = "query") -> dict[str, Any]:
    return {"name": name, "in": where, "required": False, "schema": schema, "description": description}


_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_DEVICES = _parameter("devices", _TEXTS, "patterns, such as `lab/*`; `*` stands for any characters")
_SINCE = _parameter("since", _TEXT, "a position, `EPOCH:SEQ`; what came after it is returned")
_KINDS = _parameter("kinds", {"type": "array", "items": {"enum": ["data_update", "control"]}}, "which events")

DATA_PARAMETERS = (
    _DEVICES,
    _parameter(
        "min_seq", _TEXT, "`SEQ` or `EPOCH:SEQ`: answer from this position or a later one, within 5 s or not at all"
    ),
)
WRITE_PARAMETERS = (
    _parameter(
        "Idempotency-Key", {**_TEXT, "maxLength": 128}, "the same key again stores nothing twice", where="header"
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
        "mode", {"enum": ["latest", "every"], "default": "latest"}, "stream: whether a slow reader gets merged changes"
    ),
    _parameter("max_hz", {"type": "number", "minimum": 0.01, "maximum": 1_000}, "stream: how often a second at most"),
    _parameter(
        "page", {"type": "integer", "minimum": 1, "maximum": 10_000}, "stream: devices in one page of the state"
    ),
    _parameter(
        "Last-Event-ID",
        _TEXT,
        "stream: what a browser sends when it comes back; counts more than `since`",
        where="header",
    ),
)
"""What the calls take beside their bodies: OpenAPI parameter objects."""
