"""What a client is told first: where it goes on, or the state, made once for all who come at about the same time."""

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
"""Below, a snapshot takes less than a millisecond, and is made for every client anew."""
STALE_PART = 8
"""A shared snapshot may be so many changes old as a part of its devices: sending those costs less than encoding it."""
SHARED_MAX_S = 1.0
SHARED_MAX = 16
"""How many shared greetings are kept: clients with the same subscription come together, kinds of them are few."""
PARTS_MAX_BYTES = 32 * 1024 * 1024
"""What all encoded parts that others may ask for take; more are encoded again."""


class Page(NamedTuple):
    """One message of a greeting, and what in it is newer than the greeting's position; see StateParts."""

    cast: Cast
    is_last: bool
    newer: Mapping[str, int]


class InitialSnapshot:
    """The first messages to a client, and the position behind which it goes on."""

    def __init__(self, parts: StateParts, wrap: Callable[[int, Part], Cast], cache: Cache["_Key", "_Made"] | None):
        """Make a greeting of a state in parts.

        Args:
            parts: the state.
            wrap: makes a message of the part that begins at a place.
            cache: keeps messages for others who take this greeting; None for one that nobody else takes.
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
    greeting: InitialSnapshot
    made_s: float
    stale_max: int


class SnapshotCache:
    """Makes and remembers greetings. A reconnecting fleet is told one and the same bytes."""

    def __init__(
        self,
        state: State,
        now_utc: Callable[[], str],
        clock_s: Callable[[], float],
        sizes: SizeLimits,
        *,
        part_max_bytes: int = 256 * 1024,
    ) -> None:
        """Make greetings.

        Args:
            state: what they tell.
            now_utc: the time, as text.
            clock_s: a monotonic clock.
            sizes: what clients are told of how large their messages may be.
            part_max_bytes: how much of the state one message holds; what is more comes in `snapshot` messages.
        """
        self._state = state
        self._now_utc = now_utc
        self._clock_s = clock_s
        self._sizes = sizes
        self._part_max_bytes = part_max_bytes
        self._shared: dict[tuple[Subscription, int, str, bool], _Shared] = {}
        self._cache: Cache[_Key, _Made] = Cache(PARTS_MAX_BYTES)
        self._now: dict[Subscription, StateParts] = {}
        self._texts: Cache[_Key, Part] = Cache(PARTS_MAX_BYTES)
        self.encoded_count = 0
        """How many parts of snapshots were encoded."""

    def resumed(self, subscription: Subscription, since: int, ordered: bool) -> Cast:
        """Return the hello of a client that goes on behind its own position."""
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

    def shared(self, subscription: Subscription, page: int, reason: str, ordered: bool) -> InitialSnapshot | None:
        """Return what `full` has made for others who came a moment ago.

        It may be some changes old; the client goes on behind its `seq`.
        """
        key = (subscription, page, reason, ordered)
        shared = self._shared.get(key)
        if shared is not None:
            age = self._state.seq - shared.greeting.seq
            if age <= shared.stale_max and self._clock_s() - shared.made_s <= SHARED_MAX_S:
                return shared.greeting
            del self._shared[key]
        return None

    def full(
        self, subscription: Subscription, names: Sequence[str], page: int, reason: str, ordered: bool
    ) -> InitialSnapshot:
        """Return hello and the state that a subscription selects, in pages of up to `page` devices; 0 for any number.

        Args:
            subscription: what the client wants.
            names: the devices that it selects; not changed by anybody.
            page: how many in a page.
            reason: why the client cannot go on from where it was.
            ordered: what the greeting says of the client's own updates.
        """
        key = (subscription, page, reason, ordered)
        parts = self._cut(names, page)
        devices = len(parts.names)
        hello = self._hello(subscription, reason, ordered)
        greeting = InitialSnapshot(
            parts,
            lambda start, part: self._wrap(parts.seq, part, None if start else hello),
            self._cache if devices >= SHARED_FROM_DEVICES else None,
        )
        if devices >= SHARED_FROM_DEVICES:
            while len(self._shared) >= SHARED_MAX:
                del self._shared[next(iter(self._shared))]
            self._shared[key] = _Shared(greeting, self._clock_s(), devices // STALE_PART)
        return greeting

    def snapshot(self, names: Sequence[str], page: int) -> InitialSnapshot:
        """Return the state of some devices as it is now, in `snapshot` messages."""
        parts = self._cut(names, page)
        return InitialSnapshot(parts, lambda _, part: self._wrap(parts.seq, part, None), None)

    def texts(self, subscription: Subscription, names: Sequence[str]) -> Iterator[bytes]:
        """Yield the state of the devices that a subscription selects as one JSON object, in pieces.

        Like those of a greeting they are encoded when they are asked for; a twin may be newer than the first one's seq.
        """
        parts = self._now.get(subscription)
        if parts is None or parts.seq != self._state.seq:
            self._now.pop(subscription, None)
            while len(self._now) >= SHARED_MAX:
                del self._now[next(iter(self._now))]
            parts = self._now[subscription] = self._cut(names, 0)
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

    def _cut(self, names: Sequence[str], page: int) -> StateParts:
        return StateParts(self._state, names, max_devices=page, max_bytes=self._part_max_bytes)

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
        """Make a message of a part: a `hello` of the first one, a `snapshot` of the others."""
        self.encoded_count += 1
        epoch, twins = self._state.epoch, Raw(part.text)
        more = msgspec.UNSET if part.is_last else True
        message = (
            SnapshotPage(epoch, seq, twins, more)
            if hello is None
            else msgspec.structs.replace(hello, data_snapshot=twins, more=more)
        )
        return Cast((encode(message),), cursor=Position(epoch, seq) if part.is_last else None)
