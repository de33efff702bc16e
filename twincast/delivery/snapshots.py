"""The hello of a client, and the snapshot behind it: made once for all clients that connect at about the same time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw

from twincast.core.model import Position
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cache import Cache
from twincast.delivery.cast import Cast
from twincast.delivery.parts import Part, StateParts
from twincast.wire.messages import Hello, SizeLimits, SnapshotPage, encode

SHARED_FROM_DEVICES = 1_000
"""From how many devices on a snapshot is shared. Below, it takes less than a millisecond, and is always the newest."""
STALE_DIVISOR = 8
"""Reuse a snapshot until it is `devices / 8` entries old: sending those is cheaper than encoding it again."""
SHARED_MAX_S = 1.0
"""How long a snapshot is shared, so that its time is not far from the truth."""
SHARED_MAX = 16
"""How many snapshots are shared: clients that connect together have few different subscriptions."""
PARTS_MAX_BYTES = 32 * 1024 * 1024
"""How much the encoded parts of shared snapshots may take; the parts beyond are encoded again."""


class Page(NamedTuple):
    """One message of a snapshot, and what in it is newer than the snapshot's position; see StateParts."""

    cast: Cast
    is_last: bool
    newer: Mapping[str, int]


class InitialSnapshot:
    """The state of some devices in messages, and the position behind which the stream goes on."""

    def __init__(self, parts: StateParts, wrap: Callable[[int, Part], Cast], cache: Cache["_Key", "_Made"] | None):
        """Make messages of a state in parts.

        Args:
            parts: the state.
            wrap: makes a message of the part that begins at a place.
            cache: keeps messages for other clients; None if only one client is sent this snapshot.
        """
        self.seq = parts.seq
        self._parts = parts
        self._wrap = wrap
        self._cache = cache

    def pages(self) -> Iterator[Page]:
        """Yield the messages in order, each encoded when it is asked for."""
        start, is_last = 0, False
        while not is_last:
            page, start = self._page(start)
            is_last = page.is_last
            yield page

    def _page(self, start: int) -> "_Made":
        made = self._cache.get((self._parts, start)) if self._cache is not None else None
        if made is None:
            part = self._parts.part(start)
            made = Page(self._wrap(start, part), part.is_last, part.newer), part.end
            if self._cache is not None:
                self._cache.keep((self._parts, start), made, 2 * made[0].cast.size_bytes)  # the message and its frame
        return made


_Key = tuple[StateParts, int]
_Made = tuple[Page, int]


class _Shared(NamedTuple):
    snapshot: InitialSnapshot
    made_s: float
    stale_max: int


class SnapshotCache:
    """Makes snapshots and shares them: a fleet that reconnects is sent one and the same bytes."""

    def __init__(
        self,
        state: State,
        now_utc: Callable[[], str],
        clock_s: Callable[[], float],
        sizes: SizeLimits,
        *,
        part_max_bytes: int = 256 * 1024,
    ) -> None:
        """Make snapshots.

        Args:
            state: what they show.
            now_utc: the time, as text.
            clock_s: a monotonic clock.
            sizes: what the hello says of how large messages may be.
            part_max_bytes: how much of the state one message holds; what is more comes in `snapshot` messages.
        """
        self._state = state
        self._now_utc = now_utc
        self._clock_s = clock_s
        self._sizes = sizes
        self._part_max_bytes = part_max_bytes
        self._shared: dict[tuple[Subscription, int, str, bool], _Shared] = {}
        self._cache: Cache[_Key, _Made] = Cache(PARTS_MAX_BYTES)
        self._newest: dict[Subscription, StateParts] = {}
        self._texts: Cache[_Key, Part] = Cache(PARTS_MAX_BYTES)
        self.encoded_count = 0
        """How many parts of snapshots were encoded."""

    def resumed(self, subscription: Subscription, since: int, ordered: bool) -> Cast:
        """Return the hello of a client that resumes behind its own position."""
        state = self._state
        hello = Hello(
            "connected",
            self._now_utc(),
            state.epoch,
            since,
            True,
            subscription.described(),
            Raw(b"{}"),
            limits=self._sizes,
            ordered=ordered or msgspec.UNSET,
        )
        return Cast((encode(hello),), cursor=Position(state.epoch, since))

    def shared(self, subscription: Subscription, page_size: int, reason: str, ordered: bool) -> InitialSnapshot | None:
        """Return the snapshot that `fresh` made for another client a moment ago; None if there is none.

        It may be some entries old; the client goes on behind its `seq`.
        """
        key = (subscription, page_size, reason, ordered)
        shared = self._shared.get(key)
        if shared is not None:
            age = self._state.seq - shared.snapshot.seq
            if age <= shared.stale_max and self._clock_s() - shared.made_s <= SHARED_MAX_S:
                return shared.snapshot
            del self._shared[key]
        return None

    def fresh(
        self, subscription: Subscription, names: Sequence[str], page_size: int, reason: str, ordered: bool
    ) -> InitialSnapshot:
        """Return hello and the state that a subscription selects, in pages of up to `page_size`; 0 for any size.

        Args:
            subscription: what the client wants.
            names: the devices that it selects; the sequence must not change.
            page_size: how many devices a page holds.
            reason: why the client cannot go on from where it was.
            ordered: what the hello says of the client's own updates.
        """
        key = (subscription, page_size, reason, ordered)
        parts = self._cut(names, page_size)
        devices = len(parts.names)
        hello = self._hello(subscription, reason, ordered)
        snapshot = InitialSnapshot(
            parts,
            lambda start, part: self._wrap(parts.seq, part, None if start else hello),
            self._cache if devices >= SHARED_FROM_DEVICES else None,
        )
        if devices >= SHARED_FROM_DEVICES:
            while len(self._shared) >= SHARED_MAX:
                del self._shared[next(iter(self._shared))]
            self._shared[key] = _Shared(snapshot, self._clock_s(), devices // STALE_DIVISOR)
        return snapshot

    def part_of_state(self, names: Sequence[str], page_size: int) -> InitialSnapshot:
        """Return the state of some devices as it is now, in `snapshot` messages."""
        parts = self._cut(names, page_size)
        return InitialSnapshot(parts, lambda _, part: self._wrap(parts.seq, part, None), None)

    def texts(self, subscription: Subscription, names: Sequence[str]) -> Iterator[bytes]:
        """Yield the state of the devices that a subscription selects as one JSON object, in pieces.

        Each piece is encoded when it is asked for, so a twin may be newer than the state was at the first piece.
        """
        parts = self._newest.get(subscription)
        if parts is None or parts.seq != self._state.seq:
            self._newest.pop(subscription, None)
            while len(self._newest) >= SHARED_MAX:
                del self._newest[next(iter(self._newest))]
            parts = self._newest[subscription] = self._cut(names, 0)
        part = self._text(parts, 0)
        if part.is_last:
            yield part.text
            return
        yield part.text[:-1]
        while not part.is_last:
            part = self._text(parts, part.end)
            inside = part.text[1:-1]
            yield b",%b%b" % (inside, b"}" * part.is_last) if inside else b"}" * part.is_last

    def _text(self, parts: StateParts, start: int) -> Part:
        part = self._texts.get((parts, start))
        if part is None:
            self.encoded_count += 1
            part = parts.part(start)
            self._texts.keep((parts, start), part, len(part.text))
        return part

    def _cut(self, names: Sequence[str], page_size: int) -> StateParts:
        return StateParts(self._state, names, max_devices=page_size, max_bytes=self._part_max_bytes)

    def _hello(self, subscription: Subscription, reason: str, ordered: bool) -> Hello:
        state = self._state
        return Hello(
            "connected",
            self._now_utc(),
            state.epoch,
            state.seq,
            False,
            subscription.described(),
            Raw(b"{}"),
            reason or msgspec.UNSET,
            limits=self._sizes,
            ordered=ordered or msgspec.UNSET,
        )

    def _wrap(self, seq: int, part: Part, hello: Hello | None) -> Cast:
        """Make a message of a part: the `hello` of the first part, a `snapshot` of the others."""
        self.encoded_count += 1
        epoch, twins = self._state.epoch, Raw(part.text)
        more = msgspec.UNSET if part.is_last else True
        message = (
            SnapshotPage(epoch, seq, twins, more)
            if hello is None
            else msgspec.structs.replace(hello, data_snapshot=twins, more=more)
        )
        return Cast((encode(message),), cursor=Position(epoch, seq) if part.is_last else None)
