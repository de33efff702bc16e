"""What a watch yields: readings, commands and deletions, each one an event; and the gaps before them."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from twincast.client.message import Message
from twincast.core.model import Kind, Position

_STORED, _MEASURED = ("value", "updated_at_utc", "seq", "source"), ("measured_at_utc", "clock")


@dataclass(frozen=True, slots=True)
class Gap:
    """What may be missing before an event, and why.

    `reason` says why, and what the two numbers mean:

    - "too_old": the server can no longer send the entries from `from_seq` to `to_seq` of its log one by one.
    - "slow": commands between these two seqs were dropped, because this watch did not take them.
    - "epoch": the server continues in another log; "ahead": its log was set back. Earlier events may not be in the log
      that the server has now, so no numbers can say what is missing, and both are None.

    After each of them the watch yields what differs now: the newest value of every device that has another one, and
    the deletion of every device that is gone.
    """

    from_seq: int | None
    to_seq: int | None
    reason: Literal["too_old", "slow", "epoch", "ahead"] = "too_old"

    @classmethod
    def between(cls, before: Position, after: Position) -> "Gap | None":
        """Return what may be missing between two positions of one log; None if no entry lies between them."""
        return cls(before.seq + 1, after.seq) if before.seq < after.seq else None

    def joined(self, later: "Gap | None") -> "Gap":
        """Return this gap and a later one as one."""
        if later is None:
            return self
        if self.from_seq is None or self.to_seq is None:
            return self
        if later.from_seq is None or later.to_seq is None:
            return later
        reason = self.reason if self.reason == later.reason else "too_old"
        return Gap(min(self.from_seq, later.from_seq), max(self.to_seq, later.to_seq), reason)


@dataclass(frozen=True, slots=True)
class Twin:
    """The newest state of one device."""

    value: Any
    updated_at_utc: str
    seq: int
    source: str
    measured_at_utc: str | None = None
    """When it was measured, by the device's clock; None if the device does not say."""
    clock: Literal["off"] | None = None
    """ "off" if that clock is so far ahead that it is not believed."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a watch yields: a `Reading`, a `Command`, a `Deletion` or a `LateReading`.

    `kind` names which, in the wire's words: "data_update", "control", "deleted" or "late". `device_id` is the device,
    or the target of a command. `merged` says how many events this one stands for. `gap`, if it is not None, says what
    may be missing before it.
    """

    kind: ClassVar[Kind]

    device_id: str
    seq: int
    epoch: str
    timestamp_utc: str
    source: str
    _: KW_ONLY
    merged: int = 1
    gap: Gap | None = None

    @property
    def value(self) -> Any:
        """The value of a reading, late or not; None for any other event."""
        return None

    @property
    def measured_at_utc(self) -> str | None:
        """When a reading was measured, by its device's clock; None if the device did not say, and for other events."""
        return None

    @property
    def clock(self) -> Literal["off"] | None:
        """Whether that clock is "off", so far ahead that it is not believed; None if not, and for other events."""
        return None

    @property
    def command(self) -> str:
        """The name of a command; empty for any other event."""
        return ""

    @property
    def args(self) -> Mapping[str, Any] | None:
        """The arguments of a command; None for any other event."""
        return None


# `field()` in the classes below: without it a dataclass would take the property of Event for a default value.


@dataclass(frozen=True, slots=True)
class Reading(Event):
    """A value that a device sent."""

    kind: ClassVar[Kind] = "data_update"

    value: Any = field()
    measured_at_utc: str | None = None
    """See Twin, as `clock`."""
    clock: Literal["off"] | None = None


@dataclass(frozen=True, slots=True)
class LateReading(Event):
    """A value that was measured before the newest one of its device, and came after it. It is not the device's state.

    A watch yields it only if its `kinds` name "late".
    """

    kind: ClassVar[Kind] = "late"

    value: Any = field()
    measured_at_utc: str = field()


@dataclass(frozen=True, slots=True)
class Command(Event):
    """A command to a target, `device_id`, which need not be a device."""

    kind: ClassVar[Kind] = "control"

    command: str = field()
    args: Mapping[str, Any] = field()


@dataclass(frozen=True, slots=True)
class Deletion(Event):
    """The end of a device, until a later reading makes it anew."""

    kind: ClassVar[Kind] = "deleted"

    scope: str | None = None
    """"history" if all that the log had of the device is erased; None if that stays."""


def event_of(message: Message) -> Event:
    """Read an event from the wire."""
    common = (message["seq"], message["epoch"], message["timestamp_utc"], message["source"])
    if message["type"] == "control":
        return Command(message["target"], *common, message["command"], message["args"])
    merged = message.get("merged", 1)
    if message["type"] == "deleted":
        return Deletion(message["device_id"], *common, message.get("scope"), merged=merged)
    if message["type"] == "late":
        return LateReading(message["device_id"], *common, message["value"], message["measured_at_utc"])
    measured = message.get("measured_at_utc"), message.get("clock")
    return Reading(message["device_id"], *common, message["value"], *measured, merged=merged)


def reading_of(device_id: str, twin: Twin, epoch: str) -> Reading:
    """Return the reading that a twin comes from."""
    stored = (twin.seq, epoch, twin.updated_at_utc, twin.source)
    return Reading(device_id, *stored, twin.value, twin.measured_at_utc, twin.clock)


def twin_of(reading: Reading) -> Twin:
    """Return the twin that comes from a reading."""
    stored = (reading.timestamp_utc, reading.seq, reading.source)
    return Twin(reading.value, *stored, reading.measured_at_utc, reading.clock)


def twins_in(snapshot: Message) -> dict[str, Twin]:
    """Read the state of devices from the wire; what a newer server says besides is left out."""
    return {
        device_id: Twin(*(twin[name] for name in _STORED), *(twin.get(name) for name in _MEASURED))
        for device_id, twin in snapshot.items()
    }


def deletion_before(position: Position, device_id: str, twin: Twin) -> Deletion:
    """Return the deletion of a device that is gone at a position. When it was deleted is unknown; its time is now."""
    now_utc = datetime.now(UTC).isoformat(timespec="microseconds")
    return Deletion(device_id, position.seq, position.epoch, now_utc, twin.source)
