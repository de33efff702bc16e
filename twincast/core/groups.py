"""Who is told what: watchers of equal subscriptions share one group, and what the group sends is made once."""

from collections.abc import Callable
from typing import Protocol

from twincast.core.cast import Cast
from twincast.core.model import Topic
from twincast.core.outbox import LatestOutbox
from twincast.core.state import State
from twincast.core.subscription import Subscription

ROUTES_MAX = 100_000
"""How many topics' routes are remembered. More than there are devices, usually; a flood of names starts anew."""

CallLater = Callable[[float, Callable[[], None]], object]
"""Calls something after so many seconds."""


class Watcher(Protocol):
    """Whoever follows the stream of changes."""

    def offer(self, cast: Cast) -> None:
        """Take the changes of the next commit; never block, never raise."""

    @property
    def is_behind(self) -> bool:
        """Whether something waits for the client that it has not taken."""

    def hold(self) -> None:
        """Keep what is offered until `release`."""

    def release(self) -> None:
        """Go on, with what was kept first."""


class Group:
    """The watchers of one subscription. Changes go on to them at once."""

    def __init__(self, subscription: Subscription, state: State) -> None:
        self.subscription = subscription
        self.members: dict[Watcher, None] = {}
        self._state = state

    @property
    def seq(self) -> int:
        """Up to where the members were told everything, if they kept up."""
        return self._state.seq

    @property
    def is_empty(self) -> bool:
        """Whether nobody is left."""
        return not self.members

    def join(self, watcher: Watcher) -> None:
        """Offer a watcher what comes after the state's position."""
        self.members[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """Offer a watcher nothing more."""
        self.members.pop(watcher, None)

    def offer(self, cast: Cast) -> None:
        """Pass changes on that the subscription selects."""
        for watcher in tuple(self.members):
            watcher.offer(cast)

    def flush(self) -> None:
        """Pass on what was held back."""


class ThrottledGroup(Group):
    """The watchers of one subscription with `max_hz`: the first change goes at once, what follows waits and merges.

    It waits once for all members. Those who come in between, or do not keep up, lack something else than the others:
    they stand apart, keep for themselves, and are told at the same time.
    """

    def __init__(self, subscription: Subscription, state: State, call_later: CallLater) -> None:
        super().__init__(subscription, state)
        assert subscription.max_hz is not None
        self._interval_s = 1 / subscription.max_hz
        self._call_later = call_later
        self._waiting = LatestOutbox()
        self._apart: dict[Watcher, None] = {}
        self._is_cooling = False
        self._flushed_seq = state.seq

    @property
    def seq(self) -> int:
        """See Group."""
        return self._flushed_seq if self._waiting else self._state.seq

    @property
    def is_empty(self) -> bool:
        """See Group."""
        return not self.members and not self._apart

    def join(self, watcher: Watcher) -> None:
        """See Group."""
        if self._is_cooling:
            watcher.hold()
            self._apart[watcher] = None
        else:
            self.members[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """See Group."""
        super().leave(watcher)
        self._apart.pop(watcher, None)

    def offer(self, cast: Cast) -> None:
        """See Group."""
        if not self._waiting:
            self._flushed_seq = cast.entries[0].seq - 1
        self._waiting.add(cast, self._state.seq)
        for watcher in tuple(self._apart):
            watcher.offer(cast)
        if not self._is_cooling or "control" in {kind for kind, _ in cast.topics}:
            self.flush()

    def flush(self) -> None:
        """See Group."""
        if self._waiting:
            for cast in self._waiting.take(self._state, 1 << 62):
                for watcher in tuple(self.members):
                    watcher.offer(cast)
        for watcher in tuple(self._apart):
            self.members[watcher] = None  # before it goes on, for it may leave then
            watcher.release()
        self._apart = {watcher: None for watcher in self.members if watcher.is_behind}
        for watcher in self._apart:
            watcher.hold()
            del self.members[watcher]
        if not self._is_cooling:
            self._is_cooling = True
            self._call_later(self._interval_s, self._cooled)

    def _cooled(self) -> None:
        self._is_cooling = False
        if self._waiting or self._apart:
            self.flush()


class Groups:
    """All groups, and for each topic the ones that select it.

    A change costs what the interested watchers cost: exact names are found in one lookup, and which patterns select a
    name is worked out once for each name.
    """

    def __init__(self, state: State, call_later: CallLater) -> None:
        self._state = state
        self._call_later = call_later
        self._groups: dict[Subscription, Group] = {}
        self._whole: list[Group] = []
        self._by_name: dict[Topic, list[Group]] = {}
        self._by_pattern: list[Group] = []
        self._routes: dict[Topic, tuple[Group, ...]] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def join(self, watcher: Watcher, subscription: Subscription) -> Group:
        """Offer a watcher every change after the state's position that a subscription selects."""
        group = self._groups.get(subscription)
        if group is None:
            group = self._add(subscription)
        group.join(watcher)
        return group

    def leave(self, watcher: Watcher, group: Group) -> None:
        """Offer a watcher nothing more; a group that nobody is left in goes."""
        group.leave(watcher)
        if group.is_empty and self._groups.get(group.subscription) is group:
            self._remove(group)

    def offer(self, cast: Cast) -> None:
        """Pass the changes of one commit on to everyone whom they concern."""
        for group in tuple(self._whole):
            group.offer(cast)
        if not self._by_name and not self._by_pattern:
            return
        topics = cast.topics
        if len(topics) == 1:  # so nothing needs to be picked
            for group in self._route(next(iter(topics))):
                group.offer(cast)
            return
        picked: dict[Group, list[int]] = {}
        for topic, indexes in topics.items():
            for group in self._route(topic):
                picked.setdefault(group, []).extend(indexes)
        for group, indexes in picked.items():
            group.offer(cast.pick(sorted(indexes)))

    def _route(self, topic: Topic) -> tuple[Group, ...]:
        route = self._routes.get(topic)
        if route is None:
            groups = dict.fromkeys(self._by_name.get(topic, ()))
            groups |= dict.fromkeys(group for group in self._by_pattern if group.subscription.selects(topic))
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            route = self._routes[topic] = tuple(groups)
        return route

    def _add(self, subscription: Subscription) -> Group:
        group = (
            Group(subscription, self._state)
            if subscription.max_hz is None
            else ThrottledGroup(subscription, self._state, self._call_later)
        )
        self._groups[subscription] = group
        if subscription.is_everything:
            self._whole.append(group)
            return group
        for topic in subscription.exact:
            self._by_name.setdefault(topic, []).append(group)
        if subscription.patterns:
            self._by_pattern.append(group)
        self._forget_routes(subscription)
        return group

    def _remove(self, group: Group) -> None:
        subscription = group.subscription
        del self._groups[subscription]
        if subscription.is_everything:
            self._whole.remove(group)
            return
        for topic in subscription.exact:
            others = self._by_name[topic]
            others.remove(group)
            if not others:
                del self._by_name[topic]
        if subscription.patterns:
            self._by_pattern.remove(group)
        self._forget_routes(subscription)

    def _forget_routes(self, subscription: Subscription) -> None:
        if subscription.patterns:
            self._routes.clear()
        for topic in subscription.exact:
            self._routes.pop(topic, None)
