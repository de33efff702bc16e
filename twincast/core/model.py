"""The words of the system: entries of the log, twins, positions."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from twincast.errors import ValidationFailed

Source = Literal["rest", "websocket", "application", "nats"]
"""The way by which an entry came: `application` is the program that has the server inside, `nats` the subjects of NATS
beside a shared log. More may be added."""
Kind = Literal["data_update", "control", "deleted", "late", "erased"]
Scope = Literal["history"]
"""What of a device a deletion takes, beside its newest state."""

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
MeasuredAt = Annotated[
    str,
    Meta(
        description="when it was measured, by the clock of the device: ISO 8601 with a zone; UTC once it is stored",
        examples=["2026-11-27T04:16:10.250000+00:00"],
        extra_json_schema={"format": "date-time"},
    ),
]
Clock = Annotated[
    Literal["off"], Meta(description="the measured time is more than 60 s ahead of the stored one, and is not believed")
]
ErasedScope = Annotated[Scope, Meta(description="what the log has of the device is erased as well, up to this entry")]
Seq = Annotated[int, Meta(description="a position in the log")]
Epoch = Annotated[
    str,
    Meta(description="the log and the run of its server, `LOG-GENERATION`; a position counts where its epoch is known"),
]

NOT_YET = 0
"""The seq of an entry that no journal has stored; the first stored entry has 1."""


T = TypeVar("T")
_NO_PAYLOAD = Raw()


def known_also_as(**fields: str) -> Callable[[type[T]], type[T]]:
    """Let fields be read under the names that every kind has; as fast as by their own, where a property is a call."""

    def alias(cls: type[T]) -> type[T]:
        for name, field in fields.items():
            setattr(cls, name, cls.__dict__[field])
        return cls

    return alias


class EntryKind(Struct, gc=False):
    """What all kinds of entry have in common. A kind is a class: what the rooms ask of an entry stands there, once.

    The transport drafts an entry, the hub stamps the time, the journal gives the seq. Encoded, an entry is the event
    that every watcher receives.
    """

    kind: ClassVar[Kind]
    right: ClassVar[Literal["publish", "command", "admin"]]
    """What a principal needs for `subject` to send one."""
    changes_twin: ClassVar[bool]
    """Whether it says what the newest of a device is, so that a snapshot of the state tells it as well."""
    conflates: ClassVar[bool]
    """Whether the newest entry with a `merge_key` stands for those before it, for a client that does not keep up."""
    audited_as: ClassVar[str | None] = None
    """The action in the audit trail; None for what leaves no record there."""
    is_asked_for: ClassVar[bool] = False
    """Whether only those receive it who name its kind."""
    is_told: ClassVar[bool] = True
    """Whether anybody receives it at all."""

    @property
    def subject(self) -> str:
        """The device or target that it is about."""
        raise NotImplementedError(f"{type(self).__name__} does not say which of its fields is its subject")

    @property
    def payload(self) -> Raw:
        """The JSON text of its value or args; empty for a kind that has neither."""
        return _NO_PAYLOAD

    @property
    def detail(self) -> str:
        """What it says besides its payload: the name of a command."""
        return ""

    @property
    def claim(self) -> str:
        """When it claims to have been measured; empty for what claims nothing."""
        return ""

    @property
    def topic(self) -> "Topic":
        """What subscriptions select by."""
        return self.kind, self.subject

    @property
    def merge_key(self) -> "MergeKey":
        """What conflation goes by: the device itself for what changes its twin."""
        return self.topic


@known_also_as(subject="device_id", payload="value", merge_key="device_id")
class DataUpdate(EntryKind, tag_field="type", tag="data_update", gc=False):
    """One reading of one device: telemetry on its way in, an event on its way out.

    `value` stays the JSON text that came in, less the white space between its tokens, so no number is rounded.
    """

    kind = "data_update"
    right = "publish"
    changes_twin = True
    conflates = True

    device_id: DeviceId
    value: Value
    timestamp_utc: TimeUtc
    source: Source
    seq: Seq = NOT_YET
    epoch: Epoch = ""
    measured_at_utc: MeasuredAt | UnsetType = UNSET
    clock: Clock | UnsetType = UNSET

    @property
    def claim(self) -> str:
        """See EntryKind."""
        return "" if self.measured_at_utc is UNSET else self.measured_at_utc

    @property
    def topic(self) -> "Topic":
        """See EntryKind. Without a look at the class, for it is asked of each reading."""
        return "data_update", self.device_id


@known_also_as(subject="device_id", payload="value", claim="measured_at_utc")
class Late(EntryKind, tag_field="type", tag="late", gc=False):
    """A reading that was measured before what its device's twin comes from: it is history, and changes no twin.

    See core/lateness.
    """

    kind = "late"
    right = "publish"
    changes_twin = False
    conflates = False
    is_asked_for = True

    device_id: DeviceId
    value: Value
    timestamp_utc: TimeUtc
    source: Source
    measured_at_utc: MeasuredAt
    seq: Seq = NOT_YET
    epoch: Epoch = ""


@known_also_as(subject="target", payload="args", detail="command")
class Control(EntryKind, tag_field="type", tag="control", gc=False):
    """One command to a target, dispatched to everyone who watches. `args` is a JSON object's text."""

    kind = "control"
    right = "command"
    changes_twin = False
    conflates = False
    audited_as = "command"

    target: Target
    command: Command
    args: Args
    timestamp_utc: TimeUtc
    source: Source
    seq: Seq = NOT_YET
    epoch: Epoch = ""


@known_also_as(subject="device_id", merge_key="device_id")
class Deleted(EntryKind, tag_field="type", tag="deleted", gc=False):
    """That a device is no more: its twin goes. Its readings stay in the log; a later one makes the twin anew.

    With the scope "history" they do not stay: whoever has the log carries that out on its own files, and leaves an
    `Erased` in the place of each entry of the device, commands to it as well, up to this one.
    """

    kind = "deleted"
    changes_twin = True
    conflates = True
    audited_as = "delete"

    device_id: DeviceId
    timestamp_utc: TimeUtc
    source: Source
    seq: Seq = NOT_YET
    epoch: Epoch = ""
    scope: ErasedScope | UnsetType = UNSET

    @property
    def right(self) -> Literal["publish", "admin"]:  # type: ignore[override]
        """See EntryKind. What cannot be undone takes more than what a device may do itself."""
        return "publish" if self.scope is UNSET else "admin"

    @property
    def detail(self) -> str:
        """See EntryKind: the scope, if it has one."""
        return "" if self.scope is UNSET else self.scope

    @property
    def erases(self) -> bool:
        """Whether what the log has of the device goes as well."""
        return self.scope is not UNSET


class Erased(EntryKind, tag_field="type", tag="erased", gc=False):
    """The place of an entry that is no more: its position, and nothing of what it was.

    Its time is that of an entry before it. So the log has no gaps, and nobody receives it.
    """

    kind = "erased"
    right = "admin"
    changes_twin = False
    conflates = False
    is_asked_for = True
    is_told = False

    timestamp_utc: TimeUtc
    source: Source = "application"
    seq: Seq = NOT_YET
    epoch: Epoch = ""

    @property
    def subject(self) -> str:
        """See EntryKind: no device has this name."""
        return ""


Entry = DataUpdate | Control | Deleted | Late | Erased
ENTRIES: tuple[type[EntryKind], ...] = tuple(each for each in get_args(Entry) if each.is_told)
"""The kinds as classes, of what anybody receives."""
KINDS: frozenset[Kind] = frozenset(each.kind for each in ENTRIES)
KINDS_UNASKED: frozenset[Kind] = frozenset(each.kind for each in ENTRIES if not each.is_asked_for)
"""What those receive who name no kinds."""
TWIN_KINDS: frozenset[Kind] = frozenset(each.kind for each in ENTRIES if each.changes_twin)
Topic = tuple[Kind, str]
"""The kind of an entry, and the device or target that it is about."""
MergeKey = str | Topic


class Position(NamedTuple):
    """A place in a log: `epoch` says which, by its name and the run that gave it out; `seq` counts its entries from 1.

    core/lineage decides whether it counts in another run or in a copy of the log.
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
    """The newest state of one device: its value, when and by which way it came, and its position in the log."""

    value: Value
    updated_at_utc: TimeUtc
    seq: Seq
    source: Source
    measured_at_utc: MeasuredAt | UnsetType = UNSET
    clock: Clock | UnsetType = UNSET


class Snapshot(Struct):
    """The state of all devices as of one position; it holds every entry up to and including `seq`."""

    epoch: str
    seq: int
    twins: dict[str, Twin]
    deletions: dict[str, str] = {}
    """When devices were deleted, those that were last at the end; see core/lateness. Some may have come again."""
