"""What the parsers are judged by: readers of JSON, patterns and frames that share nothing with the package."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

REFUSAL_MAX_CHARS = 600
"""A refusal tells what came by its beginning, so its text does not grow with what came."""
_MAX_DEPTH, _MAX_NAMES = 32, 1_024
_CLOSE_CODES = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}  # RFC 6455, 7.4, and the IANA registry


class Fault(Exception):
    """Something that is promised does not hold."""


def hold(holds: bool, promise: str, *seen: object) -> None:
    """Raise Fault if a promise does not hold."""
    if not holds:
        raise Fault(f"{promise}: {', '.join(repr(thing)[:500] for thing in seen)}")


def as_utf8(data: bytes) -> bytes:
    """Return what the edge lets through of a text message."""
    return data if data.isascii() else data.decode(errors="replace").encode()


class Number(NamedTuple):
    """A number as it was written, so that none is rounded before it is compared."""

    text: str


def read(text: bytes) -> Any:
    """Read JSON by the standard library, numbers as they were written.

    Raises:
        ValueError: not UTF-8, not JSON (RFC 8259), or an object that has a name twice.
    """
    limit = sys.getrecursionlimit()
    try:
        return _loads(text.decode())
    except RecursionError:  # deep in a part that is passed over
        sys.setrecursionlimit(limit + 10 * len(text))
        try:
            return _loads(text.decode())
        finally:
            sys.setrecursionlimit(limit)


def read_object(text: bytes) -> dict[str, Any]:
    """Read an answer: an object with a type."""
    message = read(text)
    hold(isinstance(message, dict) and isinstance(message.get("type"), str), "an answer is a typed object", text)
    assert isinstance(message, dict)
    return message


def read_value(text: bytes) -> Any:
    """Read a value that may be stored.

    Raises:
        ValueError: see `read`, or not I-JSON (RFC 7493), or out of our bounds.
    """
    value = read(text)
    if _check(value, 0) > _MAX_NAMES:
        raise ValueError("too many names")
    return value


def _loads(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_once_each, parse_constant=_no_constant, parse_int=Number, parse_float=Number
    )


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise ValueError("an object has a name twice")
    return read


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _check(value: Any, depth: int) -> int:
    """Raise ValueError for what two readers may take differently; return how many names there are."""
    if isinstance(value, Number):
        _check_number(value.text)
    elif isinstance(value, str):
        value.encode()  # a lone surrogate raises
    if not isinstance(value, dict) and type(value) is not list:
        return 0
    if depth == _MAX_DEPTH:
        raise ValueError("too deep")
    children = value
    names = 0
    if isinstance(value, dict):
        names, children = len(value), [*value.values(), *value]
    return names + sum(_check(child, depth + 1) for child in children)


def _check_number(text: str) -> None:
    if text.lstrip("-").isdigit():
        if len(text) > 21 or not -(2**63) <= int(text) < 2**64:
            raise ValueError("beyond 64 bits")
    elif not math.isfinite(float(text)):
        raise ValueError("beyond a double")


def glob(pattern: str) -> Callable[[str], bool] | None:
    r"""Return what says whether a name is selected: all ways at once, `\*` and `\\` escaped. None for no pattern."""
    if not 1 <= len(pattern) <= 256 or not re.fullmatch(r"(?s:[^\\]|\\[*\\])*", pattern):
        return None
    tokens = re.findall(r"(?s:\\?.)", pattern)

    def matches(name: str) -> bool:
        at: dict[str, int] = {}
        for place, char in enumerate(name):
            at[char] = at.get(char, 0) | 1 << place
        places = 1  # a bit for each place that what was read so far may end at
        for token in tokens:
            places = -(places & -places) if token == "*" else (places & at.get(token[-1], 0)) << 1
            places &= (2 << len(name)) - 1
        return bool(places >> len(name))

    return matches


class Frame(NamedTuple):
    """A frame of RFC 6455."""

    first: int
    payload: bytes
    masked: bool = True

    @property
    def opcode(self) -> int:
        """What it is."""
        return self.first & 0x0F

    @property
    def fin(self) -> bool:
        """Whether it ends its message."""
        return bool(self.first & 0x80)


def frames_of_server(stream: bytes) -> Iterator[Frame]:
    """Read what a server sent.

    Raises:
        Fault: a server may not send that.
    """
    while stream:
        hold(len(stream) >= 2 and not stream[1] & 0x80, "a server sends whole frames, unmasked", stream)
        first, size, at = stream[0], stream[1], 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(stream[2:at], "big")
            hold(size > (125 if at == 4 else 0xFFFF), "a length is written as short as it can be", stream[:10])
        hold(first in {0x81, 0x88, 0x89, 0x8A}, "a server sends whole messages", first)
        hold(len(stream) >= at + size, "a server sends whole frames", stream)
        hold(first == 0x81 or size <= 125, "a control frame carries up to 125 bytes", size)
        yield Frame(first, stream[at : at + size])
        stream = stream[at + size :]


class TooLong(NamedTuple):
    """A message above the limit: what came, if that was whole and a text, for its id is then answered."""

    payload: bytes


class Understood(NamedTuple):
    """What a client's frames say: whole messages in order (bytes, or what is refused), pongs due, and the end.

    `close` is the code of the server's close frame: None while it goes on, 0 for one without a code.
    """

    messages: list[bytes | str | TooLong]
    pongs: list[bytes]
    close: int | None


def understand(frames: Sequence[Frame], message_max_bytes: int) -> Understood:
    """Read a client's frames by the letter of RFC 6455; nothing counts after the close."""
    messages: list[bytes | str | TooLong] = []
    pongs: list[bytes] = []
    parts: list[bytes] | None = None
    is_text = False
    for frame in frames:
        code = _fault_of_frame(frame, message_max_bytes)
        if code is None and frame.opcode < 8:
            if (frame.opcode == 0) != (parts is not None):
                return Understood(messages, pongs, 1002)
            if parts is None:
                parts, is_text = [], frame.opcode == 1
            parts.append(frame.payload)
            message = b"".join(parts)
            if len(message) > message_max_bytes:
                messages.append(TooLong(message if frame.opcode == 1 and frame.fin else b""))
                code = 1009
            elif is_text and not _may_be_utf8(message, frame.fin):
                code = 1007
            elif frame.fin:
                messages.append(message if is_text else "binary")
                parts = None
        elif code is None and frame.opcode == 9:
            pongs.append(frame.payload)
        elif code is None and frame.opcode == 8:
            code = int.from_bytes(frame.payload[:2], "big")
        if code is not None:
            return Understood(messages, pongs, code)
    return Understood(messages, pongs, None)


def breaks(frame: Frame, message_max_bytes: int) -> bool:
    """Whether a frame is wrong by itself, whatever came before it; reserved bits apart."""
    return _fault_of_frame(frame._replace(first=frame.first & 0x8F), message_max_bytes) is not None


def _fault_of_frame(frame: Frame, message_max_bytes: int) -> int | None:
    is_control = frame.opcode >= 8
    if not frame.masked or frame.opcode not in {0, 1, 2, 8, 9, 10}:
        return 1002
    if is_control and (not frame.fin or len(frame.payload) > 125):
        return 1002
    if not is_control and len(frame.payload) > 2 * message_max_bytes:
        return 1009
    fault = _fault_of_close(frame.payload) if frame.opcode == 8 and frame.payload else None
    return 1002 if fault is None and frame.first & 0x70 else fault


def _fault_of_close(payload: bytes) -> int | None:
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or (code not in _CLOSE_CODES and 0 < code < 5000):
        return 1002  # of 0 and of 5000 and above picows thinks after the reason
    if not _may_be_utf8(payload[2:], True):
        return 1007
    return None if code in _CLOSE_CODES else 1002


def _may_be_utf8(text: bytes, whole: bool) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return not whole and error.reason == "unexpected end of data"
    return True
