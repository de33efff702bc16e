"""Assemble WebSocket messages from frames: what RFC 6455 asks of a reader beyond single frames.

That is reserved bits (section 5.2), fragmentation (5.4), close codes (7.4) and UTF-8 (8.1). What makes a frame wrong by
itself (a missing mask, an unknown opcode, a control frame that is too long) is refused by whoever parses frames.
"""

import codecs
from collections.abc import Sequence

from twincast.errors import TooLarge, UnsupportedMedia

CONTINUATION, TEXT, BINARY, CLOSE = 0x0, 0x1, 0x2, 0x8
"""The opcodes (section 5.2) that an assembler tells apart; the others are control frames that complete nothing."""
PROTOCOL_ERROR, NOT_UTF8 = 1002, 1007
CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""The codes that a close frame may carry (section 7.4, and the IANA registry)."""


class Violation(Exception):
    """Frames that break RFC 6455: the connection closes with `code` and `reason`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Assembler:
    """The messages of one client.

    It is between messages (`_parts` is None), or inside a text (`_parts` and `_decoder`), or inside a binary message
    (`_parts` alone). A data frame without FIN begins a message, a continuation with FIN ends it, and so does whatever
    `take` raises: there is nothing to go on with then. Control frames come between fragments and change nothing.
    """

    __slots__ = ("_decoder", "_max_bytes", "_parts", "_parts_bytes")

    def __init__(self, message_max_bytes: int) -> None:
        self._max_bytes = message_max_bytes
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def is_inside(self) -> bool:
        """Whether a message has begun that further frames are to complete."""
        return self._parts is not None

    def would_take(self, payloads: Sequence[bytes]) -> bool:
        """Whether `take` would return each of these as it is, if they came as whole text messages now.

        Faster than to take them one by one. If not, `take` says which of them is wrong.
        """
        if self._parts is not None:
            return False
        # A line feed completes no character that one of them leaves incomplete.
        joined = payloads[0] if len(payloads) == 1 else b"\n".join(payloads)
        if len(joined) > self._max_bytes and max(map(len, payloads)) > self._max_bytes:
            return False
        try:
            return joined.isascii() or bool(joined.decode())
        except UnicodeDecodeError:
            return False

    def take(self, opcode: int, fin: bool, payload: bytes, has_reserved_bits: bool = False) -> bytes | None:
        """Take one frame; return the text message that it completes, as UTF-8 that was checked.

        Args:
            opcode: what the frame is.
            fin: whether it is the last one of its message.
            payload: unmasked.
            has_reserved_bits: whether any of RSV1 to RSV3 is set.

        Returns:
            None for a control frame, and for a fragment that others are to follow.

        Raises:
            Violation: the connection closes.
            TooLarge: the message is above its limit; the connection closes.
            UnsupportedMedia: this completes a binary message; the connection goes on.
        """
        if has_reserved_bits:
            raise self._violation(PROTOCOL_ERROR, "reserved bits are set, and no extension was agreed on")
        if opcode == TEXT and fin and self._parts is None:  # as nearly all messages come
            if len(payload) > self._max_bytes:
                raise too_large(self._max_bytes)
            if not payload.isascii():
                self._check_text(payload)
            return payload
        if opcode <= BINARY:
            return self._join(opcode, fin, payload)
        if opcode == CLOSE:
            code = close_code_of(payload)
            if code is not None and code not in CLOSE_CODES:
                raise self._violation(PROTOCOL_ERROR, f"{code} is not a close code")
        return None

    def _join(self, opcode: int, fin: bool, payload: bytes) -> bytes | None:
        if (opcode == CONTINUATION) != (self._parts is not None):
            raise self._violation(
                PROTOCOL_ERROR, "a fragment continues a message that has begun, and nothing else may come between"
            )
        if self._parts is None:
            self._parts, self._parts_bytes = [], 0
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        self._parts_bytes += len(payload)
        if self._parts_bytes > self._max_bytes:
            self._forget()
            raise too_large(self._max_bytes)
        if self._decoder is not None:
            self._check_part(self._decoder, payload, fin)
        if payload:  # empty ones are free of bytes, and so would be without bound
            self._parts.append(payload)
        if not fin:
            return None
        message, is_text = b"".join(self._parts), self._decoder is not None
        self._forget()
        if not is_text:
            raise not_text()
        return message

    def _check_text(self, payload: bytes) -> None:
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise self._not_utf8() from None

    def _check_part(self, decoder: codecs.IncrementalDecoder, payload: bytes, fin: bool) -> None:
        """Check each fragment, so that a bad one is refused before the rest comes."""
        try:
            decoder.decode(payload, final=fin)
        except UnicodeDecodeError:
            raise self._not_utf8() from None
        pending, _ = decoder.getstate()
        if pending[:1] == b"\xed" and pending[1:] >= b"\xa0":  # a surrogate; Python waits for its third byte
            raise self._not_utf8()

    def _not_utf8(self) -> Violation:
        return self._violation(NOT_UTF8, "a text message is UTF-8; this one is not")

    def _violation(self, code: int, reason: str) -> Violation:
        self._forget()
        return Violation(code, reason)

    def _forget(self) -> None:
        self._parts = self._decoder = None


def close_code_of(payload: bytes) -> int | None:
    """Return the code that a close frame carries; None if it carries none."""
    return int.from_bytes(payload[:2], "big") if payload else None


def too_large(message_max_bytes: int) -> TooLarge:
    """Return what refuses a message above its limit."""
    return TooLarge(f"a message must be at most {message_max_bytes} bytes; this one is larger")


def not_text() -> UnsupportedMedia:
    """Return what refuses a binary message."""
    return UnsupportedMedia("messages are JSON text; binary ones are not accepted")
