"""What a client may send on the WebSocket, for the AsyncAPI document.

wire/client_messages checks what clients send, all into one struct, for speed. Tests hold messages against both.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from twincast.core.model import ENTRIES, Args, Command, DeviceId, MeasuredAt, Target, Value
from twincast.core.names import NAME_MAX_CHARS
from twincast.core.subscription import Mode
from twincast.wire import messages
from twincast.wire.messages import MessageId

_ID = {"maxLength": NAME_MAX_CHARS}
UpdateId = Annotated[str, Meta(description="an update with the same id is stored once", extra_json_schema=_ID)]
Producer = Annotated[
    str,
    Meta(
        description=f"random id of a producer that numbers its lines; 1 to {NAME_MAX_CHARS} characters",
        extra_json_schema=_ID,
    ),
]
LineNumber = Annotated[
    int,
    Meta(
        description="1, 2, 3, … of a `producer`, on `/ws?ordered=1`; sent again, it stores nothing twice",
        extra_json_schema={"minimum": 1},
    ),
]
Patterns = Annotated[list[str], Meta(description="`*` stands for any characters", examples=[["lab/*"]])]
_KIND_NAMES = ", ".join(each.kind for each in ENTRIES)
_ASKED_FOR = ", ".join(each.kind for each in ENTRIES if each.is_asked_for)
Kinds = Annotated[
    list[str], Meta(description=f"{_KIND_NAMES}; or all but {_ASKED_FOR}", examples=[["data_update", "late"]])
]
MaxHz = Annotated[float, Meta(description="in mode latest: how often a second at most", examples=[10])]


class Telemetry(Struct, tag_field="type", tag="telemetry"):
    """A reading of a device."""

    device_id: DeviceId
    value: Value
    measured_at_utc: MeasuredAt | msgspec.UnsetType = msgspec.UNSET
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
    """Delete a device; a later reading creates it again."""

    device_id: DeviceId
    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    update_id: UpdateId | msgspec.UnsetType = msgspec.UNSET
    producer: Producer | msgspec.UnsetType = msgspec.UNSET
    line: LineNumber | msgspec.UnsetType = msgspec.UNSET


class Auth(Struct, tag_field="type", tag="auth"):
    """Log in, as the first message of a client that could send no header; or renew a credential before it expires."""

    token: str
    id: MessageId | msgspec.UnsetType = msgspec.UNSET


class Restart(Struct, tag_field="type", tag="restart"):
    """On an ordered connection: from here on, send again what was refused behind an update that was not stored."""

    id: MessageId | msgspec.UnsetType = msgspec.UNSET


class Ping(Struct, tag_field="type", tag="ping"):
    """Ask whether the server is there, and up to which position this client has been sent everything."""


class Subscribe(Struct, tag_field="type", tag="subscribe"):
    """Add patterns to the subscription, or change its mode or rate."""

    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    devices: Patterns | msgspec.UnsetType = msgspec.UNSET
    kinds: Kinds | msgspec.UnsetType = msgspec.UNSET
    mode: Mode | msgspec.UnsetType = msgspec.UNSET
    max_hz: MaxHz | msgspec.UnsetType = msgspec.UNSET


class Unsubscribe(Struct, tag_field="type", tag="unsubscribe"):
    """Remove patterns from the subscription; all of them, if `devices` is left out."""

    id: MessageId | msgspec.UnsetType = msgspec.UNSET
    devices: Patterns | msgspec.UnsetType = msgspec.UNSET


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
"""What a client may send on the WebSocket."""
TO_CLIENT: tuple[type[Struct], ...] = (
    messages.AuthRequired,
    messages.Hello,
    messages.SnapshotPage,
    *ENTRIES,
    messages.Ack,
    messages.Pong,
    messages.Gap,
    messages.Echo,
    messages.ErrorMessage,
)
"""What the server may send, there and on the event stream."""
