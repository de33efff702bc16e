"""The words of the system: entries of the log, twins, positions."""

from typing import Annotated, Literal, NamedTuple, Self

from msgspec import Meta, Raw, Struct

from twincast.errors import ValidationFailed

Source = Literal["rest", "websocket", "application"]
"""By which way a change came; `application` is the program that has the server inside. Others may come to it."""
Kind = Literal["data_update", "control", "deleted"]

# What the documents on the wire say of these; wire/values is what checks them.
_NAME = {"minLength": 1, "maxLength": 128}
DeviceId = Annotated[
    str, Meta(description="no control characters", examples=["lab/thermometer"], extra_json_schema=_NAME)
]
Target = Annotated[str, Meta(description="a device, or whom you like", examples=["lab/fan"], extra_json_schema=_NAME)]
Command = Annotated[str, Meta(examples=["set_speed"], extra_json_schema=_NAME)]
Value = Annotated[Raw, Meta(description="any JSON", examples=[21.5])]
Args = Annotated[Raw, Meta(examples=[{"rpm": 900}], extra_json_schema={"type": "object"})]
TimeUtc = Annotated[str, Meta(description="ISO 8601, UTC", extra_json_schema={"format": "date-time"})]
Seq = Annotated[int, Meta(description="a position in the log")]
Epoch = Annotated[
    str,
    Meta(description="the log and the run of its server, `LOG-GENERATION`; a position counts where its epoch is known"),
]

NOT_YET = 0
"""The seq of an entry that no journal has stored; the first stored entry has 1."""


class DataUpdate(Struct, tag_field="type", tag="data_update", gc=False):
    """One reading of one device: telemetry on its way in, an event on its way out.

    The transport drafts it, the hub stamps the time, the journal gives the seq. Encoded, it is the event that
    every watcher receives; `value` stays the JSON text that came in, less the white space between its tokens, so no
    number is rounded on the way.
    """

    device_id: DeviceId
    value: Value
    timestamp_utc: TimeUtc
    source: Source
    seq: Seq = NOT_YET
    epoch: Epoch = ""

    @property
    def topic(self) -> "Topic":
        """What subscriptions select by."""
        return "data_update", self.device_id


class Control(Struct, tag_field="type", tag="control", gc=False):
    """One command to a target, dispatched to everyone who watches. `args` is a JSON object's text."""

    target: Target
    command: Command
    args: Args
    timestamp_utc: TimeUtc
    source: Source
    seq: Seq = NOT_YET
    epoch: Epoch = ""

    @property
    def topic(self) -> "Topic":
        """What subscriptions select by."""
        return "control", self.target


class Deleted(Struct, tag_field="type", tag="deleted", gc=False):
    """That a device is no more: its twin goes. What it said before stays in the log; a later reading makes it anew."""

    device_id: DeviceId
    timestamp_utc: TimeUtc
    source: Source
    seq: Seq = NOT_YET
    epoch: Epoch = ""

    @property
    def topic(self) -> "Topic":
        """What subscriptions select by."""
        return "deleted", self.device_id


Entry = DataUpdate | Control | Deleted
Change = DataUpdate | Deleted
"""What a device's newest is: a reading, or that it is no more."""
Topic = tuple[Kind, str]
"""The kind of an entry, and the device or target that it is about."""


def value_bytes(entry: Entry) -> int:
    """Return how long an entry's value is, or a command's args; a deletion has neither."""
    if isinstance(entry, DataUpdate):
        return len(entry.value)
    return len(entry.args) if isinstance(entry, Control) else 0


class Position(NamedTuple):
    """A place in a log: `epoch` says which, by its name and the run that gave it out; `seq` counts its entries from 1.

    Whether it means anything in another run or a copy of the log says core/lineage.
    """

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `EPOCH:SEQ`.

        Raises:
            ValidationFailed: it is not a position.
        """
        epoch, colon, seq = text.rpartition(":")
        if not (colon and epoch and seq.isascii() and seq.isdigit() and len(seq) < 19):
            raise ValidationFailed(f"a position is EPOCH:SEQ, such as 5f0c9a1e-0b7d3c28:42, not {text[:64]!r}")
        return cls(epoch, int(seq))


class Twin(Struct, gc=False):
    """What is known of one device now: the newest value, when, by which way, and where in the log."""

    value: Value
    updated_at_utc: TimeUtc
    seq: Seq
    source: Source


class Snapshot(Struct):
    """The state of all devices as of one position; it holds every entry up to and including `seq`."""

    epoch: str
    seq: int
    twins: dict[str, Twin]
