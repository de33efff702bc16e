"""The state that a client begins with, encoded once for all who come at about the same time."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec
from msgspec import Raw

from twincast.core.cast import Cast
from twincast.core.messages import Hello, SizeLimits, SnapshotPage, encode
from twincast.core.model import Position, Twin
from twincast.core.state import State
from twincast.core.subscription import Subscription

SHARED_FROM_DEVICES = 1_000
"""Below, a snapshot takes less than a millisecond, and is made for every client anew."""
STALE_PART = 8
"""A shared snapshot may be so many changes old as a part of its devices: sending those costs less than encoding it."""
SHARED_MAX_S = 1.0
SHARED_MAX = 16
"""How many shared greetings are kept: clients with the same subscription come together, kinds of them are few."""


class Greeting(NamedTuple):
    """The first messages to a client, and the position that they bring it to."""

    seq: int
    casts: Sequence[Cast]


class _Shared(NamedTuple):
    greeting: Greeting
    made_s: float
    stale_max: int


class Greetings:
    """Makes and remembers greetings. A reconnecting fleet is told one and the same bytes."""

    def __init__(
        self, state: State, now_utc: Callable[[], str], clock_s: Callable[[], float], sizes: SizeLimits
    ) -> None:
        self._state = state
        self._now_utc = now_utc
        self._clock_s = clock_s
        self._sizes = sizes
        self._shared: dict[tuple[Subscription, int, str, bool], _Shared] = {}
        self.encoded_count = 0
        """How many snapshots were encoded."""

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

    def full(self, subscription: Subscription, page: int, reason: str, ordered: bool) -> Greeting:
        """Return hello and the state that a subscription selects, in pages of `page` devices; 0 means in one piece.

        With many devices it may be some changes old; the client goes on behind `seq` either way.
        """
        key = (subscription, page, reason, ordered)
        shared = self._shared.get(key)
        if shared is not None:
            age = self._state.seq - shared.greeting.seq
            if age <= shared.stale_max and self._clock_s() - shared.made_s <= SHARED_MAX_S:
                return shared.greeting
            del self._shared[key]
        twins = select_twins(self._state, subscription)
        greeting = self._make(subscription, twins, page, reason, ordered)
        if len(twins) >= SHARED_FROM_DEVICES:
            while len(self._shared) >= SHARED_MAX:
                del self._shared[next(iter(self._shared))]
            self._shared[key] = _Shared(greeting, self._clock_s(), len(twins) // STALE_PART)
        return greeting

    def snapshot(self, twins: dict[str, Twin], page: int) -> Sequence[Cast]:
        """Return twins of the state as it is now, in `snapshot` messages."""
        state = self._state
        pages = _paged(twins, page)
        self.encoded_count += 1
        casts = []
        for index, part in enumerate(pages):
            more = index < len(pages) - 1
            message = SnapshotPage(state.epoch, state.seq, Raw(encode(part)), more or msgspec.UNSET)
            casts.append(Cast((encode(message),), cursor=None if more else Position(state.epoch, state.seq)))
        return casts

    def _make(
        self, subscription: Subscription, twins: dict[str, Twin], page: int, reason: str, ordered: bool
    ) -> Greeting:
        state = self._state
        first, *others = _paged(twins, page)
        hello = Hello(
            "connected",
            self._now_utc(),
            state.epoch,
            state.seq,
            False,
            subscription.described(),
            Raw(encode(first)),
            reason or msgspec.UNSET,
            bool(others) or msgspec.UNSET,
            self._sizes,
            ordered or msgspec.UNSET,
        )
        position = None if others else Position(state.epoch, state.seq)
        casts = [Cast((encode(hello),), cursor=position)]
        if others:
            rest = dict(islice(twins.items(), len(first), None))
            casts.extend(self.snapshot(rest, page))
        else:
            self.encoded_count += 1
        return Greeting(state.seq, casts)


def select_twins(state: State, subscription: Subscription, but_not: Subscription | None = None) -> dict[str, Twin]:
    """Return the twins that a subscription selects, without those that another one does."""
    twins = state.twins
    if subscription.is_everything and but_not is None:
        return twins
    names: Iterable[str]
    if subscription.ends:
        names = [name for name in twins if subscription.selects(("data_update", name))]
    else:
        names = [name for kind, name in subscription.exact if kind == "data_update" and name in twins]
    if but_not is not None:
        names = [name for name in names if not but_not.selects(("data_update", name))]
    return {name: twins[name] for name in names}


def _paged(twins: dict[str, Twin], page: int) -> list[dict[str, Twin]]:
    """Cut twins into pages; there is always a first, if an empty one."""
    if not page or len(twins) <= page:
        return [twins]
    items = iter(twins.items())
    return [dict(part) for part in iter(lambda: list(islice(items, page)), [])]
