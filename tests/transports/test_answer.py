"""How answers are sent: whole, in pieces of either kind of iterator, compressed, and around a state."""

import gzip
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
from msgspec import Raw, Struct

from twincast.transports.answer import STATE_HERE, Answer, send_answer, with_state
from twincast.transports.compression import FROM_BYTES

PIECES = [b"a" * FROM_BYTES, b"b", b"", b"c" * FROM_BYTES]


class Around(Struct):
    """An answer with the state in its midst."""

    first: str
    state: Raw
    last: int


async def as_they_come() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece


async def sent(answer: Answer, *, takes_gzip: bool = False, is_head: bool = False, known: str = "") -> Any:
    events: list[MutableMapping[str, Any]] = []

    async def send(event: MutableMapping[str, Any]) -> None:
        events.append(event)

    await send_answer(answer, send, known=known, takes_gzip=takes_gzip, is_head=is_head)
    assert [event.get("more_body", False) for event in events[1:]] == [True] * (len(events) - 2) + [False]
    return events[0]["status"], dict(events[0]["headers"]), b"".join(event["body"] for event in events[1:])


@pytest.mark.parametrize("takes_gzip", [False, True])
@pytest.mark.parametrize("kind", ["whole", "iterator", "async iterator"])
async def test_a_body_is_sent_in_either_form(kind: str, takes_gzip: bool) -> None:
    bodies: dict[str, Any] = {"whole": b"".join(PIECES), "iterator": iter(PIECES), "async iterator": as_they_come()}
    status, headers, body = await sent(Answer(bodies[kind]), takes_gzip=takes_gzip)
    assert (status, headers.get(b"content-encoding")) == (200, b"gzip" if takes_gzip else None)
    assert (gzip.decompress(body) if takes_gzip else body) == b"".join(PIECES)
    assert headers.get(b"content-length") == (b"%d" % len(body) if kind == "whole" else None)


async def test_for_a_head_no_piece_is_made() -> None:
    pieces = iter(PIECES)
    assert await sent(Answer(pieces), is_head=True) == (200, (await sent(Answer(iter(()))))[1], b"")
    assert next(pieces) == PIECES[0]


async def test_an_answer_that_the_client_has_is_not_sent_again() -> None:
    answer = Answer(b"x", tag="epoch:1")
    assert (await sent(answer, known='W/"epoch:1+gzip"'))[::2] == (304, b"")
    assert (await sent(answer, known='"epoch:2"'))[::2] == (200, b"x")


@pytest.mark.parametrize("pieces", [[b"{}"], [b"{", b"}"], [b'{"a":1', b',"b":2', b"}"]])
async def test_the_state_comes_in_pieces_where_the_struct_has_its_place(pieces: list[bytes]) -> None:
    answer = with_state(Around("\0 and \\u0000", STATE_HERE, 2), iter(pieces))
    assert isinstance(answer.body, bytes) is (len(pieces) == 1)
    whole = b'{"first":"\\u0000 and \\\\u0000","state":%b,"last":2}' % b"".join(pieces)
    assert (await sent(answer))[2] == whole
