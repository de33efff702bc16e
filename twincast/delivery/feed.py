"""Where in the log one client is: catching up, live, or behind.

A feed begins with the state or at a position, reads the log back until it is at the head, and joins its group there, in
the same step, so that nothing comes twice or is left out. What goes out, and when, is the business of its sender. If
the client does not keep up, mode `latest` merges in the outbox; mode `every` drops what waits, and goes back in the log
to read it again when the client takes it.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from itertools import chain

from twincast.core.model import Position
from twincast.core.subscription import EVERYTHING, RULE_STEPS, Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.group import Group
from twincast.delivery.outbox import EveryOutbox, LatestOutbox, Outbox
from twincast.delivery.overlap import Overlap
from twincast.delivery.pending import PendingCalls
from twincast.delivery.scheduler import Budget, FixedCost, Pause, Work
from twincast.delivery.selection import Picking, Selection
from twincast.delivery.sender import Sender
from twincast.delivery.snapshots import Page
from twincast.delivery.stream import Stream
from twincast.errors import FellBehind, Truncated, TwincastError
from twincast.wire.messages import Gap, encode

ENTRIES_AT_ONCE = 2_048
"""How much of the log is taken before the work of other clients has its turn."""
BYTES_A_STEP = 256
"""How much of the state costs as much as a step of a search: it was encoded for many, and goes to one."""


class Phase(Enum):
    """Where in the log a feed is.

             begin, at a position that can be resumed
    NEW ------------------------------------------------+
     | begin, with the state                            |
     v                                                  v      the block is here
    OPENING ------------------------------> CATCHING_UP <-----------------------+
          the selected devices are known:    ^  |  |  |  the next block is read |
          hello and snapshot                 |  |  |  +----------------------> READING
                                             |  |  |                            |
          the selected devices are known:    |  |  | the log begins later       | the log begins later
          gap and snapshot                   |  |  v                            v
    GAP -------------------------------------+  |  GAP <------------------------+
                                             |  |
          the subscription changes, or       |  | at the head of the log:
          what waits in mode `every` is      |  v joins its group
          dropped: leaves its group          +--LIVE
    any phase --- close ---> CLOSED
    """

    NEW = auto()
    """Nothing was asked for yet. Replies go out, such as `auth_required`."""
    OPENING = auto()
    """The devices of the first snapshot are being selected; or the client's position, of another server on the same
    log, is still to come here, and then the hello resumes. All waits: nothing may come before the hello."""
    CATCHING_UP = auto()
    """In no group. Reads on when the client takes more: a slow client must not pull the log into memory."""
    READING = auto()
    """In no group. A block of the log is on its way, or what the client wants of it is being selected."""
    GAP = auto()
    """The log no longer has what the client lacks. The devices of a new snapshot are being selected, and all waits."""
    LIVE = auto()
    """A member of a group, which offers what comes. Whether the client keeps up is known to the sender."""
    CLOSED = auto()
    """Nothing is brought any more; what was asked of others is given up."""


class Feed:
    """Brings one client what it subscribed to. Single-threaded; every method returns at once."""

    __slots__ = (
        "_budget",
        "_end",
        "_forget_change",
        "_forget_work",
        "_group",
        "_overlap",
        "_page_size",
        "_pending",
        "_read_until",
        "_stream",
        "phase",
        "sender",
        "subscription",
    )

    def __init__(
        self,
        write: Callable[[Cast], None],
        stream: Stream,
        end: Callable[[TwincastError], None],
        *,
        budget: Budget,
        outbox_max_bytes: int,
    ) -> None:
        """Make a feed that has not begun.

        Args:
            write: sends a cast; may call `pause` of the sender before it returns.
            stream: the hub.
            end: called when the client cannot be served any longer.
            budget: what the work for this client is charged to.
            outbox_max_bytes: how much that cannot be merged may wait for the client.
        """
        self._stream = stream
        self._end = end
        self._budget = budget
        self._page_size = 0
        self._overlap: Overlap | None = None  # what the log has behind a snapshot and its pages had, too
        self._read_until = 0  # up to where the log was read, while there is no group
        self._group: Group | None = None
        self._forget_work: Callable[[], None] | None = None  # gives up what OPENING, READING or GAP waits for
        self._forget_change: Callable[[], None] | None = None  # the same of a change of the subscription, if one waits
        self._pending: PendingCalls | None = None
        self.phase = Phase.NEW
        self.sender = Sender(write, self, stream, max_bytes=outbox_max_bytes)
        """What goes out; it is the watcher of the group."""
        self.subscription: Subscription = EVERYTHING

    @property
    def position(self) -> Position | None:
        """Up to where the client was sent everything; None if something waits for it."""
        if self._group is None or self.sender.is_behind or self.sender.is_held:
            return None
        return Position(self._stream.state.epoch, self._group.seq)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is brought any more."""
        return self.phase is Phase.CLOSED

    @property
    def is_caught_up(self) -> bool:
        """Whether the client was sent everything that there is for it, and its subscription is not being changed."""
        return self._group is not None and self._forget_change is None and self.sender.is_through

    def begin(
        self, subscription: Subscription, *, since: Position | None = None, page_size: int = 0, ordered: bool = False
    ) -> None:
        """Send the hello, and bring everything after the client's position or the state.

        Args:
            subscription: what the client wants.
            since: its cursor; None for the state as it is.
            page_size: how many devices a page of the state holds; 0 for all.
            ordered: what the hello says of the client's own updates.
        """
        self.subscription = subscription
        self._page_size = page_size
        if since is not None:
            self._forget_work = self._stream.when_come(since, partial(self._come, since, ordered))
            if self._forget_work is not None:
                self.phase = Phase.OPENING
                self.sender.hold()
                return
        self._begin_at(since, ordered)

    def go_on(self) -> None:
        """See Upstream. Bring what is due in order: what waits, the log, changes of the subscription."""
        self.sender.drain()
        self._catch_up()
        self.sender.drain()
        while self._pending and self.is_caught_up:
            self._pending.pop()()

    def when_caught_up(self, call: Callable[[], None], size_bytes: int = 0) -> None:
        """Call once the client has been sent everything; at once if it has.

        Args:
            call: does what the client asks for.
            size_bytes: what it keeps until then.

        Raises:
            TooLarge: too many calls wait.
        """
        if self.is_caught_up:
            call()
            return
        self._pending = self._pending or PendingCalls(self.sender.max_bytes)
        self._pending.add(call, size_bytes)

    def change(self, subscription: Subscription, done: Callable[[], None]) -> None:
        """Take another subscription from here on; the state of what it adds goes before. Only when caught up.

        The old subscription goes on until the added devices are known. `done` is called when the new one is in force.
        """
        added = self._stream.selections.added(subscription, self.subscription)
        self._change(subscription, added, FixedCost(added, RULE_STEPS * len(subscription.rules)), done)

    def send_replies(self) -> None:
        """Send the queued replies for the last time, before `close`; none before the hello, which comes first."""
        if self.phase not in (Phase.NEW, Phase.OPENING):
            self.sender.send_replies()

    def close(self) -> None:
        """Bring nothing more."""
        self.sender.close()  # first: what waits for it need not be looked for
        self._leave()
        self.phase = Phase.CLOSED
        self._pending = None
        for forget in (self._forget_work, self._forget_change):
            if forget is not None:
                forget()

    @property
    def cursor(self) -> int:
        """See Upstream."""
        return self._read_until if self._group is None else self._stream.state.seq

    def new_outbox(self) -> Outbox:
        """See Upstream."""
        if self.subscription.mode == "every":
            return EveryOutbox()
        return LatestOutbox(is_behind_state=self._group is None)

    def falls_behind(self) -> bool:
        """See Upstream."""
        return self._group is not None and self._group.falls_behind(self.sender)

    def keeps_up(self) -> None:
        """See Upstream."""
        if self._group is not None:
            self._group.keeps_up(self.sender)

    def overflowed(self, cast: Cast) -> None:
        """See Upstream. Go back in the log, read no further, or end: by mode and by what was queued."""
        if self.subscription.mode == "every":
            first_seq = self.sender.drop_entries()
            if first_seq is not None:  # the entries from there on are read again, when the client takes them
                self._leave()
                self._read_until = first_seq - 1
        elif self._group is None and cast.entries:
            return  # `_may_read` reads no more until the client has taken some
        max_bytes = self.sender.max_bytes
        if self.sender.waiting_bytes > max_bytes:
            self._end(FellBehind(f"more than {max_bytes} bytes were waiting for this client; reconnect to go on"))

    def _come(self, since: Position, ordered: bool, error: TwincastError | None) -> None:
        if self.phase is Phase.CLOSED:
            return
        self._forget_work = None
        if error is not None:
            self._end(error)
        else:
            self._begin_at(since, ordered)

    def _begin_at(self, since: Position | None, ordered: bool) -> None:
        reason = "" if since is None else self._stream.why_not_resume(since)
        if since is None or reason:
            self._begin_with_state(reason, ordered)
            return
        self._read_until, self.phase = since.seq, Phase.CATCHING_UP
        self.sender.send_at_once(self._stream.snapshots.resumed(self.subscription, since.seq, ordered))
        self.sender.release()

    def _begin_with_state(self, reason: str, ordered: bool) -> None:
        """Begin with the hello and the state, once the selected devices are known."""
        snapshots = self._stream.snapshots
        snapshot = snapshots.shared(self.subscription, self._page_size, reason, ordered)
        if snapshot is None:
            names = self._selected(Phase.OPENING, partial(self._begin_with_state, reason, ordered))
            if names is None:
                return
            snapshot = snapshots.fresh(self.subscription, names, self._page_size, reason, ordered)
        self._go_on_behind(snapshot.seq, snapshot.pages())

    def _begin_anew(self) -> None:
        """Say what the log no longer has, and begin again with the state, once the selected devices are known."""
        names = self._selected(Phase.GAP, self._begin_anew)
        if names is None:
            return
        state = self._stream.state
        gap = Cast((encode(Gap(state.epoch, self._read_until + 1, state.seq)),))
        before = [Page(cast, False, {}) for cast in (*self.sender.take_kept(), gap)]
        self._overlap = None
        pages = self._stream.snapshots.part_of_state(names, self._page_size).pages()
        self._go_on_behind(state.seq, chain(before, pages))

    def _selected(self, phase: Phase, then: Callable[[], None]) -> Sequence[str] | None:
        """Return the selected devices; or None, and call `then` when they are known. Until then all waits."""
        if self.subscription.is_everything:
            return self._stream.state.names()
        selection = self._stream.selections.of(self.subscription)
        self._forget_work = self._do(selection, then)
        if self._forget_work is None:
            return selection.names()
        self.phase = phase
        self.sender.hold()
        return None

    def _go_on_behind(self, seq: int, pages: Iterator[Page]) -> None:
        """Send pages of the state, then what waits and what the log has after `seq`."""
        self._read_until, self.phase = seq, Phase.CATCHING_UP
        self.sender.start_pages(self._noted(pages))
        self.sender.release()

    def _noted(self, pages: Iterator[Page]) -> Iterator[Page]:
        """Charge each page when the client takes it, and note which of its twins are newer than the snapshot."""
        for page in pages:
            if page.newer:
                self._overlap = self._overlap or Overlap()
                self._overlap.note(page.newer)
            self._budget.spend(page.cast.size_bytes // BYTES_A_STEP)
            yield page

    def _catch_up(self) -> None:
        """Read the log back as far as the client takes it, and join the group at its head."""
        entries_left = ENTRIES_AT_ONCE
        while self._may_read():
            until = self._stream.state.seq
            if self._read_until >= until:
                self._join()
                return
            block = self._stream.read_back(self._read_until, until, self._on_block)
            if block is None:
                self.phase = Phase.READING
                return
            entries_left -= len(block.entries)
            if not self._pick(block, pauses=entries_left <= 0):
                return

    def _may_read(self) -> bool:
        if self.phase is not Phase.CATCHING_UP or self.sender.has_pages:
            return False
        if self.subscription.mode == "every":
            return self.sender.is_through
        return self.sender.waiting_bytes <= self.sender.max_bytes

    def _on_block(self, block: Cast | TwincastError) -> None:
        if self.phase is Phase.CLOSED:
            return
        if isinstance(block, Cast):
            if self._pick(block):
                self.go_on()
        elif isinstance(block, Truncated):
            self._begin_anew()
        else:
            self._end(block)

    def _pick(self, block: Cast, *, pauses: bool = False) -> bool:
        """Take what is selected of a block and return True; or return False, and go on when that is known."""
        picking = Picking(block, self.subscription)
        work = Pause(picking) if pauses else picking
        self._forget_work = self._do(work, partial(self._picked, block, picking))
        if self._forget_work is not None:
            self.phase = Phase.READING
            return False
        self._take_block(block, picking.picked())
        return True

    def _picked(self, block: Cast, picking: Picking) -> None:
        self._forget_work = None
        self._take_block(block, picking.picked())
        self.go_on()

    def _take_block(self, block: Cast, selected: Cast) -> None:
        self.phase = Phase.CATCHING_UP
        self._read_until = block.entries[-1].seq
        if self._overlap is not None:
            selected = self._overlap.left_out_of(selected)
            if self._read_until >= self._overlap.until:
                self._overlap = None
        if not selected.entries:
            return
        self._stream.router.deliveries.offered += len(selected.entries)
        if self.subscription.max_hz is None:
            self.sender.offer(selected)
        else:  # through the outbox, which merges
            self.sender.enqueue(selected)
            self.sender.drain()

    def _join(self) -> None:
        self.sender.caught_up()
        self._group = self._stream.router.join(self.sender, self.subscription)
        self.subscription = self._group.subscription  # equal ones are kept once, also those of messages
        self.phase = Phase.LIVE

    def _leave(self) -> None:
        if self._group is not None:
            self._stream.router.leave(self.sender, self._group)
            self._group = None
            self.phase = Phase.CATCHING_UP

    def _change(self, subscription: Subscription, added: Selection, work: Work, done: Callable[[], None]) -> None:
        again = partial(self._change, subscription, added, work, done)
        self._forget_change = self._do(work, partial(self._go_on_changing, again))
        if self._forget_change is not None:
            return
        assert self._group is not None
        self._group.flush()
        self._leave()
        names = added.names()
        self.subscription = subscription
        self._read_until = self._stream.state.seq
        if names:
            self.sender.start_pages(self._noted(self._stream.snapshots.part_of_state(names, self._page_size).pages()))
        self.sender.drain()
        self._catch_up()
        done()

    def _go_on_changing(self, again: Callable[[], None]) -> None:
        """Go on with a change, before those that came behind it; the client may have fallen behind meanwhile."""
        self._forget_change = None
        self._pending = self._pending or PendingCalls(self.sender.max_bytes)
        self._pending.add_first(again)
        self.go_on()

    def _do(self, work: Work, then: Callable[[], None]) -> Callable[[], None] | None:
        """Do work and return None; or return what gives it up, and call `then` once it is done."""
        return self._stream.scheduler.do(work, self._budget, partial(self._unless_closed, then))

    def _unless_closed(self, then: Callable[[], None]) -> None:
        if self.phase is not Phase.CLOSED:
            then()
