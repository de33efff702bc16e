"""The Host and Origin policy, which stops a foreign web page from using a local server. Pure.

A page anywhere on the web can make its visitor's browser call 127.0.0.1. Two headers that the browser sets, and the
page cannot, tell such calls apart: Origin names the page's site, and Host still holds the name of the page's own site
when a rebinding DNS server made that name point here.
"""

from collections.abc import Collection

from twincast.access.addresses import is_local
from twincast.access.hosts import (
    DEFAULT_PORTS,
    Host,
    Origin,
    allowed_host,
    allowed_origin,
    host_of,
    is_localhost,
    origin_of,
)
from twincast.errors import Forbidden


class OriginPolicy:
    """The names that this server answers to, and the web origins that may call it."""

    def __init__(self, *, allow_hosts: Collection[str] = (), allow_origins: Collection[str] = ()) -> None:
        """Allow local names, `allow_hosts` (without a port) and `allow_origins` (scheme://host)."""
        self._hosts = frozenset(map(allowed_host, allow_hosts))
        self._origins = frozenset(map(allowed_origin, allow_origins))
        self._passed: set[tuple[str | None, str | None]] = set()

    def check(self, host: str | None, origin: str | None) -> None:
        """Check the Host and Origin of a request.

        Raises:
            Forbidden: the Host is not this server's, or the Origin is another site's.
        """
        if (host, origin) in self._passed:
            return
        # A user and password before the host's name mean nothing here (RFC 9110, 4.2.4), and belong to no origin.
        known = None if host is None else host_of(host.rpartition("@")[2])
        if known is None or not self._is_ours(known):
            raise Forbidden(f"this server does not answer to the Host {_shown(host)}; {_mended_by(known)}")
        if origin is not None:
            self._check_origin(origin, known)
        if len(self._passed) < 1_000:  # local ports and addresses are few; a flood of other pairs is not remembered
            self._passed.add((host, origin))

    def _is_ours(self, host: Host) -> bool:
        name = host.name
        return is_local(name) or is_localhost(name) or name.removesuffix(".") in self._hosts

    def _check_origin(self, text: str, host: Host) -> None:
        origin = origin_of(text)
        if origin is None:
            raise Forbidden(
                f"pages from {_shown(text)} may not call this server, for any file and any frame can say that;"
                " a program is let in by `Authorization: Bearer …` on its WebSocket, whatever its Origin says"
            )
        if not _is_of(host, origin) and str(origin) not in self._origins:
            raise Forbidden(f"pages from {_shown(text)} may not call this server; --allow-origin {origin} lets them")


def _is_of(host: Host, origin: Origin) -> bool:
    """Whether an origin is the host of the request. Only a program can say ws:// there: no page has such an origin."""
    default = DEFAULT_PORTS.get(origin.scheme)
    return default is not None and (origin.name, origin.port or default) == (host.name, host.port or default)


def _mended_by(host: Host | None) -> str:
    if host is None:
        return "a Host is a name or an address, with a port if need be"
    return f"--allow-host {host.name.removesuffix('.')} adds the name"


def _shown(header: str | None) -> str:
    return "(none)" if header is None else repr(header[:100])
