"""Tickets: a browser's EventSource can send no header, and a long-lived credential does not belong in an address."""

import secrets
from collections.abc import Callable

from twincast.core.rights import Principal
from twincast.errors import TooManyConnections, Unauthenticated

TICKET_S = 30.0
TICKETS_MAX = 10_000


class Tickets:
    """Each opens one stream, once, within half a minute."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._clock_s = clock_s
        self._issued: dict[str, tuple[Principal, float]] = {}

    def issue(self, principal: Principal) -> str:
        """Return a new ticket for whoever asks.

        Raises:
            TooManyConnections: so many are issued that something must be wrong.
        """
        now_s = self._clock_s()
        while self._issued and next(iter(self._issued.values()))[1] <= now_s:
            del self._issued[next(iter(self._issued))]
        if len(self._issued) >= TICKETS_MAX:
            raise TooManyConnections(f"{TICKETS_MAX} tickets are issued and not used; try again in half a minute")
        ticket = secrets.token_urlsafe(24)
        self._issued[ticket] = (principal, now_s + TICKET_S)
        return ticket

    def redeem(self, ticket: str) -> Principal:
        """Return who asked for a ticket, which is of no use from then on.

        Raises:
            Unauthenticated: it was used, is too old, or never was one.
        """
        principal, until_s = self._issued.pop(ticket, (None, 0.0))
        if principal is None or until_s <= self._clock_s():
            raise Unauthenticated("a ticket is good for one stream within 30 seconds; POST /api/tickets gives another")
        return principal
