"""Tickets: single-use credentials in an address, for a browser's EventSource, which can send no header.

A long-lived credential does not belong in an address, which browsers, proxies and logs keep. So a ticket opens one
request, once, within TICKET_S. An EventSource reconnects by itself, to the same address; that is the one exception:

| state of a ticket | a request with it | leads to |
|---|---|---|
| issued, for TICKET_S | any is let in | used; for an event stream, resumable |
| resumable, for REOPEN_S | the same stream that resumes is let in | streaming, once the stream begins |
| streaming | the same stream that resumes is let in | streaming: the newer ends the older; resumable, when it ends |
| used, or never issued | refused | |

The same stream has the same query and brings a position of this log, which only its client was sent.
"""

import secrets
from collections.abc import Callable
from typing import NamedTuple

from twincast.core.rights import Principal
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated

TICKET_S = 30.0
REOPEN_S = 60.0
"""For how long a stream that ended may resume: a browser tries every two seconds, a phone may wake up later."""
TICKETS_MAX = 10_000
"""How many may be issued at once, and how many resumable: a few megabytes."""
OWN_TICKETS_MAX = 100
"""How many of either one owner may have, so that none uses up those of the others."""


class TicketUse(NamedTuple):
    """What a request asks for with a ticket."""

    ticket: str
    query: str
    """The whole query of the address that the ticket stands in."""
    is_stream: bool
    """Whether the request asks for an event stream, which may resume."""
    resumes: bool
    """Whether the request brings a position of this log."""


class _Grant(NamedTuple):
    """Whom a ticket lets in, until when, and to which stream."""

    principal: Principal
    owner: str
    until_s: float
    query: str = ""


class _Streaming(NamedTuple):
    """The grant of a stream that is open, and what ends that stream."""

    grant: _Grant
    end: Callable[[], None]


class Tickets:
    """The tickets of one process. They are forgotten when it ends; clients then get others."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._clock_s = clock_s
        self._issued = _Shelf()
        self._resumable = _Shelf()
        self._streaming: dict[str, _Streaming] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._issued) + len(self._resumable) + len(self._streaming)

    def issue(self, principal: Principal, owner: str) -> str:
        """Return a new ticket.

        Args:
            principal: whom it lets in.
            owner: the account that it counts for; see `Caller.account`.

        Raises:
            RateLimited: the owner has as many as it may.
            TooManyConnections: so many are issued in all that something must be wrong.
        """
        now_s = self._clock_s()
        self._issued.drop_until(now_s)
        if self._issued.count_of(owner) >= OWN_TICKETS_MAX:
            left_s = self._issued.oldest_of(owner).until_s - now_s
            raise RateLimited(f"{OWN_TICKETS_MAX} of your tickets are not used yet; use them, or wait", left_s)
        if len(self._issued) >= TICKETS_MAX:
            raise TooManyConnections(f"{TICKETS_MAX} tickets are issued and not used; try again in half a minute")
        ticket = secrets.token_urlsafe(24)
        self._issued.put(ticket, _Grant(principal, owner, now_s + TICKET_S))
        return ticket

    def redeem(self, use: TicketUse) -> Principal:
        """Return the principal of a ticket, and use it up.

        Raises:
            Unauthenticated: it was used, is too old, or was never issued.
        """
        now_s = self._clock_s()
        issued = self._issued.take(use.ticket)
        if issued is not None and issued.until_s > now_s:
            if use.is_stream:
                self._keep_resumable(use.ticket, issued._replace(query=use.query))
            return issued.principal
        streaming = self._streaming.get(use.ticket)
        grant = self._resumable.get(use.ticket) if streaming is None else streaming.grant
        is_same = grant is not None and use.is_stream and use.resumes and grant.query == use.query
        if grant is None or not is_same or (streaming is None and grant.until_s <= now_s):
            raise Unauthenticated(
                f"a ticket is good for one stream within {TICKET_S:g} seconds, and for the same one that comes back"
                f" within {REOPEN_S:g}; POST /api/tickets gives another"
            )
        return grant.principal

    def stream_began(self, ticket: str, end: Callable[[], None]) -> None:
        """Note that a ticket's stream began; an older one of it is ended, for its client has left that one.

        Args:
            ticket: the ticket; one that opens no stream is ignored.
            end: ends the stream, if a newer one begins.
        """
        older = self._streaming.pop(ticket, None)
        grant = self._resumable.take(ticket) if older is None else older.grant
        if grant is not None:
            self._streaming[ticket] = _Streaming(grant, end)
        if older is not None:
            older.end()

    def stream_ended(self, ticket: str, end: Callable[[], None]) -> None:
        """Note that a ticket's stream is over, the one that began with this `end`; it may resume for a while."""
        streaming = self._streaming.get(ticket)
        if streaming is not None and streaming.end is end:
            del self._streaming[ticket]
            self._keep_resumable(ticket, streaming.grant)

    def _keep_resumable(self, ticket: str, grant: _Grant) -> None:
        now_s = self._clock_s()
        self._resumable.drop_until(now_s)
        if self._resumable.count_of(grant.owner) >= OWN_TICKETS_MAX:
            self._resumable.drop_oldest_of(grant.owner)
        elif len(self._resumable) >= TICKETS_MAX:
            self._resumable.drop_oldest()
        self._resumable.put(ticket, grant._replace(until_s=now_s + REOPEN_S))


class _Shelf:
    """Tickets in the order in which they expire, and by owner."""

    def __init__(self) -> None:
        self._all: dict[str, _Grant] = {}
        self._of_owner: dict[str, dict[str, _Grant]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def get(self, ticket: str) -> _Grant | None:
        return self._all.get(ticket)

    def put(self, ticket: str, grant: _Grant) -> None:
        self._all[ticket] = self._of_owner.setdefault(grant.owner, {})[ticket] = grant

    def take(self, ticket: str) -> _Grant | None:
        grant = self._all.pop(ticket, None)
        if grant is not None:
            own = self._of_owner[grant.owner]
            del own[ticket]
            if not own:
                del self._of_owner[grant.owner]
        return grant

    def count_of(self, owner: str) -> int:
        return len(self._of_owner.get(owner, ()))

    def oldest_of(self, owner: str) -> _Grant:
        return next(iter(self._of_owner[owner].values()))

    def drop_oldest_of(self, owner: str) -> None:
        self.take(next(iter(self._of_owner[owner])))

    def drop_oldest(self) -> None:
        self.take(next(iter(self._all)))

    def drop_until(self, now_s: float) -> None:
        while self._all and next(iter(self._all.values())).until_s <= now_s:
            self.drop_oldest()
