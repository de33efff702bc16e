"""What goes out to NATS: every entry that the key may read, once it is durable, as the event that watchers receive."""

import asyncio
from functools import lru_cache, partial
from typing import Any

import msgspec

from twincast.core.model import KINDS, Entry, Position
from twincast.core.subscription import EVERYWHERE, rules_of, subscription_to
from twincast.delivery.cast import Cast
from twincast.delivery.feed import Feed
from twincast.delivery.scheduler import Unmetered
from twincast.errors import FellBehind, JournalUnavailable, TwincastError
from twincast.hub.hub import Hub
from twincast.transports.nats import Counters, Link
from twincast.transports.nats.outlet import Outlet
from twincast.wire.subjects import KNOWN_MAX, subject_of

OUTBOX_MAX_BYTES = 1 << 20
"""What may wait, in memory, for NATS to take more; beyond it the log is read again."""
_EVERY_KIND = rules_of(EVERYWHERE, KINDS)


class Outgoing:
    """Follows the hub as any client does, in mode `every`, and sends what comes. One run at a time."""

    def __init__(self, hub: Hub, link: Link, outlet: Outlet, prefix: str, counters: Counters) -> None:
        """Send nothing yet.

        Args:
            hub: what is followed.
            link: says how large a message may be.
            outlet: sends.
            prefix: what all subjects begin with, `twincast.NAME`.
            counters: where it is counted.
        """
        self._hub = hub
        self._link = link
        self._outlet = outlet
        self._counters = counters
        self._head = lru_cache(maxsize=KNOWN_MAX)(partial(_head, prefix))
        self._feed: Feed | None = None
        self._end = asyncio.Event()
        self._why: TwincastError | None = None

    @property
    def seq(self) -> int:
        """Up to which position NATS has everything for certain; NOTHING_SENT if nothing was ever to be sent."""
        feed, outlet = self._feed, self._outlet
        if feed is None or self._end.is_set() or feed.position is None or outlet.confirmed_seq != outlet.sent_seq:
            return outlet.confirmed_seq
        return max(outlet.confirmed_seq, feed.position.seq)  # nothing of what came since is for this key

    def owe_nothing(self) -> None:
        """Begin with what is stored from now on: what was stored until now goes out to nobody."""
        self._outlet.begin_behind(self._hub.state.seq)

    async def run(self, readable: frozenset[str], since: int) -> None:
        """Send what follows a position, until cancelled. What the log no longer has is passed over, and counted.

        Args:
            readable: patterns of the devices whose entries go out.
            since: the position; at most that of the hub.

        Raises:
            JournalUnavailable: there is no connection, or the log cannot be read; `seq` is where to go on.
            TwincastError: what it was cut off with.
        """
        subscription = subscription_to(_EVERY_KIND, "every").inside(readable)
        self._outlet.begin_behind(since)
        while True:
            since = self._reachable(since)
            self._end.clear()
            self._why = None
            feed = self._feed = Feed(
                self._write, self._hub, self._stop, budget=Unmetered("nats"), outbox_max_bytes=OUTBOX_MAX_BYTES
            )
            self._outlet.on_room, self._outlet.on_loss = self._resume, self._lose
            try:
                feed.begin(subscription, since=Position(self._hub.state.epoch, since))
                await self._end.wait()
            finally:
                feed.close()
                self._feed = None
            if self._why is not None and not isinstance(self._why, FellBehind):  # behind which the log is read again
                raise self._why
            since = self._outlet.sent_seq

    def cut_off(self, error: TwincastError) -> None:
        """Send nothing more, from now on; `run` raises the error."""
        self._stop(error)

    def _reachable(self, since: int) -> int:
        """Return a position, or the newest one if the log cannot be read back to it."""
        state = self._hub.state
        if not self._hub.why_not_resume(Position(state.epoch, since)):
            return since
        self._pass_over(since, state.seq)
        return state.seq

    def _write(self, cast: Cast) -> None:
        if not cast.entries:
            self._hear(cast)
            return
        parts: list[bytes] = []
        max_bytes = self._link.max_payload_bytes
        for entry, message in zip(cast.entries, cast.messages, strict=True):
            if len(message) > max_bytes:
                self._counters.pass_over(1, f"entry {entry.seq} has {len(message)} bytes, and NATS takes {max_bytes}")
                continue
            parts += (self._head(_word(entry), entry.subject), b"%d\r\n" % len(message), message, b"\r\n")
        try:
            self._outlet.send(b"".join(parts), cast.entries[-1].seq)
        except JournalUnavailable as error:
            self._stop(error)
            return
        self._counters.sent += len(parts) // 4
        if self._outlet.is_full:
            self._pause()

    def _hear(self, cast: Cast) -> None:
        """Take what is said beside the entries: of a gap it begins again, for the state that follows is for no one."""
        message: dict[str, Any] = msgspec.json.decode(cast.messages[0])
        if message["type"] == "gap" and not self._end.is_set():
            self._pass_over(message["from"] - 1, message["to"])
            self._stop(None)

    def _stop(self, error: TwincastError | None) -> None:
        """Have the feed closed; it may be in the middle of writing, so nothing but its pause happens here."""
        self._why = error
        self._end.set()
        self._pause()

    def _lose(self) -> None:
        self._stop(JournalUnavailable("the connection to NATS was lost"))

    def _pause(self) -> None:
        if self._feed is not None:
            self._feed.sender.pause()

    def _resume(self) -> None:
        if self._feed is not None and not self._end.is_set():
            self._feed.sender.resume()

    def _pass_over(self, since: int, until: int) -> None:
        self._counters.pass_over(until - since, f"the log is no longer read back from {since} to {until}")
        self._outlet.skip_to(until)


def _head(prefix: str, word: str, name: str) -> bytes:
    """Return how the protocol's line begins, up to the size."""
    return f"PUB {prefix}.{word}.{subject_of(name)} ".encode()


def _word(entry: Entry) -> str:
    """Return what stands before a device or target in the subject: the state of devices is data, all else its kind."""
    return "data" if entry.changes_twin else entry.kind
