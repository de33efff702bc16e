"""What goes out to one client: in order, and only as fast as its connection takes it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from twincast.delivery.backlog import Backlog
from twincast.delivery.cast import Cast
from twincast.delivery.outbox import Outbox
from twincast.delivery.snapshots import Page
from twincast.delivery.stream import Stream

DRAIN_BYTES = 256 * 1024
"""How much of its outbox a client is sent at once; more in one piece would only wait in the connection's buffer."""


class Upstream(Protocol):
    """What a sender needs of its feed."""

    @property
    def cursor(self) -> int:
        """Where in the log the feed is: the position behind which a reply belongs."""

    def new_outbox(self) -> Outbox:
        """Return an empty queue of the kind that the subscription and the phase ask for."""

    def falls_behind(self) -> bool:
        """Have the sender follow what the group records; return whether the cast that is offered is recorded, too."""

    def keeps_up(self) -> None:
        """Note that the sender has nothing queued any more."""

    def overflowed(self, cast: Cast) -> None:
        """Act on an outbox above its bound, which a cast was queued in."""

    def go_on(self) -> None:
        """Drain the sender, and bring more: the client takes it."""


class Sender:
    """Sends one client pages of a snapshot, queued casts and what is offered, in this order. A Watcher of its group.

    States and transitions:

        THROUGH --- pause: the connection is full ------------------> QUEUEING
                --- hold: a throttle window, or a selection --------> QUEUEING
        QUEUEING -- resume or release, then drain: all is sent -----> THROUGH
                 -- drain: the connection is full again ------------> QUEUEING
        any ------- close ------------------------------------------> CLOSED

    THROUGH is the state of most clients: what is offered is written at once, and there is no outbox. QUEUEING has up to
    three causes, independent of one another, so it is no attribute of its own: the connection is paused, the sender is
    held, or something is queued already, which what comes must not overtake. Pages ignore `hold`, for the hello is in
    the first of them and nothing may come before it. CLOSED is a connection that stays paused for good.
    """

    __slots__ = (
        "_feed",
        "_is_paused",
        "_outbox",
        "_pages",
        "_stream",
        "_write",
        "is_closed",
        "is_held",
        "max_bytes",
    )

    def __init__(self, write: Callable[[Cast], None], feed: Upstream, stream: Stream, *, max_bytes: int) -> None:
        """Make a sender through which all goes at once.

        Args:
            write: sends a cast; may call `pause` before it returns.
            feed: decides what is sent.
            stream: where queued values are looked up.
            max_bytes: how much that cannot be merged may be queued.
        """
        self._write = write
        self._feed = feed
        self._stream = stream
        self._outbox: Outbox | None = None  # most clients keep up and never need one
        self._pages: Iterator[Page] | None = None  # of a snapshot, as far as the client has not taken them
        self._is_paused = False
        self.is_held = False
        """Whether what is offered is queued until `release`."""
        self.is_closed = False
        self.max_bytes = max_bytes

    def offer(self, cast: Cast) -> None:
        """See Watcher: write a cast if the client keeps up, else queue it. Replies come the same way."""
        if self._outbox is None and not self._is_paused and not self.is_held:
            self._write(cast)
        elif not (cast.entries and self._feed.falls_behind()):
            self.enqueue(cast)

    @property
    def is_behind(self) -> bool:
        """See Watcher."""
        return bool(self._outbox)

    @property
    def is_through(self) -> bool:
        """Whether what is offered is written at once, for all that came before it is written."""
        return self._outbox is None and not self._is_paused and not self.is_held

    @property
    def has_pages(self) -> bool:
        """Whether the client has not taken all of a snapshot; so the connection is full."""
        return self._pages is not None

    @property
    def waiting_bytes(self) -> int:
        """How much is queued that cannot be merged, or somewhat more; of devices whose newest value waits, nothing."""
        return 0 if self._outbox is None else self._outbox.size_bytes

    def hold(self) -> None:
        """See Watcher. The feed holds its sender too, while it waits for what its subscription selects."""
        self.is_held = True

    def release(self) -> None:
        """See Watcher."""
        self.is_held = False
        self._feed.go_on()

    def pause(self) -> None:
        """Note that the connection holds as much as it should."""
        self._is_paused = True

    def resume(self) -> None:
        """Note that the connection takes bytes again, and send what has waited."""
        if not self.is_closed:
            self._is_paused = False
            self._feed.go_on()

    def send_at_once(self, cast: Cast) -> None:
        """Write a cast, whatever the connection holds: the hello that nothing may come before."""
        self._write(cast)

    def start_pages(self, pages: Iterator[Page]) -> None:
        """Have pages sent at the next `drain`, before all that is queued; each is made when the client takes it."""
        self._pages = pages

    def enqueue(self, cast: Cast) -> None:
        """Queue a cast behind what waits, though the client may keep up."""
        if self.is_closed:
            return
        self._stream.router.deliveries.queued += len(cast.entries)
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = self._feed.new_outbox()
        outbox.enqueue(cast, self._feed.cursor)
        if outbox.exceeds(self.max_bytes):
            self._feed.overflowed(cast)

    def follow(self, backlog: Backlog) -> bool:
        """See Watcher. There is an outbox from here on, until all of it is sent."""
        if self._outbox is None:
            self._outbox = self._feed.new_outbox()
        is_following = self._outbox.follow(backlog)
        self._outbox.exceeds(self.max_bytes)
        return is_following

    def unfollow(self) -> None:
        """See Watcher."""
        if self._outbox is not None:
            self._outbox.unfollow()

    def check_bound(self, cast: Cast) -> None:
        """See Watcher."""
        if self._outbox is not None and self._outbox.exceeds(self.max_bytes):
            self._feed.overflowed(cast)

    def drain(self) -> None:
        """Send what waits as far as the client takes it: pages first, then, unless the sender is held, the outbox."""
        while self._pages is not None and not self._is_paused:
            page = next(self._pages)
            if page.is_last:
                self._pages = None
            self._write(page.cast)
        if self._outbox is None:
            return
        deliveries = self._stream.router.deliveries
        while self._outbox and not self._is_paused and not self.is_held:
            for cast in self._outbox.drain(self._stream.state, DRAIN_BYTES):
                deliveries.drained += len(cast.entries)
                deliveries.merged += cast.merged_away
                self._write(cast)
        if not self._outbox and not self.is_held:
            self._end_outbox()
            self._feed.keeps_up()

    def caught_up(self) -> None:
        """Note that the state is no longer ahead of what is offered."""
        if self._outbox is not None:
            self._outbox.caught_up()

    def drop_entries(self) -> int | None:
        """Drop queued entries that can be had again; see Outbox."""
        return None if self._outbox is None else self._outbox.drop_entries()

    def take_kept(self) -> Sequence[Cast]:
        """Empty the outbox, and return what of it can be had nowhere else."""
        if self._outbox is None:
            return ()
        self._outbox.drop_entries()
        kept = self._outbox.drain(self._stream.state, 1 << 62)
        self._end_outbox()
        return kept

    def send_replies(self) -> None:
        """Write the queued replies although the connection is full; for the last time, before `close`.

        Queued entries stay behind: a client that comes back resumes and is sent them.
        """
        if self._outbox is not None:
            for cast in self._outbox.replies():
                self._write(cast)

    def close(self) -> None:
        """Send nothing more."""
        self.is_closed = self._is_paused = True
        self._pages = None
        self._end_outbox()

    def _end_outbox(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
            self._outbox = None
