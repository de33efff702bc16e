"""Who comes in, for how long, and how many at once: the same for every transport.

A request knocks; it is identified, or refused with the reason. A connection that goes on becomes a visit, which ends
when its credential expires or is revoked, or when nobody has said who he is in time.
"""

import asyncio
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import NamedTuple

from twincast.access.addresses import Address, block_of, forwarded, host_of, is_local, network, parse
from twincast.access.authenticator import Authenticator
from twincast.access.origin import OriginPolicy
from twincast.access.pairing import WRONG_CODES_PER_MINUTE
from twincast.access.rates import STEPS_A_UNIT, AccountBudget, Buckets
from twincast.access.tickets import Tickets, TicketUse
from twincast.access.tokens import Jwks
from twincast.core.audit import Actor
from twincast.core.keys import Keyring
from twincast.core.rights import ANYONE, Principal, Rate
from twincast.errors import (
    LOGIN_NEEDED,
    BadMessage,
    CredentialExpired,
    Forbidden,
    JournalUnavailable,
    NotPermitted,
    RateLimited,
    TooManyConnections,
    TwincastError,
    Unauthenticated,
    Unavailable,
)
from twincast.wire.query import wants_to_log_in

KEYRING_LOOK_S = 0.1
"""How often the keyring is looked at. SQLite tells nobody what another process has written, so somebody has to look."""
KEYS_UNSEEN_MAX_S = 5.0
"""For how long looks may fail, on a disk that gives nothing, before no API key is believed any more."""
KEYRING_WAIT_S = 2.0
"""A look that takes longer counts as one that failed: a disk may also hang."""
SWEEP_S = 1.0
"""How often it is asked, at least, whose credential has expired: the clock of the day may have been set meanwhile."""

WRONG_CODES_RATE = Rate(WRONG_CODES_PER_MINUTE / 60, WRONG_CODES_PER_MINUTE)
"""Of pairing codes from all addresses; see access/pairing."""
_ALL = "all"

_DECIDING = ("host", "origin", "authorization", "x-forwarded-for")
End = Callable[[TwincastError], None]
logger = logging.getLogger("twincast.admission")


class RequestFacts(NamedTuple):
    """What is known of a request before anything is believed of it: an address and some headers."""

    peer: str | None
    """The other end of the socket; None where there is none, as for an application that is tested without one."""
    host: str | None = None
    origin: str | None = None
    authorization: str | None = None
    forwarded_for: str | None = None

    @classmethod
    def of(cls, peer: str | None, headers: Iterable[tuple[str, str]]) -> "RequestFacts":
        """Read the headers, names in lower case.

        Raises:
            BadMessage: one that decides who comes in stands there twice; two readers would take different ones.
        """
        told: dict[str, str] = {}
        for name, value in headers:
            if name not in _DECIDING:
                continue
            if name not in told:
                told[name] = value
            elif name == "x-forwarded-for":  # a list may come in several lines (RFC 9110, 5.3)
                told[name] += f",{value}"
            else:
                raise BadMessage(f"a request has one {name.title()} header; this one has two")
        return cls(peer, *map(told.get, _DECIDING))


class Caller(NamedTuple):
    """Who asks, and from where."""

    principal: Principal
    address: str

    @property
    def actor(self) -> Actor:
        """What the audit trail notes."""
        return Actor(self.principal.id, self.address)


class Bounds(NamedTuple):
    """How many connections may go on at once, and how much in a time."""

    address_connections_max: int = 64
    identity_connections_max: int = 16
    unauthenticated_max: int = 256
    failed_logins_per_minute: int = 10
    auth_timeout_s: float = 5.0
    frames_rate: Rate = Rate(1_000, 5_000)


_numbers = itertools.count(1)


class Lease:
    """One connection that goes on. Its owner calls `leave` when it is over, and is told by `end` when it must be."""

    __slots__ = ("_admission", "_budget", "_end", "_login_timer", "_paid_at_s", "address", "number", "principal")

    def __init__(self, admission: "Admission", address: str, end: End) -> None:
        self._admission = admission
        self._end = end
        self._budget: AccountBudget | None = None  # nearly all ask for what costs nothing
        self._paid_at_s = 0.0
        self._login_timer: asyncio.TimerHandle | None = None
        self.address = address
        self.number = next(_numbers)
        """By this the lines of a log that are about one connection belong together."""
        self.principal: Principal | None = None
        """Who it is; None until that was said."""

    @property
    def actor(self) -> Actor:
        """What the audit trail notes."""
        assert self.principal is not None
        return Actor(self.principal.id, self.address)

    def present(self, text: str) -> Principal:
        """Say who this is by a credential, or renew the one that it was before.

        Raises:
            Unauthenticated: it is not good.
            NotPermitted: it is somebody else's, or of other rights; that takes a new connection.
            RateLimited: too many were wrong before.
            TooManyConnections: of this identity.
        """
        principal = self._admission.login(text, self.address)
        if self.principal is None:
            self._admission.welcome(self, principal)
        elif (principal.id, principal.rights) != (self.principal.id, self.principal.rights):
            raise NotPermitted("a renewal keeps identity and rights; a new connection takes others")
        self.principal = principal
        self._stop_timer()
        return principal

    def charge(self, updates: int, frames: int) -> float:
        """See Lease in delivery/session."""
        wait_s = self._admission.charge(self, updates, frames)
        return max(wait_s, self._reading_wait_s()) if self._paid_at_s else wait_s

    @property
    def account(self) -> str:
        """See Budget in delivery/turns."""
        return self._own_means().account

    def spend(self, steps: int) -> float:
        """See Budget in delivery/turns.

        A visit is not read until what it asked for itself is paid, or the debt of its account is. The first things that
        cost less than a unit are free: most connections ask for nothing else, and so need no account.
        """
        if self._budget is None and steps < STEPS_A_UNIT:
            return 0.0
        budget = self._own_means()
        self._paid_at_s = max(self._paid_at_s, budget.now_s) + budget.seconds(steps)
        return budget.spend(steps)

    def _reading_wait_s(self) -> float:
        budget = self._own_means()
        own_s = self._paid_at_s - budget.now_s
        if own_s <= 0:
            self._paid_at_s = 0.0
            return 0.0
        return min(own_s, budget.spend(0))

    def _own_means(self) -> AccountBudget:
        if self._budget is None:
            assert self.principal is not None
            self._budget = self._admission.budget(Caller(self.principal, self.address))
        return self._budget

    def wait_for_login(self, timeout_s: float) -> None:
        """End unless somebody says in time who this is."""
        self._login_timer = asyncio.get_running_loop().call_later(timeout_s, self._nobody_came)

    def _nobody_came(self) -> None:
        self._login_timer = None
        self.end(Unauthenticated("nobody said who this is in time: the first message is `auth`, with a `token`"))

    def _stop_timer(self) -> None:
        if self._login_timer is not None:
            self._login_timer.cancel()
            self._login_timer = None

    def end(self, error: TwincastError) -> None:
        """Tell the owner that it is over."""
        self._end(error)

    def leave(self) -> None:
        """Note that it is over. May be called again."""
        self._stop_timer()
        self._admission.forget(self)


class Admission:
    """The entrance. Lives on one event loop; `run` keeps its keys up to date."""

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
            authenticator: judges credentials.
            bounds: how many.
            trusted_proxies: networks whose word in X-Forwarded-For is taken for the client's address.
            clock_s: a monotonic clock.
        """
        self.authenticator = authenticator
        self.tickets = Tickets(clock_s)
        self._origin_policy = origin_policy
        self._bounds = bounds
        self._proxies = [network(text) for text in trusted_proxies]
        self._clock_s = clock_s
        self._updates = Buckets()
        self._frames = Buckets()
        self._reads = Buckets()
        self._failures = Buckets()
        self._wrong_codes = Buckets()
        self._failure_rate = Rate(bounds.failed_logins_per_minute / 60, bounds.failed_logins_per_minute)
        self._leases: dict[Lease, None] = {}
        self._by_address: Counter[str] = Counter()
        self._by_identity: Counter[str] = Counter()
        self._unknown_count = 0

    def __len__(self) -> int:
        return len(self._leases)

    def identify(self, facts: RequestFacts, *, ticket: TicketUse | None = None) -> Caller:
        """Return who asks.

        Raises:
            Forbidden: a Host or an Origin that is not ours, or somebody from elsewhere where there is no login.
            Unauthenticated: no credential where one is needed, or a wrong one.
            RateLimited: too many wrong ones came from this address.
            KeysNotFetched: the signer of a token is not known yet; see `ready_again`.
        """
        address = self.check(facts)
        if ticket is not None and self.authenticator.is_required:
            return Caller(self._redeem(ticket, address), address)
        if facts.authorization is None:
            return Caller(self._without_credential(), address)
        kind, _, token = facts.authorization.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise Unauthenticated("a credential comes as `Authorization: Bearer …`")
        return Caller(self.login(token.strip(), address), address)

    def identify_upgrade(self, facts: RequestFacts) -> Caller:
        """Return who asks for a WebSocket. No page can set Authorization there: with a good one, Origin says nothing.

        Raises:
            TwincastError: what `identify` raises.
        """
        try:
            return self.identify(facts)
        except Forbidden:
            if facts.authorization is None or not self.authenticator.is_required:
                raise
        return self.identify(facts._replace(origin=None))

    def check(self, facts: RequestFacts) -> str:
        """Return a request's address, if it may knock at all.

        Raises:
            Forbidden: see `identify`.
        """
        self._origin_policy.check(facts.host, facts.origin)
        peer = parse(facts.peer)
        if peer is None:
            return facts.peer or "local"
        if not self.authenticator.is_required and not peer.is_loopback:
            raise Forbidden(
                "a server without a login answers only programs on its own machine;"
                " `twincast keys add NAME --may publish,read` makes a key"
            )
        if facts.forwarded_for is not None and self._is_proxy(peer):
            return str(forwarded(facts.forwarded_for, self._is_proxy) or peer)
        return str(peer)

    def neighbour(self, facts: RequestFacts) -> str | None:
        """Return the address of a program on this machine itself, asking by itself; None if it is none, or may be.

        Where a proxy is trusted, what comes from the proxy's addresses is somebody else's, whatever it says. What asks
        for a name that others use, too, may have come by a proxy that says nothing of itself.

        Raises:
            Forbidden: see `identify`.
        """
        address, peer = self.check(facts), parse(facts.peer)
        host = host_of(facts.host or "")
        if peer is None or not peer.is_loopback or host is None or not is_local(host.name):
            return None
        if facts.forwarded_for is not None or self._is_proxy(peer):
            return None
        return address

    def login(self, text: str, address: str) -> Principal:
        """Return who a credential stands for. A good one that is known already passes even a locked address.

        Raises:
            Unauthenticated: it is not good.
            RateLimited: too many from this address were not.
            KeysNotFetched: its signer is not known yet.
        """
        block = block_of(address)
        try:
            principal = self.authenticator.recognize(text)
            if principal is not None or not self.authenticator.is_required:
                return principal or ANYONE
            self._refuse_locked(block)
            return self.authenticator.authenticate(text)
        except Unauthenticated as error:
            logger.info("a login from %s failed: %s", address, error.code)
            wait_s = self._failures.spend(block, self._failure_rate, 1, self._clock_s())
            if wait_s > 0:
                raise RateLimited(f"too many failed logins; try again in {math.ceil(wait_s)} s", wait_s) from None
            raise

    def begin_pairing(self, address: str) -> None:
        """Let somebody try a code. It costs what a failed login costs, until `end_pairing` says that it was good.

        In advance: of a hundred that come at once none is to be looked at before the one before it has counted.

        Raises:
            RateLimited: too many from this address, or from all together, were wrong.
        """
        now_s, block = self._clock_s(), block_of(address)
        wait_s = max(
            self._failures.wait_s(block, self._failure_rate, 1, now_s),
            self._wrong_codes.wait_s(_ALL, WRONG_CODES_RATE, 1, now_s),
        )
        if wait_s > 0:
            raise RateLimited(f"too many codes were wrong; try again in {math.ceil(wait_s)} s", wait_s)
        self._failures.spend(block, self._failure_rate, 1, now_s)
        self._wrong_codes.spend(_ALL, WRONG_CODES_RATE, 1, now_s)

    def end_pairing(self, address: str, *, was_good: bool) -> None:
        """Take note how the try of a code ended."""
        if was_good:
            now_s = self._clock_s()
            self._failures.refund(block_of(address), self._failure_rate, 1, now_s)
            self._wrong_codes.refund(_ALL, WRONG_CODES_RATE, 1, now_s)
        else:
            logger.info("a pairing from %s failed", address)

    def issue_ticket(self, caller: Caller) -> str:
        """Return a ticket for an event stream. Who has no identity shares the bound of its address.

        Raises:
            RateLimited: too many of this owner are not used yet.
            TooManyConnections: too many are not used yet in all.
        """
        owner = _identity(caller.principal) or block_of(caller.address)
        return self.tickets.issue(caller.principal, owner)

    def enter_websocket(self, facts: RequestFacts, query: str, end: End) -> Lease:
        """Let somebody stay on a WebSocket. Who brings no credential may say who he is by the first message.

        Raises:
            TwincastError: what `identify`, `enter` or `enter_unknown` raise.
        """
        if facts.authorization is None and (self.authenticator.anonymous is None or wants_to_log_in(query)):
            return self.enter_unknown(self.check(facts), end)
        return self.enter(self.identify_upgrade(facts), end)

    def enter(self, caller: Caller, end: End) -> Lease:
        """Let somebody stay.

        Raises:
            TooManyConnections: from this address, or of this identity.
        """
        lease = self._new_lease(caller.address, end)
        try:
            self.welcome(lease, caller.principal)
        except TooManyConnections:
            lease.leave()
            raise
        return lease

    def enter_unknown(self, address: str, end: End) -> Lease:
        """Let somebody stay who is to say who he is within some seconds.

        Raises:
            TooManyConnections: from this address, or of such visitors.
        """
        if self._unknown_count >= self._bounds.unauthenticated_max:
            raise TooManyConnections(f"{self._unknown_count} connections have not said yet who they are")
        lease = self._new_lease(address, end)
        lease.wait_for_login(self._bounds.auth_timeout_s)
        return lease

    def welcome(self, lease: Lease, principal: Principal) -> None:
        """Count a visit as its identity's, and it as that.

        Raises:
            TooManyConnections: that one has as many as it may.
        """
        identity = _identity(principal)
        if identity is not None:
            if self._by_identity[identity] >= self._bounds.identity_connections_max:
                raise TooManyConnections(
                    f"{identity} has {self._bounds.identity_connections_max} connections, as many as it may"
                )
            self._by_identity[identity] += 1
        self._unknown_count -= 1
        lease.principal = principal
        logger.info("connection %d is of %s from %s", lease.number, principal.id, lease.address)

    def forget(self, lease: Lease) -> None:
        """Count a visit no longer."""
        if lease not in self._leases:
            return
        del self._leases[lease]
        logger.info("connection %d is over", lease.number)
        _uncount(self._by_address, block_of(lease.address))
        if lease.principal is None:
            self._unknown_count -= 1
        elif (identity := _identity(lease.principal)) is not None:
            _uncount(self._by_identity, identity)

    def spend(self, principal: Principal, updates: int) -> None:
        """Count updates against an identity's rate.

        Raises:
            RateLimited: they are more than it may send now.
        """
        if principal.rate is None:
            return
        wait_s = self._updates.spend(principal.id, principal.rate, updates, self._clock_s())
        if wait_s > 0:
            raise RateLimited(f"{principal.id} may send {principal.rate.per_s:g} updates a second", wait_s)

    def charge(self, lease: Lease, updates: int, frames: int) -> float:
        """See Lease.owe. Who has no identity shares the rate of its address."""
        if not self.authenticator.is_required:
            return 0.0
        now_s = self._clock_s()
        principal, rate = lease.principal, self._bounds.frames_rate
        if principal is None or principal.id == ANYONE.id:
            return self._frames.charge(block_of(lease.address), rate, frames, now_s)
        if principal.rate is None:
            return 0.0
        wait_s = self._frames.charge(principal.id, max(rate, principal.rate), frames, now_s)
        return max(wait_s, self._updates.charge(principal.id, principal.rate, updates, now_s))

    def budget(self, caller: Caller) -> AccountBudget:
        """Return what a caller may spend on what it reads.

        Who has no identity shares with its address. Where there is no login, each request and each connection has
        means of its own: programs of one machine are not told apart.
        """
        principal, rate = caller.principal, self._bounds.frames_rate
        if not self.authenticator.is_required:
            return AccountBudget(f"visit {next(_numbers)}", Buckets(), rate, self._clock_s)
        if principal.id == ANYONE.id:
            return AccountBudget(block_of(caller.address), self._reads, rate, self._clock_s)
        return AccountBudget(principal.id, self._reads, max(rate, principal.rate or rate), self._clock_s)

    def begin_reading(self, caller: Caller) -> AccountBudget:
        """Let somebody read, and return the means that it is counted against.

        Raises:
            RateLimited: what its account has read before was too much.
        """
        budget = self.budget(caller)
        debt_s = budget.spend(0)
        if debt_s > 0:
            raise RateLimited(f"{caller.principal.id} has read more than it may for now", debt_s)
        return budget

    def recheck(self, principal: Principal) -> None:
        """Let somebody go on who was let in a while ago: what was waited for may have outlived the credential.

        Raises:
            CredentialExpired: it was revoked meanwhile, or has expired.
            Unauthenticated: none was needed then, and one is now.
            JournalUnavailable: it is an API key, and whether it was revoked cannot be seen.
        """
        if not self.authenticator.still_holds(principal):
            raise self._no_longer(principal)
        left_s = self.authenticator.seconds_left(principal)
        if left_s is not None and left_s <= 0:
            raise CredentialExpired(f"the credential of {principal.id} has expired")

    def sweep(self) -> float:
        """End the visits whose credential has expired by the clock of the day.

        One look at all of them, not a timer for each: no timer notices that the clock was set, and 10,000 cost 1 ms.

        Returns:
            In how many seconds the next one does.
        """
        now_s, next_s = self.authenticator.now_s(), math.inf
        expired: list[Lease] = []
        for lease in self._leases:
            principal = lease.principal
            if principal is None or principal.expires_s is None:
                continue
            if principal.expires_s <= now_s:
                expired.append(lease)
            elif principal.expires_s < next_s:
                next_s = principal.expires_s
        for lease in expired:
            assert lease.principal is not None
            self._end(lease, CredentialExpired(f"the credential of {lease.principal.id} has expired"))
        return next_s - now_s

    def learn(self, keyring: Keyring) -> None:
        """Take the keys as they are now, and end the visits that those no longer let in."""
        self.authenticator.learn(keyring)
        self._end_leases_that_no_longer_hold()

    async def ready_again(self) -> None:
        """Wait until the keys that a token's issuer publishes have been fetched, or could not be."""
        tokens = self.authenticator.tokens
        if tokens is not None and isinstance(tokens.keys, Jwks):
            await tokens.keys.fetched()

    async def run(self, keyring: Callable[[int], Awaitable[Keyring | None]]) -> None:
        """Keep the keys up to date, until cancelled.

        Args:
            keyring: returns the keyring, or None if it still has the version that is given. While it raises
                JournalUnavailable nothing changes, for KEYS_UNSEEN_MAX_S; then no API key is believed until it returns.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_keyring(keyring), name="keyring")
            group.create_task(self._follow_clock(), name="clock of the day")
            tokens = self.authenticator.tokens
            if tokens is not None and isinstance(tokens.keys, Jwks):
                group.create_task(tokens.keys.run(), name="issuer's keys")

    async def _follow_keyring(self, keyring: Callable[[int], Awaitable[Keyring | None]]) -> None:
        failing_since_s: float | None = None
        while True:
            await asyncio.sleep(KEYRING_LOOK_S)
            look = asyncio.ensure_future(keyring(self.authenticator.version))
            try:
                while not (await asyncio.wait({look}, timeout=KEYRING_WAIT_S))[0]:
                    failing_since_s = self._not_seen(failing_since_s, JournalUnavailable("the disk does not answer"))
                news = look.result()
            except Unavailable as failure:
                failing_since_s = self._not_seen(failing_since_s, failure)
                continue
            finally:
                look.cancel()
            failing_since_s, self.authenticator.doubt = None, ""
            if news is not None:
                self.learn(news)

    def _not_seen(self, failing_since_s: float | None, why: Unavailable) -> float:
        """Note that the keys could not be seen; from some time on none is believed. Return since when."""
        now_s = self._clock_s()
        if failing_since_s is None:
            logger.warning("a key that is revoked now would not be noticed: %s", why)
            return now_s
        if now_s - failing_since_s >= KEYS_UNSEEN_MAX_S and not self.authenticator.doubt:
            logger.error("no API key is believed until the keys can be read again: %s", why)
            self.authenticator.doubt = f"whether an API key was revoked cannot be seen: {why}"
            self._end_leases_that_no_longer_hold()
        return failing_since_s

    def _end_leases_that_no_longer_hold(self) -> None:
        for lease in tuple(self._leases):
            if lease.principal is not None and not self.authenticator.still_holds(lease.principal):
                self._end(lease, self._no_longer(lease.principal))

    def _no_longer(self, principal: Principal) -> TwincastError:
        """Return why somebody who was let in would not be let in now."""
        if principal.id.startswith("key:"):
            doubt = self.authenticator.doubt
            return JournalUnavailable(doubt) if doubt else CredentialExpired("this key was revoked")
        return Unauthenticated("this server asks for a login from now on")  # a close frame holds 123 bytes

    async def _follow_clock(self) -> None:
        while True:
            next_s = self.sweep()
            await asyncio.sleep(min(next_s, SWEEP_S))

    def _end(self, lease: Lease, error: TwincastError) -> None:
        try:
            lease.end(error)
        except Exception:  # a fault of one connection; the others are to end all the same
            logger.exception("connection %d could not be ended, and its credential is not good", lease.number)

    def _new_lease(self, address: str, end: End) -> Lease:
        block = block_of(address)
        if not _is_exempt(address) and self._by_address[block] >= self._bounds.address_connections_max:
            raise TooManyConnections(
                f"{self._bounds.address_connections_max} connections come from this address, as many as may"
            )
        lease = Lease(self, address, end)
        self._by_address[block] += 1
        self._unknown_count += 1
        self._leases[lease] = None
        return lease

    def _without_credential(self) -> Principal:
        principal = self.authenticator.anonymous
        if principal is None:
            raise Unauthenticated(f"{LOGIN_NEEDED}, which comes as `Authorization: Bearer KEY`")
        return principal

    def _redeem(self, ticket: TicketUse, address: str) -> Principal:
        self._refuse_locked(block_of(address))
        try:
            principal = self.tickets.redeem(ticket)
            self.recheck(principal)
        except Unauthenticated:
            if not ticket.resumes:  # who was told a position of this log guesses nothing: the server was restarted
                self._failures.spend(block_of(address), self._failure_rate, 1, self._clock_s())
            raise
        return principal

    def _refuse_locked(self, block: str) -> None:
        wait_s = self._failures.wait_s(block, self._failure_rate, 1, self._clock_s())
        if wait_s > 0:
            raise RateLimited(f"too many failed logins; try again in {math.ceil(wait_s)} s", wait_s)

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._proxies)


def _is_exempt(address: str) -> bool:
    return parse(address) is None or is_local(address)


def _identity(principal: Principal) -> str | None:
    return None if principal.id == ANYONE.id else principal.id


def _uncount(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
