"""A server's address, and the parameters of its WebSocket."""

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

import idna

if TYPE_CHECKING:
    from twincast.core.model import Position
    from twincast.core.subscription import Subscription

PAGE_SIZE = 1_000
ADDRESS_MAX_CHARS = 4_000
"""Longer addresses do not pass every proxy; a client with so many patterns subscribes to all, and then narrows that."""
_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


def http_url(url: str) -> str:
    """Return a server's address for REST, from any way to write it, also with a path that a proxy or application has.

    Raises:
        ValueError: it is not an address of a server.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address may not have a user or a password; give a credential as `token`")
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not _can_be(parts):
        raise ValueError(f"expected a server's address such as http://127.0.0.1:8000, not {url!r}")
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~").rstrip("/").removesuffix("/ws")
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def query_of(subscription: "Subscription", since: "Position | None") -> str:
    """Return the parameters for a subscription, with answers in order, behind a position."""
    patterns = sorted(text for text, _ in subscription.rules)
    kinds = sorted({kind for _, kinds in subscription.rules for kind in kinds})
    selecting = [("devices", text) for text in patterns or [""]] + [("kinds", kind) for kind in kinds]
    parameters: list[tuple[str, Any]] = [("ordered", 1), ("page_size", PAGE_SIZE), ("mode", subscription.mode)]
    if subscription.max_hz is not None:
        parameters.append(("max_hz", subscription.max_hz))
    if since is not None:
        parameters.append(("since", since))
    return urlencode(parameters + selecting)


def is_too_long(query: str) -> bool:
    """Whether an address with these parameters may be too long for a server or proxy."""
    return len(query) > ADDRESS_MAX_CHARS


def _can_be(parts: SplitResult) -> bool:
    """Whether its host and port are valid."""
    try:
        host = parts.hostname or ""
        return bool(host.encode("idna") and (host.isascii() or idna.encode(host))) and parts.port != 0
    except (ValueError, UnicodeError):  # a port that is not a number, or an invalid name
        return False
