"""What an operation answers, and how that is sent: whole or in pieces, compressed, or not at all if it is known."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from msgspec import Raw, Struct

from twincast.delivery.feed import BYTES_A_STEP
from twincast.delivery.scheduler import Budget
from twincast.transports.asgi import SAFE_HEADERS, Send
from twincast.transports.compression import FROM_BYTES, Gzip
from twincast.wire.messages import encode

JSON, NDJSON, TEXT, CSV = "application/json", "application/x-ndjson", "text/plain", "text/csv"

STATE_HERE = Raw(b"\0")
"""Stands in an answer for the state, which is sent in pieces: no JSON text has this character in it."""
COMPRESSED_BYTES_A_STEP = 16
"""How much of a state costs as much as a step of a search, if it is compressed: a hundred megabytes a second."""
_JSON_BYTES = JSON.encode()
_COMPRESSED = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
_IF_COMPRESSED = "+gzip"


class Answer(NamedTuple):
    """The response to a call that succeeds."""

    body: bytes | Iterator[bytes] | AsyncIterator[bytes]
    """All of it, or pieces that are made as the client takes them."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    tag: str = ""
    """Names this very answer, so that no client gets it twice; empty if nothing does."""
    content_type: bytes = _JSON_BYTES
    status: int = 200


def with_state(answer: Struct, state: Iterator[bytes]) -> Answer:
    """Return an answer that has the state in pieces where it has STATE_HERE; if that is one piece, as a whole."""
    before, _, after = encode(answer).partition(STATE_HERE)
    first, second = next(state), next(state, None)
    if second is None:
        return Answer(before + first + after)
    return Answer(chain((before + first, second), state, (after,)))


def whole_if_small(pieces: Iterator[bytes]) -> bytes | Iterator[bytes]:
    """Return the body of an answer: its one piece, or if there are more, all of them as they are made."""
    first, second = next(pieces), next(pieces, None)
    return first if second is None else chain((first, second), pieces)


def metered(state: Iterator[bytes], budget: Budget, *, is_compressed: bool) -> Iterator[bytes]:
    """Yield the pieces of a state, each charged to the client's account; compressed ones cost more."""
    bytes_a_step = COMPRESSED_BYTES_A_STEP if is_compressed else BYTES_A_STEP
    for piece in state:
        budget.spend(len(piece) // bytes_a_step)
        yield piece


async def send_answer(answer: Answer, send: Send, *, known: str, takes_gzip: bool, is_head: bool) -> None:
    """Send an answer.

    Args:
        answer: what to send.
        send: of ASGI.
        known: the request's If-None-Match; if it names the answer's tag, 304 is sent.
        takes_gzip: whether the client takes the answer compressed.
        is_head: whether only the head is wanted; the server discards what is sent of a body.
    """
    body, extra, tag, content_type, status = answer
    if tag and _is_known(tag, known):
        await send({"type": "http.response.start", "status": 304, "headers": _tagged(tag, is_compressed=False)})
        await send({"type": "http.response.body", "body": b""})
        return
    gzip = Gzip() if takes_gzip and (not isinstance(body, bytes) or len(body) >= FROM_BYTES) else None
    headers = [(b"content-type", content_type), *extra]
    headers += _tagged(tag, is_compressed=gzip is not None) if tag else SAFE_HEADERS
    if gzip is not None:
        headers += _COMPRESSED
    if isinstance(body, bytes):
        whole = body if gzip is None else await gzip.whole(body)
        headers.append((b"content-length", b"%d" % len(whole)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": whole})
    else:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await _send_pieces(iter(()) if is_head else body, send, gzip)


async def _send_pieces(body: Iterator[bytes] | AsyncIterator[bytes], send: Send, gzip: Gzip | None) -> None:
    async for piece in in_turns(body):
        part = piece if gzip is None else await gzip.piece(piece)
        if part:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if gzip is None else gzip.end(), "more_body": False})


async def in_turns(pieces: Iterator[bytes] | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces, and let others run between two: a client that takes all at once must not delay them."""
    if not isinstance(pieces, Iterator):
        async for piece in pieces:
            yield piece
        return
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


def _tagged(tag: str, *, is_compressed: bool) -> Sequence[tuple[bytes, bytes]]:
    """Return the headers of an answer that a client may keep, if it asks each time whether the answer still holds.

    A tag names the very bytes, and compressed they are others (RFC 9110, 8.8.3.3).
    """
    return (
        (b"etag", b'"%b%b"' % (tag.encode(), _IF_COMPRESSED.encode() if is_compressed else b"")),
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"authorization, accept-encoding"),
        (b"x-content-type-options", b"nosniff"),
    )


def _is_known(tag: str, known: str) -> bool:
    """Whether an If-None-Match header names a tag, or any (RFC 9110, 13.1.2)."""
    tags = (each.strip().removeprefix("W/").strip('"').removesuffix(_IF_COMPRESSED) for each in known.split(","))
    return any(each in {tag, "*"} for each in tags)
