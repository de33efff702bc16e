"""The head of an answer as bytes, and by what its body will end (RFC 9112, 6.3)."""

import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

LINES_KEPT = 512
"""How many lines are remembered: most of an answer's are those of the answer before."""
_NAME_IS_BAD = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]').search
_VALUE_IS_BAD = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_LENGTH, _CODING, _CONNECTION = b"content-length", b"transfer-encoding", b"connection"
_DECIDING = frozenset({_LENGTH, _CODING, _CONNECTION})
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Framing(Enum):
    """By what a reader sees where the body ends."""

    LENGTH = auto()
    """By the length in the head, which is 0 where there is no body."""
    CHUNKS = auto()
    """By the last chunk."""
    CLOSE = auto()
    """By the end of the connection: HTTP/1.0 has no chunks (RFC 9112, 6.1)."""


class AnswerHead(NamedTuple):
    """A head, and what follows from it."""

    text: bytes
    framing: Framing
    length: int
    """How many bytes of a body are to come, if a length frames it."""
    closes: bool
    """Whether it says that the connection ends behind its body."""


def answer_head(
    status: int, headers: Iterable[Sequence[bytes]], *, method: str, version: str, keep_alive: bool
) -> AnswerHead:
    """Encode a head.

    Args:
        status: of the answer.
        headers: what the application and the server say, in this order on the wire.
        method: of the request.
        version: of HTTP in the request.
        keep_alive: whether the connection may go on, unless a header ends it.

    Raises:
        RuntimeError: a header would break out of its line.
    """
    lines = [_status_line(status)]
    framing, length, closes = None, 0, False
    for pair in headers:
        line, deciding = _line(*pair)
        lines.append(line)
        if deciding is None:
            continue
        name, value = deciding
        if name == _LENGTH:
            if framing is None:
                framing, length = Framing.LENGTH, int(value)
        elif name == _CODING:
            if value == b"chunked":
                framing, length = Framing.CHUNKS, 0
        else:
            closes |= b"close" in [token.strip() for token in value.split(b",")]
    if framing is None:
        framing = _framing(status, method, version)
        if framing is Framing.CHUNKS:
            lines.append(b"transfer-encoding: chunked\r\n")
    if not closes and not keep_alive:
        lines.append(b"connection: close\r\n")
    lines.append(b"\r\n")
    return AnswerHead(b"".join(lines), framing, length, closes or not keep_alive)


def chunk(data: bytes, *, is_last: bool) -> bytes:
    """Encode a part of a body that is framed by chunks; one of no bytes would be the last (RFC 9112, 7.1)."""
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + b"0\r\n\r\n" if is_last else framed


def _framing(status: int, method: str, version: str) -> Framing:
    """Return how a body is framed of which the application did not say that."""
    if method == "HEAD" or status in _WITHOUT_BODY:
        return Framing.LENGTH
    return Framing.CHUNKS if version == "1.1" else Framing.CLOSE


@lru_cache(maxsize=LINES_KEPT)
def _line(name: bytes, value: bytes) -> tuple[bytes, tuple[bytes, bytes] | None]:
    """Return a header's line; and its name and value in lower case, if they decide what comes behind the head."""
    if _NAME_IS_BAD(name):
        raise RuntimeError("Invalid HTTP header name.")
    if _VALUE_IS_BAD(value):
        raise RuntimeError("Invalid HTTP header value.")
    name = name.lower()
    return b"%b: %b\r\n" % (name, value), (name, value.lower()) if name in _DECIDING else None


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()
