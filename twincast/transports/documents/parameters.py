"""What calls and streams are asked for beside a body: OpenAPI parameter objects."""

from typing import Any

from twincast.core.model import ENTRIES
from twincast.core.names import NAME_MAX_CHARS
from twincast.core.subscription import MAX_HZ_MAX, MAX_HZ_MIN
from twincast.wire.query import PAGE_SIZE_MAX

TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": TEXT}


def parameter(name: str, schema: dict[str, Any], description: str, *, where: str = "query") -> dict[str, Any]:
    """Return a parameter that may be left out."""
    return {"name": name, "in": where, "required": False, "schema": schema, "description": description}


def whole_number_schema(maximum: int, *, minimum: int = 0, default: int | None = None) -> dict[str, Any]:
    """Return the schema of a whole number."""
    schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return schema if default is None else {**schema, "default": default}


DEVICES = parameter(
    "devices", {**_TEXTS, "examples": [["lab/*"]]}, "patterns, such as `lab/*`; `*` stands for any characters"
)
KINDS = parameter("kinds", {"type": "array", "items": {"enum": [each.kind for each in ENTRIES]}}, "which events")
SINCE = parameter(
    "since",
    {**TEXT, "examples": ["5f0c9a1e-0b7d3c28:42"]},
    "a position, `EPOCH:SEQ`, as each answer and each event has one; the events after it are returned",
)
STREAMS = (
    parameter(
        "mode",
        {"enum": ["latest", "every"]},
        "stream: whether a slow reader gets merged events; `latest` if not given",
    ),
    parameter(
        "max_hz",
        {"type": "number", "minimum": MAX_HZ_MIN, "maximum": MAX_HZ_MAX},
        "stream: how often a second at most",
    ),
    parameter("page_size", whole_number_schema(PAGE_SIZE_MAX, minimum=1), "stream: devices in one page of the state"),
)
"""Of streams alone, on either wire."""
TICKET = parameter("ticket", TEXT, "what `POST /api/tickets` gave; for an EventSource, which can send no credential")
LAST_EVENT_ID = (
    parameter(
        "Last-Event-ID",
        TEXT,
        "stream: sent by a browser that reconnects; it takes precedence over `since`",
        where="header",
    ),
    parameter("lastEventId", TEXT, "stream: the same, as polyfills of a browser's EventSource send it"),
)
_NAME = {**TEXT, "minLength": 1, "maxLength": NAME_MAX_CHARS}
IDEMPOTENCY_KEY = parameter(
    "Idempotency-Key",
    {**_NAME, "examples": ["door-2026-11-24-0001"]},
    "a name for this very request: under the same key again it stores nothing twice",
    where="header",
)
DEVICE_IN_PATH = {
    **parameter("device_id", {**TEXT, "minLength": 1}, "the device's name, percent-encoded", where="path"),
    "required": True,
    "example": "device-1",
}
DEVICE_IN_QUERY = {
    **parameter("device_id", _NAME, "the device's name"),
    "required": True,
    "example": "device-2",
}
