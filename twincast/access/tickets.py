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

Of several servers on one log the one that issued a ticket is its home: `HOME.RANDOM`. There the ticket's state is, and
each other server asks there before it lets anything in, and tells there where a stream of its own began and ended. So a
ticket is good once on all servers together, and the newest stream of a ticket ends the one before it wherever that is.
While the home cannot be asked because it has ended, a stream may come back to the server that it was on last; any other
use is refused, and the client gets another ticket.
"""

import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple, Protocol

from twincast.core.rights import Principal
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated

TICKET_S = 30.0
REOPEN_S = 60.0
"""For how long a stream that ended may resume: a browser tries every two seconds, a phone may wake up later."""
TICKETS_MAX = 10_000
"""How many may be issued at once, and how many resumable: a few megabytes."""
OWN_TICKETS_MAX = 100
"""How many of either one owner may have, so that none uses up those of the others."""
STREAMS_ELSEWHERE_MAX = 10_000
"""How many streams on other servers are remembered as open, of tickets of this one."""


class TicketUse(NamedTuple):
    """What a request asks for with a ticket."""

    ticket: str
    query: str
    """The whole query of the address that the ticket stands in."""
    is_stream: bool
    """Whether the request asks for an event stream, which may resume."""
    resumes: bool
    """Whether the request brings a position of this log."""

    @property
    def home(self) -> str:
        """The server that issued the ticket, of several; empty if it names none."""
        return _home_of(self.ticket)

    @property
    def asked(self) -> "Asked":
        """The same without the ticket itself."""
        return Asked(_digest(self.ticket), _digest(self.query), self.is_stream, self.resumes)


class Asked(NamedTuple):
    """What is asked for with a ticket, in digests: whoever reads this has no ticket."""

    key: str
    """The digest of the ticket."""
    query: str
    """The digest of the whole query."""
    is_stream: bool
    resumes: bool


class Granted(NamedTuple):
    """Whom a ticket lets in."""

    principal: Principal
    owner: str
    """The account that it counts for; see `Caller.account`."""


class TicketElsewhere(Unauthenticated):
    """A ticket of another server: `Tickets.redeem_elsewhere` asks there."""

    def __init__(self, use: TicketUse) -> None:
        super().__init__("this ticket was issued by another server")
        self.use = use


class Elsewhere(Protocol):
    """The other servers on one log, as far as tickets go."""

    async def redeem(self, home: str, asked: Asked) -> Granted | None:
        """Ask a ticket's home; None if it has ended.

        Raises:
            Unauthenticated: the home refuses.
            JournalUnavailable: it cannot be asked at the moment.
        """

    def tell_began(self, home: str, key: str) -> None:
        """Tell a ticket's home that its stream began here."""

    def tell_ended(self, home: str, key: str) -> None:
        """Tell a ticket's home that its stream ended here."""


class _Grant(NamedTuple):
    """Whom a ticket lets in, until when, and to which stream."""

    principal: Principal
    owner: str
    until_s: float
    query: str = ""


class _Streaming(NamedTuple):
    """The grant of a stream that is open, what ends that stream, and on which other server it is."""

    grant: _Grant
    end: Callable[[], None]
    at: str = ""


class Tickets:
    """The tickets of one process. They are forgotten when it ends; clients then get others."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._clock_s = clock_s
        self._issued = _Shelf()
        self._resumable = _Shelf()
        self._streaming: dict[str, _Streaming] = {}
        self._away: dict[str, None] = {}  # those of them that are on other servers
        self._home = ""
        self._elsewhere: Elsewhere | None = None

    def join(self, home: str, elsewhere: Elsewhere) -> None:
        """Be one of several servers from now on.

        Args:
            home: what this server is called in its tickets; without a dot.
            elsewhere: the others.
        """
        self._home, self._elsewhere = home, elsewhere

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
        if self._home:
            ticket = f"{self._home}.{ticket}"
        self._issued.put(_digest(ticket), _Grant(principal, owner, now_s + TICKET_S))
        return ticket

    def redeem(self, use: TicketUse) -> Principal:
        """Return the principal of a ticket, and use it up.

        Raises:
            Unauthenticated: it was used, is too old, or was never issued.
            TicketElsewhere: it is another server's.
        """
        if self._is_elsewhere(use.home):
            raise TicketElsewhere(use)
        return self.redeem_here(use.asked).principal

    async def redeem_elsewhere(self, use: TicketUse) -> Principal:
        """Return the principal of another server's ticket, and use it up.

        Raises:
            Unauthenticated: that server refuses it, or has ended.
            JournalUnavailable: that server cannot be asked at the moment.
        """
        asked = use.asked
        granted = None if self._elsewhere is None else await self._elsewhere.redeem(use.home, asked)
        if granted is None:
            return self.redeem_here(asked).principal
        if asked.is_stream and asked.key not in self._streaming:
            self._resumable.take(asked.key)
            self._keep_resumable(asked.key, _Grant(granted.principal, granted.owner, 0.0, asked.query))
        return granted.principal

    def redeem_here(self, asked: Asked) -> Granted:
        """Return whom a ticket of this server lets in, or one whose stream was here, and use it up.

        Raises:
            Unauthenticated: it was used, is too old, or was never issued.
        """
        now_s = self._clock_s()
        issued = self._issued.take(asked.key)
        if issued is not None and issued.until_s > now_s:
            if asked.is_stream:
                self._keep_resumable(asked.key, issued._replace(query=asked.query))
            return Granted(issued.principal, issued.owner)
        streaming = self._streaming.get(asked.key)
        grant = self._resumable.get(asked.key) if streaming is None else streaming.grant
        is_same = grant is not None and asked.is_stream and asked.resumes and grant.query == asked.query
        if grant is None or not is_same or (streaming is None and grant.until_s <= now_s):
            raise Unauthenticated(
                f"a ticket is good for one stream within {TICKET_S:g} seconds, and for the same one that comes back"
                f" within {REOPEN_S:g}; POST /api/tickets gives another"
            )
        return Granted(grant.principal, grant.owner)

    def stream_began(self, ticket: str, end: Callable[[], None]) -> None:
        """Note that a ticket's stream began; an older one of it is ended, for its client has left that one.

        Args:
            ticket: the ticket; one that opens no stream is ignored.
            end: ends the stream, if a newer one begins.
        """
        key, home = _digest(ticket), _home_of(ticket)
        self._begin(key, end)
        if key in self._streaming and self._is_elsewhere(home) and self._elsewhere is not None:
            self._elsewhere.tell_began(home, key)

    def stream_ended(self, ticket: str, end: Callable[[], None]) -> None:
        """Note that a ticket's stream is over, the one that began with this `end`; it may resume for a while."""
        key, home = _digest(ticket), _home_of(ticket)
        streaming = self._streaming.get(key)
        if streaming is not None and streaming.end is end:
            self._take(key)
            self._keep_resumable(key, streaming.grant)
            if self._is_elsewhere(home) and self._elsewhere is not None:
                self._elsewhere.tell_ended(home, key)

    def began_elsewhere(self, key: str, at: str, end: Callable[[], None]) -> None:
        """Note that a stream of a ticket of this server began on another; an older one of it is ended.

        Args:
            key: the digest of the ticket.
            at: the server.
            end: has that server end the stream.
        """
        self._begin(key, end, at)
        if len(self._away) > STREAMS_ELSEWHERE_MAX:  # some have ended, and the word of it was lost
            self._take(next(iter(self._away)))

    def ended_elsewhere(self, key: str, at: str) -> None:
        """Note that a stream of a ticket of this server ended on another; it may resume for a while."""
        streaming = self._streaming.get(key)
        if streaming is not None and streaming.at == at:
            self._take(key)
            self._keep_resumable(key, streaming.grant)

    def server_ended(self, at: str) -> None:
        """Note that all streams on another server are over."""
        for key in tuple(self._away):
            self.ended_elsewhere(key, at)

    def end_stream(self, key: str) -> None:
        """End the stream of another server's ticket, which was opened anew elsewhere. It does not resume here."""
        streaming = self._take(key)
        self._resumable.take(key)
        if streaming is not None:
            streaming.end()

    def _is_elsewhere(self, home: str) -> bool:
        return bool(self._home and home and home != self._home)

    def _begin(self, key: str, end: Callable[[], None], at: str = "") -> None:
        older = self._take(key)
        grant = self._resumable.take(key) if older is None else older.grant
        if grant is not None:
            self._streaming[key] = _Streaming(grant, end, at)
            if at:
                self._away[key] = None
        if older is not None and (older.at != at or not at):  # else that server has ended it itself
            older.end()

    def _take(self, key: str) -> _Streaming | None:
        self._away.pop(key, None)
        return self._streaming.pop(key, None)

    def _keep_resumable(self, ticket: str, grant: _Grant) -> None:
        now_s = self._clock_s()
        self._resumable.drop_until(now_s)
        if self._resumable.count_of(grant.owner) >= OWN_TICKETS_MAX:
            self._resumable.drop_oldest_of(grant.owner)
        elif len(self._resumable) >= TICKETS_MAX:
            self._resumable.drop_oldest()
        self._resumable.put(ticket, grant._replace(until_s=now_s + REOPEN_S))


def _home_of(ticket: str) -> str:
    return ticket.partition(".")[0] if "." in ticket else ""


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


class _Shelf:
    """Tickets, by their digests, in the order in which they expire, and by owner."""

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
