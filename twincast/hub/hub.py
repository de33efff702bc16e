"""The one path of every change: submit, append, apply, offer.

While one batch commits the next one collects. There is no timer: load makes batches bigger and each change cheaper,
and an idle server answers at once. Nobody, not even its sender, learns of a change before it is durable.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from twincast.core.audit import Actor
from twincast.core.batch import ENTRY_BYTES, Batch, Lane
from twincast.core.counters import Counters, Histogram
from twincast.core.idempotency import IdempotencyIndex, IdempotencyKey, OnCommitted
from twincast.core.model import Deleted, Entry, Position
from twincast.core.producers import NumberedLine, ProducerIndex
from twincast.core.quotas import Account, Quotas
from twincast.core.space import Space
from twincast.core.state import State
from twincast.core.subscription import Subscription
from twincast.delivery.cast import Cast
from twincast.delivery.router import Router
from twincast.delivery.scheduler import Budget, FixedCost, Scheduler, Work
from twincast.delivery.selection import Picking, Selections
from twincast.delivery.snapshots import SnapshotCache
from twincast.delivery.stream import OnBlock
from twincast.errors import (
    JournalUnavailable,
    KeyReused,
    LinePassed,
    NotFound,
    OutOfOrder,
    RateLimited,
    StateFull,
    Stopping,
)
from twincast.hub.readback import ReadBack
from twincast.journal import Journal
from twincast.wire.messages import SizeLimits, encode_all

logger = logging.getLogger("twincast.hub")

EVERYTHING = Subscription()
ROUTE_PASSES = 8
"""How often those are asked who came while others were asked. Who comes all the time is not to hold the casts up."""
READS_WAITING_MAX = 16
"""How many reads may wait for one account: each holds what it has found."""
READ_MAX_S = 30.0
"""How long a read is worked on: only one that its account cannot pay for takes so long."""


def system_now_utc() -> str:
    """Return the time as every wire writes it: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class _Committed(NamedTuple):
    """A durable batch whose senders wait until the state has it."""

    first_seq: int
    last_seq: int
    batch: Batch


class Hub:
    """The owner of the state. Lives on one event loop; `run` drives it until `stop`."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        *,
        open_batch_max_bytes: int,
        resume_max_entries: int = 1_000_000,
        sizes: SizeLimits | None = None,
        snapshot_part_max_bytes: int = 256 * 1024,
        quotas: Quotas | None = None,
        now_utc: Callable[[], str] = system_now_utc,
    ) -> None:
        """Take over a journal and its snapshot; use `Hub.over` to read the snapshot as well.

        Args:
            journal: where changes become durable.
            state: the journal's snapshot, applied from here on by this hub alone.
            open_batch_max_bytes: how much may wait for the next commit before senders are held back.
            resume_max_entries: how far back a client's position may be to be resumed from.
            sizes: how large what a client sends may be; each client is told in its greeting.
            snapshot_part_max_bytes: how much of the state one message holds.
            quotas: how much state there may be.
            now_utc: the clock, as text.
        """
        self._journal = journal
        self._open = Batch()
        self._open_max_bytes = open_batch_max_bytes
        self._unanswered: deque[_Committed] = deque()
        self._work = asyncio.Event()
        self._committing: Batch | None = None
        self._account = Account(state, quotas or Quotas())
        self._at_ease = self._account.at_ease
        self._free_bytes = self._account.free_bytes(0)
        self._keys = IdempotencyIndex(journal.receipts)
        self._producers = ProducerIndex(journal.marks)
        self._replay = ReadBack(journal)
        self._resume_max_entries = resume_max_entries
        self._awaited: dict[object, tuple[int, Callable[[], None]]] = {}
        self._stopping = False
        self.has_room = True
        """Whether a sender may go on; if not, `when_settled` tells when to ask again."""
        self.now_utc = now_utc
        self.state = state
        self.sizes = sizes or SizeLimits()
        self.router = Router(state, _call_later)
        self.scheduler = Scheduler(_call_later)
        self.selections = Selections(state)
        self.snapshots = SnapshotCache(
            state, now_utc, time.monotonic, self.sizes, part_max_bytes=snapshot_part_max_bytes
        )
        self.counters = Counters()
        """What is counted of the commits."""
        self.failure: JournalUnavailable | None = None
        """Why the newest commit failed; None as soon as one succeeds."""
        self._started_s = time.monotonic()

    @classmethod
    async def over(
        cls,
        journal: Journal,
        *,
        open_batch_max_bytes: int,
        resume_max_entries: int = 1_000_000,
        sizes: SizeLimits | None = None,
        snapshot_part_max_bytes: int = 256 * 1024,
        quotas: Quotas | None = None,
        now_utc: Callable[[], str] = system_now_utc,
    ) -> "Hub":
        """Make a hub on what a journal holds."""
        return cls(
            journal,
            State(await journal.snapshot()),
            open_batch_max_bytes=open_batch_max_bytes,
            resume_max_entries=resume_max_entries,
            sizes=sizes,
            snapshot_part_max_bytes=snapshot_part_max_bytes,
            quotas=quotas,
            now_utc=now_utc,
        )

    @property
    def uptime_s(self) -> float:
        """How long this hub has run."""
        return time.monotonic() - self._started_s

    def why_not_resume(self, since: Position) -> str:
        """See Stream in delivery/stream."""
        reason = self.why_not_ours(since)
        if not reason and since.seq < max(self._journal.oldest_since, self.state.seq - self._resume_max_entries):
            return "too_old"
        return reason

    def why_not_ours(self, position: Position) -> str:
        """Say why a position means nothing here, `epoch` or `ahead`; empty if the log has it. See core/lineage."""
        return self._journal.lineage.why_not(position, self.state.seq)

    def read_back(self, since: int, until: int, on_block: OnBlock) -> Cast | None:
        """See Stream in delivery/stream."""
        return self._replay.read(since, until, on_block)

    def space(self) -> Space:
        """Return how full the journal is; see Journal."""
        return self._journal.space()

    @property
    def journal_sync_s(self) -> Histogram:
        """How long commits took to be on disk, of what they took in all; see Journal."""
        return self._journal.sync_s

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the next commit."""
        return self._open.size_bytes

    async def read(self, since: int, limit: int) -> Sequence[Entry]:
        """Return up to `limit` entries of the log after `since`, oldest first.

        Raises:
            Truncated: the log no longer reaches back to `since`.
            JournalUnavailable: the disk does not give them.
        """
        return await self._journal.read(since, limit)

    def submit(
        self,
        entry: Entry,
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> None:
        """Take one entry into the open batch; see `submit_all`."""
        batch = self._open
        if (
            idempotency_key is not None
            or actor is not None
            or batch.size_bytes + size_bytes > self._free_bytes
            or identity not in self._at_ease
        ):
            self.submit_all((entry,), size_bytes, done, idempotency_key, actor, lane=lane, identity=identity)
            return
        batch.entries.append(entry)
        self._await_commit(size_bytes + ENTRY_BYTES, done, lane, identity)

    def submit_all(
        self,
        entries: Sequence[Entry],
        size_bytes: int,
        done: OnCommitted,
        idempotency_key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        *,
        lane: Lane | None = None,
        identity: str = "",
        line: NumberedLine | None = None,
    ) -> None:
        """Take entries into the open batch, to be stored all or none.

        `done` is called once, on the event loop: with None and the last seq when the entries are durable and the state
        and every watcher have them, or with the error that kept all of them out. If the `idempotency_key` was stored
        before, nothing is stored, and its `again` is called instead. `actor` is noted in the audit trail, in
        the same breath; commands and deletions have one. When a commit fails, what waits for the next one in a `lane`
        that had a part in it is refused with OutOfOrder, so that nothing overtakes what was sent before it. Of a `line`
        that is stored already, or is under way, nothing is stored again, and its `again` is called; it is one entry.

        A deletion of a device that is not known is refused with NotFound, and what would bring the state, or the share
        of `identity` in it, beyond its bounds with StateFull: in the light of all that was submitted before. The
        refusal comes when that is stored; if it cannot be, the next batch fails like it, for it was decided on what
        is not so.
        """
        if self._stopping:
            done(Stopping("the server is shutting down"), 0)
            return
        if idempotency_key is not None:
            try:
                admitted = self._keys.admit(idempotency_key, len(entries), done)
            except KeyReused as error:
                done(error, 0)
                return
            if admitted is None:
                return
            done = admitted
        if line is not None:
            try:
                admitted = self._producers.admit(line, done)
            except LinePassed as error:
                done(error, 0)
                return
            if admitted is None:
                return
            done = admitted
        size_bytes += ENTRY_BYTES * len(entries)
        refusal = self._refusal(entries, size_bytes, identity)
        if refusal is not None:
            self._when_settled(lambda error, _: done(error or refusal, 0), lane)
            return
        self._open.add(entries, idempotency_key, actor, line)
        self._await_commit(size_bytes, done, lane, identity)

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once everything that was submitted until now has its answer; at once if it has."""
        self._when_settled(lambda _error, _seq: callback())

    async def select(self, subscription: Subscription, budget: Budget) -> Sequence[str]:
        """Return the devices that a subscription selects, found in turns with others.

        Raises:
            RateLimited: as much as may be waits for this account already, or it has taken too long.
        """
        if subscription.is_everything:
            return self.state.names()
        selection = self.selections.of(subscription)
        await self._do(selection, budget)
        return selection.names()

    async def count(self, subscription: Subscription, budget: Budget) -> int:
        """Return how many devices a subscription selects."""
        if subscription.is_everything:
            return len(self.state.twins)
        selection = self.selections.of(subscription)
        await self._do(selection, budget)
        return selection.count()

    async def pick(self, cast: Cast, subscription: Subscription, budget: Budget) -> Cast:
        """Return what a subscription selects of a cast, found in turns with others."""
        picking = Picking(cast, subscription)
        await self._do(picking, budget)
        return picking.picked()

    async def make_way(self, steps: int, budget: Budget) -> None:
        """Return when it is the turn of something that takes so many steps in one piece, and is paid for by this.

        Raises:
            RateLimited: what `select` raises.
        """
        await self._do(FixedCost(None, steps), budget)

    async def _do(self, work: Work, budget: Budget) -> None:
        """Return when work is done, in the same step."""
        if self.scheduler.waiting(budget.account) >= READS_WAITING_MAX:
            raise RateLimited(f"{READS_WAITING_MAX} reads of {budget.account} wait already", max(1.0, budget.spend(0)))
        try:
            async with asyncio.timeout(READ_MAX_S):
                while True:
                    done = asyncio.Event()
                    forget = self.scheduler.do(work, budget, done.set)
                    if forget is None:
                        return
                    try:
                        await done.wait()
                    finally:
                        forget()
        except TimeoutError:
            debt_s = max(1.0, budget.spend(0))
            text = f"this read has cost more than {budget.account} may spend; ask for less"
            raise RateLimited(text, debt_s) from None

    def when_reached(self, seq: int, callback: Callable[[], None]) -> Callable[[], object]:
        """Call back once the state has a position; at once if it has.

        Returns:
            What forgets the callback; whoever waits no longer calls it, for the position may never come.
        """
        waiter = object()
        if self.state.seq >= seq:
            callback()
        else:
            self._awaited[waiter] = (seq, callback)
        return partial(self._awaited.pop, waiter, None)

    async def run(self) -> None:
        """Drive the state: commit what is submitted, apply and cast what the journal made durable.

        Runs until cancelled. If it raises, the state is no longer driven and the process must end.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit_batches(), name="hub commits")
            group.create_task(self._follow_journal(), name="hub follows")
            group.create_task(self._replay.run(), name="hub reads back")

    async def stop(self) -> None:
        """Refuse what is new, and return when all that was accepted has its answer."""
        self._stopping = True
        self._free_bytes = -1
        settled = asyncio.Event()
        self.when_settled(settled.set)
        await settled.wait()

    def _refusal(self, entries: Sequence[Entry], size_bytes: int, identity: str) -> NotFound | StateFull | None:
        """Decide, in the light of all that waits, whether entries of one submission are refused."""
        account, entry = self._account, entries[0]
        if isinstance(entry, Deleted):
            self._open.leans = True
            is_known = account.knows(entry.device_id, self._waiting)
            return None if is_known else NotFound(f"there is no device {entry.device_id!r}")
        if self._open.size_bytes + size_bytes <= self._free_bytes and identity in self._at_ease:
            return None
        counted_bytes = size_bytes + sum(batch.size_bytes for batch in self._waiting)
        refusal = account.refusal(entries, identity, self._waiting, counted_bytes)
        self._open.leans |= refusal is not None
        return refusal

    @property
    def _waiting(self) -> list[Batch]:
        """All batches that are not in the state yet, the oldest first."""
        stored = [committed.batch for committed in self._unanswered]
        return [*stored, self._open] if self._committing is None else [*stored, self._committing, self._open]

    def _when_settled(self, done: OnCommitted, lane: Lane | None = None) -> None:
        """Tell when all that was submitted is in the state, or the error that kept the last of it out."""
        if self._open.submissions or self._committing or self._unanswered:
            self._await_commit(0, done, lane)
        else:
            done(None, self.state.seq)

    def _measure_room(self) -> None:
        """Work out how large the open batch may get before its entries are looked at one by one."""
        if not self._stopping:
            waiting_bytes = sum(batch.size_bytes for batch in self._waiting[:-1])
            self._free_bytes = self._account.free_bytes(waiting_bytes)

    def _await_commit(self, size_bytes: int, done: OnCommitted, lane: Lane | None = None, identity: str = "") -> None:
        batch = self._open
        if not batch.submissions:
            self._work.set()
        batch.size_bytes += size_bytes  # as await_commit does, which is a call for each reading
        batch.submissions.append((len(batch.entries), done, lane, identity))
        if batch.size_bytes >= self._open_max_bytes:
            self.has_room = False

    async def _commit_batches(self) -> None:
        seq = self.state.seq
        while True:
            await self._work.wait()
            self._work.clear()
            batch, self._open, self.has_room = self._open, Batch(), True
            if batch.entries:
                self._committing = batch
                self._measure_room()
                span = await self._commit(batch)
                self._committing = None
                if span is None:
                    self._measure_room()
                    continue
                seq = span[-1]
                self._unanswered.append(_Committed(span[0], seq, batch))
            else:
                self._unanswered.append(_Committed(seq, seq, batch))
            self._answer()

    async def _commit(self, batch: Batch) -> range | None:
        now_utc = self.now_utc()
        for entry in batch.entries:
            entry.timestamp_utc = now_utc
        marks = self._producers.marks(batch.lines)
        began_s = time.perf_counter()
        try:
            span = await self._journal.append(batch.entries, batch.keys, batch.deeds, marks)
        except JournalUnavailable as failure:
            if self.failure is None:
                logger.error("nothing is stored or cast until the journal works again: %s", failure)
            self.failure = failure
            self.counters.failed_commits += 1
            self._refuse(batch, failure)
            return None
        self._count(batch, time.perf_counter() - began_s)
        self._producers.store(marks, span[0])
        if self.failure is not None:
            logger.warning("the journal works again")
            self.failure = None
        return span

    def _count(self, batch: Batch, took_s: float) -> None:
        counters, entries, commands = self.counters, len(batch.entries), len(batch.deeds)
        counters.commit_s.add(took_s)
        counters.commit_entries.add(entries)
        counters.commands += commands
        counters.readings += entries - commands

    def _refuse(self, batch: Batch, failure: JournalUnavailable) -> None:
        """Tell the senders of a batch that it was not stored, and refuse what their lanes have sent since."""
        self._account.forget_outlooks()
        failed = [done for _, done, *_ in batch.submissions]
        behind: list[OnCommitted] = []
        if self._open.leans:
            failed += [done for _, done, *_ in self._open.submissions]
            self._open = Batch()
        else:
            self._open, behind = self._open.without(batch.lanes(), batch.producers())
        for done in failed:
            done(failure, 0)
        for done in behind:
            done(OutOfOrder("an update before this one was not stored"), 0)

    async def _follow_journal(self) -> None:
        async for entries in self._journal.follow(self.state.seq):
            cast = Cast(encode_all(entries), entries)
            if (unknown := self.router.prepare(cast)) is not None:
                await self._find_routes(cast, unknown)
            self.state.apply_all(entries)
            self.router.offer(cast)
            self._answer()
            if self._awaited:
                self._tell_reached()

    async def _find_routes(self, cast: Cast, unknown: int | None) -> None:
        """Ask who wants a cast, a little at a time: many new names and many patterns hold up nobody but the casts."""
        for _ in range(ROUTE_PASSES):
            version = self.router.version
            while unknown is not None:
                await asyncio.sleep(0)
                unknown = self.router.prepare(cast, unknown)
            if version == self.router.version:
                return
            unknown = self.router.prepare(cast)

    def _tell_reached(self) -> None:
        reached = [waiter for waiter, (seq, _) in self._awaited.items() if seq <= self.state.seq]
        for callback in [self._awaited.pop(waiter)[1] for waiter in reached]:
            callback()

    def _answer(self) -> None:
        """Answer the senders of all that is both durable and in the state; neither comes first for certain."""
        unanswered = self._unanswered
        while unanswered and unanswered[0].last_seq <= self.state.seq:
            first_seq, _, batch = unanswered.popleft()
            self._account.settle(batch)
            before_seq = first_seq - 1
            for count, done, _, _ in batch.submissions:
                done(None, before_seq + count)
        self._measure_room()


def _call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback)
