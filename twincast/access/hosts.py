"""Hosts and origins: how headers and settings are read, so that two ways to write one are the same. Pure.

What a request says is read, or is None; what a person has set is read, or refused in words that say what to write.
"""

import re
from typing import NamedTuple

import idna

from twincast.access.addresses import parse_bare, shown

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_PORT = re.compile(r":[0-9]{0,5}")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_NAME_MAX_CHARS = 253
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]{0,62})://([^/?#@\s]+)")


class Host(NamedTuple):
    """The machine that a request is for: a name in lower case, or an address without brackets; and a port, if given."""

    name: str
    port: int | None


class Origin(NamedTuple):
    """The site of a page (RFC 6454); its port is None where it is the scheme's own."""

    scheme: str
    name: str
    port: int | None

    def __str__(self) -> str:
        """Return the origin as browsers write it."""
        host = f"[{self.name}]" if ":" in self.name else self.name
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


def host_of(header: str) -> Host | None:
    """Return the host that a Host header names; None if it names none."""
    text = header.lower()
    if text.startswith("["):
        inside, end, port = text[1:].partition("]")
        address = parse_bare(inside) if end else None
        name = None if address is None else str(address)
    else:
        name, colon, port = text.partition(":")
        port = colon + port
        name = name if len(name) <= _NAME_MAX_CHARS and _NAME.fullmatch(name) else None
    number = int(port[1:]) if _PORT.fullmatch(port) and port != ":" else None
    if name is None or (number is None and port not in {"", ":"}) or (number or 0) >= 1 << 16:
        return None
    return Host(name, number)


def is_localhost(name: str) -> bool:
    """Whether the name of a Host is `localhost` or below it (RFC 6761, 6.3)."""
    return name == "localhost" or name.endswith(".localhost")


def origin_of(header: str) -> Origin | None:
    """Return the origin that an Origin header names; None if it names no site, as `null` and `file://` do not."""
    match = _ORIGIN.fullmatch(header.lower())
    host = None if match is None else host_of(match[2])
    if match is None or host is None:
        return None
    return Origin(match[1], host.name, None if host.port == DEFAULT_PORTS.get(match[1]) else host.port)


def allowed_host(text: str) -> str:
    """Return the host name in a setting as Host headers write it; a name of another script as DNS writes it.

    Raises:
        ValueError: it is not a name; the words say what to write.
    """
    given = text.strip()
    if (address := parse_bare(given.removeprefix("[").removesuffix("]"))) is not None:
        return str(address)
    if "*" in given:
        raise ValueError(f"a name is exact, and there may be several, one each; {shown(text)} has a star")
    try:
        host = host_of(_in_ascii(re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*:)?//|[/?#].*$", "", given)))
    except ValueError:
        host = None
    name = None if host is None else host.name.removesuffix(".")
    if name is None or host is None:
        raise ValueError(f"a name is such as twin.example.org; {shown(text)} is not")
    if host.port is not None or name != _in_ascii(given).lower().removesuffix("."):
        raise ValueError(f"a name has no scheme, port or path, and holds for all of them: write {name}")
    return name


def allowed_origin(text: str) -> str:
    """Return the origin in a setting as browsers write it.

    Raises:
        ValueError: it is not an origin; the words say what to write.
    """
    given = text.strip()
    if given.lower() == "null" or given.lower().startswith("file:"):
        raise ValueError(
            f"an origin is exact, and {shown(text)} is what any file and any sandboxed page says; "
            "open the server's own /dashboard, or let a program send `Authorization: Bearer …`"
        )
    try:
        scheme, _, rest = given.partition("://")
        origin = origin_of(f"{scheme}://{_in_ascii(rest.removesuffix('/'))}")
        if origin is not None:
            return str(origin)
        within = origin_of(re.sub(r"(?<=[^:/])[/?#].*$", "", given))
    except ValueError:
        within = None
    if within is not None:
        raise ValueError(f"an origin is exact, and has no path: write {within}")
    if "*" not in given and (host := host_of(given)) is not None:
        told = Origin("https", *host)
        raise ValueError(f"an origin is exact, with its scheme: write {told}, or http:// if its pages come by that")
    raise ValueError(f"an origin is exact, such as https://app.example.org; {shown(text)} is not")


def _in_ascii(name: str) -> str:
    """Return a name as DNS and headers write it (RFC 5891); a port stays.

    Raises:
        ValueError: it has no such form.
    """
    if name.isascii():
        return name
    host, colon, port = name.partition(":")
    return idna.encode(host, uts46=True).decode() + colon + port
