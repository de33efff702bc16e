"""A journal that is lost with its process: for tests, teaching, and state that is worthless after a restart."""

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from twincast.core.audit import AuditRecord, CommandOrigin
from twincast.core.batch import Batch, Committed, Placed
from twincast.core.counters import SECONDS, Histogram
from twincast.core.erasure import Erasure, erasures_in
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.keys import Key, Keyring, Pairing
from twincast.core.lineage import Generation, Lineage
from twincast.core.model import Entry, Snapshot
from twincast.core.producers import PRODUCERS_MAX, ProducerMark
from twincast.core.space import Space
from twincast.core.state import State
from twincast.errors import JournalUnavailable, Truncated, Unauthenticated
from twincast.journal.memory_history import MemoryHistory
from twincast.journal.tail import LogTail, up_to_bytes

AUDIT_MAX = 10_000


class MemoryTrail:
    """The newest records of the audit trail."""

    def __init__(self) -> None:
        self._records: deque[tuple[int, AuditRecord]] = deque(maxlen=AUDIT_MAX)

    def add(self, record: AuditRecord) -> None:
        """Add a record, which is the newest."""
        number = self._records[0][0] + 1 if self._records else 1
        self._records.appendleft((number, record))

    def read(self, limit: int, before: int | None = None) -> Sequence[tuple[int, AuditRecord]]:
        """See AccessStore.audit."""
        newer = 0 if before is None or not self._records else max(0, self._records[0][0] - before + 1)
        return list(islice(self._records, newer, newer + limit))


class MemoryAccessStore:
    """The audit trail in memory. Keys are not kept: a journal that forgets everything would forget them too."""

    problem: JournalUnavailable | None = None
    """See AccessStore.problem. There is no disk to fail."""

    def __init__(self, trail: MemoryTrail) -> None:
        self._trail = trail

    async def keyring(self, unless_version: int = -1) -> Keyring | None:
        """See AccessStore.keyring."""
        return None if unless_version == 0 else Keyring(0, ())

    async def audit(self, limit: int, before: int | None = None) -> Sequence[tuple[int, AuditRecord]]:
        """See AccessStore.audit."""
        return self._trail.read(limit, before)

    async def pair(
        self, digest: str, now_s: float, make: Callable[[Pairing], Key], address: str, *, life_s: int
    ) -> Key:
        """See AccessStore.pair. Where no keys are kept, there is no code for one."""
        raise Unauthenticated("this code is not known here: the journal of this server is in memory, and keeps no keys")

    async def close(self) -> None:
        """See AccessStore.close. There is nothing to release."""


class MemoryJournal:
    """The log in memory: as much of its end as `max_bytes` hold. "Durable" here means: until the process ends."""

    problem: JournalUnavailable | None = None
    """See Journal.problem. There is no disk to fail."""
    batch_max_bytes: int | None = None
    """See Journal.batch_max_bytes."""

    def __init__(self, *, max_bytes: int) -> None:
        self.epoch = secrets.token_hex(4)
        self.lineage = Lineage(self.epoch, [Generation(secrets.token_hex(4), 0)])
        self._tail = LogTail(0, max_bytes)
        self._max_bytes = max_bytes
        self.sync_s = Histogram(SECONDS)
        """See Journal.sync_s. There is no disk to wait for."""
        self._before_tail = State(Snapshot(self.lineage.epoch, 0, {}))
        self._marks: dict[tuple[str, str], ProducerMark] = {}
        self.trail = MemoryTrail()
        """The audit trail, to which `append` adds the batch's commands and deletions."""
        self.history = MemoryHistory(self._tail, self._before_tail)
        """The log, asked by device and time."""

    @property
    def oldest_since(self) -> int:
        """See Journal.oldest_since."""
        return self._tail.since

    @property
    def keys(self) -> Sequence[IdempotencyRecord]:
        """See Journal.keys. A key lives as long as its entries do."""
        return [record for committed in self._tail.batches for record in committed.keys]

    @property
    def marks(self) -> Sequence[ProducerMark]:
        """See Journal.marks."""
        return tuple(self._marks.values())

    async def append(self, batch: Batch) -> Placed:
        """See Journal.append. Waits for nothing."""
        batch.decide()
        batch.place(self._tail.seq + 1, self.lineage.epoch)
        committed = batch.committed()
        for origin in batch.origins:
            self.trail.add(_record(origin, batch.entries[origin.seq - batch.first_seq]))
        for mark in committed.marks:
            self._marks.pop((mark.identity, mark.producer), None)
            self._marks[mark.identity, mark.producer] = mark
        while len(self._marks) > PRODUCERS_MAX:
            del self._marks[next(iter(self._marks))]
        for dropped in self._tail.append(committed, batch.text_bytes):
            self._before_tail.apply_all(dropped.entries)
        if erasing := erasures_in(committed.entries):
            self._erase(erasing)
        return Placed(committed.seqs)

    def _erase(self, erasing: Sequence[Erasure]) -> None:
        """Carry out deletions of histories; what there is of them is in memory."""
        self._tail.erase(erasing)
        for erasure in erasing:
            self._before_tail.twins.pop(erasure.device_id, None)

    async def erasures(self) -> Sequence[Erasure]:
        """See Journal.erasures. They are carried out at once."""
        return ()

    def recent(self, since: int, limit: int = 1) -> Sequence[Entry]:
        """See Journal.recent."""
        return self._tail.recent(since, limit)

    async def read(self, since: int, limit: int, *, max_bytes: int | None = None) -> Sequence[Entry]:
        """See Journal.read."""
        self._check(since)
        return up_to_bytes(self._tail.recent(since, limit)[:limit], max_bytes)

    async def snapshot(self) -> Snapshot:
        """See Journal.snapshot."""
        before = self._before_tail
        state = State(Snapshot(before.epoch, before.seq, dict(before.twins), dict(before.deletions)))
        for committed in self._tail.batches:
            state.apply_all(committed.entries)
        return Snapshot(state.epoch, state.seq, state.twins, state.deletions)

    async def follow(self, since: int) -> AsyncIterator[Committed]:
        """See Journal.follow."""
        while True:
            await self._tail.grown(since)
            self._check(since)
            committed = self._tail.read(since)
            assert committed is not None  # it has grown
            since = committed.entries[-1].seq
            yield committed

    def space(self) -> Space:
        """See Journal.space. The tail bounds itself, and nothing is written to a disk."""
        tail = self._tail
        oldest = tail.oldest
        return Space(
            file_bytes=0,
            wal_bytes=0,
            history_bytes=0,
            used_bytes=tail.size_bytes,
            checkpoint_lag=0,
            entries=tail.seq - tail.since,
            oldest_seq=tail.since + 1,
            oldest_at_utc=None if oldest is None else oldest.timestamp_utc,
            keep_s=None,
            keep_bytes=self._max_bytes,
            disk_free_bytes=None,
            growth_bytes_per_s=None,
            full_in_s=None,
            problem=None,
        )

    async def close(self) -> None:
        """See Journal.close. There is nothing to release."""

    def _check(self, since: int) -> None:
        if since < self._tail.since:
            raise Truncated(f"this journal reaches back to {self._tail.since}, not to {since}")


def _record(origin: CommandOrigin, entry: Entry) -> AuditRecord:
    action = entry.audited_as or entry.kind
    return AuditRecord(
        *(entry.timestamp_utc, origin.who, origin.address, action, entry.subject, entry.detail, entry.seq),
        origin.server,
    )
