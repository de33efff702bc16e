"""What servers on one log tell each other each second, and the list of those that live. Pure.

A server is on the list from its first heartbeat until FORGET_S after its last one. All servers that hear the same
heartbeats have the same list in the same order, so the first of it may do what one has to do for all.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Struct

from twincast.core.checks import Checks

HEARTBEAT_S = 1.0
FORGET_S = 3.0
"""After so long without a heartbeat a server is no longer on the list."""
COUNTED_S = 1.5
"""After so long a server's connections no longer count against the limits: if it was killed, its clients are elsewhere
already, and must not be refused because of those that they had there."""
NAMES_MAX = 1_000
"""Of how many identities and addresses a heartbeat tells: those with the highest counts, which limits are about."""
HEARTBEAT_MAX_BYTES = 256 * 1024
"""A heartbeat is made shorter than this, and than what NATS takes: names may be long."""
HEADS_KEPT = 120
NOTHING_SENT = -1
"""Instead of a position, where nothing was sent on NATS's subjects."""
N = TypeVar("N", int, float)


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a server says of itself. Servers of other versions may leave out what has a default, and add more."""

    id: str
    """Of one run of a server."""
    name: str = ""
    """Of the server, as its owner calls it."""
    version: str = ""
    fold: int = 0
    """The version of the rules by which it reads the log; see journal/jetstream/fold."""
    since_utc: str = ""
    """When it started."""
    epoch: str = ""
    seq: int = 0
    """The newest position that its clients can read."""
    stream_seq: int = 0
    """How far it has read the stream."""
    stored_stream_seq: int = 0
    """How far its copy has."""
    checks: dict[int, int] = {}
    """Sums by place; see core/checks."""
    clients: int = 0
    """WebSocket clients that are connected here."""
    by_identity: dict[str, int] = {}
    """Connections by identity."""
    by_address: dict[str, int] = {}
    """Connections by address; see `block_of` in access/addresses."""
    spent: dict[str, float] = {}
    """Updates since the heartbeat before, of identities that have a rate."""
    settings: str = ""
    """A digest of the settings that should be the same on all servers."""
    ready: bool = True
    """Whether what it accepts now is stored."""
    leaving: bool = False
    """Whether it is about to stop, and has its clients go to other servers."""
    sent: int = NOTHING_SENT
    """Up to which position NATS's subjects have everything, as far as it knows; see transports/nats."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Heartbeat).decode


def encode_heartbeat(heartbeat: Heartbeat, max_bytes: int = HEARTBEAT_MAX_BYTES) -> bytes:
    """Return a heartbeat as text, with as many of the highest counts as fit."""
    text = _encode(heartbeat)
    names_max = NAMES_MAX
    longest = max(len(heartbeat.by_identity), len(heartbeat.by_address), len(heartbeat.spent))
    while (longest > names_max or len(text) > max_bytes) and names_max:
        text = _encode(
            msgspec.structs.replace(
                heartbeat,
                by_identity=_highest(heartbeat.by_identity, names_max),
                by_address=_highest(heartbeat.by_address, names_max),
                spent=_highest(heartbeat.spent, names_max),
            )
        )
        longest, names_max = 0, names_max // 2
    return text


def decode_heartbeat(text: bytes) -> Heartbeat | None:
    """Return a heartbeat; None if the text is none."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


class Member(NamedTuple):
    """A server of the list."""

    heartbeat: Heartbeat
    heard_s: float
    """When its newest heartbeat came, by the list's clock."""


def in_order(members: Iterable[Member]) -> list[Member]:
    """Return servers in the order in which they started, which is the same to all of them."""
    return sorted(members, key=lambda member: (member.heartbeat.since_utc, member.heartbeat.id))


class LiveList:
    """The servers on one log that live, this one among them. Times are of one monotonic clock, which the caller has."""

    def __init__(self, own_id: str) -> None:
        """Begin without any, not even this server."""
        self.own_id = own_id
        self._members: dict[str, Member] = {}
        self._heads: deque[tuple[int, float]] = deque(maxlen=HEADS_KEPT)  # the newest position, and since when

    def learn(self, heartbeat: Heartbeat, now_s: float) -> bool:
        """Take a server's newest heartbeat; return whether the server was not on the list."""
        self._forget(now_s)
        is_new = heartbeat.id not in self._members
        self._members[heartbeat.id] = Member(heartbeat, now_s)
        if not self._heads or heartbeat.seq > self._heads[-1][0]:
            self._heads.append((heartbeat.seq, now_s))
        return is_new

    def forget_all(self) -> None:
        """Begin anew: nobody was heard for a while, since there was no connection."""
        self._members.clear()

    def members(self, now_s: float) -> list[Member]:
        """Return the servers, in the order in which they started."""
        self._forget(now_s)
        return in_order(self._members.values())

    def others(self, now_s: float) -> list[Member]:
        """Return the other servers."""
        return [member for member in self.members(now_s) if member.heartbeat.id != self.own_id]

    def has(self, server_id: str, now_s: float) -> bool:
        """Whether a server is on the list."""
        self._forget(now_s)
        return server_id in self._members

    def first(self, now_s: float) -> str:
        """Return the id of the server that acts for all: the oldest that stays. Empty if there is none."""
        return next((each.heartbeat.id for each in self.members(now_s) if not each.heartbeat.leaving), "")

    def clients_elsewhere(self, now_s: float) -> int:
        """Return how many WebSocket clients are connected to the other servers."""
        return sum(member.heartbeat.clients for member in self.others(now_s))

    def of_identity(self, identity: str, now_s: float) -> int:
        """Return how many connections an identity has at other servers that stay, as far as they count."""
        return sum(heartbeat.by_identity.get(identity, 0) for heartbeat in self._counted(now_s))

    def of_address(self, block: str, now_s: float) -> int:
        """Return how many connections come from an address to other servers that stay, as far as they count."""
        return sum(heartbeat.by_address.get(block, 0) for heartbeat in self._counted(now_s))

    def head_seq(self) -> int:
        """Return the newest position that any server has told of."""
        return self._heads[-1][0] if self._heads else 0

    def behind_s(self, seq: int, now_s: float) -> float:
        """Return for how long there has been a position behind `seq`, as far as heartbeats tell; 0 if it is newest."""
        for head, since_s in self._heads:
            if head > seq:
                return max(0.0, now_s - since_s)
        return 0.0

    def _counted(self, now_s: float) -> Iterator[Heartbeat]:
        for own_id, (heartbeat, heard_s) in self._members.items():
            if own_id != self.own_id and not heartbeat.leaving and now_s - heard_s < COUNTED_S:
                yield heartbeat

    def _forget(self, now_s: float) -> None:
        silent = [own_id for own_id, member in self._members.items() if now_s - member.heard_s >= FORGET_S]
        for own_id in silent:
            del self._members[own_id]


class Servers(Protocol):
    """The servers on a shared log, as REST and the metrics show them."""

    @property
    def own_id(self) -> str:
        """The id of this server."""

    @property
    def problem(self) -> str:
        """Why this server is not well, as one of several; empty if it is."""

    def members(self) -> list[Member]:
        """Return the servers that live, this one as it is now."""

    def clients_elsewhere(self) -> int:
        """Return how many WebSocket clients are connected to the other servers."""

    def heard_s_ago(self, member: Member) -> float:
        """Return how old a server's newest heartbeat is."""

    def behind_s(self, seq: int) -> float:
        """Return for how long there has been a position behind `seq`."""

    @property
    def others_stay(self) -> bool:
        """Whether there is another server that clients can go to."""

    async def leave(self) -> None:
        """Tell the others that this server is about to stop."""

    async def copied(self) -> BinaryIO:
        """Return this server's copy of the log as of one moment, as an open file that nobody else has.

        Raises:
            JournalUnavailable: the disk does not take it, or does not give it.
        """

    @property
    def as_of_utc(self) -> str | None:
        """As of when what is read here certainly was the newest; None for now."""


def differing(checks: Checks, own_epoch: str, heartbeat: Heartbeat) -> int | None:
    """Return where in the stream another server made something else of it; None if nothing says so."""
    return checks.differs_at(heartbeat.checks) if heartbeat.epoch == own_epoch else None


def _highest(counts: Mapping[str, N], at_most: int) -> dict[str, N]:
    return dict(nlargest(at_most, counts.items(), key=lambda item: item[1]))
