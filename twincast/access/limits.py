"""How many connections there may be at once, and how much in a time: every token bucket of the server. Pure."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from twincast.access.addresses import block_of
from twincast.access.pairing import WRONG_CODES_PER_MINUTE
from twincast.access.rates import AccountBudget, Buckets
from twincast.access.request import Caller
from twincast.core.rights import Principal, Rate
from twincast.errors import RateLimited

FRAMES_RATE = Rate(1_000, 5_000)
_ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The limits that can be set."""

    address_connections_max: int = 64
    identity_connections_max: int = 16
    unauthenticated_max: int = 256
    failed_logins_per_minute: int = 10
    auth_timeout_s: float = 5.0
    """How long an unauthenticated connection may last."""
    frames_rate: Rate = FRAMES_RATE
    """Of frames, and of units of reading; a principal whose own rate is higher has that."""


class Login(Protocol):
    """Whether requests need a credential; see Authenticator."""

    is_required: bool


class RateLimits:
    """What clients send and read, counted by identity. Clients without one share a count with their address.

    Without a login there is no rate: programs of one machine cannot be told apart, and none may slow down the others.
    """

    def __init__(self, frames_rate: Rate, login: Login, clock_s: Callable[[], float]) -> None:
        """Make the buckets, full; `clock_s` is a monotonic clock."""
        self._frames_rate = frames_rate
        self.login = login
        """Without a login there is no rate."""
        self._clock_s = clock_s
        self._updates = Buckets()
        self._frames = Buckets()
        self._reads = Buckets()
        self._numbers = itertools.count(1)
        self._spent: Counter[str] | None = None

    def tell_others(self) -> None:
        """Count from now on what is spent here, for `take_spent`: there are other servers on the same log."""
        self._spent = Counter()

    def take_spent(self) -> dict[str, int]:
        """Return how many updates each identity has sent here since the last time."""
        if self._spent is None:
            return {}
        spent, self._spent = dict(self._spent), Counter()
        return spent

    def spend_elsewhere(self, spent: Mapping[str, float]) -> None:
        """Count updates that identities have sent to another server."""
        now_s = self._clock_s()
        for identity, updates in spent.items():
            self._updates.charge_known(identity, updates, now_s)

    def spend(self, principal: Principal, updates: int) -> None:
        """Count the readings and commands of a request.

        Raises:
            RateLimited: they are more than the principal may send now; nothing was counted.
        """
        if principal.rate is None:
            return
        wait_s = self._updates.spend(principal.id, principal.rate, updates, self._clock_s())
        if wait_s > 0:
            raise RateLimited(f"{principal.id} may send {principal.rate.per_s:g} updates a second", wait_s)
        if self._spent is not None:
            self._spent[principal.id] += updates

    def charge(self, principal: Principal | None, block: str, updates: int, frames: int) -> float:
        """Count what came on a connection, and return for how many seconds no more of it should be read.

        Args:
            principal: the connection's; None while it is unauthenticated.
            block: what its address counts as; see `block_of`.
            updates: readings and commands.
            frames: everything that came, updates too.
        """
        if not self.login.is_required:
            return 0.0
        if principal is None or not principal.identity:
            return self._frames.charge(block, self._frames_rate, frames, self._clock_s())
        rate = principal.rate
        if rate is None:
            return 0.0
        now_s, frames_rate = self._clock_s(), self._frames_rate
        frames_s = self._frames.charge(principal.id, rate if rate > frames_rate else frames_rate, frames, now_s)
        updates_s = self._updates.charge(principal.id, rate, updates, now_s)
        if self._spent is not None and updates:
            self._spent[principal.id] += updates
        return frames_s if frames_s > updates_s else updates_s

    def budget(self, caller: Caller) -> AccountBudget:
        """Return the budget that a caller's reads count against. Without a login each request has one of its own."""
        rate = self._frames_rate
        if not self.login.is_required:
            return AccountBudget(f"without a login {next(self._numbers)}", Buckets(), rate, self._clock_s)
        return AccountBudget(caller.account, self._reads, max(rate, caller.principal.rate or rate), self._clock_s)

    def begin_reading(self, caller: Caller) -> AccountBudget:
        """Return the budget that a read counts against.

        Raises:
            RateLimited: the account has not earned yet what it has read before.
        """
        budget = self.budget(caller)
        debt_s = budget.spend(0)
        if debt_s > 0:
            raise RateLimited(f"{caller.principal.id} has read more than it may for now", debt_s)
        return budget


class FailedLogins:
    """Wrong credentials, tickets and codes of an address: after too many, it has to wait."""

    def __init__(self, per_minute: int, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._rate = Rate(per_minute / 60, per_minute)
        self._clock_s = clock_s
        self._buckets = Buckets()

    def wait_s(self, address: str) -> float:
        """Return for how many seconds an address has to wait; 0 if it may try now."""
        return self._buckets.wait_s(block_of(address), self._rate, 1, self._clock_s())

    def check(self, address: str) -> None:
        """Do nothing if an address may try a credential.

        Raises:
            RateLimited: too many of its credentials were wrong.
        """
        _refuse_for(self.wait_s(address), "too many failed logins")

    def count(self, address: str) -> None:
        """Count a wrong credential.

        Raises:
            RateLimited: the address had to wait already; this one is not counted.
        """
        wait_s = self._buckets.spend(block_of(address), self._rate, 1, self._clock_s())
        _refuse_for(wait_s, "too many failed logins")

    def take_back(self, address: str) -> None:
        """Count one less: it was not wrong."""
        self._buckets.refund(block_of(address), self._rate, 1, self._clock_s())


class PairingAttempts:
    """Pairing codes that are tried: each counts as a failed login of its address, and among those of all addresses.

    An attempt counts in advance, and is taken back if the code was good: a hundred codes that come at once are not all
    looked at before the first of them has counted.
    """

    _RATE = Rate(WRONG_CODES_PER_MINUTE / 60, WRONG_CODES_PER_MINUTE)

    def __init__(self, failed_logins: FailedLogins, clock_s: Callable[[], float]) -> None:
        """Begin without any; `clock_s` is a monotonic clock."""
        self._failed_logins = failed_logins
        self._clock_s = clock_s
        self._of_all = Buckets()

    def begin(self, address: str) -> None:
        """Count an attempt as if its code was wrong, until `end` is called.

        Raises:
            RateLimited: too many codes of this address, or of all addresses, were wrong.
        """
        all_wait_s = self._of_all.wait_s(_ALL, self._RATE, 1, self._clock_s())
        _refuse_for(max(self._failed_logins.wait_s(address), all_wait_s), "too many codes were wrong")
        self._failed_logins.count(address)
        self._of_all.spend(_ALL, self._RATE, 1, self._clock_s())

    def end(self, address: str, *, was_good: bool) -> None:
        """Take an attempt back if its code was good."""
        if was_good:
            self._failed_logins.take_back(address)
            self._of_all.refund(_ALL, self._RATE, 1, self._clock_s())


def _refuse_for(wait_s: float, why: str) -> None:
    if wait_s > 0:
        raise RateLimited(f"{why}; try again in {math.ceil(wait_s)} s", wait_s) from None
