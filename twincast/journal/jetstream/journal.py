"""The journal of a server on a shared log: what it appends goes to the stream, and is answered when it comes back.

An entry is cast as soon as it is folded, for the stream has made it durable; the copy in the server's own file follows
behind, and is what everything else reads: resume, history, audit.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO, Self

from twincast.core.batch import Batch, Placed
from twincast.core.checks import Checks
from twincast.core.counters import Histogram
from twincast.core.erasure import Erasure, erasures_in
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.model import Entry, Snapshot
from twincast.core.opening import Opening
from twincast.core.producers import ProducerMark
from twincast.errors import JournalUnavailable, LogReplaced, Truncated
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.columns import with_entries
from twincast.journal.jetstream.commit import decode_commit
from twincast.journal.jetstream.copy_file import CopyFile, Step, open_copy
from twincast.journal.jetstream.fold import Fold, Folded, Place
from twincast.journal.jetstream.key_changes import decode_change
from twincast.journal.jetstream.link import ApiError, Link
from twincast.journal.jetstream.reader import StreamReader
from twincast.journal.jetstream.stream import (
    NOT_FOUND,
    StreamFacts,
    begins_at,
    fork_if_cut,
    newest_after,
    open_stream,
    stream_facts,
)
from twincast.journal.jetstream.unstored import Unstored
from twincast.journal.jetstream.writer import CommitWriter, WriteFailed
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite.backup import copied
from twincast.journal.sqlite.erasures import note_stream
from twincast.journal.sqlite.open_journal import OpenJournal
from twincast.journal.sqlite.reader import LogReader
from twincast.journal.sqlite.stored_log import StoredLog
from twincast.journal.sqlite.trim_schedule import system_now_utc
from twincast.journal.sqlite.worker import Worker
from twincast.journal.tail import ENTRY_BYTES, up_to_bytes

logger = logging.getLogger("twincast.journal")

TAIL_MAX_BYTES = 32 << 20
UNSTORED_MAX_BYTES = 16 << 20
"""How much the copy may be behind; the reader then waits. It is in the tail, which holds twice as much."""
STORE_PAUSE_S = 0.02
"""How long the copy waits for more, where it is little: nobody waits for the copy."""
STORE_AGAIN_S = 1.0
STORE_MAX_S = 10.0
"""So long whoever reads what only the copy has waits for it to have the newest."""
STALE_S = 3.0
"""After so long without a reader at work what is read may be old."""
PAYLOAD_ASIDE_BYTES = 64 << 10
"""How much of NATS's largest message is kept for what is not text of entries."""
COMMIT_MAX_BYTES = 4 << 20
"""A commit is not larger than that, if its submissions are not: others would wait for it."""
LONGER = 4
"""At most so many times longer than what it came in a commit gets: where each entry is of another kind or way than the
one before, each is a run of its own, with an actor or a key of its own."""
REPORT_S = 0.2
COPY_FAILS = "this server's copy of the log takes nothing: is its disk full?"


class JetStreamJournal(StoredLog):
    """See Journal. Lives on one event loop."""

    def __init__(
        self, link: Link, address: NatsAddress, file: CopyFile, opened: OpenJournal, reader: LogReader
    ) -> None:
        super().__init__(opened, reader, tail_max_bytes=TAIL_MAX_BYTES)
        self._copy = file
        self.link, self.address = link, address
        """The connection and where it leads, for what servers tell each other beside the log."""
        self._fold = Fold(file.beginning())
        self.key_table = file.key_table()
        """The keys, as of the newest message."""
        self.checks = Checks()
        """The sums of what this server made of the log, which servers compare."""
        self.writer = CommitWriter(link, address)
        """What sends this server's commits; it has the server's name."""
        self._stream = StreamReader(link, address, self._take, self._check, lambda: self._fold.place.stream_seq)
        self._unstored = Unstored()
        self._has_unstored, self._has_stored_some, self._moved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pause_behind = 0  # up to which message the log is read before it is open
        self._is_open = self._waits_for_copy = self._copy_fails = False
        self._read_at_s = time.monotonic()

    @classmethod
    async def open(
        cls,
        address: NatsAddress,
        *,
        retention: Retention = KEEP_ALL,
        now_utc: Callable[[], str] = system_now_utc,
        opening: Opening | None = None,
    ) -> Self:
        """Open, and catch up with what the stream has at this moment.

        Args:
            address: the log, and where this server's copy lies.
            retention: what of the log is kept in the copy.
            now_utc: the clock by which the copy is trimmed.
            opening: is told how far it is.

        Raises:
            JournalUnavailable: NATS does not answer at the moment.
            JournalUnusable: it cannot be used as it is; the message says what to do.
        """
        link = await Link.connect(address)
        try:
            facts = await open_stream(link, address)
            journal = await cls._open(link, address, facts, retention, now_utc)
            facts = await stream_facts(link, address)  # with the fork that opening the copy may have stored
        except BaseException:
            await link.close()
            raise
        try:
            await journal._catch_up(facts.last_seq, opening or Opening())
        except BaseException:
            await journal.close()
            raise
        return journal

    @classmethod
    async def _open(
        cls, link: Link, address: NatsAddress, facts: StreamFacts, retention: Retention, now_utc: Callable[[], str]
    ) -> Self:
        worker = Worker("journal")
        try:
            file = await open_copy(link, address, facts, worker, retention)
            opened = OpenJournal(file, worker, retention, now_utc)
            return await worker.do(cls._assembled, link, address, file, opened)
        except BaseException:
            worker.abandon()
            raise

    @classmethod
    def _assembled(cls, link: Link, address: NatsAddress, file: CopyFile, opened: OpenJournal) -> Self:
        with ExitStack() as undo:
            undo.callback(file.close)
            reader = LogReader(address.copy, file.lineage.epoch)
            undo.callback(reader.close)
            journal = cls(link, address, file, opened, reader)
            undo.pop_all()
            return journal

    async def _catch_up(self, until: int, opening: Opening) -> None:
        """Begin to read, and return when everything up to a message is in the copy."""
        loop = asyncio.get_running_loop()
        of_seq = await newest_after(self.link, self.address)
        self._pause_behind = until
        await self._worker.do(self._copy.begin_catching_up)
        await self.writer.start()
        self._tasks = [
            loop.create_task(self._run(self._stream.run()), name="log reader"),
            loop.create_task(self._run(self._keep_copy()), name="log copy"),
        ]
        while self._fold.place.stream_seq < until or self._unstored:
            opening.at_seq, opening.of_seq = self._fold.seq, max(of_seq, self._fold.seq)
            await self._wait_moved(REPORT_S)
            if self._tail.ended is not None:
                raise self._tail.ended
        await self._worker.do(self._copy.end_catching_up)
        # A fork may have come meanwhile: from here on there is one generation.
        self.lineage = self._file.lineage = self._fold.lineage
        self._reader.epoch = self.lineage.epoch
        self._tail.skip_to(self._fold.seq)
        self._is_open = True
        self._has_stored_some.set()
        self._upkeep.start()

    async def _wait_moved(self, at_most_s: float | None = None) -> None:
        self._moved.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._moved.wait()

    async def _run(self, work: Awaitable[None]) -> None:
        """Do what keeps this journal going; if that ends, followers are told why."""
        try:
            await work
        except Exception as error:
            self._tail.end(error)
            self._moved.set()
            self.writer.fail(WriteFailed("the log is opened anew", "whether it is stored is not known"))

    # What the hub asks

    @property
    def batch_max_bytes(self) -> int:
        """See Journal.batch_max_bytes."""
        return min(self.payload_max_bytes // LONGER, COMMIT_MAX_BYTES)

    @property
    def payload_max_bytes(self) -> int:
        """How much text of entries one message can hold, by the settings of NATS."""
        max_bytes = self.link.max_payload_bytes
        return max_bytes - min(PAYLOAD_ASIDE_BYTES, max_bytes // 4)

    @property
    def keys(self) -> Sequence[IdempotencyRecord]:
        """See Journal.keys."""
        return self._fold.keys

    @property
    def marks(self) -> Sequence[ProducerMark]:
        """See Journal.marks."""
        return self._fold.marks

    @property
    def sync_s(self) -> Histogram:
        """See Journal.sync_s: how long commits took from the first attempt until they came back."""
        return self.writer.commit_s

    @property
    def server_name(self) -> str:
        """What people call this server."""
        return self.writer.name

    @property
    def server_id(self) -> str:
        """Of this run of the server."""
        return self.writer.by

    @property
    def place(self) -> Place:
        """How far in the stream this server is."""
        return self._fold.place

    @property
    def stored_stream_seq(self) -> int:
        """How far in the stream this server's copy is."""
        return self._copy.place.stream_seq

    @property
    def silent_s(self) -> float:
        """For how long the stream has not been heard: what is read here may be that old. 0 while it is."""
        if self._stream.is_reading and not self._waits_for_copy:
            self._read_at_s = time.monotonic()
        return time.monotonic() - self._read_at_s

    @property
    def problem(self) -> JournalUnavailable | None:
        """See Journal.problem."""
        if self._is_held_up:
            return JournalUnavailable(COPY_FAILS)
        if self.writer.problem is not None:
            return self.writer.problem
        if (silent_s := self.silent_s) < STALE_S:
            return None
        return JournalUnavailable(f"NATS has not been heard for {silent_s:.0f} seconds: what is read here may be older")

    @property
    def _is_held_up(self) -> bool:
        """Whether nothing is read from the stream, since the copy takes nothing."""
        return self._waits_for_copy and self._copy_fails

    async def append(self, batch: Batch) -> Placed:
        """See Journal.append.

        Raises:
            TooLarge: NATS takes no message of this size.
            JournalUnavailable: the message says whether nothing was stored, or that this is not known. What was given
                up can be stored only before the next batch, never behind it.
        """
        if self._is_held_up:  # it would not be seen to come back
            raise WriteFailed(COPY_FAILS)
        folded = await self.writer.write(batch, self._fold.seq, self._fold.version)
        if folded.known or folded.passed:
            batch.leave_out(folded.known, folded.passed)
        batch.mark(())  # the fold has moved the marks; they come with the log
        committed = folded.committed
        if committed is None:
            seqs = range(self._fold.seq + 1, self._fold.seq + 1)
        else:
            seqs = committed.seqs
            batch.timestamp_utc, batch.first_seq = committed.entries[0].timestamp_utc, seqs.start
            if batch.has_claims:
                batch.entries, batch.has_late = list(committed.entries), committed.has_late
        return Placed(seqs, folded.known, bool(folded.passed))

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """See Journal.read. The newest are in memory, for the copy is behind."""
        if since >= self._tail.since:
            return up_to_bytes(self._tail.recent(since, limit)[:limit], max_bytes)
        if since < self.oldest_since:  # the copy would not know: it may have nothing yet
            raise Truncated(f"this journal reaches back to {self.oldest_since}, not to {since}")
        found = list(await super().read(since, limit, max_bytes=max_bytes))
        if found and len(found) < limit:  # what follows may be where the copy is not yet
            found += self._tail.recent(found[-1].seq, limit - len(found))[: limit - len(found)]
        return up_to_bytes(found, max_bytes)

    async def erasures(self) -> Sequence[Erasure]:
        """See Journal.erasures."""
        await self.when_stored()
        return await super().erasures()

    async def erased_in_stream(self) -> int:
        """Return up to which message the stream is to go, for what histories were deleted; 0 if none were.

        Raises:
            JournalUnavailable: the disk of the copy does not say it.
        """
        return await self._worker.do(self._copy.erased_in_stream)

    async def stream_begins(self, first_stream_seq: int) -> None:
        """Take note that the stream has nothing before a message any more.

        Raises:
            JournalUnavailable: the disk of the copy does not take it.
        """
        await self._worker.do(partial(self._copy.change, partial(note_stream, first_stream_seq=first_stream_seq)))

    async def snapshot(self) -> Snapshot:
        """See Journal.snapshot."""
        await self.when_stored()
        return await super().snapshot()

    async def when_stored(self) -> None:
        """Wait until this server's copy has what it has taken by now.

        Raises:
            JournalUnavailable: the copy takes nothing.
        """
        until = self._fold.place.stream_seq
        try:
            async with asyncio.timeout(STORE_MAX_S):
                while self.stored_stream_seq < until:
                    await self._wait_moved()
        except TimeoutError:
            raise JournalUnavailable(COPY_FAILS) from None

    async def copied(self) -> BinaryIO:
        """Return the copy as of one moment, checked, as an open file that nobody else has.

        Raises:
            JournalUnavailable: the disk does not take it, or does not give it.
        """
        return await asyncio.to_thread(copied, self.address.copy)

    async def when_folded(self, stream_seq: int) -> None:
        """Wait until this server has taken a message of the stream. Raises JournalUnavailable once none comes."""
        while self._fold.place.stream_seq < stream_seq:
            await self._wait_for_more()

    async def when_keys_change(self, version: int) -> None:
        """Wait until the keys have another version. Raises JournalUnavailable once none comes."""
        while self.key_table.version == version:
            await self._wait_for_more()

    async def _wait_for_more(self) -> None:
        if self._is_closing or self._tail.ended is not None:
            raise JournalUnavailable("the log is no longer followed here")
        await self._wait_moved()

    async def close(self) -> None:
        """See Journal.close."""
        self._is_closing = True
        self._moved.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.writer.close()
        await self.link.close()
        if self._unstored:
            with contextlib.suppress(JournalUnavailable):
                await self._worker.do(self._copy.store, self._unstored.first(sys.maxsize))
        await super().close()

    # What the stream brings

    async def _check(self) -> None:
        """Check that the stream is the one that was folded so far.

        Raises:
            LogReplaced: it is another one, or has lost its end.
            JournalUnavailable: it cannot be seen.
        """
        name, place = self.address.name, self._fold.place
        try:
            facts = await stream_facts(self.link, self.address, is_serving=True)
        except ApiError as error:
            if error.number == NOT_FOUND:
                raise LogReplaced(f"the stream of the log {name!r} was deleted") from None
            raise
        if facts.log != self.epoch:
            raise LogReplaced(f"the stream of the log {name!r} was made anew, or restored")
        if await begins_at(self.link, self.address, facts, place) is not None:
            raise LogReplaced(f"the log {name!r} was trimmed beyond what this server has")
        if await fork_if_cut(self.link, self.address, facts, place, self._fold.generation):
            raise LogReplaced(f"the log {name!r} has lost its end")

    async def _take(self, stream_seq: int, stamp_ns: int, subject: str, data: bytes, message_id: str | None) -> None:
        """Take a message. It may be cancelled while it waits for room; from the fold on nothing waits any more."""
        if subject == self.address.keys_subject:
            change = decode_change(data)
            await self._room(len(data))
            place = self._fold.pass_by(stream_seq, stamp_ns, data)
            self.key_table.apply(change, stream_seq, self._fold.at_utc)
            self._keep(Step(Folded(place), change, self._fold.at_utc), len(data))
            return
        own = self.writer.own(message_id)
        commit = decode_commit(data) if own is None else own.commit
        if await self._room(len(data) + ENTRY_BYTES * commit.count):
            own = self.writer.own(message_id)  # it may have been given up meanwhile
        folded = self._fold.take(stream_seq, stamp_ns, data, commit, None if own is None else own.entries)
        if folded.carried is not None and folded.carried.since:
            self._tail.skip_to(self._fold.seq)
            self._upkeep.trimming.begins(self._fold.seq)
        self._keep(Step(folded), len(data))
        if own is not None:
            own.settle(folded)
        if folded.generation is not None and self._is_open:
            raise LogReplaced(f"the log {self.address.name!r} has lost its end; another generation of it has begun")

    async def _room(self, size_bytes: int) -> bool:
        """Wait while the copy is too far behind for more of a size; return whether that took time."""
        has_waited = False
        try:
            while not self._has_room(size_bytes):
                self._waits_for_copy = has_waited = True
                self._has_stored_some.clear()
                await self._has_stored_some.wait()
        finally:
            self._waits_for_copy = False
        return has_waited

    def _has_room(self, size_bytes: int) -> bool:
        if not self._is_open and self._fold.place.stream_seq >= self._pause_behind:
            return False  # until the copy has all of it: on a busy log it would never be complete
        return not self._unstored or self._unstored.size_bytes + size_bytes <= UNSTORED_MAX_BYTES

    def _keep(self, step: Step, text_bytes: int) -> None:
        """Cast what a message brought, and have the copy take it."""
        place = step.folded.place
        self.checks.note(place.stream_seq, place.crc)
        if self._is_open and step.folded.committed is not None:  # what came before is skipped
            self._tail.append(with_entries(step.folded.committed), text_bytes)
            if erasing := erasures_in(step.folded.deleted):
                self._tail.erase(erasing)
        self._unstored.add(step, text_bytes + ENTRY_BYTES * step.entries)
        self._has_unstored.set()
        self._moved.set()

    async def _keep_copy(self) -> None:
        """Store in the copy what was folded."""
        while True:
            await self._has_unstored.wait()
            if self._is_open and self._unstored.size_bytes < UNSTORED_MAX_BYTES // 16:
                await asyncio.sleep(STORE_PAUSE_S)
            steps = self._unstored.first()
            try:
                await self._worker.do(self._copy.store, steps)
            except JournalUnavailable as problem:
                if not self._copy_fails:
                    logger.error("the copy of the log takes nothing, and what is read from it is old: %s", problem)
                self._copy_fails = True
                await asyncio.sleep(STORE_AGAIN_S)
                continue
            self._copy_fails = False
            self._unstored.stored(len(steps))
            if not self._unstored:
                self._has_unstored.clear()
            self._has_stored_some.set()
            self._moved.set()
            self._has_stored(self._file.seq)
