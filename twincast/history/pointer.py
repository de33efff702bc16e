"""JSON Pointers (RFC 6901): which part of a value is meant."""

import re
from functools import cached_property

import msgspec

from twincast.errors import BadPath

CHARS_MAX = 1_024
_ESCAPES = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}").fullmatch
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


class Pointer:
    """Where a part of a value stands. The empty one means the whole value."""

    def __init__(self, text: str) -> None:
        """Read a pointer, as `/motor/rpm`; `~1` stands for a slash in a name, `~0` for a tilde.

        Raises:
            BadPath: it is none.
        """
        if len(text) > CHARS_MAX:
            raise BadPath(f"a path must have at most {CHARS_MAX} characters; this one has {len(text)}")
        if text and not text.startswith("/"):
            raise BadPath(f"a path is a JSON Pointer, such as /motor/rpm, and begins with a slash; not {text[:64]!r}")
        if _ESCAPES.search(text):
            raise BadPath(f"in a path, a tilde is written ~0 and a slash in a name ~1; not {text[:64]!r}")
        self.text = text

    def __repr__(self) -> str:
        return f"Pointer({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pointer) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The names and indices on the way, without their escapes."""
        return tuple(token.replace("~1", "/").replace("~0", "~") for token in self.text.split("/")[1:])

    def find(self, value: bytes | msgspec.Raw) -> bytes | None:
        """Return the JSON text of the part that is meant, as it stands there; None if there is no such part.

        Args:
            value: JSON text, as it is stored.
        """
        part = bytes(value).strip()  # another program may have written it with white space around it
        for token in self.tokens:
            found: msgspec.Raw | None = None
            if part[:1] == b"{":
                found = _OBJECT.decode(part).get(token)
            elif part[:1] == b"[" and _INDEX(token):
                items = _ARRAY.decode(part)
                found = items[int(token)] if int(token) < len(items) else None
            if found is None:
                return None
            part = bytes(found)
        return part
