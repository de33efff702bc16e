"""The words of the system: entries of the log, twins, positions."""

from typing import Literal

from msgspec import Raw, Struct

Source = Literal["rest", "websocket"]

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


class Control(Struct, tag_field="type", tag="control", gc=False):
    """One command to a target, dispatched to everyone who watches. `args` is a JSON object's text."""

    target: str
    command: str
    args: Raw
    timestamp_utc: str
    source: Source
    seq: int = NOT_YET


Entry = DataUpdate | Control


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
