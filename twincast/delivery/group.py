"""The watchers of one subscription: a cast is filtered and encoded once for all of them."""

from typing import Protocol

from twincast.core.counters import Deliveries
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.backlog import Backlog
from twincast.delivery.cast import Cast

NO_SUBSCRIPTION = Subscription(frozenset())


class Watcher(Protocol):
    """A member of a group: it receives every cast that the group's subscription selects."""

    def offer(self, cast: Cast) -> None:
        """Take the selected entries of the next commit; never block, never raise."""

    @property
    def is_behind(self) -> bool:
        """Whether something is queued that the client has not taken."""

    def follow(self, backlog: Backlog) -> bool:
        """Queue what a backlog records from here on, in place of offers; return False if it must be offered all."""

    def unfollow(self) -> None:
        """Keep what the backlog has recorded for this watcher until now, and follow it no more."""

    def check_bound(self, cast: Cast) -> None:
        """Act if too much waits, now that a cast was recorded."""

    def hold(self) -> None:
        """Queue what is offered until `release`: the throttle window of the group has not ended."""

    def release(self) -> None:
        """Send what was queued in the throttle window, and go on."""


class Group:
    """The watchers of one subscription. Each cast goes on to them at once.

    Those that keep up are `members`, each of which is offered it. Those that are behind follow a backlog, which records
    it once for all of them; in mode `every` they stay members, for their casts are shared as they are.
    """

    def __init__(self, subscription: Subscription, state: State, serial: int, deliveries: Deliveries) -> None:
        self.subscription = subscription
        self.serial = serial
        """Grows from group to group: a route says by it which groups it was not matched against yet."""
        self.is_over = False
        """Whether the last watcher has left; a group that is over gets no members any more."""
        self.members: dict[Watcher, None] = {}
        self._behind: dict[Watcher, None] = {}
        self._backlog: Backlog | None = None  # most groups never need one, and with own names there are many groups
        self._state = state
        self._deliveries = deliveries

    @property
    def seq(self) -> int:
        """Up to where the members that keep up were sent everything."""
        return self._state.seq

    @property
    def is_empty(self) -> bool:
        """Whether no watcher is left."""
        return not self.members and not self._behind

    def join(self, watcher: Watcher) -> None:
        """Offer a watcher what comes after the state's position."""
        self.members[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """Offer a watcher nothing more."""
        self.members.pop(watcher, None)
        if self._behind.pop(watcher, watcher) is None:
            watcher.unfollow()

    def falls_behind(self, watcher: Watcher) -> bool:
        """Have a watcher follow the backlog, from the offered cast on; return False if it must queue that itself."""
        return self._put_behind(watcher)

    def keeps_up(self, watcher: Watcher) -> None:
        """Note that a watcher has nothing queued any more."""
        if self._behind.pop(watcher, watcher) is None:
            self.members[watcher] = None

    def offer(self, cast: Cast) -> None:
        """Pass on a cast of entries that the subscription selects."""
        members = tuple(self.members)
        self._deliveries.offered += (len(members) + len(self._behind)) * len(cast.messages)
        for watcher in members:
            watcher.offer(cast)
        if self._behind:  # behind the offers, for a watcher may have fallen behind by this very cast
            self._record(cast)

    def flush(self) -> None:
        """Pass on what waits in a throttle window."""

    def end(self) -> None:
        """Give up the subscription, for a route may keep a group that is over until an entry of its topic comes."""
        self.is_over = True
        self.subscription = NO_SUBSCRIPTION

    def _put_behind(self, watcher: Watcher) -> bool:
        if self._backlog is None:
            self._backlog = Backlog()
        is_following = watcher.follow(self._backlog)
        if is_following:
            self.members.pop(watcher, None)
            self._behind[watcher] = None
        return is_following

    def _record(self, cast: Cast) -> None:
        """Queue a cast for all that are behind."""
        assert self._backlog is not None  # whoever is behind follows it
        self._deliveries.queued += len(self._behind) * len(cast.messages)
        self._backlog.add(cast)
        if self._backlog.is_check_due():
            for watcher in tuple(self._behind):
                watcher.check_bound(cast)
