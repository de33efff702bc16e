"""The watchers of one subscription with `max_hz`: between two flushes, what comes is merged per device."""

from twincast.core.counters import Deliveries
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.group import Group, Watcher
from twincast.delivery.outbox import LatestOutbox
from twincast.delivery.timer import CallLater, Timer

WAITING_MAX_BYTES = 256 * 1024
"""How much that cannot be merged may wait in a throttled group, such as deletions of ever new devices; more is flushed
before the throttle window ends."""


class ThrottledGroup(Group):
    """The watchers of one subscription with `max_hz`.

    States and transitions, with the throttle window of 1 / `max_hz` seconds between:

        OPEN ----- a cast: flush ------------------------> WINDOW
        WINDOW --- a cast: merged with what waits -------> WINDOW
        WINDOW --- a command, or too much waits: flush --> WINDOW   the window goes on
        WINDOW --- it ends, and something waits: flush --> WINDOW   a new one
        WINDOW --- it ends, and nothing waits -----------> OPEN

    So the first entry goes out at once, a command never waits, and an idle group has no timer. What waits is merged
    once for all `members`. A watcher that joins in a window, or is behind when it begins, lacks other entries than the
    members do. Such watchers follow the backlog, held until the next flush (`hold`, `release`). One that falls behind
    within a window stays a member until then, for it lacks what the members do.
    """

    def __init__(
        self, subscription: Subscription, state: State, serial: int, deliveries: Deliveries, call_later: CallLater
    ) -> None:
        super().__init__(subscription, state, serial, deliveries)
        assert subscription.max_hz is not None
        self._interval_s = 1 / subscription.max_hz
        self._call_later = call_later
        self._waiting = LatestOutbox()
        self._window: Timer | None = None  # the end of the throttle window; None if the group is open
        self._flushed_seq = state.seq

    @property
    def seq(self) -> int:
        """See Group."""
        return self._flushed_seq if self._waiting else self._state.seq

    def join(self, watcher: Watcher) -> None:
        """See Group."""
        if self._window is not None:
            watcher.hold()
            self._put_behind(watcher)
        else:
            self.members[watcher] = None

    def falls_behind(self, watcher: Watcher) -> bool:
        """See Group. The backlog does not record what is flushed; those that are behind are looked for after it."""
        del watcher
        return False

    def offer(self, cast: Cast) -> None:
        """See Group."""
        if not self._waiting:
            self._flushed_seq = cast.entries[0].seq - 1
        self._waiting.enqueue(cast, self._state.seq)
        if self._behind:
            self._deliveries.offered += len(self._behind) * len(cast.messages)
            self._record(cast)
        if (
            self._window is None
            or self._waiting.size_bytes > WAITING_MAX_BYTES
            or not all(entry.conflates for entry in cast.entries)
        ):
            self.flush()

    def flush(self) -> None:
        """See Group."""
        if self._waiting:
            for cast in self._waiting.drain(self._state, 1 << 62):
                members = tuple(self.members)
                self._deliveries.offered += len(members) * len(cast.messages)
                self._deliveries.merged += len(members) * cast.merged_away
                for watcher in members:
                    watcher.offer(cast)
        for watcher in tuple(self._behind):
            watcher.release()
            if watcher in self._behind:
                watcher.hold()
        for watcher in [watcher for watcher in self.members if watcher.is_behind]:
            self._put_behind(watcher)
            watcher.hold()
        if self._window is None and not self.is_over:
            self._window = self._call_later(self._interval_s, self._end_window)

    def end(self) -> None:
        """See Group."""
        super().end()
        self._waiting = LatestOutbox()
        if self._window is not None:
            self._window.cancel()
            self._window = None

    def _end_window(self) -> None:
        self._window = None
        if self._waiting or self._behind:
            self.flush()
