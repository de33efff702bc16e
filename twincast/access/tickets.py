"""Tickets: a browser's EventSource can send no header, and a long-lived credential does not belong in an address.

A ticket opens one thing, once. If that is an event stream, the same one may come back by it, as an EventSource does by
itself: for the same address, with a position that it was told, soon after it ended.
"""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from twincast.core.rights import Principal
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated

TICKET_S = 30.0
REOPEN_S = 60.0
"""How long a stream that ended may come back: a browser tries again every two seconds, a phone wakes up later."""
TICKETS_MAX = 10_000
"""How many there may be at once of those that are not used, and of those whose stream has ended: a few megabytes."""
OWN_TICKETS_MAX = 100
"""How many of either one owner may have, so that nobody uses up those of the others."""


class TicketUse(NamedTuple):
    """What a ticket is used for."""

    ticket: str
    query: str
    """The whole query of the address that it stands in."""
    is_stream: bool
    """Whether an event stream is asked for, which may come back."""
    resumes: bool
    """Whether it was told a position of this log before."""


class _Kept(NamedTuple):
    principal: Principal
    owner: str
    until_s: float
    query: str = ""


class _Held(NamedTuple):
    kept: _Kept
    end: Callable[[], None]


class Tickets:
    """Each opens one stream, once, within half a minute; and that one again."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._clock_s = clock_s
        self._issued = _Shelf()
        self._ended = _Shelf()
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._issued) + len(self._ended) + len(self._held)

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
        self._issued.drop_until(now_s)
        if self._issued.count_of(owner) >= OWN_TICKETS_MAX:
            left_s = self._issued.oldest_of(owner).until_s - now_s
            raise RateLimited(f"{OWN_TICKETS_MAX} of your tickets are not used yet; a new one takes an old one", left_s)
        if len(self._issued) >= TICKETS_MAX:
            raise TooManyConnections(f"{TICKETS_MAX} tickets are issued and not used; try again in half a minute")
        ticket = secrets.token_urlsafe(24)
        self._issued.put(ticket, _Kept(principal, owner, now_s + TICKET_S))
        return ticket

    def redeem(self, use: TicketUse) -> Principal:
        """Return who asked for a ticket. It is of no use from then on, but for the same stream that comes back.

        Raises:
            Unauthenticated: it was used, is too old, or never was one.
        """
        now_s = self._clock_s()
        issued = self._issued.take(use.ticket)
        if issued is not None and issued.until_s > now_s:
            if use.is_stream:
                self._may_come_back(use.ticket, issued._replace(query=use.query))
            return issued.principal
        held = self._held.get(use.ticket)
        kept = self._ended.get(use.ticket) if held is None else held.kept
        is_same = kept is not None and use.is_stream and use.resumes and kept.query == use.query
        if kept is None or not is_same or (held is None and kept.until_s <= now_s):
            raise Unauthenticated(
                f"a ticket is good for one stream within {TICKET_S:g} seconds, and for the same one that comes back"
                f" within {REOPEN_S:g}; POST /api/tickets gives another"
            )
        return kept.principal

    def hold(self, ticket: str, end: Callable[[], None]) -> None:
        """Note that a ticket's stream begins: one that goes on ends, for whoever comes back has left it."""
        held = self._held.pop(ticket, None)
        kept = self._ended.take(ticket) if held is None else held.kept
        if kept is not None:
            self._held[ticket] = _Held(kept, end)
        if held is not None:
            held.end()

    def release(self, ticket: str, end: Callable[[], None]) -> None:
        """Note that a ticket's stream is over, the one that `hold` was told of with this `end`."""
        held = self._held.get(ticket)
        if held is not None and held.end is end:
            del self._held[ticket]
            self._may_come_back(ticket, held.kept)

    def _may_come_back(self, ticket: str, kept: _Kept) -> None:
        now_s = self._clock_s()
        self._ended.drop_until(now_s)
        if self._ended.count_of(kept.owner) >= OWN_TICKETS_MAX:
            self._ended.drop_oldest_of(kept.owner)
        elif len(self._ended) >= TICKETS_MAX:
            self._ended.drop_oldest()
        self._ended.put(ticket, kept._replace(until_s=now_s + REOPEN_S))


class _Shelf:
    """Tickets in the order in which they end, and by owner."""

    def __init__(self) -> None:
        self._all: dict[str, _Kept] = {}
        self._of_owner: dict[str, dict[str, _Kept]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def get(self, ticket: str) -> _Kept | None:
        return self._all.get(ticket)

    def put(self, ticket: str, kept: _Kept) -> None:
        self._all[ticket] = self._of_owner.setdefault(kept.owner, {})[ticket] = kept

    def take(self, ticket: str) -> _Kept | None:
        kept = self._all.pop(ticket, None)
        if kept is not None:
            own = self._of_owner[kept.owner]
            del own[ticket]
            if not own:
                del self._of_owner[kept.owner]
        return kept

    def count_of(self, owner: str) -> int:
        return len(self._of_owner.get(owner, ()))

    def oldest_of(self, owner: str) -> _Kept:
        return next(iter(self._of_owner[owner].values()))

    def drop_oldest_of(self, owner: str) -> None:
        self.take(next(iter(self._of_owner[owner])))

    def drop_oldest(self) -> None:
        self.take(next(iter(self._all)))

    def drop_until(self, now_s: float) -> None:
        while self._all and next(iter(self._all.values())).until_s <= now_s:
            self.drop_oldest()
