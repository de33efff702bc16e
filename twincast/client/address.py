"""Where a server is, and what its address asks for."""

from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

import idna

from twincast.core.model import Position
from twincast.core.subscription import Subscription

PAGE = 1_000
ADDRESS_MAX_CHARS = 4_000
"""Longer ones do not pass every proxy; a client with so many patterns takes all at first, and then says which."""
_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


def http_url(url: str) -> str:
    """Return a server's address for REST, whichever way it was written: also where a proxy has it below a path.

    Raises:
        ValueError: it is not an address of a server.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("an address takes no user and no password; a credential is given as `token`")
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not _can_be(parts):
        raise ValueError(f"expected a server's address such as http://127.0.0.1:8000, not {url!r}")
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~").rstrip("/").removesuffix("/ws")
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def query_of(subscription: Subscription, since: Position | None) -> str:
    """Return the parameters that ask a server for what a subscription selects, and for answers in order."""
    patterns = sorted(text for text, _ in subscription.rules)
    kinds = sorted({kind for _, kinds in subscription.rules for kind in kinds})
    selecting = [("devices", text) for text in patterns or [""]] + [("kinds", kind) for kind in kinds]
    parameters: list[tuple[str, Any]] = [("ordered", 1), ("page", PAGE), ("mode", subscription.mode)]
    if subscription.max_hz is not None:
        parameters.append(("max_hz", subscription.max_hz))
    if since is not None:
        parameters.append(("since", since))
    return urlencode(parameters + selecting)


def is_too_long(query: str) -> bool:
    """Whether some server or proxy may not take an address with this in it."""
    return len(query) > ADDRESS_MAX_CHARS


def _can_be(parts: SplitResult) -> bool:
    """Whether there can be such a host and port."""
    try:
        host = parts.hostname or ""
        return bool(host.encode("idna") and (host.isascii() or idna.encode(host))) and parts.port != 0
    except (ValueError, UnicodeError):  # of a port that is no number, or of a name that is none
        return False
