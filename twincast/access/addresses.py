"""Addresses, hosts and origins, read as what they are, so that two ways to write one are the same. Pure.

The one place that takes them apart: headers, sockets and settings all come through here. What a request says is read
or is None; what a person has set is read or refused in words that say what to write.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

import idna

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_MAPPED_BITS = 96
"""Of an IPv6 address that holds one of IPv4 (RFC 4291, 2.5.5.2): what stands before it."""
_PORT = re.compile(r":[0-9]{0,5}")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_NAME_MAX_CHARS = 253
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]{0,62})://([^/?#@\s]+)")


class Host(NamedTuple):
    """The machine that a request is for: a name in lower case, or an address without brackets; and a port, if said."""

    name: str
    port: int | None


class Origin(NamedTuple):
    """Where a page comes from (RFC 6454): the port is None where it is the scheme's own."""

    scheme: str
    name: str
    port: int | None

    def __str__(self) -> str:
        """Return it as browsers write it."""
        host = f"[{self.name}]" if ":" in self.name else self.name
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


def parse(text: str | None) -> Address | None:
    """Return the address in a text, None if there is none: a name, `unknown`, `_hidden`.

    It may stand in quotes or brackets, and have a port or a zone, as sockets and proxies write it. An IPv4 address
    within IPv6 is that IPv4 address.
    """
    bare = (text or "").strip().strip('"').strip()
    if bare.startswith("["):
        inside, end, port = bare[1:].partition("]")
        return _plain(inside) if end and (not port or _PORT.fullmatch(port)) else None
    address = _plain(bare)
    if address is None and (port_at := bare.rfind(":")) > 0 and _PORT.fullmatch(bare, port_at):
        return _plain(bare[:port_at])
    return address


def block_of(text: str) -> str:
    """Return what counts as one address: of IPv6, the 64 bits that a customer is given."""
    address = parse(text)
    if isinstance(address, IPv6Address) and not address.is_loopback:
        return str(IPv6Network((address, 64), strict=False))
    return text if address is None else str(address)


def is_local(text: str | None) -> bool:
    """Whether an address, or `localhost`, reaches this machine alone."""
    address = parse(text)
    return (text or "").lower() == "localhost" if address is None else address.is_loopback


def forwarded(header: str, is_proxy: Callable[[Address], bool]) -> Address | None:
    """Return for whom a trusted proxy says in X-Forwarded-For that it asks; None if it does not know.

    Each proxy adds the other end of its connection, so the list is read from its end: the last that is no proxy of
    ours. What stands before that one, anyone could say. If all are ours, the first of them asks for itself.
    """
    found: Address | None = None
    for text in reversed(header.split(",")):
        if not text.strip():  # an empty element of a list counts for nothing (RFC 9110, 5.6.1)
            continue
        address = parse(text)
        if address is None:
            return found
        found = address
        if not is_proxy(address):
            return found
    return found


def host_of(header: str) -> Host | None:
    """Return what a Host header names; None if that is no host."""
    text = header.lower()
    if text.startswith("["):
        inside, end, port = text[1:].partition("]")
        address = _plain(inside) if end else None
        name = None if address is None else str(address)
    else:
        name, colon, port = text.partition(":")
        port = colon + port
        name = name if len(name) <= _NAME_MAX_CHARS and _NAME.fullmatch(name) else None
    number = int(port[1:]) if _PORT.fullmatch(port) and port != ":" else None
    if name is None or (number is None and port not in {"", ":"}) or (number or 0) >= 1 << 16:
        return None
    return Host(name, number)


def origin_of(header: str) -> Origin | None:
    """Return what an Origin header names; None if that is no place, as `null` and `file://` are none."""
    match = _ORIGIN.fullmatch(header.lower())
    host = None if match is None else host_of(match[2])
    if match is None or host is None:
        return None
    return Origin(match[1], host.name, None if host.port == DEFAULT_PORTS.get(match[1]) else host.port)


def network(text: str) -> Network:
    """Return the network that somebody has set, such as 10.0.0.0/8; a single address is one too.

    Raises:
        ValueError: it is none; the words say what to write.
    """
    given, slash, bits = text.strip().partition("/")
    address = _plain(given.removeprefix("[").removesuffix("]"))
    try:
        found = ip_network(f"{given if address is None or slash else address}{slash}{bits}", strict=False)
    except ValueError:
        known = address or parse(given)
        told = "" if known is None else f"; write {known}"
        raise ValueError(
            f"a network is an address or a range of them, such as 10.0.0.9 or 10.0.0.0/8; {_shown(text)} is not{told}"
        ) from None
    if isinstance(address, IPv4Address) and isinstance(found, IPv6Network) and found.prefixlen >= _MAPPED_BITS:
        found = IPv4Network((address, found.prefixlen - _MAPPED_BITS), strict=False)
    if address != found.network_address:
        raise ValueError(f"{_shown(text)} is one address within a network: write {found} for that, or {address} alone")
    return found


def allowed_host(text: str) -> str:
    """Return the name that somebody has set, as a Host header has it; of a foreign script, as DNS has it.

    Raises:
        ValueError: it is none; the words say what to write.
    """
    given = text.strip()
    if (address := _plain(given.removeprefix("[").removesuffix("]"))) is not None:
        return str(address)
    if "*" in given:
        raise ValueError(f"a name is exact, and there may be several, one each; {_shown(text)} has a star")
    try:
        host = host_of(_in_ascii(re.sub(r"^([a-zA-Z][a-zA-Z0-9+.-]*:)?//|[/?#].*$", "", given)))
    except ValueError:
        host = None
    name = None if host is None else host.name.removesuffix(".")
    if name is None or host is None:
        raise ValueError(f"a name is such as twin.example.org; {_shown(text)} is not")
    if host.port is not None or name != _in_ascii(given).lower().removesuffix("."):
        raise ValueError(f"a name has no scheme, port or path, and holds for all of them: write {name}")
    return name


def allowed_origin(text: str) -> str:
    """Return the origin that somebody has set, as browsers write it.

    Raises:
        ValueError: it is none; the words say what to write.
    """
    given = text.strip()
    if given.lower() == "null" or given.lower().startswith("file:"):
        raise ValueError(
            f"an origin is exact, and {_shown(text)} is what any file and any sandboxed page says; "
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
    raise ValueError(f"an origin is exact, such as https://app.example.org; {_shown(text)} is not")


def _plain(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # less its zone
    return address


def _in_ascii(name: str) -> str:
    """Return a name as DNS and headers have it (RFC 5891); a port stays.

    Raises:
        ValueError: it cannot be one.
    """
    if name.isascii():
        return name
    host, colon, port = name.partition(":")
    return idna.encode(host, uts46=True).decode() + colon + port


def _shown(text: str) -> str:
    """Return what somebody has set, less a name and password in it."""
    return repr(re.sub(r"[^/\s]*@", "…@", text)[:80])
