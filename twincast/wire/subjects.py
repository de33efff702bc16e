"""Names of devices and targets as subjects of NATS (https://docs.nats.io/nats-concepts/subjects), and back. Pure.

A `/` in a name is the `.` between two tokens of a subject, so that `lab/*` of one level is the native `lab.*`, and all
below `lab/` is `lab.>`. In a token, the UTF-8 bytes of `.`, `*`, `>`, `%`, space, control characters and everything
beyond ASCII are percent-encoded, with capital digits; an empty token, which NATS does not have, is a lone `%`. Every
name has one subject, and every such subject one name.
"""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from twincast.core.names import NAME_MAX_CHARS, check_id
from twincast.errors import ValidationFailed

SUBJECT_MAX_CHARS = 12 * NAME_MAX_CHARS
"""The longest subject of a name: 128 characters of four bytes, each three characters. With what stands before it, a
reply subject and two sizes, NATS's line of at most 4 KiB has room for it."""
QUOTED_CHARS = 40
"""How much of a wrong one an error quotes: each character may become ten as Python writes it."""
KNOWN_MAX = 8_192
"""How many names and subjects are remembered each: the same devices send again and again. A few megabytes."""

_ENCODED = re.compile(r"[^!-~]|[.*>%]")
_EMPTY = "%"


@lru_cache(maxsize=KNOWN_MAX)
def subject_of(name: str) -> str:
    """Return the subject of the name of a device or target, without what stands before it.

    Raises:
        ValidationFailed: the name has a lone surrogate.
    """
    try:
        return ".".join(_ENCODED.sub(_encode, token) or _EMPTY for token in name.split("/"))
    except UnicodeEncodeError:
        raise ValidationFailed("a name must have no lone surrogates") from None


@lru_cache(maxsize=KNOWN_MAX)
def name_of(subject: str, what: str = "a subject") -> str:
    """Return the name of a device or target whose subject this is, without what stands before it.

    Args:
        subject: what came.
        what: the subject of the error's sentence.

    Raises:
        ValidationFailed: no name has it; the text says how it would be written, if it is close to one.
    """
    if len(subject) > SUBJECT_MAX_CHARS:
        raise ValidationFailed(f"{what} must have at most {SUBJECT_MAX_CHARS} characters; this one has {len(subject)}")
    try:
        name = "/".join("" if token == _EMPTY else unquote_to_bytes(token).decode() for token in subject.split("."))
        canonical = subject_of(name)
    except UnicodeError:
        raise ValidationFailed(f"{what} must be UTF-8, percent-encoded; {subject[:QUOTED_CHARS]!r} is not") from None
    if canonical != subject:
        raise ValidationFailed(
            f"{what} has one way to be written, {canonical[:QUOTED_CHARS]!r} for this name, not"
            f" {subject[:QUOTED_CHARS]!r}"
        )
    check_id(name, what)
    return name


def _encode(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
