"""Admission: every request and connection, of every transport, comes in here or is refused with the reason.

A request is identified by its headers or a ticket; a connection that stays open is admitted too, which gives it a
lease. What was admitted a while ago is checked again before it takes effect.
"""

import logging
import time
from collections.abc import Callable, Collection

from twincast.access.addresses import TrustedProxies, peer_of
from twincast.access.authenticator import Authenticator
from twincast.access.leases import End, Lease, Leases
from twincast.access.limits import Bounds, FailedLogins, PairingAttempts, RateLimits
from twincast.access.origin import OriginPolicy
from twincast.access.request import Caller, RequestFacts
from twincast.access.revocation import ReadKeyring, Revocation
from twincast.access.tickets import TicketElsewhere, Tickets, TicketUse
from twincast.core.keys import Keyring
from twincast.core.rights import ANYONE, Principal
from twincast.errors import LOGIN_NEEDED, Forbidden, Unauthenticated

logger = logging.getLogger("twincast.admission")


class Admission:
    """The entrance. It lives on one event loop; `run` keeps its keys up to date."""

    def __init__(
        self,
        origin_policy: OriginPolicy,
        authenticator: Authenticator,
        bounds: Bounds,
        *,
        trusted_proxies: Collection[str] = (),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an entrance.

        Args:
            origin_policy: checks Host and Origin.
            authenticator: checks credentials.
            bounds: how many connections, and how much in a time.
            trusted_proxies: networks of proxies whose X-Forwarded-For is believed.
            clock_s: a monotonic clock.
        """
        self.authenticator = authenticator
        self.tickets = Tickets(clock_s)
        self.limits = RateLimits(bounds.frames_rate, authenticator, clock_s)
        self.leases = Leases(bounds, self.limits, self.login)
        self._failed_logins = FailedLogins(bounds.failed_logins_per_minute, clock_s)
        self.pairing_attempts = PairingAttempts(self._failed_logins, clock_s)
        self.revocation = Revocation(authenticator, self.leases, clock_s)
        self._origin_policy = origin_policy
        self._proxies = TrustedProxies(trusted_proxies)

    def check(self, facts: RequestFacts) -> str:
        """Return a request's address, if the request may present a credential at all.

        Raises:
            Forbidden: its Host or Origin is not ours, or it is from another machine and there is no login. While it is
                not known whether there is one, the server is not ready, and nothing that it holds is told.
        """
        self._origin_policy.check(facts.host, facts.origin)
        peer = peer_of(facts.peer)
        if peer is not None and not peer.is_loopback and self.authenticator.is_open:
            raise Forbidden(
                "a server without a login answers only programs on its own machine;"
                " `twincast keys add NAME --may publish,read` makes a key"
            )
        return facts.address(self._proxies)

    def check_upgrade(self, facts: RequestFacts) -> None:
        """Do what `check` does for a WebSocket's handshake; see `identify_upgrade` for what Origin says there."""
        self.check(facts if facts.authorization is None else facts._replace(origin=None))

    def neighbour(self, facts: RequestFacts) -> str | None:
        """Return the address of a program on this machine that asks for itself; None if it is none, or may be none.

        Raises:
            Forbidden: see `check`.
        """
        address = self.check(facts)
        return address if facts.is_from_this_machine(self._proxies) else None

    def identify(self, facts: RequestFacts, *, ticket: TicketUse | None = None) -> Caller:
        """Return the caller of a request.

        Raises:
            Forbidden: see `check`.
            Unauthenticated: there is no credential where one is needed, or it is not good.
            RateLimited: too many credentials of this address were wrong.
            KeysNotFetched: the signer of a token is not known yet; see `issuer_keys_fetched`.
            TicketElsewhere: the ticket is another server's; see `identify_elsewhere`.
        """
        address = self.check(facts)
        if ticket is not None and self.authenticator.is_required:
            return Caller(self._redeem(ticket, address), address)
        credential = facts.credential()
        if credential is not None:
            return Caller(self.login(credential, address), address)
        anonymous = self.authenticator.anonymous
        if anonymous is None:
            raise Unauthenticated(f"{LOGIN_NEEDED}, which comes as `Authorization: Bearer KEY`")
        return Caller(anonymous, address)

    def identify_upgrade(self, facts: RequestFacts) -> Caller:
        """Return the caller of a WebSocket's handshake.

        No page can set Authorization there. So with a good credential a program calls, and Origin decides nothing.

        Raises:
            TwincastError: see `identify`.
        """
        try:
            return self.identify(facts)
        except Forbidden:
            if facts.authorization is None or not self.authenticator.is_required:
                raise
        return self.identify(facts._replace(origin=None))

    def login(self, text: str, address: str) -> Principal:
        """Return the principal of a credential. A good one that is known passes even from an address that must wait.

        Raises:
            Unauthenticated: it is not good.
            RateLimited: too many credentials of this address were wrong.
            KeysNotFetched: its signer is not known yet.
        """
        try:
            principal = self.authenticator.recognize(text)
            if principal is not None or not self.authenticator.is_required:
                return principal or ANYONE
            self._failed_logins.check(address)
            return self.authenticator.authenticate(text)
        except Unauthenticated as error:
            logger.info("a login from %s failed: %s", address, error.code)
            self._failed_logins.count(address)
            raise

    def _redeem(self, ticket: TicketUse, address: str) -> Principal:
        self._failed_logins.check(address)
        try:
            principal = self.tickets.redeem(ticket)
            self.recheck(principal)
        except TicketElsewhere:  # which says nothing of the ticket yet
            raise
        except Unauthenticated:
            self._count_wrong(ticket, address)
            raise
        return principal

    async def identify_elsewhere(self, facts: RequestFacts, ticket: TicketUse) -> Caller:
        """Return the caller of a request with a ticket of another server, which is asked.

        Raises:
            Forbidden: see `check`.
            Unauthenticated: the ticket is not good, or its server has ended.
            JournalUnavailable: that server cannot be asked at the moment.
        """
        address = self.check(facts)
        try:
            principal = self.authenticator.as_known(await self.tickets.redeem_elsewhere(ticket))
            self.recheck(principal)
        except Unauthenticated:
            self._count_wrong(ticket, address)
            raise
        return Caller(principal, address)

    def _count_wrong(self, ticket: TicketUse, address: str) -> None:
        if not ticket.resumes:  # with a position of this log nobody guesses: the server was restarted
            self._failed_logins.count(address)

    def issue_ticket(self, caller: Caller) -> str:
        """Return a ticket for an event stream.

        Raises:
            RateLimited: too many of this account are not used yet.
            TooManyConnections: too many are not used yet in all.
        """
        return self.tickets.issue(caller.principal, caller.account)

    def admit(self, caller: Caller, end: End) -> Lease:
        """Admit a connection of an identified caller. Raises TooManyConnections; see `Leases.admit`."""
        return self.leases.admit(caller, end)

    def admit_websocket(self, facts: RequestFacts, end: End, *, wants_to_log_in: bool) -> Lease:
        """Admit a WebSocket, which may send its credential in the handshake or as its first message.

        Args:
            facts: of its handshake.
            end: ends it.
            wants_to_log_in: whether it announced that its first message will be `auth`.

        Raises:
            TwincastError: see `identify`; or TooManyConnections.
        """
        if facts.authorization is None and (self.authenticator.anonymous is None or wants_to_log_in):
            return self.leases.admit_unauthenticated(self.check(facts), end)
        return self.leases.admit(self.identify_upgrade(facts), end)

    async def issuer_keys_fetched(self) -> None:
        """Wait until the fetch of the token issuer's keys that is under way has ended, well or not."""
        if self.authenticator.jwks is not None:
            await self.authenticator.jwks.fetched()

    def recheck(self, principal: Principal) -> None:
        """Do nothing if a principal that was admitted would be admitted now. Call it after waiting, before acting.

        Raises:
            CredentialExpired: its credential was revoked or has expired meanwhile.
            Unauthenticated: none was needed then, and one is now.
            JournalUnavailable: it has an API key, and whether that was revoked cannot be seen.
        """
        refusal = self.authenticator.refusal(principal)
        if refusal is not None:
            raise refusal

    def learn(self, keyring: Keyring) -> None:
        """Take the keys as they are now, and end the leases of those that are not good any more."""
        self.revocation.learn(keyring)

    async def refresh(self, read_keyring: ReadKeyring) -> None:
        """Read the keys now, and learn them. Raises what reading them raises."""
        keyring = await read_keyring(self.authenticator.version)
        if keyring is not None:
            self.revocation.learn(keyring)

    async def run(self, read_keyring: ReadKeyring) -> None:
        """Keep the keys up to date and end leases with their credentials, until cancelled; see Revocation."""
        await self.revocation.run(read_keyring)
