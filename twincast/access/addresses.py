"""IP addresses: how they are read, compared and grouped. Pure, and the one place that judges an address.

Headers, sockets and settings all pass through here, so two ways to write an address are one address. What a request
says is read, or is None; what a person has set is read, or refused in words that say what to write.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""RFC 1918 and RFC 4193 (ULA): what routers at a local network's edge do not pass on."""
LINK_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10")))
"""RFC 3927 and RFC 4291: of one cable or radio alone."""
PEERS_KEPT = 16_384
"""How many peers are remembered: more than a server usually has connections."""
_MAPPED_BITS = 96
"""Length of the prefix of an IPv6 address that holds one of IPv4 (RFC 4291, 2.5.5.2)."""
_PORT = re.compile(r":[0-9]{0,5}")


def parse(text: str | None) -> Address | None:
    """Return the address in a text, None if there is none: a name, `unknown`, `_hidden`.

    It may stand in quotes or brackets, and have a port or a zone, as sockets and proxies write it. An IPv4 address
    within IPv6 is that IPv4 address.
    """
    bare = (text or "").strip().strip('"').strip()
    if bare.startswith("["):
        inside, end, port = bare[1:].partition("]")
        return parse_bare(inside) if end and (not port or _PORT.fullmatch(port)) else None
    address = parse_bare(bare)
    if address is None and (port_at := bare.rfind(":")) > 0 and _PORT.fullmatch(bare, port_at):
        return parse_bare(bare[:port_at])
    return address


class Peer(NamedTuple):
    """The other end of a socket, and what each of its requests asks of it."""

    address: Address
    is_loopback: bool
    text: str
    """The address, written as everywhere."""


@lru_cache(maxsize=PEERS_KEPT)
def peer_of(text: str | None) -> Peer | None:
    """Return the other end of a socket; None if `parse` finds no address. It is read once, not at each request."""
    address = parse(text)
    return None if address is None else Peer(address, address.is_loopback, str(address))


def parse_bare(text: str) -> Address | None:
    """Return an address that stands alone, without quotes, brackets or a port; None if the text is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # without its zone
    return address


@lru_cache(maxsize=PEERS_KEPT)
def block_of(text: str) -> str:
    """Return what limits count as one address: of IPv6 the 64 bits that a provider gives to one customer."""
    address = parse(text)
    if isinstance(address, IPv6Address) and not address.is_loopback:
        return str(IPv6Network((address, 64), strict=False))
    return text if address is None else str(address)


def is_local(text: str | None) -> bool:
    """Whether an address, or `localhost`, reaches this machine alone."""
    address = parse(text)
    return (text or "").lower() == "localhost" if address is None else address.is_loopback


def is_exempt(text: str) -> bool:
    """Whether connections from an address are not counted by it: those of this machine, whose programs share it."""
    return parse(text) is None or is_local(text)


def is_private(address: Address) -> bool:
    """Whether an address is of a local network. Loopback is not, and neither is what carriers share (RFC 6598)."""
    return any(address in network for network in (*PRIVATE, *LINK_LOCAL))


def is_link_local(address: Address) -> bool:
    """Whether an address means something on one link alone."""
    return any(address in network for network in LINK_LOCAL)


def by_use(addresses: Iterable[Address], preferred: Address | None = None) -> list[Address]:
    """Return addresses, those first that a person would rather type: the preferred one, IPv4, not link-local."""

    def rank(address: Address) -> tuple[bool, bool, bool, int]:
        return (
            address != preferred,
            is_link_local(address),
            isinstance(address, IPv6Address),
            int(address),
        )

    return sorted(set(addresses), key=rank)


def in_url(address: Address | str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{address}]" if ":" in str(address) else str(address)


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Trust all addresses of some networks.

        Raises:
            ValueError: one is not a network.
        """
        self._networks = [network(text) for text in networks]

    def trusts(self, address: Address) -> bool:
        """Whether an address is a proxy's."""
        return any(address in network for network in self._networks)

    def client_of(self, peer: Address, forwarded_for: str | None) -> Address:
        """Return the client's address: what a trusted proxy says, else the peer's own.

        Args:
            peer: the other end of the socket.
            forwarded_for: the X-Forwarded-For header; None without it.
        """
        if forwarded_for is None or not self.trusts(peer):
            return peer
        return forwarded(forwarded_for, self.trusts) or peer

    def is_exempt(self, peer: str) -> bool:
        """Whether sockets of a peer are not counted by its address: this machine's, or a proxy's, which many share."""
        address = parse(peer)
        return is_exempt(peer) or (address is not None and self.trusts(address))


def forwarded(header: str, is_proxy: Callable[[Address], bool]) -> Address | None:
    """Return the client's address by the X-Forwarded-For header of a trusted proxy; None if the proxy does not know it.

    Each proxy appends the other end of its connection, so the list is read from its end: the client is the last
    address that is not a trusted proxy's. Anyone could have written what stands before that one. If all addresses are
    trusted proxies', the first of them is itself the client.
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


def network(text: str) -> Network:
    """Return the network in a setting, such as 10.0.0.0/8; a single address is one too.

    Raises:
        ValueError: it is not a network; the words say what to write.
    """
    given, slash, bits = text.strip().partition("/")
    address = parse_bare(given.removeprefix("[").removesuffix("]"))
    try:
        found = ip_network(f"{given if address is None or slash else address}{slash}{bits}", strict=False)
    except ValueError:
        known = address or parse(given)
        told = "" if known is None else f"; write {known}"
        raise ValueError(
            f"a network is an address or a range of them, such as 10.0.0.9 or 10.0.0.0/8; {shown(text)} is not{told}"
        ) from None
    if isinstance(address, IPv4Address) and isinstance(found, IPv6Network) and found.prefixlen >= _MAPPED_BITS:
        found = IPv4Network((address, found.prefixlen - _MAPPED_BITS), strict=False)
    if address != found.network_address:
        raise ValueError(f"{shown(text)} is one address within a network: write {found} for that, or {address} alone")
    return found


def shown(text: str) -> str:
    """Return a setting for an error message, without a name and password in it."""
    return repr(re.sub(r"[^/\s]*@", "…@", text)[:80])
