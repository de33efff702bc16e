"""This server as one of several on a log: what it tells the others, and what it makes of what they tell.

Connections and updates of an identity count on all servers together, tickets of one are good at another, and servers
that make different things of the log notice it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from twincast.access.admission import Admission
from twincast.cluster.peers import Peers
from twincast.cluster.tickets import SharedTickets
from twincast.cluster.trimming import StreamTrim
from twincast.core.checks import Checks
from twincast.core.peers import NOTHING_SENT, Heartbeat, Member, differing, in_order
from twincast.errors import JournalUnavailable
from twincast.journal.jetstream.link import Link

logger = logging.getLogger("twincast.cluster")

SILENT_S = 3.0
"""After so long without the stream what is read may be old, and the status says so."""


@dataclass(frozen=True, kw_only=True)
class Self:
    """What does not change of a server while it runs."""

    id: str
    """Of this run."""
    name: str
    version: str
    fold: int
    since_utc: str
    settings: str
    """See Heartbeat."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a server is at the moment."""

    epoch: str
    seq: int
    stream_seq: int
    stored_stream_seq: int
    silent_s: float
    """For how long the stream has not been heard; 0 while it is."""
    clients: int
    is_ready: bool


class Membership:
    """One server among those on a log; see Servers in core/peers. Lives on one event loop; `run` drives it."""

    def __init__(
        self,
        link: Link,
        log_name: str,
        own: Self,
        standing: Callable[[], Standing],
        *,
        admission: Admission,
        checks: Checks,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it; `run` starts it.

        Args:
            link: the connection to NATS; its owner closes it.
            log_name: of the shared log.
            own: what this server is.
            standing: returns how far it is.
            admission: counts what other servers report, and asks them about their tickets.
            checks: the sums of what this server made of the log.
            clock_s: a monotonic clock.
        """
        self._own = own
        self._standing = standing
        self._checks = checks
        self._limits, self._leases = admission.limits, admission.leases
        self.peers = Peers(link, log_name, own.id, self._tell, clock_s=clock_s)
        """The others; what one server does for all is done by the one whose `peers.is_first`."""
        self.copied: Callable[[], Coroutine[Any, Any, BinaryIO]] = _no_copy
        """See Servers."""
        self.trim: StreamTrim | None = None
        """Trims the stream while this runs."""
        self._tickets = SharedTickets(link, log_name, admission.tickets, self.peers)
        self._differs: dict[str, str] = {}
        self._warned: set[str] = set()
        self._is_leaving = False
        self._sent_elsewhere = NOTHING_SENT
        self.sent_here: Callable[[], int] = _nothing_sent
        """Returns up to which position this server has sent on NATS's subjects; see transports/nats."""
        self.peers.on_heard.append(self._hear)
        self.peers.on_gone.append(self._forget)
        self._limits.tell_others()
        self._leases.elsewhere = self

    async def run(self) -> None:
        """Take part, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.peers.run(), name="heartbeats")
            group.create_task(self._tickets.run(), name="tickets of other servers")
            if self.trim is not None:
                group.create_task(self.trim.run(), name="trimming of the stream")

    async def leave(self) -> None:
        """Tell the others that this server is about to stop. Returns at once if NATS cannot be reached."""
        self._is_leaving = True
        await self.peers.leave()

    @property
    def others_stay(self) -> bool:
        """See Servers."""
        return any(not member.heartbeat.leaving for member in self.peers.live.others(self.peers.now_s))

    @property
    def own_id(self) -> str:
        """See Servers."""
        return self._own.id

    @property
    def problem(self) -> str:
        """See Servers."""
        return next(iter(self._differs.values()), "")

    @property
    def as_of_utc(self) -> str | None:
        """See Servers."""
        silent_s = self._standing().silent_s
        if silent_s < SILENT_S:
            return None
        return datetime.fromtimestamp(time.time() - silent_s, UTC).isoformat(timespec="milliseconds")

    def members(self) -> list[Member]:
        """See Servers."""
        now_s = self.peers.now_s
        return in_order([*self.peers.live.others(now_s), Member(self._told({}), now_s)])

    def clients_elsewhere(self) -> int:
        """See Servers."""
        return self.peers.live.clients_elsewhere(self.peers.now_s)

    def heard_s_ago(self, member: Member) -> float:
        """See Servers."""
        return self.peers.now_s - member.heard_s

    def behind_s(self, seq: int) -> float:
        """See Servers."""
        return self.peers.live.behind_s(seq, self.peers.now_s)

    @property
    def is_first(self) -> bool:
        """Whether this server does what one server does for all."""
        return self.peers.is_first

    @property
    def sent(self) -> int:
        """Up to which position NATS's subjects have everything, whichever server sent it, as far as this one heard.

        The one that sends may be gone: each server tells of the newest position that it heard of.
        """
        return max(self.sent_here(), self._sent_elsewhere)

    def of_identity(self, identity: str) -> int:
        """See ConnectionsElsewhere in access/leases."""
        return self.peers.live.of_identity(identity, self.peers.now_s)

    def of_address(self, block: str) -> int:
        """See ConnectionsElsewhere in access/leases."""
        return self.peers.live.of_address(block, self.peers.now_s)

    def _tell(self) -> Heartbeat:
        return self._told(self._limits.take_spent())

    def _told(self, spent: dict[str, int]) -> Heartbeat:
        own, now = self._own, self._standing()
        return Heartbeat(
            id=own.id,
            name=own.name,
            version=own.version,
            fold=own.fold,
            since_utc=own.since_utc,
            epoch=now.epoch,
            seq=now.seq,
            stream_seq=now.stream_seq,
            stored_stream_seq=now.stored_stream_seq,
            checks=self._checks.told(),
            clients=now.clients,
            by_identity=self._leases.by_identity(),
            by_address=self._leases.by_address(),
            spent=dict(spent),
            settings=own.settings,
            ready=now.is_ready,
            leaving=self._is_leaving,
            sent=self.sent,
        )

    def _hear(self, heartbeat: Heartbeat) -> None:
        self._limits.spend_elsewhere(heartbeat.spent)
        if heartbeat.epoch == self._standing().epoch:
            self._sent_elsewhere = max(self._sent_elsewhere, heartbeat.sent)
        if heartbeat.settings != self._own.settings and heartbeat.id not in self._warned:
            self._warned.add(heartbeat.id)
            logger.warning(
                "server %s has other settings: limits, rates and --jwt-… should be the same on all servers",
                heartbeat.name or heartbeat.id,
            )
        place = differing(self._checks, self._standing().epoch, heartbeat)
        if place is not None and heartbeat.id not in self._differs:
            text = (
                f"this server and {heartbeat.name or heartbeat.id} made different things of the log, up to message"
                f" {place} of the stream: one of them is wrong. Stop the one that a third server differs from, or both;"
                " see that all run one version; remove the copy of the one that was wrong, and start it again"
            )
            self._differs[heartbeat.id] = text
            logger.critical(text)

    def _forget(self, server_id: str) -> None:
        self._warned.discard(server_id)
        if self._differs.pop(server_id, ""):
            logger.warning(
                "the server that made something else of the log is gone; whether this one was right, see there"
            )


async def _no_copy() -> BinaryIO:
    raise JournalUnavailable("this server has no copy of the log")


def _nothing_sent() -> int:
    return NOTHING_SENT
