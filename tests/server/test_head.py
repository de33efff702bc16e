"""What a request's head says, and how it is written anew. What a client sees of it is in test_http."""

import pytest

from twincast.errors import BadMessage
from twincast.server import head

UPGRADE = [(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket")]


def test_a_list_is_read_from_all_of_its_lines() -> None:
    headers = [(b"a", b"One, two"), (b"b", b"no"), (b"a", b" ,THREE\t")]
    assert head.tokens(headers, b"a") == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("method", "version", "more", "is_one"),
    [
        (b"GET", "1.1", [], True),
        (b"GET", "1.1", [(b"content-length", b"0")], True),
        (b"GET", "1.1", [(b"content-length", b"1")], False),
        (b"GET", "1.1", [(b"transfer-encoding", b"chunked")], False),
        (b"GET", "1.0", [], False),
        (b"POST", "1.1", [], False),
    ],
)
def test_a_handshake_is_a_get_of_http_1_1_without_a_body(
    method: bytes, version: str, more: head.Headers, is_one: bool
) -> None:
    assert head.asks_for_websocket(method, version, [*UPGRADE, *more]) is is_one


def test_an_upgrade_takes_both_headers() -> None:
    for kept in UPGRADE:
        assert not head.asks_for_websocket(b"GET", "1.1", [kept])


def test_offers_are_written_in_one_form_or_left_out() -> None:
    headers = [(b"host", b"a"), *UPGRADE, (b"http2-settings", b"x")]
    assert head.with_one_offer(headers)[-2:] == [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    assert head.without_offer(headers) == [(b"host", b"a"), (b"connection", b"keep-alive")]
    assert head.without_offer(UPGRADE[1:]) == []


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"/a?b", b"/a?b", b"old"),
        (b"http://new:1/a?b#c", b"/a?b", b"new:1"),
        (b"HTTPS://new", b"/", b"new"),
    ],
)
def test_a_host_in_the_target_replaces_the_header(target: bytes, path: bytes, host: bytes) -> None:
    assert head.in_origin_form(target, [(b"host", b"old")]) == (path, [(b"host", host)])


def test_a_target_with_a_user_is_refused() -> None:
    with pytest.raises(BadMessage, match="must not name a user"):
        head.in_origin_form(b"http://me:secret@host/", [])


@pytest.mark.parametrize(
    ("host", "is_local"),
    [(b"localhost:8000", True), (b"a.LOCALHOST", True), (b"localhost.example", False), (b"", False)],
)
def test_names_of_this_machine_get_no_promise_of_tls(host: bytes, is_local: bool) -> None:
    assert head.is_for_localhost([(b"host", host)]) is is_local
    sent = [(b"strict-transport-security", b"max-age=1"), (b"a", b"b")]
    assert head.without_hsts(sent) == [(b"a", b"b")]


def test_a_head_is_encoded_as_it_is_read() -> None:
    written = head.encoded(b"GET", b"/", "1.1", [(b"host", b"a")])
    assert written == b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
