"""Which groups receive an entry: found by exact name, or by a route that is remembered for each topic."""

from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from twincast.core.counters import Deliveries
from twincast.core.literals import LiteralIndex, Spot
from twincast.core.model import Topic
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.group import Group, Watcher
from twincast.delivery.throttle import ThrottledGroup
from twincast.delivery.timer import CallLater

ROUTES_MAX = 100_000
"""How many topics' routes are remembered, or twice as many as devices; of a flood of names the oldest go."""
ROUTE_STEPS = 4_000
"""How many steps one call of `prepare` spends on the routes of a commit: about a millisecond."""
CROWD = 24
"""From how many groups with the same beginning or end on the others are told apart by what is between."""

_serial = attrgetter("serial")


class _Route(NamedTuple):
    """The groups whose patterns select a topic, as of a version of all groups."""

    version: int
    groups: tuple[Group, ...]


def _part_for(subscription: Subscription, cast: Cast) -> Cast:
    """Return what a subscription to everything selects of a cast with late readings."""
    if not subscription.wants_late:
        return cast.on_time
    return cast.pick([index for index, entry in enumerate(cast.entries) if subscription.selects(entry.topic)])


class Router:
    """All groups, and for each topic the groups that select it: its route.

    An entry costs what the interested watchers cost: exact names are found in one lookup, and which patterns select a
    name is matched once for each name. A new group is matched against a name when an entry with that name comes, and
    the older groups are not matched again; so a join or a leave costs the other watchers nothing.
    """

    def __init__(self, state: State, call_later: CallLater) -> None:
        self._state = state
        self._call_later = call_later
        self._groups: dict[Subscription, Group] = {}
        self._whole: list[Group] = []
        # Mostly one group names a topic, so all topics of a group share one tuple: many names make no garbage.
        self._by_name: dict[Topic, tuple[Group] | dict[Group, None]] = {}
        self._by_literal: LiteralIndex[Group] = LiteralIndex(CROWD)
        self._spots: dict[Group, set[Spot[Group]]] = {}  # where in the index each group with a star is
        self._routes: dict[Topic, _Route] = {}
        self.deliveries = Deliveries()
        """How many entries the members of all groups were handed."""
        self.version = 0
        """Grows whenever a group with a pattern comes or goes."""

    def __len__(self) -> int:
        return len(self._groups)

    def join(self, watcher: Watcher, subscription: Subscription) -> Group:
        """Offer a watcher every entry after the state's position that a subscription selects."""
        group = self._groups.get(subscription)
        if group is None:
            group = self._add(subscription)
        group.join(watcher)
        return group

    def leave(self, watcher: Watcher, group: Group) -> None:
        """Offer a watcher nothing more; a group without members goes."""
        group.leave(watcher)
        if group.is_empty and self._groups.get(group.subscription) is group:
            self._remove(group)

    def prepare(self, cast: Cast, start: int = 0) -> int | None:
        """Find the routes of a cast's topics, from the topic at `start` on, for about a millisecond.

        Returns:
            Where to go on; None if all are known. `offer` finds the others itself, however long that takes.
        """
        if not self._by_literal:
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
        """Pass each entry of one commit on to the groups that select it."""
        for group in tuple(self._whole):
            part = _part_for(group.subscription, cast) if cast.has_late else cast
            if part.entries:
                group.offer(part)
        if not self._by_name and not self._by_literal:
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
        if not self._by_literal:
            return tuple(named or ())
        route = self._routes.get(topic)
        while route is None or route.version != self.version:
            route, _ = self._renew(topic, route, ROUTE_STEPS)
        return route.groups if named is None else (*named, *route.groups)

    def _renew(self, topic: Topic, route: _Route | None, max_steps: int) -> tuple[_Route, int]:
        """Match the groups that came after a route was found, the oldest first, and drop those that are over.

        Returns:
            The route, and how many steps it took; at least one group is matched.
        """
        version, groups = (0, ()) if route is None else route
        found = {group: None for group in groups if not group.is_over}
        steps = self._by_literal.look_cost(len(topic[1]))
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
        most = max(ROUTES_MAX, 2 * len(self._state.twins))  # else each reading of a large fleet is matched again
        if len(self._routes) >= most:
            for oldest in tuple(islice(self._routes, most // 4)):
                del self._routes[oldest]
        route = self._routes[topic] = _Route(version, tuple(found))
        return route, steps

    def _newcomers(self, topic: Topic, version: int) -> list[Group]:
        """Return the groups that came after a version and have a pattern that may select a topic, the oldest first."""
        newcomers: set[Group] = set()
        for near in self._by_literal.near(topic[1]):
            for group in reversed(near):
                if group.serial <= version:
                    break
                if topic not in group.subscription.exact:  # an exact name is found without a route
                    newcomers.add(group)
        return sorted(newcomers, key=_serial)

    def _add(self, subscription: Subscription) -> Group:
        self.version += bool(subscription.literals)
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
        if subscription.literals:
            self._spots[group] = {self._by_literal.add(literals, group) for literals in subscription.literals}
        return group

    def _remove(self, group: Group) -> None:
        subscription = group.subscription
        self.version += bool(subscription.literals)
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
        for spot in self._spots.pop(group, ()):
            self._by_literal.remove(spot, group)
        if not self._by_literal:
            self._routes.clear()
