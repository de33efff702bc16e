"""This machine on its own networks: its private addresses, as they are now, and its names there."""

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from twincast.access.addresses import Address, by_use, is_local, is_private, parse
from twincast.access.hosts import allowed_host
from twincast.errors import AddressUnusable
from twincast.later import later

if TYPE_CHECKING:
    import psutil
else:
    psutil = later("psutil")

_SOMEWHERE = ("192.0.2.1", 9)
"""An address for documentation (RFC 5737): connecting a datagram socket to it sends nothing, and picks an interface."""


class Local(NamedTuple):
    """This machine's addresses and names on its own networks."""

    private: Sequence[Address]
    """Its private addresses; the one that people would type comes first."""
    listened: Sequence[str]
    """Where to listen: the private addresses in the form for sockets, with their zone if any, and loopback."""
    names: Sequence[str]
    """What others on the network call it."""


def local(host: str | None = None) -> Local:
    """Return this machine's current addresses and names. Addresses that it gets later are not among them.

    Args:
        host: the only private address to use; None for all.

    Raises:
        AddressUnusable: the host is not a private address of this machine, or the system does not list its addresses.
    """
    found = _addresses()
    private = {text: address for text, address in found.items() if is_private(address)}
    if host is not None:
        wanted = parse(host)
        if wanted is None or not is_private(wanted):
            raise AddressUnusable(
                "--lan listens on private addresses (10.*, 172.16-31.*, 192.168.*, 169.254.*, fc00::/7, fe80::/10),"
                f" and {host} is none; without --host it takes all that this machine has"
            )
        private = {text: address for text, address in private.items() if address == wanted}
        if not private:
            told = ", ".join(map(str, by_use(a for a in found.values() if is_private(a)))) or "none"
            raise AddressUnusable(f"{host} is no address of this machine; its private ones are: {told}")
    loopback = [text for text in ("127.0.0.1", "::1") if text in found]
    order = by_use(private.values(), _preferred())
    listened = sorted(private, key=lambda text: order.index(private[text]))
    return Local(order, (*listened, *loopback), _names())


def _addresses() -> dict[str, Address]:
    """Return the addresses of interfaces that are up, by their form for sockets."""
    try:
        up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
        interfaces = psutil.net_if_addrs()
    except OSError as error:
        raise AddressUnusable(
            f"the system does not say which addresses this machine has: {error.strerror}. A unit of systemd that has"
            " RestrictAddressFamilies takes AF_NETLINK in it for that"
        ) from None
    found: dict[str, Address] = {}
    for interface, entries in interfaces.items():
        for entry in entries:
            if entry.family in {socket.AF_INET, socket.AF_INET6} and interface in up:
                address = parse(entry.address)
                if address is not None:
                    found[entry.address] = address
    return found


def _preferred() -> Address | None:
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect(_SOMEWHERE)
        return parse(way.getsockname()[0])
    return None


def _names() -> list[str]:
    """Return the host's name, as it is and as multicast DNS has it (RFC 6762)."""
    names: list[str] = []
    with suppress(ValueError):
        name = allowed_host(socket.gethostname())
        for each in (name, f"{name.partition('.')[0]}.local"):
            if not each.startswith("localhost") and not is_local(each) and parse(name) is None and each not in names:
                names.append(each)
    return names
