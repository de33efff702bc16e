"""What a request says of itself, parsed once, before anything of it is believed. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from twincast.access.addresses import TrustedProxies, block_of, is_local, peer_of
from twincast.access.hosts import host_of
from twincast.core.audit import Actor
from twincast.core.rights import Principal
from twincast.errors import BadMessage, Unauthenticated

PROXY_HEADERS = ("forwarded", "x-forwarded-", "x-real-ip")
"""How the headers begin, in lower case, by which a proxy says for whom it asks."""
_LIST = b"x-forwarded-for"
_DECIDING = {b"host": "host", b"origin": "origin", b"authorization": "authorization", _LIST: "forwarded_for"}
"""The headers that decide who may come in, and the fields of RequestFacts that they are."""


class RequestFacts(NamedTuple):
    """The address of a request's peer, and the headers that decide who may come in."""

    peer: str | None
    """The other end of the socket; None where there is none, as for an application that is tested without one."""
    host: str | None = None
    origin: str | None = None
    authorization: str | None = None
    forwarded_for: str | None = None

    @classmethod
    def of(cls, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> "RequestFacts":
        """Read the headers as they came, names in lower case.

        Raises:
            BadMessage: one that decides occurs twice; two readers would believe different ones.
        """
        found: dict[str, str] = {}
        for name, value in headers:
            if name not in _DECIDING:
                continue
            field = _DECIDING[name]
            if field not in found:
                found[field] = value.decode("latin-1")
            elif name == _LIST:  # a list may come in several lines (RFC 9110, 5.3)
                found[field] += "," + value.decode("latin-1")
            else:
                raise BadMessage(f"a request has one {name.decode().title()} header; this one has two")
        return cls(peer, **found)

    def address(self, proxies: TrustedProxies) -> str:
        """Return the client's address; where the peer has none, its name, or `local`."""
        peer = peer_of(self.peer)
        if peer is None:
            return self.peer or "local"
        if self.forwarded_for is None:
            return peer.text
        return str(proxies.client_of(peer.address, self.forwarded_for))

    def is_from_this_machine(self, proxies: TrustedProxies) -> bool:
        """Whether a program on this machine certainly asks for itself, not a proxy for somebody else.

        Where proxies are trusted, whatever comes from their addresses counts as somebody else's. A request for a name
        that other machines use, too, may have come through a proxy that adds no header.
        """
        peer, host = peer_of(self.peer), host_of(self.host or "")
        if peer is None or not peer.is_loopback or host is None or not is_local(host.name):
            return False
        return self.forwarded_for is None and not proxies.trusts(peer.address)

    def credential(self) -> str | None:
        """Return the credential of the Authorization header; None without that header.

        Raises:
            Unauthenticated: the header has another scheme than Bearer, or no credential.
        """
        if self.authorization is None:
            return None
        scheme, _, credential = self.authorization.partition(" ")
        if scheme.lower() != "bearer" or not credential.strip():
            raise Unauthenticated("a credential comes as `Authorization: Bearer …`")
        return credential.strip()


class Caller(NamedTuple):
    """An identified client: its principal, and its address."""

    principal: Principal
    address: str

    @property
    def actor(self) -> Actor:
        """What the audit trail records."""
        return Actor(self.principal.id, self.address)

    @property
    def account(self) -> str:
        """What its reads and tickets count against: its identity; clients without one share their address's account."""
        return self.principal.identity or block_of(self.address)
