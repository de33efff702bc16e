"""Leases: the connections that are admitted, counted by address and by identity.

A lease is in one of three states, and `principal` and `Leases` tell which:

| state | `principal` | counted | leads to |
|---|---|---|---|
| unauthenticated | None | by address, and among the unauthenticated | assigned; over |
| assigned | its identity's | by address and identity | assigned (renewed); over |
| over | the last one | no longer | |

It begins unauthenticated for a WebSocket that sends its credential as a message, since browsers cannot send it in the
handshake; such a lease has `auth_timeout_s` for it. `present` with a good credential assigns it. All others are
assigned when they are admitted. `present` again renews an assigned lease: same identity and rights, another expiry;
what else its principal decided (the subscription, the groups of the fan-out) is not decided again.

The server ends a lease by `end`, with the reason: the timeout, a credential that expired or was revoked. That only
tells the owner, which still has answers to send and a socket to close. The lease is over when its owner calls
`release`, whether or not it was ended: a connection counts for as long as it exists.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from twincast.access.addresses import block_of, is_exempt
from twincast.access.limits import Bounds, RateLimits
from twincast.access.rates import STEPS_A_UNIT, AccountBudget
from twincast.access.request import Caller
from twincast.core.audit import Actor
from twincast.core.rights import Principal
from twincast.errors import NotPermitted, Stopping, TooManyConnections, TwincastError, Unauthenticated

End = Callable[[TwincastError], None]
"""Ends a connection, which is no longer admitted, with the reason."""
logger = logging.getLogger("twincast.admission")
_numbers = itertools.count(1)


class Lease:
    """An admitted connection. Its owner calls `release` when it is over; `end` tells the owner to end it."""

    __slots__ = (
        "_budget",
        "_end",
        "_leases",
        "_limits",
        "_login_timer",
        "_paid_at_s",
        "address",
        "block",
        "number",
        "principal",
    )

    def __init__(self, leases: "Leases", address: str, block: str, end: End) -> None:
        self._leases = leases
        self._limits = leases.limits
        self._end = end
        self._budget: AccountBudget | None = None  # most connections read nothing that costs
        self._paid_at_s = 0.0
        self._login_timer: asyncio.TimerHandle | None = None
        self.address = address
        self.block = block
        """What the address counts as; see `block_of`."""
        self.number = next(_numbers)
        """Stands in the log, in all lines about this connection."""
        self.principal: Principal | None = None
        """Whose connection it is; None while it is unauthenticated."""

    @property
    def actor(self) -> Actor:
        """What the audit trail records."""
        assert self.principal is not None
        return Actor(self.principal.id, self.address)

    def present(self, text: str) -> Principal:
        """Assign the lease by a credential, or renew it by a new one of the same principal.

        Raises:
            Unauthenticated: the credential is not good.
            NotPermitted: it has another identity or other rights than the lease; that needs a new connection.
            RateLimited: too many credentials of this address were wrong.
            TooManyConnections: of this identity.
        """
        principal = self._leases.login(text, self.address)
        if self.principal is None:
            self._leases.assign(self, principal)
        elif (principal.id, principal.rights) != (self.principal.id, self.principal.rights):
            raise NotPermitted("a renewal keeps identity and rights; a new connection takes others")
        self.principal = principal
        self._stop_timer()
        return principal

    def charge(self, updates: int, frames: int) -> float:
        """See Lease in delivery/ports."""
        limits = self._limits
        wait_s = limits.charge(self.principal, self.block, updates, frames) if limits.login.is_required else 0.0
        return max(wait_s, self._reading_wait_s()) if self._paid_at_s else wait_s

    @property
    def account(self) -> str:
        """See Budget in delivery/scheduler."""
        return self._own_budget().account

    def spend(self, steps: int) -> float:
        """See Budget in delivery/scheduler.

        The connection is not read until the time has passed in which its account earns what this connection spent, or
        until the account has no debt. Reads below one unit are free before the first that costs more: most connections
        ask for nothing else, so they need no budget.
        """
        if self._budget is None and steps < STEPS_A_UNIT:
            return 0.0
        budget = self._own_budget()
        self._paid_at_s = max(self._paid_at_s, budget.now_s) + budget.seconds(steps)
        return budget.spend(steps)

    def _reading_wait_s(self) -> float:
        budget = self._own_budget()
        own_s = self._paid_at_s - budget.now_s
        if own_s <= 0:
            self._paid_at_s = 0.0
            return 0.0
        return min(own_s, budget.spend(0))

    def _own_budget(self) -> AccountBudget:
        if self._budget is None:
            assert self.principal is not None
            self._budget = self._limits.budget(Caller(self.principal, self.address))
        return self._budget

    def end_unless_assigned(self, timeout_s: float) -> None:
        """End the lease after a time, unless it is assigned by then."""
        self._login_timer = asyncio.get_running_loop().call_later(timeout_s, self._time_out)

    def _time_out(self) -> None:
        self._login_timer = None
        self.end(Unauthenticated("nobody said who this is in time: the first message is `auth`, with a `token`"))

    def _stop_timer(self) -> None:
        if self._login_timer is not None:
            self._login_timer.cancel()
            self._login_timer = None

    def end(self, error: TwincastError) -> None:
        """Tell the owner to end the connection."""
        self._end(error)

    def release(self) -> None:
        """Count the connection no longer: it is over. May be called again."""
        self._stop_timer()
        self._leases.release(self)


class ConnectionsElsewhere(Protocol):
    """How many connections other servers on the same log have, as of about a second ago; see core/peers."""

    def of_identity(self, identity: str) -> int:
        """Return how many are of an identity."""

    def of_address(self, block: str) -> int:
        """Return how many come from an address; see `block_of`."""


class Leases:
    """All leases that are not over."""

    def __init__(self, bounds: Bounds, limits: RateLimits, login: Callable[[str, str], Principal]) -> None:
        """Begin without leases.

        Args:
            bounds: how many there may be.
            limits: counts what is sent and read under a lease.
            login: returns the principal of a credential that comes from an address, or raises.
        """
        self._bounds = bounds
        self._leases: dict[Lease, None] = {}
        self._by_block: Counter[str] = Counter()
        self._by_identity: Counter[str] = Counter()
        self._unauthenticated_count = 0
        self.is_closed = False
        """Whether no connection is admitted any more: the server stops, and has its clients go elsewhere."""
        self.elsewhere: ConnectionsElsewhere | None = None
        """Of several servers on one log, what the others have; those connections count here too."""
        self.limits = limits
        self.login = login

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        """Iterate over the leases of this moment; they may be released meanwhile."""
        return iter(tuple(self._leases))

    def admit(self, caller: Caller, end: End) -> Lease:
        """Return a lease that is assigned.

        Raises:
            TooManyConnections: from this address, or of this identity.
            Stopping: the server is about to stop.
        """
        lease = self._new(caller.address, end)
        try:
            self.assign(lease, caller.principal)
        except TooManyConnections:
            lease.release()
            raise
        return lease

    def admit_unauthenticated(self, address: str, end: End) -> Lease:
        """Return a lease that is not assigned yet; it has `auth_timeout_s` for that.

        Raises:
            TooManyConnections: from this address, or unauthenticated ones from all addresses.
            Stopping: the server is about to stop.
        """
        if self._unauthenticated_count >= self._bounds.unauthenticated_max:
            raise TooManyConnections(f"{self._unauthenticated_count} connections have not said yet who they are")
        lease = self._new(address, end)
        lease.end_unless_assigned(self._bounds.auth_timeout_s)
        return lease

    def assign(self, lease: Lease, principal: Principal) -> None:
        """Assign an unauthenticated lease to a principal.

        Raises:
            TooManyConnections: of this identity.
        """
        identity = principal.identity
        if identity:
            if self._of_identity(identity) >= self._bounds.identity_connections_max:
                raise TooManyConnections(
                    f"{identity} has {self._bounds.identity_connections_max} connections, as many as it may"
                )
            self._by_identity[identity] += 1
        self._unauthenticated_count -= 1
        lease.principal = principal
        logger.info("connection %d is of %s from %s", lease.number, principal.id, lease.address)

    def release(self, lease: Lease) -> None:
        """Count a lease no longer. May be called again."""
        if lease not in self._leases:
            return
        del self._leases[lease]
        logger.info("connection %d is over", lease.number)
        _uncount(self._by_block, lease.block)
        if lease.principal is None:
            self._unauthenticated_count -= 1
        elif lease.principal.identity:
            _uncount(self._by_identity, lease.principal.identity)

    def by_identity(self) -> dict[str, int]:
        """Return how many connections each identity has here."""
        return dict(self._by_identity)

    def by_address(self) -> dict[str, int]:
        """Return how many connections come from each address that is counted; see `block_of`."""
        return {block: count for block, count in self._by_block.items() if "/" in block or not is_exempt(block)}

    def _of_identity(self, identity: str) -> int:
        here = self._by_identity[identity]
        return here if self.elsewhere is None else here + self.elsewhere.of_identity(identity)

    def _of_address(self, block: str) -> int:
        here = self._by_block[block]
        return here if self.elsewhere is None else here + self.elsewhere.of_address(block)

    def _new(self, address: str, end: End) -> Lease:
        if self.is_closed:
            raise Stopping("this server is about to stop; the others on its log take you")
        block = block_of(address)
        if not is_exempt(address) and self._of_address(block) >= self._bounds.address_connections_max:
            raise TooManyConnections(
                f"{self._bounds.address_connections_max} connections come from this address, as many as may"
            )
        if block == address:
            block = address  # one text for both
        lease = Lease(self, address, block, end)
        self._by_block[block] += 1
        self._unauthenticated_count += 1
        self._leases[lease] = None
        return lease


def _uncount(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
