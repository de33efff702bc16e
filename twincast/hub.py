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
from typing import NamedTuple

from twincast.core import protocol
from twincast.core.cast import Cast, Watcher
from twincast.core.model import Entry
from twincast.core.session import Done
from twincast.core.state import State
from twincast.errors import JournalUnavailable, Stopping
from twincast.journal import Journal

logger = logging.getLogger("twincast.hub")

ENTRY_BYTES = 256
"""What an entry that waits costs beside its text."""


def system_now_utc() -> str:
    """Return the time as every wire writes it: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class _Committed(NamedTuple):
    """A durable batch whose senders wait until the state has it."""

    first_seq: int
    last_seq: int
    receipts: list[tuple[int, Done]]


class Hub:
    """The owner of the state. Lives on one event loop; `run` drives it until `stop`."""

    def __init__(
        self, journal: Journal, state: State, *, open_batch_max_bytes: int, now_utc: Callable[[], str] = system_now_utc
    ) -> None:
        """Take over a journal and its snapshot; use `Hub.over` to read the snapshot as well.

        Args:
            journal: where changes become durable.
            state: the journal's snapshot, applied from here on by this hub alone.
            open_batch_max_bytes: how much may wait for the next commit before senders are held back.
            now_utc: the clock, as text.
        """
        self._journal = journal
        self._open: list[Entry] = []
        self._open_bytes = 0
        self._open_max_bytes = open_batch_max_bytes
        self._receipts: list[tuple[int, Done]] = []
        self._unanswered: deque[_Committed] = deque()
        self._work = asyncio.Event()
        self._committing = False
        self._watchers: dict[Watcher, None] = {}
        self._snapshot_json = (0, b"{}")
        self._stopping = False
        self.has_room = True
        """Whether a sender may go on; if not, `when_settled` tells when to ask again."""
        self.now_utc = now_utc
        self.state = state
        self.failure: JournalUnavailable | None = None
        """Why the newest commit failed; None as soon as one succeeds."""
        self._started_s = time.monotonic()

    @classmethod
    async def over(cls, journal: Journal, *, open_batch_max_bytes: int) -> "Hub":
        """Make a hub on what a journal holds."""
        return cls(journal, State(await journal.snapshot()), open_batch_max_bytes=open_batch_max_bytes)

    @property
    def watchers_count(self) -> int:
        """How many watch at the moment."""
        return len(self._watchers)

    @property
    def uptime_s(self) -> float:
        """How long this hub has run."""
        return time.monotonic() - self._started_s

    def join(self, watcher: Watcher) -> None:
        """Offer every later change to a watcher, from the current position of the state on."""
        self._watchers[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """Offer nothing more to a watcher."""
        self._watchers.pop(watcher, None)

    def submit(self, entry: Entry, size_bytes: int, done: Done) -> None:
        """Take one entry into the open batch; see `submit_all`."""
        if self._stopping:
            done(Stopping("the server is shutting down"), 0)
            return
        self._open.append(entry)
        self._admitted(size_bytes + ENTRY_BYTES, done)

    def submit_all(self, entries: Sequence[Entry], size_bytes: int, done: Done) -> None:
        """Take entries into the open batch, to be stored all or none.

        `done` is called once, on the event loop: with None and the last seq when the entries are durable and the state
        and every watcher have them, or with the error that kept all of them out.
        """
        if self._stopping:
            done(Stopping("the server is shutting down"), 0)
            return
        self._open.extend(entries)
        self._admitted(size_bytes + ENTRY_BYTES * len(entries), done)

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once everything that was submitted until now has its answer; at once if it has."""
        if self._open or self._receipts or self._committing or self._unanswered:
            self._admitted(0, lambda _error, _seq: callback())
        else:
            callback()

    def snapshot_json(self) -> bytes:
        """Return the state's twins as a JSON object; encoded at most once per position, whoever asks."""
        seq, text = self._snapshot_json
        if seq != self.state.seq:
            text = protocol.encode(self.state.twins)
            self._snapshot_json = (self.state.seq, text)
        return text

    async def run(self) -> None:
        """Drive the state: commit what is submitted, apply and cast what the journal made durable.

        Runs until cancelled. If it raises, the state is no longer driven and the process must end.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit_batches(), name="hub commits")
            group.create_task(self._follow_journal(), name="hub follows")

    async def stop(self) -> None:
        """Refuse what is new, and return when all that was accepted has its answer."""
        self._stopping = True
        settled = asyncio.Event()
        self.when_settled(settled.set)
        await settled.wait()

    def _admitted(self, size_bytes: int, done: Done) -> None:
        self._open_bytes += size_bytes
        if self._open_bytes >= self._open_max_bytes:
            self.has_room = False
        if not self._receipts:
            self._work.set()
        self._receipts.append((len(self._open), done))

    async def _commit_batches(self) -> None:
        seq = self.state.seq
        while True:
            await self._work.wait()
            self._work.clear()
            batch, receipts = self._open, self._receipts
            self._open, self._receipts, self._open_bytes, self.has_room = [], [], 0, True
            if batch:
                self._committing = True
                span = await self._commit(batch, receipts)
                self._committing = False
                if span is None:
                    continue
                seq = span[-1]
                self._unanswered.append(_Committed(span[0], seq, receipts))
            else:
                self._unanswered.append(_Committed(seq, seq, receipts))
            self._answer()

    async def _commit(self, batch: list[Entry], receipts: list[tuple[int, Done]]) -> range | None:
        now_utc = self.now_utc()
        for entry in batch:
            entry.timestamp_utc = now_utc
        try:
            span = await self._journal.append(batch)
        except JournalUnavailable as failure:
            if self.failure is None:
                logger.error("nothing is stored or cast until the journal works again: %s", failure)
            self.failure = failure
            for _, done in receipts:
                done(failure, 0)
            return None
        if self.failure is not None:
            logger.warning("the journal works again")
            self.failure = None
        return span

    async def _follow_journal(self) -> None:
        async for entries in self._journal.follow(self.state.seq):
            apply, encode = self.state.apply, protocol.encode
            for entry in entries:
                apply(entry)
            cast = Cast([encode(entry) for entry in entries], entries)
            for watcher in tuple(self._watchers):
                watcher.offer(cast)
            self._answer()

    def _answer(self) -> None:
        """Answer the senders of all that is both durable and in the state; neither comes first for certain."""
        unanswered = self._unanswered
        while unanswered and unanswered[0].last_seq <= self.state.seq:
            first_seq, _, receipts = unanswered.popleft()
            for count, done in receipts:
                done(None, first_seq + count - 1)
