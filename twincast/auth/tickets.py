"""Tickets: a browser's EventSource can send no header, and a long-lived credential does not belong in an address."""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from twincast.core.rights import Principal
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated

TICKET_S = 30.0
TICKETS_MAX = 10_000
"""How many there may be at once: a few megabytes."""
OWN_TICKETS_MAX = 100
"""How many of them one owner may have, so that nobody uses up those of the others."""


class _Issued(NamedTuple):
    principal: Principal
    owner: str
    until_s: float


class Tickets:
    """Each opens one stream, once, within half a minute."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._clock_s = clock_s
        self._issued: dict[str, _Issued] = {}
        self._of_owner: dict[str, dict[str, _Issued]] = {}

    def issue(self, principal: Principal, owner: str) -> str:
        """Return a new ticket for whoever asks.

        Args:
            principal: whom it lets in.
            owner: whom it counts for: an identity, or an address.

        Raises:
            RateLimited: the owner has as many as it may.
            TooManyConnections: so many are issued in all that something must be wrong.
        """
        now_s = self._clock_s()
        while self._issued and next(iter(self._issued.values())).until_s <= now_s:
            self._forget(next(iter(self._issued)))
        own = self._of_owner.get(owner, {})
        if len(own) >= OWN_TICKETS_MAX:
            left_s = next(iter(own.values())).until_s - now_s
            raise RateLimited(f"{OWN_TICKETS_MAX} of your tickets are not used yet; a new one takes an old one", left_s)
        if len(self._issued) >= TICKETS_MAX:
            raise TooManyConnections(f"{TICKETS_MAX} tickets are issued and not used; try again in half a minute")
        ticket = secrets.token_urlsafe(24)
        issued = _Issued(principal, owner, now_s + TICKET_S)
        self._issued[ticket] = self._of_owner.setdefault(owner, {})[ticket] = issued
        return ticket

    def redeem(self, ticket: str) -> Principal:
        """Return who asked for a ticket, which is of no use from then on.

        Raises:
            Unauthenticated: it was used, is too old, or never was one.
        """
        issued = self._forget(ticket)
        if issued is None or issued.until_s <= self._clock_s():
            raise Unauthenticated("a ticket is good for one stream within 30 seconds; POST /api/tickets gives another")
        return issued.principal

    def _forget(self, ticket: str) -> _Issued | None:
        issued = self._issued.pop(ticket, None)
        if issued is not None:
            own = self._of_owner[issued.owner]
            del own[ticket]
            if not own:
                del self._of_owner[issued.owner]
        return issued
