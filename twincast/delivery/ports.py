"""What a session needs of its surroundings: a connection to write to, a lease to charge, a hub to submit to."""

from collections.abc import Sequence
from typing import Protocol

from twincast.core.audit import Actor
from twincast.core.batch import Lane
from twincast.core.idempotency import IdempotencyKey, OnCommitted
from twincast.core.model import DataUpdate, Entry
from twincast.core.producers import NumberedLine
from twincast.core.rights import Principal
from twincast.delivery.cast import Cast
from twincast.delivery.scheduler import Budget
from twincast.delivery.stream import Stream
from twincast.wire.messages import SizeLimits


class Connection(Protocol):
    """What an edge gives to a session."""

    def write(self, cast: Cast) -> None:
        """Send messages. May call `pause` of the session before it returns."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and end the connection."""


class Hub(Stream, Protocol):
    """What a session needs of the hub: a stream, and what the client's own entries are submitted to."""

    sizes: SizeLimits

    def submit(
        self,
        entry: Entry,
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> None:
        """Take one entry into the open batch; `done` is called when its fate is known."""

    def submit_together(
        self,
        readings: Sequence[DataUpdate],
        size_bytes: int,
        done: OnCommitted,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> bool:
        """Take readings of one client into the open batch, and return whether they were; if not, submit each."""

    def submit_all(
        self,
        entries: Sequence[Entry],
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
        line: NumberedLine | None = None,
    ) -> None:
        """Take entries into the open batch, all or none of them; one entry, if it is a numbered line."""

    def now_utc(self) -> str:
        """Return the time, in ISO 8601 with offset."""


class Lease(Budget, Protocol):
    """An admitted client: who it is, and what its work is charged to."""

    principal: Principal | None

    @property
    def actor(self) -> Actor:
        """What the audit trail notes."""

    def present(self, text: str) -> Principal:
        """Say who this is by a credential, or renew the one that it was before."""

    def charge(self, updates: int, frames: int) -> float:
        """Count what came against the rates, and return for how many seconds no more should be read of this client.

        Args:
            updates: readings and commands.
            frames: everything that came, those too; also pings, for they cost work as well.
        """

    def release(self) -> None:
        """Note that the connection is over. May be called again."""
