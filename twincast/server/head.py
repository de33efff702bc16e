"""Read and rewrite a request's head: its target, its host, and its offers to speak another protocol."""

import re
from collections.abc import Iterable

from twincast.access.hosts import host_of, is_localhost
from twincast.errors import BadMessage

Headers = list[tuple[bytes, bytes]]

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.I | re.S)
_OF_AN_OFFER = frozenset({b"upgrade", b"http2-settings"})


def tokens(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return the elements of a list header, in lower case, from all of its lines (RFC 9110, 5.3)."""
    lines = (value for key, value in headers if key == name)
    return [token for line in lines for each in line.split(b",") if (token := each.strip(b" \t").lower())]


def asks_for_websocket(method: bytes, version: str, headers: Headers) -> bool:
    """Whether a request is the opening handshake of a WebSocket: a GET of HTTP/1.1 that has no body (RFC 6455, 4.1).

    Any other request that offers an upgrade is an ordinary one: a server may ignore the offer, and must in
    HTTP/1.0 (RFC 9110, 7.8).
    """
    if method != b"GET" or version != "1.1" or b"websocket" not in tokens(headers, b"upgrade"):
        return False
    has_body = any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0")) for name, value in headers
    )
    return not has_body and b"upgrade" in tokens(headers, b"connection")


def with_one_offer(headers: Headers) -> Headers:
    """Return a handshake's headers with Connection and Upgrade in the form that every reader accepts: no lists."""
    kept = [(name, value) for name, value in headers if name not in (b"connection", b"upgrade")]
    return [*kept, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]


def without_offer(headers: Headers) -> Headers:
    """Return the headers without any offer of another protocol."""
    kept = [(name, value) for name, value in headers if name not in _OF_AN_OFFER and name != b"connection"]
    rest = [token for token in tokens(headers, b"connection") if token not in _OF_AN_OFFER]
    return [*kept, (b"connection", b", ".join(rest))] if rest else kept


def encoded(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Encode a head for the wire."""
    lines = [b"%b: %b" % pair for pair in headers]
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, target, version.encode()), *lines, b"", b""])


def in_origin_form(target: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """Split a target that names its host; that host then replaces the Host header (RFC 9112, 3.2.2).

    Raises:
        BadMessage: the target names a user, which is forbidden (RFC 9110, 4.2.4).
    """
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return target, headers
    host, path, query = found[1], found[2] or b"/", found[3] or b""
    if b"@" in host:
        raise BadMessage("a request's target must not name a user")
    return path + query, [*((name, value) for name, value in headers if name != b"host"), (b"host", host)]


def is_for_localhost(headers: Headers) -> bool:
    """Whether a request is for a name of this machine, which its user shares with every other server on it."""
    text = next((value for key, value in headers if key == b"host"), b"")
    host = host_of(text.decode("latin-1"))
    return host is not None and is_localhost(host.name.rstrip("."))


def without_hsts(headers: Headers) -> Headers:
    """Return an answer's headers without the one that would hold every server of this machine to TLS (RFC 6797)."""
    return [pair for pair in headers if pair[0] != b"strict-transport-security"]
