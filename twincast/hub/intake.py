"""The way into the log: submissions collect in the open batch, and one batch after another commits (group commit).

A batch is open, then committing, then durable but not answered, and at last answered; or it fails as a whole. It is
answered when it is durable and the state has it: neither comes first for certain, since the journal reports what is
durable by another way. There is no timer: load makes batches bigger and each reading cheaper, and an idle server
answers at once. Nobody, not even its sender, learns of a change before it is durable.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from twincast.core.audit import Actor
from twincast.core.batch import ENTRY_BYTES, Batch, Committed, Lane, Placed
from twincast.core.counters import Counters
from twincast.core.idempotency import IdempotencyIndex, IdempotencyKey, OnCommitted
from twincast.core.lateness import Horizon, horizon_in, is_clock_off, note
from twincast.core.model import DataUpdate, Deleted, Entry, Late
from twincast.core.producers import NumberedLine, ProducerIndex
from twincast.core.quotas import Account, Quotas
from twincast.core.state import State
from twincast.errors import (
    JournalUnavailable,
    KeyReused,
    LinePassed,
    NotFound,
    OutOfOrder,
    StateFull,
    Stopping,
    TooLarge,
    TwincastError,
)
from twincast.journal.bell import Bell
from twincast.journal.stores import Journal


class Intake:
    """Takes submissions, commits them and answers them. Lives on one event loop; `run` commits until `stop`."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        *,
        open_batch_max_bytes: int,
        quotas: Quotas,
        now_utc: Callable[[], str],
    ) -> None:
        """Take submissions to a journal.

        Args:
            journal: where they become durable.
            state: what others apply them to, once the journal reports them.
            open_batch_max_bytes: how much may wait for the next commit before senders are held back.
            quotas: how much state there may be.
            now_utc: the clock, as text.
        """
        self._journal = journal
        self._state = state
        self._now_utc = now_utc
        self._open = Batch()
        self._open_max_bytes = open_batch_max_bytes
        self._committing: Batch | None = None
        self._unanswered: deque[tuple[Placed, Batch]] = deque()
        self._has_work = Bell()
        self._account = Account(state, quotas)
        self._at_ease = self._account.at_ease
        self._free_bytes = self._account.free_bytes(0)
        self._keys = IdempotencyIndex(journal.keys)
        self._producers = ProducerIndex(journal.marks)
        self._refuses: TwincastError | None = None  # everything that is new, with this
        self.has_room = True
        """Whether a sender may go on; if not, it must wait for `when_settled`, or for `room`."""
        self.counters = Counters()
        """What is counted of the commits."""

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the next commit."""
        return self._open.size_bytes

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
        if not batch.submissions:
            self._has_work.ring()
        batch.add(entry, size_bytes + ENTRY_BYTES, done, lane, identity)
        if batch.size_bytes >= self._open_max_bytes:
            self.has_room = False

    def submit_together(
        self,
        readings: Sequence[DataUpdate],
        size_bytes: int,
        done: OnCommitted,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> bool:
        """Take readings of one sender into the open batch at once, if nothing has to be decided of any of them.

        Args:
            readings: at least one. None of them claims when it was measured.
            size_bytes: the length of their text.
            done: called once, for all of them; see `submit_all`.
            lane: see `submit_all`.
            identity: see `submit_all`.

        Returns:
            Whether they were taken. If not, they are to be submitted one by one, for some may be refused.
        """
        batch = self._open
        size_bytes += ENTRY_BYTES * len(readings)
        if batch.size_bytes + size_bytes > self._free_bytes or identity not in self._at_ease:
            return False
        if not batch.submissions:
            self._has_work.ring()
        batch.add_all(readings, size_bytes, done, lane, identity, are_plain=True)
        if batch.size_bytes >= self._open_max_bytes:
            self.has_room = False
        return True

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
        are_plain: bool = False,
    ) -> None:
        """Take entries into the open batch, to be stored all or none.

        A deletion of an unknown device is refused with NotFound, and what would bring the state, or the share of
        `identity` in it, beyond its bounds with StateFull. Both are decided in the light of all that was submitted
        before, so the refusal comes when that is stored. If that cannot be stored, the open batch fails with it, for it
        was decided on what did not come true.

        Args:
            entries: at least one.
            size_bytes: the length of their text.
            done: called once, on the event loop: with None and the last seq when the entries are durable and the state
                and every subscriber have them, or with the error that kept all of them out.
            idempotency_key: if it is stored already, nothing is stored, and its `again` is called instead of `done`.
            actor: noted in the audit trail, in the same transaction; commands and deletions have one.
            lane: what waits in it for the next commit is refused with OutOfOrder when a commit fails that has an
                entry of the same lane, so that nothing overtakes what was sent before it.
            identity: of the sender; empty without a login.
            line: the number of the one entry. If it is stored already, or pending, nothing is stored again, and its
                `again` is called.
            are_plain: whether none of them claims when it was measured, as far as that is known.
        """
        if self._refuses is not None:
            done(self._refuses, 0)
            return
        try:
            if idempotency_key is not None:
                pending = self._keys.admit(idempotency_key, len(entries), done, self._state.seq)
                if pending is None:
                    return
                idempotency_key, done = pending.key, pending.settle
            if line is not None:
                settle = self._producers.admit(line, done)
                if settle is None:
                    return
                done = settle
        except (KeyReused, LinePassed) as error:
            done(error, 0)
            return
        size_bytes += ENTRY_BYTES * len(entries)
        refusal = self._refusal(entries, size_bytes, identity)
        if refusal is not None:
            self._when_settled(lambda error, _: done(error or refusal, 0), lane)
            return
        batch = self._open
        if not batch.submissions:
            self._has_work.ring()
        batch.add_all(
            *(entries, size_bytes, done, lane, identity),
            key=idempotency_key,
            actor=actor,
            line=line,
            are_plain=are_plain,
        )
        if batch.size_bytes >= self._open_max_bytes:
            self.has_room = False

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once everything that was submitted until now has its answer; at once if it has."""
        self._when_settled(lambda _error, _seq: callback())

    async def settled(self) -> None:
        """Wait until everything that was submitted until now has its answer."""
        settled = asyncio.Event()
        self.when_settled(settled.set)
        await settled.wait()

    async def room(self) -> None:
        """Wait until a sender may go on."""
        while not self.has_room:
            await self.settled()

    async def stop(self) -> None:
        """Refuse what is new, and return when all that was accepted has its answer."""
        self._refuse(Stopping("the server is shutting down"))
        await self.settled()

    def abandon(self, error: TwincastError) -> None:
        """Refuse what is new, and all that has no answer yet: nothing commits any more, and `run` has ended.

        Some of it may be stored, in a log that is no more.
        """
        self._refuse(error)
        waiting, self._committing, self._open, self.has_room = self._waiting, None, Batch(), True
        self._unanswered.clear()
        for batch in waiting:
            batch.fail(error)

    async def run(self) -> None:
        """Commit what is submitted, one batch after another, until cancelled."""
        last_seq = self._state.seq
        while True:
            while not self._open.submissions:
                await self._has_work.next_ring()
            batch, self._open, self.has_room = self._open, Batch(), True
            max_bytes = self._journal.batch_max_bytes
            if max_bytes is not None and batch.text_bytes > max_bytes:
                self._leave_open(batch.split(max_bytes))
            if batch.entries:
                placed = await self._commit(batch)
                if placed is None:
                    continue
                last_seq = placed.seqs.stop - 1
            else:  # nothing but senders who wait for what was submitted before
                placed = Placed(range(last_seq + 1, last_seq + 1))
            self._unanswered.append((placed, batch))
            self.settle()

    def learn(self, committed: Committed) -> None:
        """Take the keys and marks that the log reports, whoever wrote them, before the state takes their entries."""
        if committed.keys:
            self._keys.learn(committed.keys)
        if committed.marks:
            self._producers.learn(committed.marks)

    def settle(self) -> None:
        """Answer the senders of all that is both durable and in the state."""
        unanswered, seq = self._unanswered, self._state.seq
        was_waiting = len(unanswered)
        while unanswered and unanswered[0][0].seqs.stop - 1 <= seq:
            placed, batch = unanswered.popleft()
            self._account.settle(batch)
            batch.commit(placed)
        if len(unanswered) < was_waiting:
            self._measure_room()

    async def _commit(self, batch: Batch) -> Placed | None:
        """Append a batch; return None if it failed, with all its senders answered."""
        batch.stamp(self._now_utc())
        if lines := batch.lines():
            batch.mark(self._producers.marks(lines))
        if batch.has_claims:
            batch.horizon = self._horizon()
        self._committing = batch
        self._free_bytes -= batch.size_bytes  # it waits now; nothing else has changed
        began_s = time.perf_counter()
        try:
            placed = await self._journal.append(batch)
        except (JournalUnavailable, TooLarge) as error:
            self._fail(batch, error)
            self._committing = None  # not before: what waits until all is settled waits for these answers, too
            self._measure_room()
            return None
        self._committing = None
        # Of these the open batch was decided as if they were new entries, and no late ones.
        if placed.known or placed.has_passed or batch.has_late:
            self._account.forget_outlooks()
        if marks := batch.marks:
            self._producers.learn(marks)
        self._count(batch, time.perf_counter() - began_s)
        return placed

    def _horizon(self) -> Horizon:
        """Return before which time a reading is late that comes behind all that is durable."""
        durable: dict[str, str] = {}
        for _, batch in self._unanswered:
            for entry in batch.entries:
                note(durable, entry)
        state = self._state
        in_state = horizon_in(state.twins, state.deletions)
        return lambda device_id: durable[device_id] if device_id in durable else in_state(device_id)

    def _count(self, batch: Batch, took_s: float) -> None:
        counters, entries, commands = self.counters, len(batch.entries), len(batch.origins)
        counters.commit_s.add(took_s)
        counters.commit_entries.add(entries)
        counters.commands += commands
        counters.readings += entries - commands
        if batch.has_claims:
            counters.late_readings += sum(isinstance(entry, Late) for entry in batch.entries)
            counters.disbelieved_readings += sum(is_clock_off(entry) for entry in batch.entries)

    def _fail(self, batch: Batch, error: JournalUnavailable | TooLarge) -> None:
        """Answer the senders of a batch that was not stored, and refuse what was sent behind it or decided on it.

        What is too large is refused for good, as any message may be: what was sent behind it goes on.
        """
        is_refused = isinstance(error, TooLarge)
        self.counters.failed_commits += not is_refused
        self._account.forget_outlooks()
        leaning, behind = None, list[OnCommitted]()
        if self._open.leans:
            leaning, self._open = self._open, Batch()
        elif not is_refused:
            self._open, behind = self._open.without(batch.lanes(), batch.producers())
        batch.fail(error)
        not_behind_it = OutOfOrder("an update before this one was not stored")
        if leaning is not None:
            leaning.fail(not_behind_it if is_refused else error)
        for done in behind:
            done(not_behind_it, 0)

    def _leave_open(self, rest: Batch | None) -> None:
        """Leave to the next commit what one append cannot hold; what comes now follows behind it."""
        if rest is not None:
            self._account.forget_outlooks()
            self._open = rest
            self.has_room = rest.size_bytes < self._open_max_bytes

    def _refusal(self, entries: Sequence[Entry], size_bytes: int, identity: str) -> NotFound | StateFull | None:
        """Decide, in the light of all that waits, whether entries of one submission are refused."""
        account, entry = self._account, entries[0]
        if isinstance(entry, Deleted):
            self._open.leans = True
            is_known = entry.erases or account.knows(entry.device_id, self._waiting)
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
        durable = [batch for _, batch in self._unanswered]
        return [*durable, self._open] if self._committing is None else [*durable, self._committing, self._open]

    def _when_settled(self, done: OnCommitted, lane: Lane | None = None) -> None:
        """Call back when all that was submitted is in the state, or with the error that kept the last of it out."""
        if self._open.submissions or self._committing or self._unanswered:
            if not self._open.submissions:
                self._has_work.ring()
            self._open.add_all((), 0, done, lane)
        else:
            done(None, self._state.seq)

    def _refuse(self, error: TwincastError) -> None:
        self._refuses, self._free_bytes = error, -1

    def _measure_room(self) -> None:
        """Work out how large the open batch may get before its entries are looked at one by one."""
        if self._refuses is None:
            waiting_bytes = sum(batch.size_bytes for batch in self._waiting[:-1])
            self._free_bytes = self._account.free_bytes(waiting_bytes)
