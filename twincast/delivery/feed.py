"""One client's place in the stream of changes: catching up, live, or behind.

A feed begins with the state or at a position, reads the log back until it is at the head, and joins its group there, in
the same step, so that nothing comes twice or is left out. If the client does not keep up, mode `latest` merges; mode
`every` forgets what waits, and reads it back when the client takes it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

from twincast.core.model import Control, Position
from twincast.core.state import State
from twincast.core.subscription import RULE_STEPS, Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.group import Group
from twincast.delivery.outbox import CatchUpOutbox, EveryOutbox, LatestOutbox, Outbox
from twincast.delivery.router import Router
from twincast.delivery.scheduler import Budget, FixedCost, Pause, Scheduler, Work
from twincast.delivery.selection import Picking, Selection, Selections
from twincast.delivery.snapshots import Page, SnapshotCache
from twincast.errors import FellBehind, TooLarge, Truncated, TwincastError
from twincast.wire.messages import Gap, encode

DRAIN_BYTES = 256 * 1024
"""How much of its debt a client gets at once; more in one piece would only wait in the connection's buffer."""

WAITING_MAX = 1_000
"""How many changes of its subscription a client may ask for before the first one is made; and no more bytes than its
outbox may have."""

ENTRIES_AT_ONCE = 2_048
"""How much of the log is taken before others have their turn."""
BYTES_A_STEP = 256
"""How much of the state costs as much as a step of a search: it was encoded for many, and goes to one."""

TookBlock = Callable[[Cast | TwincastError], None]


class Stream(Protocol):
    """What a feed needs of the hub."""

    state: State
    router: Router
    snapshots: SnapshotCache
    selections: Selections
    scheduler: Scheduler

    def why_not_resume(self, since: Position) -> str:
        """Say why a stream cannot go on behind a position: epoch, too_old or ahead. Empty if it can."""

    def read_back(self, since: int, until: int, took: TookBlock) -> Cast | None:
        """Return some of the changes after `since` up to `until`, at least one; or None, and call `took` with them.

        `took` is called with the error if they cannot be read: Truncated if the log does not reach back any more.
        """


class Feed:
    """Brings one client what it subscribed to. Single-threaded; every method returns at once."""

    __slots__ = (
        "_budget",
        "_end",
        "_forget_change",
        "_forget_work",
        "_group",
        "_is_greeted",
        "_is_held",
        "_is_paused",
        "_is_reading",
        "_newer",
        "_newer_until",
        "_outbox",
        "_outbox_max_bytes",
        "_page",
        "_pages",
        "_seq",
        "_stream",
        "_waiting",
        "_waiting_bytes",
        "_write",
        "is_closed",
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
            write: sends a cast; may call `pause` before it returns.
            stream: the hub.
            end: told when the client cannot be served any longer.
            budget: whom what this client asks for is counted against.
            outbox_max_bytes: how much may wait for the client that cannot be merged.
        """
        self._write = write
        self._stream = stream
        self._end = end
        self._budget = budget
        self._outbox_max_bytes = outbox_max_bytes
        self._outbox: Outbox | None = None  # most clients keep up and never need one
        self._pages: Iterator[Page] | None = None  # of the state, as far as the client has not taken them
        self._page = 0
        self._newer: dict[str, int] | None = None  # what the pages had that the cursor is behind of: devices' seqs
        self._newer_until = 0
        self._seq = 0  # the cursor, while there is no group
        self._group: Group | None = None
        self._is_paused = self._is_held = self._is_reading = self._is_greeted = self.is_closed = False
        self._forget_work: Callable[[], None] | None = None  # what the client waits for, if it does
        self._forget_change: Callable[[], None] | None = None  # the same, of a change that goes on meanwhile
        self._waiting: deque[tuple[Callable[[], None], int]] | None = None
        self._waiting_bytes = 0
        self.subscription = Subscription()

    @property
    def position(self) -> Position | None:
        """Up to where the client was sent everything; None if something waits for it."""
        if self._group is None or self._outbox is not None or self._is_held:
            return None
        return Position(self._stream.state.epoch, self._group.seq)

    def start(
        self, subscription: Subscription, *, since: Position | None = None, page: int = 0, ordered: bool = False
    ) -> None:
        """Greet the client, and bring it everything after its position or the state.

        Args:
            subscription: what it wants.
            since: its cursor; None for the state as it is.
            page: how many devices a page of the state holds; 0 for all.
            ordered: what the greeting says of the client's own updates.
        """
        self.subscription = subscription
        self._page = page
        reason = "" if since is None else self._stream.why_not_resume(since)
        if since is not None and not reason:
            self._seq, self._is_greeted = since.seq, True
            self._write(self._stream.snapshots.resumed(subscription, since.seq, ordered))
            self._go_on()
        else:
            self._greet(reason, ordered)

    def _greet(self, reason: str, ordered: bool) -> None:
        """Begin with the state, once it is known what of it is selected."""
        snapshots = self._stream.snapshots
        greeting = snapshots.shared(self.subscription, self._page, reason, ordered)
        if greeting is None:
            names = self._selected(partial(self._greet, reason, ordered))
            if names is None:
                return
            greeting = snapshots.full(self.subscription, names, self._page, reason, ordered)
        self._seq, self._is_greeted = greeting.seq, True
        self._pages = greeting.pages()
        self._go_on()

    def offer(self, cast: Cast) -> None:
        """See Watcher: straight through if the client keeps up, else behind what waits for it already.

        Answers come the same way; a cast of one has no entries.
        """
        if self._outbox is None and not self._is_paused and not self._is_held and not self.is_closed:
            self._write(cast)
        else:
            self._owe(cast)

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the client that cannot be merged; of devices whose newest value waits, nothing."""
        return 0 if self._outbox is None else self._outbox.size_bytes

    @property
    def is_behind(self) -> bool:
        """See Watcher."""
        return self._outbox is not None

    def hold(self) -> None:
        """See Watcher."""
        self._is_held = True

    def release(self) -> None:
        """See Watcher."""
        self._is_held = False
        self._go_on()

    def pause(self) -> None:
        """Note that the connection holds as much as it should."""
        self._is_paused = True

    def resume(self) -> None:
        """Note that the connection takes bytes again, and pay what has waited."""
        self._is_paused = False
        self._go_on()

    @property
    def is_caught_up(self) -> bool:
        """Whether the client was sent everything that there is for it."""
        if self._group is None or self._forget_change is not None:
            return False
        return self._outbox is None and not self._is_held and not self._is_paused

    def when_caught_up(self, callback: Callable[[], None], size_bytes: int = 0) -> None:
        """Call back once the client has been sent everything; at once if it has.

        Args:
            callback: does what the client wishes.
            size_bytes: what it keeps until then.

        Raises:
            TooLarge: so many wait already that the client seems not to mind the answers.
        """
        if self.is_caught_up:
            callback()
            return
        waiting = self._waiting = self._waiting or deque()
        if len(waiting) >= WAITING_MAX or self._waiting_bytes + size_bytes > self._outbox_max_bytes:
            raise TooLarge(f"{len(waiting)} wishes wait until this client has caught up; take what was sent first")
        waiting.append((callback, size_bytes))
        self._waiting_bytes += size_bytes

    def change(self, subscription: Subscription, done: Callable[[], None]) -> None:
        """Take another subscription from here on; the state of what it adds goes before. Only when caught up.

        Until it is known what that is, the old one goes on. `done` is called when the new one holds.
        """
        added = self._stream.selections.added(subscription, self.subscription)
        self._change(subscription, added, FixedCost(added, RULE_STEPS * len(subscription.rules)), done)

    def _change(self, subscription: Subscription, added: Selection, work: Work, done: Callable[[], None]) -> None:
        again = partial(self._change, subscription, added, work, done)
        self._forget_change = self._do(work, partial(self._change_on, again))
        if self._forget_change is not None:
            return
        assert self._group is not None
        self._group.flush()
        self._stream.router.leave(self, self._group)
        names = added.names()
        self.subscription = subscription
        self._group = None
        self._seq = self._stream.state.seq
        if names:
            self._pages = self._stream.snapshots.snapshot(names, self._page).pages()
            self._send_pages()
        self._catch_up()
        done()

    def _change_on(self, again: Callable[[], None]) -> None:
        """Go on with a change, before the wishes that came behind it."""
        self._forget_change = None
        self._waiting = self._waiting or deque()
        self._waiting.appendleft((again, 0))
        self._go_on()

    def answer(self) -> None:
        """Send the answers that wait, although the connection is full; for the last time, before `close`.

        The changes that wait stay behind: a client that comes back resumes and has them. One that was not greeted yet
        gets nothing, for nothing comes before that.
        """
        if self._outbox is not None and self._is_greeted:
            for cast in self._outbox.answers():
                self._write(cast)

    def close(self) -> None:
        """Bring nothing more."""
        self.is_closed = True
        self._leave()
        self._outbox = self._pages = self._waiting = None
        for forget in (self._forget_work, self._forget_change):
            if forget is not None:
                forget()

    def _do(self, work: Work, then: Callable[[], None]) -> Callable[[], None] | None:
        """Do work and return None; or return what forgets it, and call `then` once it is done and this goes on."""
        return self._stream.scheduler.do(work, self._budget, partial(self._worked, then))

    def _worked(self, then: Callable[[], None]) -> None:
        if not self.is_closed:
            then()

    def _selected(self, then: Callable[[], None]) -> Sequence[str] | None:
        """Return the devices that are selected, or None and call `then` when they are known; until then all waits."""
        if self.subscription.is_everything:
            return self._stream.state.names()
        selection = self._stream.selections.of(self.subscription)
        self._forget_work = self._do(selection, then)
        self._is_held = self._is_reading = self._forget_work is not None
        return None if self._is_held else selection.names()

    def _go_on(self) -> None:
        """Bring what is due, in order: pages of the state, what waits, what the log has since."""
        self._send_pages()
        if self._pages is not None or self.is_closed:
            return
        self._pay()
        self._catch_up()
        self._pay()
        while self._waiting and self.is_caught_up:
            callback, size_bytes = self._waiting.popleft()
            self._waiting_bytes -= size_bytes
            callback()

    def _pay(self) -> None:
        """Empty the outbox, if the client takes it and what is in it may go."""
        if self._outbox is None:
            return
        while self._outbox and not self._is_paused and not self._is_held:
            for cast in self._outbox.take(self._stream.state, DRAIN_BYTES):
                deliveries = self._stream.router.deliveries
                deliveries.paid += len(cast.entries)
                deliveries.merged += cast.merged_away
                self._write(cast)
        if not self._outbox:
            self._outbox = None

    def _catch_up(self) -> None:
        entries_left = ENTRIES_AT_ONCE
        while self._may_read():
            until = self._stream.state.seq
            if self._seq >= until:
                self._join()
                return
            block = self._stream.read_back(self._seq, until, self._took)
            if block is None:
                self._is_reading = True
                return
            picking = Picking(block, self.subscription)
            entries_left -= len(block.entries)
            work = picking if entries_left > 0 else Pause(picking)
            self._forget_work = self._do(work, partial(self._picked, block, picking))
            if self._forget_work is not None:
                self._is_reading = True
                return
            self._take_block(block, picking.picked())

    def _may_read(self) -> bool:
        if self._group is not None or self._is_reading or self._pages is not None or self.is_closed:
            return False
        if self.subscription.mode == "every":
            return self._outbox is None and not self._is_paused
        return self._outbox is None or self._outbox.size_bytes <= self._outbox_max_bytes

    def _took(self, block: Cast | TwincastError) -> None:
        self._is_reading = False
        if self.is_closed:
            return
        if isinstance(block, Cast):
            picking = Picking(block, self.subscription)
            self._forget_work = self._do(picking, partial(self._picked, block, picking))
            if self._forget_work is None:
                self._picked(block, picking)
            else:
                self._is_reading = True
        elif isinstance(block, Truncated):
            self._tell_gap()
        else:
            self._end(block)

    def _picked(self, block: Cast, picking: Picking) -> None:
        self._is_reading, self._forget_work = False, None
        self._take_block(block, picking.picked())
        self._go_on()

    def _take_block(self, block: Cast, selected: Cast) -> None:
        self._seq = block.entries[-1].seq
        if self._newer is not None:
            selected = self._not_known(selected, self._newer)
        if not selected.entries:
            return
        self._stream.router.deliveries.offered += len(selected.entries)
        if self.subscription.max_hz is None:
            self.offer(selected)
        else:
            self._owe(selected)
            self._pay()

    def _tell_gap(self) -> None:
        """Say what the log no longer has, and begin anew with the state."""
        names = self._selected(self._tell_gap)
        if names is None:
            return
        state = self._stream.state
        kept: Sequence[Cast] = ()
        if self._outbox is not None:
            self._outbox.forget_changes()
            kept, self._outbox = self._outbox.take(state, 1 << 62), None
        gap = Cast((encode(Gap(state.epoch, self._seq + 1, state.seq)),))
        self._seq = state.seq
        before = [Page(cast, False, {}) for cast in (*kept, gap)]
        self._pages = chain(before, self._stream.snapshots.snapshot(names, self._page).pages())
        self._newer = None
        self._go_on()

    def _join(self) -> None:
        if isinstance(self._outbox, CatchUpOutbox):
            self._outbox = self._outbox.caught_up()
        self._group = self._stream.router.join(self, self.subscription)
        self.subscription = self._group.subscription  # equal ones are kept once

    def _send_pages(self) -> None:
        """Send what is left of the state, as far as the client takes it."""
        while self._pages is not None and not self._is_paused:
            page = next(self._pages)
            if page.is_last:
                self._pages = None
            if page.newer:
                self._newer = self._newer or {}
                self._newer.update(page.newer)
                self._newer_until = max(self._newer_until, *page.newer.values())
            self._budget.spend(page.cast.size_bytes // BYTES_A_STEP)
            self._write(page.cast)

    def _not_known(self, cast: Cast, newer: dict[str, int]) -> Cast:
        """Leave out what the client had with the state already: no device is to go back for it."""
        if self._seq >= self._newer_until:
            self._newer = None
        return cast.pick(
            [
                index
                for index, entry in enumerate(cast.entries)
                if isinstance(entry, Control) or entry.seq > newer.get(entry.device_id, 0)
            ]
        )

    def _owe(self, cast: Cast) -> None:
        if self.is_closed:
            return
        self._stream.router.deliveries.owed += len(cast.entries)
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = self._new_outbox()
        outbox.add(cast, self._seq if self._group is None else self._stream.state.seq)
        if outbox.size_bytes <= self._outbox_max_bytes:
            return
        if self.subscription.mode == "every":
            first_seq = outbox.forget_changes()
            if first_seq is not None:  # they are read back again, when the client takes them
                self._leave()
                self._seq = first_seq - 1
        elif self._group is None and cast.entries:
            return  # no more is read back until the client has taken some
        if outbox.size_bytes > self._outbox_max_bytes:
            self._end(
                FellBehind(f"more than {self._outbox_max_bytes} bytes were waiting for this client; reconnect to go on")
            )

    def _new_outbox(self) -> Outbox:
        if self.subscription.mode == "every":
            return EveryOutbox()
        return CatchUpOutbox() if self._group is None else LatestOutbox()

    def _leave(self) -> None:
        if self._group is not None:
            self._stream.router.leave(self, self._group)
            self._group = None
