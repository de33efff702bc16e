"""What the messages of the WebSocket and the bodies of REST are checked for alike."""

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from twincast.core.model import Entry
from twincast.core.names import check_id
from twincast.core.times import read_time
from twincast.errors import MalformedJson, TooLarge, TwincastError, ValidationFailed
from twincast.wire.values import check_value, compact

NO_ARGS = Raw(b"{}")


def check_value_sizes(entries: Iterable[Entry], max_bytes: int) -> None:
    """Check that no value, and no command's args, is longer than a limit.

    Raises:
        TooLarge: one of them is.
    """
    for entry in entries:
        size_bytes = len(entry.payload)
        if size_bytes > max_bytes:
            name = entry.subject
            raise TooLarge(f"a value must be at most {max_bytes} bytes; the one for {name[:128]!r} has {size_bytes}")


def check_command(target: str | None, command: str | None, args: Raw) -> Raw:
    """Check the parts of a command, and return its args as they are stored: an object without white space.

    Raises:
        BadMessage: one of its kinds.
    """
    for text, what in ((target, "`target`"), (command, "`command`")):
        if text is None:
            raise ValidationFailed(f"a command needs a {what}; this message has none")
        check_id(text, what)
    text_bytes = bytes(args)
    if not text_bytes or text_bytes == b"null":
        return NO_ARGS
    if not text_bytes.startswith(b"{"):
        raise ValidationFailed("`args` must be a JSON object")
    check_value(text_bytes)
    return Raw(compact(text_bytes))


def check_measured(text: str) -> str:
    """Check the time at which a reading claims to have been measured, and return it as it is stored.

    Raises:
        BadTime: it is no time, or has no zone.
    """
    return read_time(text, "`measured_at_utc`")


def not_json(error: Exception) -> TwincastError:
    """Return the error for bytes that cannot be decoded."""
    if isinstance(error, RecursionError):
        return TooLarge("the message is nested too deep")
    return MalformedJson(f"expected JSON: {error}")


_NO_TEXT, _IN_MEASURED = "Expected `str", ".measured_at_utc`"


def explain(error: msgspec.ValidationError) -> str:
    """Return what is wrong with the shape of a message, and where in it."""
    said = str(error)
    if said.endswith(_IN_MEASURED) and said.startswith(_NO_TEXT):
        where = said.rpartition(" - at ")[2]
        return f'expected a text in ISO 8601 with its zone, such as "2026-11-27T04:16:10.25Z", at {where}'
    return said.replace(" - at `$", " at `$")
