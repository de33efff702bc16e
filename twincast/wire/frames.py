"""RFC 6455 frames that a server sends: unmasked, whole messages, no extension."""

import struct
from collections.abc import Callable, Sequence

from twincast.wire.implementation import compiled
from twincast.wire.outgoing import Outgoing

_TEXT, _CLOSE, _PONG = 0x81, 0x88, 0x8A  # FIN set, section 5.2

CLOSE_REASON_MAX_BYTES = 123
"""A control frame carries 125 bytes, two of which are the close code (section 5.5)."""


HEADERS_MAX = 4_096
"""How many headers of texts are kept; texts of one kind have few lengths."""


class _TextHeaders(dict[int, bytes]):
    """The headers of text frames by the size of the text. A mapping and no function: each message asks."""

    def __missing__(self, size: int) -> bytes:
        header = _header(_TEXT, size)
        if len(self) < HEADERS_MAX:
            self[size] = header
        return header


_text_headers = _TextHeaders()


def _header(first_byte: int, size: int) -> bytes:
    if size < 126:
        return bytes((first_byte, size))
    if size < 1 << 16:
        return struct.pack(">BBH", first_byte, 126, size)
    return struct.pack(">BBQ", first_byte, 127, size)


def encode(outgoing: Outgoing) -> bytes:
    """Return messages as one text frame each."""
    return text(outgoing.messages)


def text_in_python(messages: Sequence[bytes]) -> bytes:
    """Join messages to the bytes of one text frame each."""
    headers = _text_headers
    parts = [b""] * (2 * len(messages))
    parts[::2] = [headers[len(message)] for message in messages]
    parts[1::2] = messages
    return b"".join(parts)


text: Callable[[Sequence[bytes]], bytes] = text_in_python if compiled is None else compiled.text
"""Join messages to the bytes of one text frame each; as fast as this installation can (wire/implementation)."""


def pong(payload: bytes) -> bytes:
    """Answer a ping with its own payload (section 5.5.3)."""
    return _header(_PONG, len(payload)) + payload


def close(code: int | None) -> bytes:
    """Return a close frame. A `code` of None answers a close frame that carried none (section 5.5.1)."""
    return _header(_CLOSE, 0) if code is None else _header(_CLOSE, 2) + code.to_bytes(2, "big")


def close_reason(text: str) -> bytes:
    """Return a reason for a close frame; one that is too long for a control frame is cut at a character."""
    return text.encode()[:CLOSE_REASON_MAX_BYTES].decode(errors="ignore").encode()
