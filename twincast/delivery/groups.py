"""Who is told what: watchers of equal subscriptions share one group, and what the group sends is made once."""

from collections.abc import Callable
from itertools import islice
from operator import attrgetter
from typing import NamedTuple, Protocol

from twincast.core.counters import Deliveries
from twincast.core.model import Topic
from twincast.core.pattern import Ends
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.outbox import LatestOutbox

ROUTES_MAX = 100_000
"""How many topics' routes are remembered. More than there are devices, usually; of a flood of names the oldest go."""
WAITING_MAX_BYTES = 256 * 1024
"""How much may wait in a throttled group that cannot be merged, as deletions of ever new devices; more goes at once."""
ROUTE_STEPS = 4_000
"""How much is asked at once for the routes of a commit: about a millisecond."""

NO_SUBSCRIPTION = Subscription(frozenset())
_serial = attrgetter("serial")


class Timer(Protocol):
    """What waits to be called."""

    def cancel(self) -> None:
        """Call it no more."""


CallLater = Callable[[float, Callable[[], None]], Timer]
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

    def __init__(self, subscription: Subscription, state: State, serial: int, deliveries: Deliveries) -> None:
        self.subscription = subscription
        self.serial = serial
        """Grows from group to group: a route knows by it which ones it was not asked for yet."""
        self.is_over = False
        """Whether everybody has left, and nobody comes any more."""
        self.members: dict[Watcher, None] = {}
        self._state = state
        self._deliveries = deliveries

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
        members = tuple(self.members)
        self._deliveries.offered += len(members) * len(cast.messages)
        for watcher in members:
            watcher.offer(cast)

    def flush(self) -> None:
        """Pass on what was held back."""

    def end(self) -> None:
        """Keep nothing, for nobody comes any more; a route may remember a group until its topic is next heard of."""
        self.is_over = True
        self.subscription = NO_SUBSCRIPTION


class ThrottledGroup(Group):
    """The watchers of one subscription with `max_hz`: the first change goes at once, what follows waits and merges.

    It waits once for all members. Those who come in between, or do not keep up, lack something else than the others:
    they stand apart, keep for themselves, and are told at the same time.
    """

    def __init__(
        self, subscription: Subscription, state: State, serial: int, deliveries: Deliveries, call_later: CallLater
    ) -> None:
        super().__init__(subscription, state, serial, deliveries)
        assert subscription.max_hz is not None
        self._interval_s = 1 / subscription.max_hz
        self._call_later = call_later
        self._waiting = LatestOutbox()
        self._apart: dict[Watcher, None] = {}
        self._cooling: Timer | None = None
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
        if self._cooling is not None:
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
        apart = tuple(self._apart)
        self._deliveries.offered += len(apart) * len(cast.messages)
        for watcher in apart:
            watcher.offer(cast)
        if (
            self._cooling is None
            or self._waiting.size_bytes > WAITING_MAX_BYTES
            or "control" in {kind for kind, _ in cast.topics}
        ):
            self.flush()

    def flush(self) -> None:
        """See Group."""
        if self._waiting:
            for cast in self._waiting.take(self._state, 1 << 62):
                members = tuple(self.members)
                self._deliveries.offered += len(members) * len(cast.messages)
                self._deliveries.merged += len(members) * cast.merged_away
                for watcher in members:
                    watcher.offer(cast)
        for watcher in tuple(self._apart):
            self.members[watcher] = None  # before it goes on, for it may leave then
            watcher.release()
        self._apart = {watcher: None for watcher in self.members if watcher.is_behind}
        for watcher in self._apart:
            watcher.hold()
            del self.members[watcher]
        if self._cooling is None and not self.is_over:
            self._cooling = self._call_later(self._interval_s, self._cooled)

    def end(self) -> None:
        """See Group."""
        super().end()
        self._waiting = LatestOutbox()
        if self._cooling is not None:
            self._cooling.cancel()
            self._cooling = None

    def _cooled(self) -> None:
        self._cooling = None
        if self._waiting or self._apart:
            self.flush()


class _Route(NamedTuple):
    """The groups whose patterns select a topic, as of a version of all groups."""

    version: int
    groups: tuple[Group, ...]


class Groups:
    """All groups, and for each topic the ones that select it.

    A change costs what the interested watchers cost: exact names are found in one lookup, and which patterns select a
    name is worked out once for each name. Whoever comes is asked about a name when it is next heard of, and the others
    are not asked again; so a join or a leave costs nobody else anything.
    """

    def __init__(self, state: State, call_later: CallLater) -> None:
        self._state = state
        self._call_later = call_later
        self._groups: dict[Subscription, Group] = {}
        self._whole: list[Group] = []
        # Mostly one group names a topic, so all topics of a group share one tuple: a change of many makes no garbage.
        self._by_name: dict[Topic, tuple[Group] | dict[Group, None]] = {}
        self._by_end: Ends[Group] = Ends()
        self._routes: dict[Topic, _Route] = {}
        self.deliveries = Deliveries()
        """What was handed to whom."""
        self.version = 0
        """Grows whenever somebody with a pattern comes or leaves."""

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

    def prepare(self, cast: Cast, start: int = 0) -> int | None:
        """Find the routes of a cast's topics from the one at `start` on, for about a millisecond.

        Returns:
            Where to go on; None if all are known. `offer` finds the others itself, however long it takes.
        """
        if not self._by_end:
            return None
        topics = cast.topics
        steps_left = ROUTE_STEPS
        for topic in islice(topics, start, None):
            route = self._routes.get(topic)
            if route is None or route.version != self.version:
                route, steps = self._renew(topic, route, steps_left)
                steps_left -= steps
                if route.version != self.version or steps_left <= 0:
                    return start
            start += 1
        return None

    def offer(self, cast: Cast) -> None:
        """Pass the changes of one commit on to everyone whom they concern."""
        for group in tuple(self._whole):
            group.offer(cast)
        if not self._by_name and not self._by_end:
            return
        topics = cast.topics
        if len(topics) == 1:  # so nothing needs to be picked
            for group in self._interested(next(iter(topics))):
                group.offer(cast)
            return
        picked: dict[Group, list[int]] = {}
        for topic, indexes in topics.items():
            for group in self._interested(topic):
                picked.setdefault(group, []).extend(indexes)
        for group, indexes in picked.items():
            group.offer(cast.pick(sorted(indexes)))

    def _interested(self, topic: Topic) -> tuple[Group, ...]:
        named = self._by_name.get(topic)
        if not self._by_end:
            return tuple(named or ())
        route = self._routes.get(topic)
        while route is None or route.version != self.version:
            route, _ = self._renew(topic, route, ROUTE_STEPS)
        return route.groups if named is None else (*named, *route.groups)

    def _renew(self, topic: Topic, route: _Route | None, max_steps: int) -> tuple[_Route, int]:
        """Ask those who have come since a route was found, the oldest first, and forget who has left.

        Returns:
            The route, and how many steps it took; at least one is asked.
        """
        version, groups = (0, ()) if route is None else route
        found = {group: None for group in groups if not group.is_over}
        steps = self._by_end.look_cost
        for group in self._newcomers(topic, version):
            is_selected, cost = group.subscription.ask(topic)
            steps += cost
            if is_selected:
                found[group] = None
            if steps >= max_steps:
                version = group.serial
                break
        else:
            version = self.version
        if len(self._routes) >= ROUTES_MAX:
            for oldest in tuple(islice(self._routes, ROUTES_MAX // 4)):
                del self._routes[oldest]
        route = self._routes[topic] = _Route(version, tuple(found))
        return route, steps

    def _newcomers(self, topic: Topic, version: int) -> list[Group]:
        """Return the groups that came after a version and have a pattern that may select a topic, in order."""
        newcomers: set[Group] = set()
        for near in self._by_end.near(topic[1]):
            for group in reversed(near):
                if group.serial <= version:
                    break
                if topic not in group.subscription.exact:  # those are told anyway
                    newcomers.add(group)
        return sorted(newcomers, key=_serial)

    def _add(self, subscription: Subscription) -> Group:
        self.version += bool(subscription.ends)
        group = (
            Group(subscription, self._state, self.version, self.deliveries)
            if subscription.max_hz is None
            else ThrottledGroup(subscription, self._state, self.version, self.deliveries, self._call_later)
        )
        self._groups[subscription] = group
        if subscription.is_everything:
            self._whole.append(group)
            return group
        alone = (group,)
        for topic in subscription.exact:
            others = self._by_name.setdefault(topic, alone)
            if isinstance(others, dict):
                others[group] = None
            elif others is not alone:
                self._by_name[topic] = {others[0]: None, group: None}
        for end in subscription.ends:
            self._by_end.add(end, group)
        return group

    def _remove(self, group: Group) -> None:
        subscription = group.subscription
        self.version += bool(subscription.ends)
        del self._groups[subscription]
        group.end()
        if subscription.is_everything:
            self._whole.remove(group)
            return
        for topic in subscription.exact:
            others = self._by_name[topic]
            if isinstance(others, dict) and len(others) > 1:
                del others[group]
            else:
                del self._by_name[topic]
        for end in subscription.ends:
            self._by_end.remove(end, group)
        if not self._by_end:
            self._routes.clear()
