"""Decides when the log of an open journal is looked at and trimmed: in turns with commits, and seldom when idle."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import takewhile

from twincast.core.space import PACE_STEP_S, Pace, Space, full_in_s
from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.health import free_of_disk_bytes
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.files import unlink
from twincast.journal.sqlite.history.summaries import Summaries
from twincast.journal.sqlite.history.times import time_us
from twincast.journal.sqlite.open_journal import OpenJournal
from twincast.journal.sqlite.trim import SLICE_BYTES, SLICE_ENTRIES, Look

logger = logging.getLogger("twincast.journal")

AGED_LOOK_S = 60.0
"""How often an idle journal is looked at, at most, for entries that have become too old."""
AGAIN_S = 5.0
"""After how long a failed slice is tried again."""
REST = 8.0
"""For so many times as long as a slice took the thread is left to commits. Under load a slice goes for each half of one
that has come: it takes twice as much, so trimming keeps up, in steps as even as the load's own. Of what comes at once
and is more than a slice, the rest counts as come after it: then half of the thread's time is left to commits."""
PAUSE_MAX_S = 0.1


def system_now_utc() -> str:
    """Return the time as entries have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class TrimSchedule:
    """Has the oldest entries trimmed when they are too old or too many, and knows how full the journal is.

    On one event loop. Either a slice is due or under way (`_is_busy`), or a timer waits for the next look, or nothing
    does: then the next commit decides. A failure waits AGAIN_S and looks again.
    """

    def __init__(self, journal: OpenJournal, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Look at a journal that was just opened; see `start`.

        Args:
            journal: the open journal.
            clock_s: when looks are due.
        """
        file = journal.file
        self._file, self._worker, self._path = file, journal.worker, journal.path
        self._partitions = file.partitions
        self._retention, self._now_utc = journal.retention, journal.now_utc
        self._clock_s = clock_s
        self._look = file.look(journal.now_utc())
        self._pace = Pace(clock_s(), self._look.used_bytes)
        self._seq = file.seq
        self._looked_at_seq, self._looked_at_bytes, self._looked_at_s = file.seq, file.appended_bytes, clock_s()
        self._timer: asyncio.TimerHandle | None = None
        self._is_busy = self._is_closed = False
        self._due: Look | None = None  # what goes with the next slice, as it waits for its turn
        self._takes_entries = 0  # with the slice that is under way
        self._is_stale = False  # there is more to see than the look that is under way may have seen
        self._problem: str | None = None
        self._dropped: tuple[Part, ...] = ()  # out of the log, with files that may go
        self._summaries = Summaries(journal, made=self.closed)
        self._kept_back: Part | None = None
        self.followed: dict[object, int] = {}
        """The position that each follower of the journal has read up to; later entries stay."""
        self.oldest_since = self._look.oldest_since
        """The position before the oldest entry that is not about to be deleted."""

    def start(self) -> None:
        """Begin, on the event loop."""
        self._go_on(0.0)

    def appended(self, newest_seq: int) -> None:
        """Take note of a commit."""
        self._seq = newest_seq
        if self._due is not None and self._has_come(0.5):
            self._begin(self._due)
        if self._is_busy:
            return
        is_much = (self._retention.is_bounded or self._partitions.parts) and self._has_come(1.0)
        is_first = self._look.oldest_at_utc is None
        if is_much or is_first or self._clock_s() - self._looked_at_s >= PACE_STEP_S:
            self._begin(None)

    def _has_come(self, slices: float) -> bool:
        """Whether as much was appended since the last look as is in so many slices."""
        entries, size_bytes = self._seq - self._looked_at_seq, self._file.appended_bytes - self._looked_at_bytes
        return entries >= slices * SLICE_ENTRIES or size_bytes >= slices * SLICE_BYTES

    def begins(self, since: int) -> None:
        """Take note that the log, which was empty, begins behind a position."""
        self.oldest_since = max(self.oldest_since, since)

    def closed(self) -> None:
        """Take note that another partition was closed, or one summed up: what it has may go off the log."""
        self._is_stale = True
        if not self._is_busy:
            self._begin(None)

    def keep_back(self, part: Part | None) -> None:
        """Have a partition stay for as long as the next one is closed, which takes its twins from it; None ends that.

        A drop of it that is under way in the journal's thread is not held up.
        """
        self._kept_back = part

    def close(self) -> None:
        """Begin no further slice. One that has begun in the thread ends there."""
        self._is_closed = True
        self._forget_timer()

    async def end(self) -> None:
        """End what is made in other processes."""
        await self._summaries.close()

    def space(self) -> Space:
        """Return how full the journal is."""
        look, growth = self._look, self._pace.bytes_per_s(self._clock_s())
        problem = self._problem or self._summing_problem() or (self._why_short() if look.is_short else None)
        disk_free_bytes = free_of_disk_bytes(self._path)
        free_bytes = None if disk_free_bytes is None else disk_free_bytes + look.free_bytes
        return Space(
            file_bytes=_size_bytes(self._path),
            history_bytes=look.history_bytes,
            wal_bytes=_size_bytes(f"{self._path}-wal"),
            used_bytes=look.used_bytes,
            checkpoint_lag=self._seq - self._file.checkpoint_seq,
            entries=self._seq - look.oldest_since,
            oldest_seq=look.oldest_since + 1,
            oldest_at_utc=look.oldest_at_utc,
            keep_s=self._retention.keep_s,
            keep_bytes=self._retention.keep_bytes,
            disk_free_bytes=disk_free_bytes,
            growth_bytes_per_s=None if growth is None else round(growth, 1),
            # Where less goes than should, no bound can be relied on.
            full_in_s=full_in_s(free_bytes, growth, *((None, None) if problem else self._until_bounds())),
            problem=problem,
        )

    def _until_bounds(self) -> tuple[int | None, float | None]:
        """Return how much may still be taken before the oldest goes, and in how long it goes for its age.

        The bytes are those at which a partition goes, or what is left of one: there are some before the bound is
        reached. Age is no bound where sums are left, for then the journal goes on growing; nor as long as the log has
        no more entries than those that always stay.
        """
        bytes_max, keep_s = self._retention.closed_max_bytes, self._retention.keep_s
        until_bytes = None if bytes_max is None else bytes_max - self._look.used_bytes
        if keep_s is None or self._look.oldest_at_utc is None or self._retention.leaves_sums:
            return until_bytes, None
        if self._partitions.parts:
            oldest = self._partitions.parts[0]
            last_seq, newest_us = oldest.last_seq, float(oldest.stored_max_us)
        else:  # it may be closed first, with what comes until then
            last_seq = self._look.oldest_since + 1
            newest_us = time_us(self._look.oldest_at_utc) + self._retention.closes_at_age_s * 1e6
        if last_seq > self._seq - self._retention.keep_entries:
            return until_bytes, None
        return until_bytes, keep_s + (newest_us - time_us(self._now_utc())) / 1e6

    def _begin(self, due: Look | None) -> None:
        """Have the thread trim what is due, if anything is, and look what comes next."""
        self._forget_timer()
        if self._is_closed:
            return
        self._is_busy, self._is_stale, self._due = True, False, None
        until: int | None = None
        dropped: tuple[Part, ...] = ()
        forgotten: tuple[Part, ...] = ()
        if due is not None:
            forgotten = tuple(due.forgotten)
            at_least = min(self.followed.values(), default=self._seq)
            dropped = self._ready([part for part in due.dropped if part.last_seq <= at_least])
            until = _until(due, dropped)
            if until is not None:  # no further than what was closed meanwhile, if anything was
                until = min(until, self._partitions.parts[-1].last_seq if self._partitions.parts else at_least)
            self._go_before(until, dropped)
        self._takes_entries = 0 if due is None or until is None else until - due.hot_since
        left = self._summaries.of(dropped)
        self._worker.do(self._work, until, (*forgotten, *dropped), left).add_done_callback(self._worked)

    def _ready(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """Return those that may be dropped now, as what is to be left of them is made; have the next one made."""
        parts = tuple(takewhile(lambda part: part != self._kept_back, parts))
        oldest_us = self._retention.oldest_rollup_us(self._now_utc())
        if oldest_us is None:
            return parts
        return tuple(takewhile(lambda part: part.stored_max_us < oldest_us or self._summaries.has(part), parts))

    def _go_before(self, until: int | None, dropped: Sequence[Part]) -> None:
        """Before the oldest is gone: who resumes from there is refused now, and reads nothing that is about to go."""
        if dropped:
            self.oldest_since = max(self.oldest_since, dropped[-1].last_seq)
        if until is not None and not self._partitions.parts:
            self.oldest_since = max(self.oldest_since, until)

    def _work(self, until: int | None, gone: Sequence[Part], left: Sequence[Part]) -> tuple[Look, float]:
        """Trim and look; return also for how long others had to wait for the thread."""
        began_s = self._clock_s()
        if until is not None or gone:
            self._file.guard.check()
        if gone:
            self._dropped = (*self._dropped, *self._partitions.drop(gone, left))
        if until is not None:
            self._file.trim(until)
        return self._file.look(self._now_utc()), self._clock_s() - began_s

    def _worked(self, future: "asyncio.Future[tuple[Look, float]]") -> None:
        self._is_busy = False
        self._note_look()
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._fail(error)
            return
        if self._problem is not None:
            logger.warning("the oldest entries are trimmed again")
            self._problem = None
        self._look, took_s = future.result()
        self.oldest_since = max(self.oldest_since, self._look.oldest_since)
        if self._dropped:
            dropped, self._dropped = self._dropped, ()
            self._summaries.forget(dropped)
            # In a thread of its own: the file system takes its time over a large file. What is left goes at next start.
            asyncio.get_running_loop().run_in_executor(None, unlink, self._path, dropped)
        self._pace.note(self._looked_at_s, self._look.used_bytes)
        self._go_on(min(took_s if self._has_come(0.5) else REST * took_s, PAUSE_MAX_S))

    def _note_look(self) -> None:
        """Take note of what had come by a look; but of what a slice leaves over of that, as if it came now."""
        come, come_bytes = self._seq - self._looked_at_seq, self._file.appended_bytes - self._looked_at_bytes
        taken = min(1.0, self._takes_entries / come) if self._takes_entries and come else 1.0
        self._looked_at_seq += round(taken * come)
        self._looked_at_bytes += round(taken * come_bytes)
        self._looked_at_s = self._clock_s()

    def _go_on(self, pause_s: float) -> None:
        """Schedule what is due, after a pause, or when enough has come meanwhile."""
        look = self._look
        at_least = min(self.followed.values(), default=self._seq)
        dropped = self._ready([part for part in look.dropped if part.last_seq <= at_least])
        is_possible = bool(look.forgotten or dropped) or (
            _until(look, dropped) is not None and (bool(self._partitions.parts) or at_least > look.oldest_since)
        )
        if is_possible:
            self._is_busy, self._due = True, look
            self._later(pause_s, look)
        elif self._is_stale:
            self._begin(None)
        elif look.is_due:
            self._later(AGAIN_S, None)
        elif self._retention.keep_s is not None:
            self._later(min(AGED_LOOK_S, self._retention.keep_s / 10), None)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, JournalUnavailable):
            logger.error("the oldest entries are not trimmed", exc_info=error)
        elif self._problem is None:
            logger.warning("the oldest entries are not trimmed, and the journal grows meanwhile: %s", error)
        self._problem = f"the oldest entries cannot be trimmed: {error}"
        self._later(AGAIN_S, None)

    def _later(self, delay_s: float, due: Look | None) -> None:
        self._forget_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin, due)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _summing_problem(self) -> str | None:
        why = self._summaries.problem
        return None if why is None else f"the oldest entries stay, for their sums cannot be made: {why}"

    def _why_short(self) -> str:
        return (
            f"the journal takes more than keep_bytes leaves it, for the newest {self._retention.keep_entries:,} entries"
            " and the state are always kept: raise --keep-bytes, or lower --resume-max-entries"
        )


def _until(look: Look, dropped: Sequence[Part]) -> int | None:
    """Return up to where the log is trimmed, if these of its partitions are dropped; None if it is not.

    Behind one that stays, all stays that no other one has: the log has no holes.
    """
    if look.until is None or len(dropped) == len(look.dropped):
        return look.until
    until = min(look.until, look.dropped[-1].last_seq)
    return until if until > look.hot_since else None


def _size_bytes(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
