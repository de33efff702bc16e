"""What a program is told of: a change, a gap before it, the newest state of a device, what it has yet to send."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self

from twincast.client.link import Message
from twincast.core.model import Kind, Position


@dataclass(frozen=True, slots=True)
class Gap:
    """What may be missing before a change, and why.

    `reason` is "too_old" if the server could no longer bring the changes from `from_seq` to `to_seq` of its log one by
    one, and "slow" if commands among them were dropped because this watch did not take them. It is "epoch" if the
    server goes on in another log, and "ahead" if its log was set back: then what was told before may not be in it, and
    no numbers say what is missing, so both are None. What differs now is told either way: the newest value of devices
    that have another one, and the deletion of devices that are gone.
    """

    from_seq: int | None
    to_seq: int | None
    reason: Literal["too_old", "slow", "epoch", "ahead"] = "too_old"

    @classmethod
    def between(cls, before: Position, after: Position) -> "Gap | None":
        """Return what may be missing between two positions of a log; None if nothing lies between them."""
        return cls(before.seq + 1, after.seq) if before.seq < after.seq else None

    def joined(self, later: "Gap | None") -> "Gap":
        """Return this gap and one behind it as one."""
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


@dataclass(frozen=True, slots=True)
class Change:
    """One change, as a watch yields it.

    `kind` is "data_update": a reading of `device_id` with a `value`; "control": a `command` to it, with `args`; or
    "deleted": the device is no more, until a later reading makes it anew.
    `merged` says how many changes it stands for. `gap`, if it is not None, says what may be missing before it.
    """

    kind: Kind
    device_id: str
    seq: int
    epoch: str
    timestamp_utc: str
    source: str
    value: Any = None
    command: str = ""
    args: Mapping[str, Any] | None = None
    merged: int = 1
    gap: Gap | None = None

    @classmethod
    def of(cls, message: Message) -> Self:
        """Read an event from the wire."""
        common = (message["seq"], message["epoch"], message["timestamp_utc"], message["source"])
        if message["type"] == "control":
            return cls("control", message["target"], *common, None, message["command"], message["args"])
        merged = message.get("merged", 1)
        if message["type"] == "deleted":
            return cls("deleted", message["device_id"], *common, merged=merged)
        return cls("data_update", message["device_id"], *common, message["value"], merged=merged)

    @classmethod
    def to_twin(cls, device_id: str, twin: Twin, epoch: str) -> Self:
        """Make a twin the change that it comes from."""
        return cls("data_update", device_id, twin.seq, epoch, twin.updated_at_utc, twin.source, twin.value)

    @classmethod
    def to_deletion(cls, device_id: str, twin: Twin, position: Position) -> Self:
        """Make a change of it that a device is no more, somewhere before a position; when, nobody can say any more."""
        now_utc = datetime.now(UTC).isoformat(timespec="microseconds")
        return cls("deleted", device_id, position.seq, position.epoch, now_utc, twin.source)


class Backlog(NamedTuple):
    """What waits in a spool for the server, and how many lines it has refused for good that are kept."""

    lines: int
    size_bytes: int
    refused: int
