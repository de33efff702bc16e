"""Which addresses are a local network's: what routers at its edge do not pass on. Pure."""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_network

from twincast.access.addresses import Address

PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))
"""RFC 1918 and RFC 4193 (ULA)."""
LINK_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10")))
"""RFC 3927 and RFC 4291: of one cable or radio alone."""


def is_private(address: Address) -> bool:
    """Whether an address is of a local network. Loopback is of none, and neither is what carriers share (RFC 6598)."""
    return any(address in network for network in (*PRIVATE, *LINK_LOCAL))


def is_link_local(address: Address) -> bool:
    """Whether an address means something on one link alone."""
    return any(address in network for network in LINK_LOCAL)


def by_use(addresses: Iterable[Address], preferred: Address | None = None) -> list[Address]:
    """Return addresses, those first that a person would rather type: the preferred one, IPv4, and no link's own."""

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
