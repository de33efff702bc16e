"""The watchers of one subscription: a cast is filtered and encoded once for all of them."""

from typing import Protocol

from twincast.core.counters import Deliveries
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast

NO_SUBSCRIPTION = Subscription(frozenset())


class Watcher(Protocol):
    """A member of a group: it receives every cast that the group's subscription selects."""

    def offer(self, cast: Cast) -> None:
        """Take the selected entries of the next commit; never block, never raise."""

    @property
    def is_behind(self) -> bool:
        """Whether something is queued that the client has not taken."""

    def hold(self) -> None:
        """Queue what is offered until `release`: the throttle window of the group has not ended."""

    def release(self) -> None:
        """Send what was queued in the throttle window, and go on."""


class Group:
    """The watchers of one subscription. Each cast goes on to them at once."""

    def __init__(self, subscription: Subscription, state: State, serial: int, deliveries: Deliveries) -> None:
        self.subscription = subscription
        self.serial = serial
        """Grows from group to group: a route says by it which groups it was not matched against yet."""
        self.is_over = False
        """Whether the last watcher has left; a group that is over gets no members any more."""
        self.members: dict[Watcher, None] = {}
        self._state = state
        self._deliveries = deliveries

    @property
    def seq(self) -> int:
        """Up to where the members that keep up were sent everything."""
        return self._state.seq

    @property
    def is_empty(self) -> bool:
        """Whether no watcher is left."""
        return not self.members

    def join(self, watcher: Watcher) -> None:
        """Offer a watcher what comes after the state's position."""
        self.members[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """Offer a watcher nothing more."""
        self.members.pop(watcher, None)

    def offer(self, cast: Cast) -> None:
        """Pass on a cast of entries that the subscription selects."""
        members = tuple(self.members)
        self._deliveries.offered += len(members) * len(cast.messages)
        for watcher in members:
            watcher.offer(cast)

    def flush(self) -> None:
        """Pass on what waits in a throttle window."""

    def end(self) -> None:
        """Give up the subscription, for a route may keep a group that is over until an entry of its topic comes."""
        self.is_over = True
        self.subscription = NO_SUBSCRIPTION
