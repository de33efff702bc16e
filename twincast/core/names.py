"""Which texts may be the name of a device, a target or a command."""

from collections.abc import Iterable
from functools import lru_cache

from twincast.errors import ValidationFailed

NAME_MAX_CHARS = 128


@lru_cache(maxsize=4_096)  # the same devices send again and again
def check_id(text: str, what: str) -> None:
    """Check the name of a device, target or command: 1 to 128 characters, no control character, no lone surrogate.

    Raises:
        ValidationFailed: it is not such a name.
    """
    if not 1 <= len(text) <= NAME_MAX_CHARS:
        raise ValidationFailed(f"{what} must have 1 to {NAME_MAX_CHARS} characters; this one has {len(text)}")
    if text.isprintable():
        return
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise ValidationFailed(f"{what} must have no control characters")
    check_unicode(text, what)


def listed(given: str | Iterable[str]) -> Iterable[str]:
    """Return patterns, kinds or the like as they were given; a text alone is one of them, and not its characters."""
    return (given,) if isinstance(given, str) else given


def check_unicode(text: str, what: str) -> None:
    """Check that a text can be encoded in UTF-8, which a lone surrogate cannot: what could not be sent is not taken.

    Raises:
        ValidationFailed: it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValidationFailed(f"{what} must have no lone surrogates") from None
