"""Bytes to requests, whichever way they are cut."""

from itertools import pairwise
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twincast.errors import BadMessage, TwincastError
from twincast.server.incoming import HeadTooLarge, Incoming, Phase, Unread, VersionNotTaken
from twincast.transports.asgi import OF_HEAD

HANDSHAKE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
POST = b"POST /api/data?a=1 HTTP/1.1\r\nHost: a\r\nX-B: \xff\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


class Forgetful(Incoming):
    """Reads every head anew."""

    def _remember(self, data: bytes) -> None:
        pass


class Taken:
    """Requests, and their bodies."""

    def __init__(self, head_max_bytes: int = 2_048, *, takes_websockets: bool = True, knows_heads: bool = True) -> None:
        connection = {"type": "http", "state": {"a": 1}}
        self.scopes: list[dict[str, Any]] = []
        self.rest: list[tuple[bool, bool]] = []
        self.bodies: list[bytes] = []
        self.ended = 0
        kind = Incoming if knows_heads else Forgetful
        self.incoming = kind(
            connection, self._on_request, head_max_bytes=head_max_bytes, takes_websockets=takes_websockets
        )

    def _on_request(self, scope: dict[str, Any], keep_alive: bool, wants_continue: bool) -> "Taken":
        self.scopes.append(scope)
        self.rest.append((keep_alive, wants_continue))
        self.bodies.append(b"")
        return self

    def add(self, body: bytes) -> None:
        self.bodies[-1] += body

    def end(self) -> None:
        self.ended += 1


@given(st.lists(st.integers(0, len(POST + CHUNKED)), max_size=6))
def test_it_does_not_matter_where_requests_are_cut(cuts: list[int]) -> None:
    taken, sent = Taken(), POST + CHUNKED
    places = [0, *sorted(cuts), len(sent)]
    for begin, end in pairwise(places):
        if begin < end:
            taken.incoming.feed(sent[begin:end])
    assert taken.bodies == [b"abc", b"abc"] and taken.ended == 2
    assert taken.incoming.phase is Phase.IDLE
    scope = taken.scopes[0]
    assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/api/data", b"a=1")
    assert scope["headers"] == [(b"host", b"a"), (b"x-b", b"\xff"), (b"content-length", b"3")]


def test_a_phase_says_what_has_come() -> None:
    taken = Taken()
    for part, phase in (
        (b"\r\n", Phase.IDLE),
        (b"GE", Phase.HEAD),
        (b"T / HTTP/1.1\r\nContent-Length: 1\r\n", Phase.HEAD),
        (b"\r\n", Phase.BODY),
        (b"a", Phase.IDLE),
    ):
        taken.incoming.feed(part)
        assert taken.incoming.phase is phase


@given(st.binary(max_size=12))
def test_a_target_is_taken_apart_as_httptools_would(rest: bytes) -> None:
    taken = Taken()
    try:
        taken.incoming.feed(b"GET /%b HTTP/1.1\r\n\r\n" % rest)
    except TwincastError:
        return
    for scope in taken.scopes:
        url = httptools.parse_url(taken.incoming.target)
        assert (scope["raw_path"], scope["query_string"]) == (url.path, url.query or b"")


def test_requests_share_nothing_that_an_application_may_write_to() -> None:
    taken = Taken()
    for _ in range(3):
        taken.incoming.feed(b"GET / HTTP/1.1\r\n\r\n")
        assert taken.scopes[-1]["state"] == {"a": 1} and taken.scopes[-1]["headers"] == []
        taken.scopes[-1]["state"]["b"] = 2
        taken.scopes[-1]["headers"].append((b"a", b"b"))
        taken.scopes[-1]["path"] = "/other"
    assert taken.scopes[0][OF_HEAD] is taken.scopes[2][OF_HEAD]


PIECES = (
    *(POST, POST.replace(b"abc", b"xyz"), POST.replace(b"abc", b"\r\n\r"), POST[:-3], POST[:-1], b"abc", b"c", b"\r\n"),
    *(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", CHUNKED, POST + POST, b""),
    *(
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ),
    *(POST.replace(b"Host: a", b"Expect: 100-continue"), b"GET / HTTP/1.0\r\n\r\n", b"\r", b"\n", b"nonsense"),
    *(b"GET / HTTP/1.1\r\n" + HANDSHAKE + b"\r\n", POST.replace(b"Host: a", b"Connection: Upgrade\r\nUpgrade: h2c")),
)


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_a_head_that_is_known_is_what_the_parser_would_find(reads: list[bytes]) -> None:
    knowing, forgetful = Taken(), Taken(knows_heads=False)
    for read in [each for each in reads for _ in range(2)]:
        outcomes = [feed(taken, read) for taken in (knowing, forgetful)]
        assert outcomes[0] == outcomes[1]
        if outcomes[0] != "taken":
            break
    for taken in (knowing, forgetful):
        for scope in taken.scopes:
            del scope[OF_HEAD]
    assert knowing.scopes == forgetful.scopes
    assert (knowing.rest, knowing.bodies, knowing.ended) == (forgetful.rest, forgetful.bodies, forgetful.ended)


def feed(taken: Taken, read: bytes) -> str:
    try:
        taken.incoming.feed(read)
    except TwincastError as error:
        return str(error)
    return "handshake" if taken.incoming.is_handshake else "taken"


def test_a_head_that_comes_again_is_not_parsed_again() -> None:
    taken = Taken()
    taken.incoming.feed(POST)
    taken.incoming._parser = None
    for _ in range(3):
        taken.incoming.feed(POST)
    assert taken.bodies == [b"abc"] * 4 and taken.ended == 4


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"nonsense\r\n\r\n", BadMessage),
        (b"GET / HTTP/2.0\r\n\r\n", VersionNotTaken),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", BadMessage),
        (b"GET /\xff HTTP/1.1\r\n\r\n", BadMessage),
        (b"GET / HTTP/1.1\r\nX: ", HeadTooLarge),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 3_000 + b"\r\n\r\n", HeadTooLarge),
        (CHUNKED[:-2] + b"A: b\r\n" * 33 + b"\r\n", BadMessage),
    ],
    ids=["nonsense", "version", "tunnel", "above ASCII", "a long head", "a long head at once", "trailers"],
)
def test_what_is_no_request_is_refused(sent: bytes, error: type[TwincastError]) -> None:
    taken = Taken()
    with pytest.raises(error):
        for part in (sent, b"a" * 3_000):
            taken.incoming.feed(part)


def test_trailers_are_nothing() -> None:
    taken = Taken()
    taken.incoming.feed(CHUNKED[:-2] + b"A: b\r\n\r\n" + POST)
    assert [len(each["headers"]) for each in taken.scopes] == [1, 3]


def test_an_offer_is_ignored_and_a_handshake_is_told_apart() -> None:
    taken = Taken()
    taken.incoming.feed(POST.replace(b"Host: a", b"Connection: Upgrade\r\nUpgrade: h2c") + POST)
    assert taken.bodies == [b"abc", b"abc"] and not taken.incoming.is_handshake
    taken.incoming.feed(b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"\r\n")
    assert taken.incoming.is_handshake and len(taken.scopes) == 2
    portable = Taken(takes_websockets=False)
    portable.incoming.feed(b"GET /ws HTTP/1.1\r\n" + HANDSHAKE + b"\r\n")
    assert not portable.incoming.is_handshake and len(portable.scopes) == 1


def test_who_is_told_may_have_the_rest_thrown_away() -> None:
    def refuse(*_: Any) -> Taken:
        raise Unread

    incoming = Incoming({"state": {}}, refuse, head_max_bytes=2_048, takes_websockets=True)
    with pytest.raises(Unread):
        incoming.feed(POST * 2)
