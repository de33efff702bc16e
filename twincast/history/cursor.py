"""Cursors of pages: opaque to clients, and good for the query alone that answered with one."""

import base64
import binascii
import struct
from hashlib import blake2b
from typing import NamedTuple

from twincast.errors import BadCursor
from twincast.history.query import Place

_LAYOUT = struct.Struct(">8s6q")
_TEXT_CHARS = 75
"""What 56 bytes are in Base64, without the `=` at their end."""


class Cursor(NamedTuple):
    """Where a page ended, and what its query was when its first page was asked for.

    The bounds are in it, so that `-1h` means the same on every page, and all pages are of one prefix of the log.
    """

    from_us: int
    to_us: int
    after_seq: int
    until_seq: int
    place: Place

    def text(self, digest: bytes) -> str:
        """Return the cursor as a text for addresses; `digest` is that of its query."""
        packed = _LAYOUT.pack(digest, self.from_us, self.to_us, self.after_seq, self.until_seq, *self.place)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, digest: bytes) -> "Cursor":
        """Read a cursor.

        Raises:
            BadCursor: it is none, or not of the query with this digest.
        """
        try:
            if len(text) != _TEXT_CHARS:
                raise ValueError
            found, from_us, to_us, after_seq, until_seq, at_us, seq = _LAYOUT.unpack(
                base64.b64decode(f"{text}=", altchars=b"-_", validate=True)
            )
        except (ValueError, binascii.Error):
            raise BadCursor(f"a cursor is what a page before had as `cursor`, unchanged; not {text[:80]!r}") from None
        if found != digest:
            raise BadCursor("this cursor is of another query; it goes with the same device and the same parameters")
        if min(after_seq, until_seq, seq) < 0:
            raise BadCursor("this cursor was made by something else than a page")
        return cls(from_us, to_us, after_seq, until_seq, Place(at_us, seq))


def digest_of(*parts: object) -> bytes:
    """Return what tells a query from others."""
    return blake2b("\0".join(map(repr, parts)).encode(), digest_size=8).digest()
