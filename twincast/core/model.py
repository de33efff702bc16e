"""The words of the system: entries of the log, twins, positions."""

from typing import Literal, NamedTuple, Self

from msgspec import Raw, Struct

from twincast.errors import ValidationFailed

Source = Literal["rest", "websocket"]
Kind = Literal["data_update", "control"]

NOT_YET = 0
"""The seq of an entry that no journal has stored; the first stored entry has 1."""


class DataUpdate(Struct, tag_field="type", tag="data_update", gc=False):
    """One reading of one device: telemetry on its way in, an event on its way out.

    The transport drafts it, the hub stamps the time, the journal gives the seq. Encoded, it is the event that
    every watcher receives; `value` stays the JSON text that came in, less the white space between its tokens, so no
    number is rounded on the way.
    """

    device_id: str
    value: Raw
    timestamp_utc: str
    source: Source
    seq: int = NOT_YET
    epoch: str = ""

    @property
    def topic(self) -> "Topic":
        """What subscriptions select by."""
        return "data_update", self.device_id


class Control(Struct, tag_field="type", tag="control", gc=False):
    """One command to a target, dispatched to everyone who watches. `args` is a JSON object's text."""

    target: str
    command: str
    args: Raw
    timestamp_utc: str
    source: Source
    seq: int = NOT_YET
    epoch: str = ""

    @property
    def topic(self) -> "Topic":
        """What subscriptions select by."""
        return "control", self.target


Entry = DataUpdate | Control
Topic = tuple[Kind, str]
"""The kind of an entry, and the device or target that it is about."""


class Position(NamedTuple):
    """A place in a log: `epoch` names the log, `seq` counts its entries, 0 is before the first."""

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
            raise ValidationFailed(f"a position is EPOCH:SEQ, such as 5f0c9a1e:42, not {text[:64]!r}")
        return cls(epoch, int(seq))


class Twin(Struct, gc=False):
    """What is known of one device now: the newest value, when, by which way, and where in the log."""

    value: Raw
    updated_at_utc: str
    seq: int
    source: Source


class Snapshot(Struct):
    """The state of all devices as of one position; it holds every entry up to and including `seq`."""

    epoch: str
    seq: int
    twins: dict[str, Twin]
