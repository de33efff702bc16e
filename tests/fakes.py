"""Stand-ins for what surrounds the core, named for what they do."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from msgspec import Raw

from twincast.core.audit import Actor
from twincast.core.batch import ENTRY_BYTES, Batch, Committed, Lane
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, OnCommitted
from twincast.core.lineage import Generation, Lineage
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Position, Snapshot, Source
from twincast.core.pattern import Pattern
from twincast.core.producers import LineId, NumberedLine, ProducerMark
from twincast.core.rights import ANYONE, Principal
from twincast.core.state import State
from twincast.delivery.cast import Cast
from twincast.delivery.router import Router
from twincast.delivery.scheduler import Scheduler
from twincast.delivery.selection import Selections
from twincast.delivery.snapshots import SnapshotCache
from twincast.delivery.stream import OnBlock
from twincast.errors import NotPermitted, Truncated, TwincastError, Unauthenticated
from twincast.wire.messages import SizeLimits, encode_all

NOW_UTC = "2026-11-23T16:24:00.123456+00:00"
LONG_S = 60.0


class CountingEntries(tuple[Entry, ...]):
    """The entries of a batch, which count how often one of them is looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        CountingEntries.looks += 1
        return super().__getitem__(index)


class CountingBatch(Batch):
    """A batch whose stretch of the log has such entries."""

    __slots__ = ()

    def committed(self, texts: Sequence[bytes] | None = None) -> Committed:
        committed = super().committed(texts)
        return Committed(CountingEntries(committed.entries), committed.keys, committed.marks, committed.texts)


def batch_of(
    given: Iterable[Entry],
    *,
    kind: type[Batch] = Batch,
    keys: Mapping[str, tuple[int, str]] | None = None,
    actors: Mapping[int, Actor] | None = None,
    marks: Sequence[ProducerMark] = (),
    lines: Mapping[int, LineId] = MappingProxyType({}),
) -> Batch:
    """Return a batch of entries, with their times as they are, that nobody waits for.

    Args:
        given: the entries; each is a submission, but those of a key.
        keys: idempotency keys, each with how many of the next entries it stands for, and their digest; empty: no key.
        actors: who sent which of the entries, by their index.
        marks: as of which entries producers have come up to where; their `seq` is the index of an entry, so there must
            be no key for more than one.
        lines: which entries are numbered lines, by their index. Who alone writes a log marks them, as the hub does;
            on a shared one each server does that for itself, where it reads them.
    """
    batch, rest, keyed, place = kind(), list(given), list((keys or {}).items()), 0
    while place < len(rest):
        name, (count, digest) = keyed.pop(0) if keyed else ("", (1, ""))
        key = IdempotencyKey(name, digest, _unasked) if name else None
        actor = (actors or {}).get(place)
        line = NumberedLine(*lines[place], _unasked) if place in lines else None
        entries = rest[place : place + count]
        size_bytes = sum(ENTRY_BYTES + len(entry.payload) for entry in entries)
        batch.add_all(entries, size_bytes, _ignored, key=key, actor=actor, line=line)
        place += count
    batch.mark(marks)
    return batch


def _ignored(error: TwincastError | None, last_seq: int) -> None:
    pass


def _unasked(record: IdempotencyRecord | ProducerMark) -> None:
    raise AssertionError("the key, or the line, is new")


class RecordingConnection:
    """An edge's connection that always takes bytes, and remembers what it was given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.casts: list[Cast] = []
        self.closed_with: list[tuple[int, str]] = []

    def write(self, cast: Cast) -> None:
        self.messages.extend(cast.messages)
        self.casts.append(cast)

    def close(self, code: int, reason: str) -> None:
        self.closed_with.append((code, reason))

    def taken(self) -> list[bytes]:
        """Return what was written since the last call."""
        messages, self.messages, self.casts = self.messages, [], []
        return messages


class StallingConnection(RecordingConnection):
    """A connection whose buffer is full after every `writes_until_full` writes: it then pauses the session."""

    def __init__(self, writes_until_full: int) -> None:
        super().__init__()
        self.pause: Callable[[], None] = lambda: None
        self.writes = 0
        self._writes_until_full = writes_until_full

    def write(self, cast: Cast) -> None:
        super().write(cast)
        self.writes += 1
        if self.writes % self._writes_until_full == 0:
            self.pause()


class StallingClient:
    """A client that takes some events of its response, and no more until it reads on."""

    def __init__(self, takes: int) -> None:
        self.taken: list[MutableMapping[str, Any]] = []
        self._room = asyncio.Semaphore(takes)
        self._is_waited_for = asyncio.Event()

    async def send(self, event: MutableMapping[str, Any]) -> None:
        if self._room.locked():
            self._is_waited_for.set()
        await self._room.acquire()
        self.taken.append(event)

    async def receive(self) -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def stalls(self) -> None:
        await asyncio.wait_for(self._is_waited_for.wait(), LONG_S)

    def read_on(self) -> None:
        for _ in range(1_000):
            self._room.release()

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.taken)


class AnyonesVisit:
    """The visit of somebody on a server without a login."""

    def __init__(self, end: Callable[[TwincastError], None], principal: Principal | None = ANYONE) -> None:
        self.principal = principal
        self.end = end
        self.has_left = False
        self.charged: list[tuple[int, int]] = []

    @property
    def actor(self) -> Actor:
        return Actor("anonymous", "127.0.0.1")

    def present(self, text: str) -> Principal:
        return ANYONE

    def charge(self, updates: int, frames: int) -> float:
        self.charged.append((updates, frames))
        return 0.0

    account = "anyone"

    def spend(self, steps: int) -> float:
        return 0.0

    def release(self) -> None:
        self.has_left = True


class KeyedVisit(AnyonesVisit):
    """The visit of somebody on a server with a login, who is not known yet; it knows some credentials."""

    def __init__(self, end: Callable[[TwincastError], None], known: Mapping[str, Principal]) -> None:
        super().__init__(end, None)
        self._known = known

    def present(self, text: str) -> Principal:
        if text not in self._known:
            raise Unauthenticated("the credential is not known here")
        principal = self._known[text]
        if self.principal is not None and self.principal.id != principal.id:
            raise NotPermitted("a renewal keeps identity and rights")
        self.principal = principal
        return principal


class CountedMatches:
    """How often a name was held against a pattern with a star since the count was set to 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        matches = Pattern.matches

        def counted(pattern: Pattern, name: str) -> bool:
            self.count += pattern.exact is None
            return matches(pattern, name)

        monkeypatch.setattr(Pattern, "matches", counted)


class FreePayer:
    """Somebody for whom nothing is too much, and who remembers what he has paid."""

    def __init__(self, account: str = "anyone") -> None:
        self.account = account
        self.paid: list[int] = []

    def spend(self, steps: int) -> float:
        self.paid.append(steps)
        return 0.0


class WaitingTimer:
    """A timer among those that wait."""

    def __init__(self, waiting: "list[WaitingTimer]", at_s: float, callback: Callable[[], None]) -> None:
        self._waiting = waiting
        self.at_s = at_s
        self.callback = callback

    def cancel(self) -> None:
        if self in self._waiting:
            self._waiting.remove(self)


def _ignore(_error: TwincastError | None, _last_seq: int) -> None:
    """Of readings that were submitted together, the last one's callback stands for all."""


class CommittingStream:
    """A hub without a journal: what is submitted waits until `commit` makes it the state and casts it.

    Its log is a list. With `reads_wait`, what is read back comes when `read_on` is called, as from a disk. Timers run
    when `pass_time` is called.
    """

    def __init__(self, *, block_entries: int = 3, part_max_bytes: int = 256 * 1024) -> None:
        self.lineage = Lineage("epoch", [Generation("1", 0)])
        self.state = State(Snapshot(self.lineage.epoch, 0, {}))
        self.router = Router(self.state, self._call_later)
        self.sizes = SizeLimits()
        self.snapshots = SnapshotCache(
            self.state, self.now_utc, lambda: self.clock_s, self.sizes, part_max_bytes=part_max_bytes
        )
        self.scheduler = Scheduler(self._call_later)
        self.selections = Selections(self.state)
        self.submitted: list[tuple[Entry, int, OnCommitted, IdempotencyKey | None]] = []
        self.lines: list[NumberedLine] = []
        self.takes_together = True
        self.log: list[Entry] = []
        self.oldest_since = 0
        self.reads_wait = False
        self.prepares = False
        self.is_shared = False
        self.comings: list[Callable[[TwincastError | None], None]] = []
        self.clock_s = 0.0
        self._block_entries = block_entries
        self._reads: list[tuple[int, int, OnBlock]] = []
        self.timers: list[WaitingTimer] = []

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
        self.submitted.append((entry, size_bytes, done, idempotency_key))

    def submit_together(
        self,
        readings: Sequence[DataUpdate],
        size_bytes: int,
        done: OnCommitted,
        *,
        lane: Lane | None = None,
        identity: str = "",
    ) -> bool:
        if self.takes_together:
            *others, last = readings
            self.submitted += [(reading, 0, _ignore, None) for reading in others]
            self.submitted.append((last, size_bytes, done, None))
        return self.takes_together

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
        (entry,) = entries
        assert line is not None and lane is not None
        self.lines.append(line)
        self.submit(entry, size_bytes, done, idempotency_key, actor, lane=lane, identity=identity)

    def now_utc(self) -> str:
        return NOW_UTC

    def why_not_resume(self, since: Position) -> str:
        too_old = "too_old" if since.seq < self.oldest_since else ""
        return self.lineage.why_not(since, self.state.seq) or too_old

    def when_come(self, since: Position, call: Callable[[TwincastError | None], None]) -> Callable[[], None] | None:
        if not self.is_shared or self.lineage.why_not(since, self.state.seq) != "ahead":
            return None
        self.comings.append(call)
        return lambda: self.comings.remove(call)

    def read_back(self, since: int, until: int, took: OnBlock) -> Cast | None:
        if self.reads_wait:
            self._reads.append((since, until, took))
            return None
        block = self._block(since, until)
        if isinstance(block, Cast):
            return block
        self._reads.append((since, until, took))
        return None

    def read_on(self) -> None:
        """Answer what was read back until now."""
        reads, self._reads = self._reads, []
        for since, until, took in reads:
            took(self._block(since, until))

    def pass_time(self, seconds: float) -> None:
        """Run the timers that are due then."""
        self.clock_s += seconds
        due = [timer for timer in self.timers if timer.at_s <= self.clock_s]
        self.timers = [timer for timer in self.timers if timer.at_s > self.clock_s]
        for timer in due:
            timer.callback()

    def commit(self) -> None:
        """Commit what was submitted as one batch: state, watchers, senders, in this order."""
        batch, self.submitted = self.submitted, []
        self.cast(*(entry for entry, *_ in batch))
        first_seq = self.state.seq - len(batch) + 1
        for seq, (_, _, done, _) in enumerate(batch, first_seq):
            done(None, seq)

    def refuse(self, error: TwincastError) -> None:
        """Answer everything that was submitted with an error."""
        batch, self.submitted = self.submitted, []
        for _, _, done, _ in batch:
            done(error, 0)

    def cast(self, *entries: Entry) -> None:
        """Apply entries and offer them, as one commit."""
        cast = self.drafted(entries)
        unknown = self.router.prepare(cast) if self.prepares else None
        while unknown is not None:
            unknown = self.router.prepare(cast, unknown)
        for entry in cast.entries:
            self.state.apply(entry)
        self.log.extend(cast.entries)
        self.router.offer(cast)

    def drafted(self, entries: Iterable[Entry]) -> Cast:
        """Return the cast of the next entries, which are not the state's yet."""
        stamped = list(entries)
        for seq, entry in enumerate(stamped, self.state.seq + 1):
            entry.seq = seq
            entry.epoch = self.state.epoch
            entry.timestamp_utc = NOW_UTC
        return Cast(encode_all(stamped), stamped)

    def change(self, device_id: str, value: bytes, source: Source = "rest") -> None:
        """Commit one reading."""
        self.cast(DataUpdate(device_id, Raw(value), "", source))

    def command(self, target: str, command: str = "on") -> None:
        """Commit one command."""
        self.cast(Control(target, command, Raw(b"{}"), "", "rest"))

    def delete(self, device_id: str) -> None:
        """Commit one deletion."""
        self.cast(Deleted(device_id, "", "rest"))

    def _block(self, since: int, until: int) -> Cast | TwincastError:
        if since < self.oldest_since:
            return Truncated(f"the log begins after {self.oldest_since}")
        entries = self.log[since : min(until, since + self._block_entries)]
        return Cast(encode_all(entries), entries)

    def _call_later(self, delay_s: float, callback: Callable[[], None]) -> "WaitingTimer":
        timer = WaitingTimer(self.timers, self.clock_s + delay_s, callback)
        self.timers.append(timer)
        return timer
