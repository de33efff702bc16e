"""A port on which several processes listen, opened by their parent.

On Linux each process has a socket of its own (SO_REUSEPORT), and the kernel deals new connections out to those that
listen, by a hash of both addresses. One socket for all would give most of them to whoever wakes first, which matters
where connections stay: a process that has many would get more. Other systems deal nothing out by that option (macOS
gives everything to one of the sockets): there the processes share one socket, and who is idle takes the next.

Either way the sockets are the parent's to make, and a process inherits its own: nobody else races for the port, and who
comes while a process is away is served by the others.
"""

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

from twincast.errors import AddressUnusable
from twincast.server.process import listen_all

DEALS_OUT = sys.platform == "linux"
"""Whether the system deals connections out to sockets that share a port."""
_ATTEMPTS = 8
"""How often a port that was free is tried again: another program may take it at that moment."""


class SharedPort:
    """One port, at one or several addresses."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = listeners

    @classmethod
    def take(cls, hosts: Sequence[str], port: int) -> Self:
        """Take a port, for this process and those that inherit from it.

        Args:
            hosts: the addresses, see `listen_all`.
            port: which; 0 for any that is free.

        Raises:
            AddressUnusable: see `listen_all`. Also where the one who has it shares it.
        """
        listeners = listen_all(hosts, port)
        if not DEALS_OUT:
            return cls(listeners)
        attempts = _ATTEMPTS
        while port == 0:
            # A port that the system chose is given back when a socket stops to listen; one that was asked for stays.
            found = listeners[0].getsockname()[1]
            _close(listeners)
            attempts -= 1
            try:
                listeners = listen_all(hosts, found)
            except AddressUnusable:
                if not attempts:
                    raise
                listeners = listen_all(hosts, 0)
            else:
                port = found
        for listener in listeners:
            _share(listener)
        return cls(listeners)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first address."""
        host, port = self._listeners[0].getsockname()[:2]
        return str(host), int(port)

    def sockets(self) -> list[socket.socket]:
        """Return what one process listens on, bound; the caller closes them once that process has them."""
        if not DEALS_OUT:
            return [listener.dup() for listener in self._listeners]
        with ExitStack() as undo:
            made = [undo.enter_context(_another(listener)) for listener in self._listeners]
            undo.pop_all()
        return made

    def close(self) -> None:
        """Give the port back, once the processes have ended."""
        _close(self._listeners)


def _share(listener: socket.socket) -> None:
    """Have a socket keep its port and take no connections, and let others of this user join it.

    It was alone until now, or it could not have listened. From here on a bind that shares succeeds, and one that does
    not is refused, so a second server is, which begins as this one did.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    listener.shutdown(socket.SHUT_RDWR)


def _another(first: socket.socket) -> socket.socket:
    made = socket.socket(first.family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(first.getsockname())
    except BaseException:
        made.close()
        raise
    return made


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()
