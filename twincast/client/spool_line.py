"""The lines of a spool: what each of them is, and which parts of the file there are."""

from typing import NamedTuple

ROW_BYTES = 64
"""What a line costs in the file beside its message."""
READING, DELETION = '{"type":"telemetry","device_id":', '{"type":"delete","device_id":'
"""What the messages of readings and deletions begin with, as this client writes them."""


class Row(NamedTuple):
    """One line: an update without its ids and its time, as JSON."""

    line: int
    message: str
    value_bytes: int
    accepted_at_utc: str
    measured_at_utc: str | None = None
    """Empty for a reading that counts as measured when it is stored."""

    @property
    def size_bytes(self) -> int:
        """What it costs of the spool's `max_bytes`."""
        return len(self.message.encode()) + ROW_BYTES

    @property
    def is_reading(self) -> bool:
        """Whether it is a reading: not a command, nor a deletion."""
        return self.message.startswith(READING)

    @property
    def is_deletion(self) -> bool:
        """Whether it deletes a device."""
        return self.message.startswith(DELETION)

    @property
    def has_time(self) -> bool:
        """Whether the server is told when it was: not of commands, deletions, and readings that follow these."""
        return self.measured_at_utc != "" and self.is_reading

    @property
    def holds_device(self) -> bool:
        """Whether no later reading of its device may pass it."""
        return not self.has_time and (self.is_reading or self.is_deletion)

    @property
    def device(self) -> str:
        """The device of a reading or a deletion, in the form that it has in the message."""
        return device_of(self.message)


class Lines(NamedTuple):
    """How many lines there are of one kind, their first and last number, and what they cost; 0 if there is none.

    There are three kinds:

    - *live*: `is_live` is 1. The line goes among the live ones, and may have been sent so.
    - *backlog*: `is_live` is 0, or it is null and the number at most `decided_until`. It may have been sent so.
    - *undecided*: the others. They were not sent. All of them are newer than every live line, for none is added while
      live ones are: so they can follow those, whose numbers must rise.
    """

    number: int
    first: int
    last: int
    size_bytes: int


class Refusal(NamedTuple):
    """A line that the server will never store, and why."""

    line: int
    code: str
    reason: str


def device_of(message: str) -> str:
    """Return the device in a message, in the form that it has there."""
    begin = len(DELETION if message.startswith(DELETION) else READING)
    end = message.find('","value":', begin)  # in a name each quotation mark would have a backslash before it
    return message[begin : end + 1] if end > 0 else message[begin:-1]
