"""The one path of every entry: submit, append, apply, fan out.

Entries go into the log by the intake. Everything else follows the log: whatever the journal reports as durable,
whoever wrote it, is encoded, applied to the state and fanned out to subscribers.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from twincast.core.counters import Histogram
from twincast.core.erasure import Erasure
from twincast.core.model import Entry, Position
from twincast.core.quotas import Quotas
from twincast.core.space import Space
from twincast.core.state import State
from twincast.delivery.cast import Cast
from twincast.delivery.router import Router
from twincast.delivery.scheduler import Scheduler
from twincast.delivery.selection import Selections
from twincast.delivery.snapshots import SnapshotCache
from twincast.delivery.stream import OnBlock
from twincast.errors import JournalUnavailable, LogReplaced, NotYet, TwincastError
from twincast.hub.intake import Intake
from twincast.hub.readback import ReadBack
from twincast.hub.reads import Reads
from twincast.hub.waits import PositionWaits
from twincast.journal.stores import Journal
from twincast.wire.messages import SizeLimits, encode_all

COME_S = 3.0
"""How long a client waits that was further on another server: one that follows is some milliseconds behind."""
ROUTE_PASSES = 8
"""How often routes are looked for again because the subscriptions changed meanwhile: new ones must not delay casts."""


def system_now_utc() -> str:
    """Return the time as every wire writes it: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Hub:
    """The owner of the state and of what follows it. Lives on one event loop; `run` drives it until `stop`."""

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
        is_shared: bool = False,
    ) -> None:
        """Take over a journal and its snapshot; use `Hub.over` to read the snapshot as well.

        Args:
            journal: where entries become durable.
            state: the journal's snapshot; from here on only this hub applies entries to it.
            open_batch_max_bytes: how much may wait for the next commit before senders are held back.
            resume_max_entries: how far back a client's position may be to be resumed from.
            sizes: how large what a client sends may be; `hello` states it to each client.
            snapshot_part_max_bytes: how much of the state one message holds.
            quotas: how much state there may be.
            now_utc: the clock, as text.
            is_shared: whether other servers follow the same log, and give out its positions.
        """
        self._journal = journal
        self._is_shared = is_shared
        self._read_back = ReadBack(journal)
        self._resume_max_entries = resume_max_entries
        self._awaited = PositionWaits()
        self.now_utc = now_utc
        self.state = state
        self.sizes = sizes or SizeLimits()
        self.intake = Intake(
            journal, state, open_batch_max_bytes=open_batch_max_bytes, quotas=quotas or Quotas(), now_utc=now_utc
        )
        """The way into the log."""
        # Not methods: a call less a reading.
        self.submit, self.submit_all = self.intake.submit, self.intake.submit_all
        self.submit_together = self.intake.submit_together
        self.router = Router(state, _call_later)
        self.scheduler = Scheduler(_call_later)
        self.selections = Selections(state)
        self.reads = Reads(state, self.scheduler, self.selections)
        """What one client asks of the state, in slices."""
        self.snapshots = SnapshotCache(
            state, now_utc, time.monotonic, self.sizes, part_max_bytes=snapshot_part_max_bytes
        )
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
        is_shared: bool = False,
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
            is_shared=is_shared,
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

    def is_of_this_log(self, position: Position) -> bool:
        """Whether a position is of this log. Of one that is shared, another server may be further than this one."""
        reason = self.why_not_ours(position)
        return not reason or (self._is_shared and reason == "ahead")

    def when_come(self, since: Position, call: Callable[[TwincastError | None], None]) -> Callable[[], None] | None:
        """See Stream in delivery/stream."""
        if not self._is_shared or self.why_not_ours(since) != "ahead":
            return None

        def come() -> None:
            timer.cancel()
            call(None)

        def give_up() -> None:
            forget()
            call(NotYet(f"this server has not read the log up to {since.seq} yet; come back, or go to another"))

        def forget_both() -> None:
            forget()
            timer.cancel()

        timer = _call_later(COME_S, give_up)
        forget = self.when_reached(since.seq, come)
        return forget_both

    def read_back(self, since: int, until: int, on_block: OnBlock) -> Cast | None:
        """See Stream in delivery/stream."""
        return self._read_back.read(since, until, on_block)

    @property
    def problem(self) -> JournalUnavailable | None:
        """Why nothing is stored at the moment; see Journal."""
        return self._journal.problem

    def space(self) -> Space:
        """Return how full the journal is; see Journal."""
        return self._journal.space()

    @property
    def journal_sync_s(self) -> Histogram:
        """How long the syncs to the disk took, which are part of the commits; see Journal."""
        return self._journal.sync_s

    async def erasures(self) -> Sequence[Erasure]:
        """Return the deletions of histories that are not carried out everywhere; see Journal.

        Raises:
            JournalUnavailable: the disk does not give them.
        """
        return await self._journal.erasures()

    async def read(self, since: int, limit: int) -> Sequence[Entry]:
        """Return up to `limit` entries of the log after `since`, oldest first.

        Raises:
            Truncated: the log no longer reaches back to `since`.
            JournalUnavailable: the disk does not give them.
        """
        return await self._journal.read(since, limit)

    async def read_one(self, seq: int) -> Entry:
        """Return one entry of the log, from memory if it is there. Raises what `read` raises."""
        newest = self._journal.recent(seq - 1)
        return newest[0] if newest else (await self._journal.read(seq - 1, 1))[0]

    def when_reached(self, seq: int, callback: Callable[[], None]) -> Callable[[], object]:
        """Call back once the state has a position; at once if it has.

        Returns:
            A function that forgets the callback: to be called when the wait is given up, for the position may never
            come.
        """
        if self.state.seq >= seq:
            callback()
            return _forget_nothing
        return self._awaited.add(seq, callback)

    async def run(self) -> None:
        """Drive the state: commit what is submitted, then apply and cast what the journal reports as durable.

        Runs until cancelled. If it raises anything else than LogReplaced, the state is no longer driven and the process
        must end.

        Raises:
            LogReplaced: the journal is to be opened anew, with another hub. All that waited here is refused with it.
        """
        replaced: LogReplaced | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.intake.run(), name="hub commits")
                group.create_task(self._follow_journal(), name="hub follows")
                group.create_task(self._read_back.run(), name="hub reads back")
        except* LogReplaced as those:
            replaced = LogReplaced(*those.exceptions[0].args)  # without the group, of which nobody knows
        if replaced is not None:
            self.intake.abandon(replaced)
            raise replaced

    async def stop(self) -> None:
        """Refuse what is new, and return when all that was accepted has its answer."""
        await self.intake.stop()

    async def _follow_journal(self) -> None:
        erasures = self.state.erasures
        async for committed in self._journal.follow(self.state.seq):
            entries = committed.entries
            texts = encode_all(entries) if committed.texts is None else committed.texts
            cast = Cast(texts, entries, has_late=committed.has_late)
            if (unknown := self.router.prepare(cast)) is not None:
                await self._find_routes(cast, unknown)
            self.intake.learn(committed)
            self.state.apply_all(entries)
            self.router.offer(cast)
            if self.state.erasures != erasures:
                erasures = self.state.erasures
                self._read_back.forget()
            self.intake.settle()
            if self._awaited:
                self._awaited.tell(self.state.seq)

    async def _find_routes(self, cast: Cast, unknown: int | None) -> None:
        """Find the routes of a cast in slices: many new names and many patterns delay the casts, and nothing else."""
        for _ in range(ROUTE_PASSES):
            version = self.router.version
            while unknown is not None:
                await asyncio.sleep(0)
                unknown = self.router.prepare(cast, unknown)
            if version == self.router.version:
                return
            unknown = self.router.prepare(cast)


def _forget_nothing() -> None:
    """Forget a callback that was called already."""


def _call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback)
