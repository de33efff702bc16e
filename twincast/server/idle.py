"""Idle connections: when there is no room for a new connection, those that have been idle longest are closed."""

from collections.abc import Iterable
from typing import Protocol, TypeGuard

LOOK_S = 0.1
"""After a search that found no idle connection, how long the next one is skipped: each goes over all of them."""
SHARE = 8
"""One of so many idle connections is closed at once, since each search goes over all of them."""


class Idler(Protocol):
    """A connection that may be idle."""

    @property
    def idle_until_s(self) -> float | None:
        """When it will be closed, on the event loop's clock; None if it is not idle."""

    def close(self) -> None:
        """Close it."""


class Room:
    """Makes room among all connections of a server."""

    def __init__(self) -> None:
        self._none_until_s = 0.0

    def make(self, connections: Iterable[object], now_s: float) -> bool:
        """Close a share of those that are idle; return whether there were any."""
        if now_s < self._none_until_s:
            return False
        if close_longest_idle(connections, share=SHARE):
            return True
        self._none_until_s = now_s + LOOK_S
        return False


def close_longest_idle(connections: Iterable[object], *, share: int | None = None) -> bool:
    """Close the connection that has been idle longest, or one of so many of them; return whether there were any."""
    idle = sorted(filter(_is_idle, connections), key=lambda each: each.idle_until_s or 0.0)
    for each in idle[: 1 if share is None else 1 + len(idle) // share]:
        each.close()
    return bool(idle)


def _is_idle(connection: object) -> TypeGuard[Idler]:
    return getattr(connection, "idle_until_s", None) is not None  # the others are WebSockets
