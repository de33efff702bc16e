"""Who may come in at all: the Host and Origin checks that stop a foreign web page from using a local server.

A page anywhere on the web can make its visitor's browser call 127.0.0.1. Two headers that the browser sets, and the
page cannot, tell such calls apart: Origin names the page's site, and Host still holds the name that a rebinding DNS
server made point here.
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from twincast.errors import Forbidden


class Door:
    """The names that this server answers to, and the web origins that may call it."""

    def __init__(self, *, allow_hosts: Collection[str] = (), allow_origins: Collection[str] = ()) -> None:
        """Make a door that lets in local names, `allow_hosts` (without port) and `allow_origins` (scheme://host)."""
        self._hosts = {name.lower() for name in allow_hosts}
        self._origins = {origin.rstrip("/").lower() for origin in allow_origins}
        self._passed: set[tuple[str | None, str | None]] = set()

    def check(self, host: str | None, origin: str | None) -> None:
        """Let a request pass or not.

        Raises:
            Forbidden: the Host is not ours, or the Origin is another site's.
        """
        if (host, origin) in self._passed:
            return
        if host is None or not self._is_ours(host):
            raise Forbidden(f"this server does not answer to the Host {_shown(host)}; --allow-host adds a name")
        if origin is not None and not self._may_call(origin, host):
            raise Forbidden(f"pages from {_shown(origin)} may not call this server; --allow-origin adds an origin")
        if len(self._passed) < 1_000:  # local ports and addresses are few; a flood of others is not remembered
            self._passed.add((host, origin))

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._hosts:
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False

    def _may_call(self, origin: str, host: str) -> bool:
        origin = origin.lower()
        return origin in {f"http://{host.lower()}", f"https://{host.lower()}"} or origin in self._origins


def _shown(header: str | None) -> str:
    return "(none)" if header is None else repr(header[:100])
