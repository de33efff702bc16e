"""The rules of a shared log: what each of its messages stands for. Pure, and the same at every server.

Version 3. The fold of a log is a function of its messages alone: two servers that were given the same ones hold the
same, wherever each began. So nothing here knows a clock, a setting, or who asks.

1. Messages come in the order of the stream, each once: the next one is `stream_seq + 1`.
2. Time is the stream's and never goes back: a message's time is its stamp, or that of the message before if the stamp
   is older. It is the time of all its entries.
3. A change of the keys changes the keyring, and takes no position.
4. A commit whose number is not above the last of its writer is a copy, or one that its writer has given up: nothing of
   it counts. The 1,000 writers that wrote last are remembered.
5. A submission whose idempotency key is known, or whose numbered line is not above its producer's newest, is left out,
   whole. So is whatever stands for nothing then.
6. What is left gets the next positions, without a gap.
7. Its keys and lines are remembered: the newest 100,000 keys of the last 1,000,000 entries, and the lines of the 10,000
   producers that wrote last.
8. A fork begins another generation of the log, if it names the one that runs.
9. Entries of a log that was moved here keep their times, and rule 5 leaves none of them out: it did where they were
   written. Time goes on behind the newest of them. A log whose beginning was trimmed before goes on behind the position
   that is carried, if nothing is stored yet.
10. A reading that claims when it was measured is late or not by the rules of core/lateness, in the light of all that is
    stored before it. For these, deletions are remembered from commits of version 2 on: the first version did not ask
    for them, and the copies that it wrote do not say them. Late readings of a moved log stay so.
11. A deletion with the scope "history", from version 3 on, is for the fold a deletion. What it erases, each server
    erases on its own files, when it comes to that. So entries of a moved log may be places of erased ones.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple, cast

from twincast.core.audit import CommandOrigin
from twincast.core.batch import Committed
from twincast.core.idempotency import IdempotencyRecord, KeyWindow
from twincast.core.lateness import DELETIONS_MAX, NEVER, decide, mark_clocks, time_of, time_that_counts
from twincast.core.lineage import Generation, Lineage
from twincast.core.model import DataUpdate, Deleted, Entry, Erased, Late
from twincast.core.producers import PRODUCERS_MAX, LineId, ProducerId, ProducerMark, moved
from twincast.core.times import comparable
from twincast.journal.jetstream.columns import Given, Readings
from twincast.journal.jetstream.commit import Attached, Carried, Commit, entries_of

WRITERS_MAX = 1_000
"""So many writers are remembered, those that wrote last. One that was away for as many others begins anew anyway."""

_FIRST_WITH_DELETIONS = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """How far a fold is in the stream."""

    stream_seq: int = 0
    stamp_ns: int = 0
    """Of the message at `stream_seq`: it tells this stream from one that was put back."""
    time_ns: int = 0
    """The newest time that was given out."""
    crc: int = 0
    """Of all messages and of what came of them: two servers that differ here have folded something else."""


FIRST = Place()
"""Before the first message."""


class Writer(NamedTuple):
    """A writer's newest commit."""

    by: str
    n: int
    stream_seq: int


class Folded(NamedTuple):
    """What one message did."""

    place: Place
    committed: Committed | None = None
    """What is stored; None if nothing is."""
    origins: Sequence[CommandOrigin] = ()
    writer: Writer | None = None
    known: Sequence[IdempotencyRecord] = ()
    """Keys of the commit that were stored before."""
    passed: Mapping[LineId, ProducerMark] = MappingProxyType({})
    """Lines of the commit that were not stored, with the mark that they found."""
    generation: Generation | None = None
    """The one that begins here."""
    deleted: Sequence[Deleted] = ()
    """Of what is stored, the deletions that rule 10 remembers."""
    version: int = 1
    """Of the rules by which it was folded."""
    carried: Carried | None = None
    """What a moved log has brought."""


@dataclass
class Beginning:
    """What a fold begins with: of a log that is empty, or of a copy."""

    log: str
    """The log's name."""
    generations: Sequence[Generation]
    seq: int = 0
    place: Place = FIRST
    writers: Iterable[Writer] = ()
    """In the order of `stream_seq`."""
    keys: Iterable[IdempotencyRecord] = ()
    """Oldest first."""
    marks: Iterable[ProducerMark] = ()
    """In the order of seq."""
    newest: Iterable[tuple[str, str]] = ()
    """Of each device, the time that counts of its newest reading."""
    deletions: Iterable[tuple[str, str]] = ()
    """Of devices that were deleted, when; in the order of seq."""
    version: int = 1
    """The newest version of the rules that a commit was written by."""


@dataclass
class _Attaching:
    """What is attached to the submissions of one commit, sorted into what counts and what does not."""

    kept: list[Attached] = field(default_factory=list)
    dropped: list[Attached] = field(default_factory=list)
    known: list[IdempotencyRecord] = field(default_factory=list)
    passed: dict[LineId, ProducerMark] = field(default_factory=dict)


class Fold:
    """The state of the rules, as of one message."""

    def __init__(self, beginning: Beginning) -> None:
        self.seq = beginning.seq
        """The position of the newest entry."""
        self.place = beginning.place
        self._log = beginning.log
        self._generations = list(beginning.generations)
        self._writers = {writer.by: writer for writer in beginning.writers}
        self._keys = KeyWindow(beginning.keys)
        self._marks: dict[ProducerId, ProducerMark] = {(mark.identity, mark.producer): mark for mark in beginning.marks}
        self.version = beginning.version
        """The newest version of the rules that a commit was written by, up to here."""
        self._newest = dict(beginning.newest)
        self._deletions = dict(beginning.deletions)
        self.lineage = Lineage(self._log, self._generations)

    @property
    def keys(self) -> Sequence[IdempotencyRecord]:
        """The keys that are known, oldest first."""
        return tuple(self._keys.counting(self.seq))

    @property
    def marks(self) -> Sequence[ProducerMark]:
        """The producers' newest lines, in the order of seq."""
        return tuple(self._marks.values())

    @property
    def newest(self) -> Mapping[str, str]:
        """The time that counts of each device's newest reading, which its twin comes from."""
        return self._newest

    @property
    def deletions(self) -> Mapping[str, str]:
        """When devices were deleted, as far as that is remembered, in the order of seq."""
        return self._deletions

    @property
    def writers(self) -> Sequence[Writer]:
        """The writers that are remembered, in the order in which they wrote last."""
        return tuple(self._writers.values())

    @property
    def generations(self) -> Sequence[Generation]:
        """All generations, oldest first."""
        return tuple(self._generations)

    @property
    def generation(self) -> Generation:
        """The generation that runs."""
        return self._generations[-1]

    def pass_by(self, stream_seq: int, stamp_ns: int, data: bytes) -> Place:
        """Take the place of a message that gives no positions, such as a change of the keys; see rules 1 and 2.

        Raises:
            ValueError: the message does not come next.
        """
        if stream_seq != self.place.stream_seq + 1:
            raise ValueError(f"the log goes on at {self.place.stream_seq + 1}, not at {stream_seq}")
        time_ns = max(self.place.time_ns, stamp_ns)
        self.place = Place(stream_seq, stamp_ns, time_ns, zlib.crc32(data, self.place.crc))
        return self.place

    def take(
        self, stream_seq: int, stamp_ns: int, data: bytes, commit: Commit, own: Sequence[Entry] | None = None
    ) -> Folded:
        """Take the next commit.

        Args:
            stream_seq: its place in the stream.
            stamp_ns: when the stream took it, in nanoseconds since 1970.
            data: the message.
            commit: what the message says.
            own: its entries, where they are at hand: they get their positions, instead of new ones made of the commit.

        Raises:
            ValueError: the message does not come next.
        """
        self.pass_by(stream_seq, stamp_ns, data)
        last = self._writers.get(commit.by)
        if last is not None and commit.n <= last.n:
            return Folded(self._counted())
        self.version = max(self.version, commit.fold)
        writer = self._remember_writer(Writer(commit.by, commit.n, stream_seq))
        if commit.fork is not None:
            return Folded(self._counted(), writer=writer, generation=self._fork(commit.fork.was, commit.fork.becomes))
        if commit.carried is not None:
            carried = self._carry(commit.carried)
            return Folded(self._counted(), writer=writer, carried=carried, version=self.version)
        sorted_ = _Attaching(kept=commit.attached) if commit.times else self._sort(commit.attached)
        given = Given(self.seq + 1, self.lineage.epoch, self.at_utc)
        entries: Sequence[Entry] = list(own) if own is not None else entries_of(commit, given)
        if sorted_.dropped:
            entries = _without(entries, sorted_.dropped)
        if own is not None or sorted_.dropped:
            _give(entries, given)
        if commit.times:
            self.place = self.place._replace(time_ns=max(self.place.time_ns, _give_times(entries, commit.times)))
        has_late = any(run.kind == Erased.kind for run in commit.runs)
        if commit.has_claims:
            entries = list(entries)
            has_late |= self._decide(commit, entries)
        self.seq += len(entries)
        deleted = self._note(commit, entries, given.at_utc)
        keys, marks, origins = self._remember(sorted_, given.seq, commit.server)
        committed = Committed(_kept(entries), keys, marks, has_late=has_late) if entries else None
        stored = self._counted(), committed, origins, writer, sorted_.known, sorted_.passed
        return Folded(*stored, deleted=deleted, version=self.version)

    def _counted(self) -> Place:
        self.place = self.place._replace(crc=zlib.crc32(b"%d" % self.seq, self.place.crc))
        return self.place

    def _decide(self, commit: Commit, entries: list[Entry]) -> bool:
        """Put the late readings of a commit in their places; return whether there are some.

        Those of a moved log are there already. What comes of it goes into the sum that servers compare.
        """
        if commit.times:
            mark_clocks(entries)
            return any(isinstance(entry, Late) for entry in entries)
        has_late = decide(entries, self._horizon)
        late = bytes(isinstance(entry, Late) for entry in entries)
        self.place = self.place._replace(crc=zlib.crc32(late, self.place.crc))
        return has_late

    def _horizon(self, device_id: str) -> str:
        newest = self._newest.get(device_id)
        return self._deletions.get(device_id, NEVER) if newest is None else newest

    def _note(self, commit: Commit, entries: Sequence[Entry], at_utc: str) -> Sequence[Deleted]:
        """Take what is stored into the newest times; return the deletions that are remembered."""
        newest = self._newest
        if commit.is_plain and len(commit.runs[0].subjects) == len(entries):  # as nearly always
            newest.update(zip(commit.runs[0].subjects, repeat(at_utc)))
            return ()
        deleted: list[Deleted] = []
        for entry in entries:
            if isinstance(entry, DataUpdate):
                newest[entry.device_id] = time_of(entry)
            elif isinstance(entry, Deleted):
                newest.pop(entry.device_id, None)
                deleted.append(entry)
        if commit.fold < _FIRST_WITH_DELETIONS:
            return ()
        for deletion in deleted:
            self._remember_deletion(deletion.device_id, deletion.timestamp_utc)
        return deleted

    def _remember_deletion(self, device_id: str, at_utc: str) -> None:
        self._deletions.pop(device_id, None)
        self._deletions[device_id] = comparable(at_utc)
        if len(self._deletions) > DELETIONS_MAX:
            del self._deletions[next(iter(self._deletions))]

    @property
    def at_utc(self) -> str:
        """The time of the newest message, as entries have it."""
        seconds, ns = divmod(self.place.time_ns, 10**9)
        at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1_000)
        return at.isoformat(timespec="microseconds")

    def _remember_writer(self, writer: Writer) -> Writer:
        self._writers.pop(writer.by, None)
        self._writers[writer.by] = writer
        if len(self._writers) > WRITERS_MAX:
            del self._writers[next(iter(self._writers))]
        return writer

    def _fork(self, was: str, becomes: str) -> Generation | None:
        if was != self.generation.name:
            return None
        self._generations.append(Generation(becomes, self.seq))
        self.lineage = Lineage(self._log, self._generations)
        return self.generation

    def _carry(self, carried: Carried) -> Carried | None:
        if carried.since and self.seq not in {0, carried.since}:
            return None
        self.seq = carried.since or self.seq
        self._keys.learn(IdempotencyRecord(*key) for key in carried.keys)
        for identity, producer, line, seq, missing in carried.marks:
            self._marks.pop((identity, producer), None)
            self._marks[identity, producer] = ProducerMark(identity, producer, line, seq, int(missing, 16))
        self._keep_newest_marks()
        claims = dict(carried.claims)
        for device_id, _, at_utc, _, _ in carried.twins:
            self._newest[device_id] = time_that_counts(claims.get(device_id), at_utc)
        for device_id, at_utc, _ in carried.deletions:
            self._remember_deletion(device_id, at_utc)
        return carried

    def _sort(self, all_attached: Sequence[Attached]) -> _Attaching:
        """Decide which submissions count, each in the light of those before it."""
        found = _Attaching()
        marks: dict[ProducerId, ProducerMark] = {}
        for attached in all_attached:
            if attached.key is not None:
                record = self._keys.get(attached.key[0], self.seq)
                if record is not None:
                    found.known.append(record)
                    found.dropped.append(attached)
                    continue
            if attached.line is not None:
                identity, producer, number = attached.line
                mark = marks.get((identity, producer)) or self._marks.get((identity, producer))
                if mark is not None and number <= mark.line:
                    found.passed[attached.line] = mark
                    found.dropped.append(attached)
                    continue
                marks[identity, producer] = moved(mark, attached.line, self.seq)
            found.kept.append(attached)
        return found

    def _remember(
        self, sorted_: _Attaching, first_seq: int, server: str
    ) -> tuple[tuple[IdempotencyRecord, ...], tuple[ProducerMark, ...], list[CommandOrigin]]:
        """Remember what is attached to what was stored; return it with its positions."""
        keys: list[IdempotencyRecord] = []
        marks: dict[ProducerId, ProducerMark] = {}
        origins: list[CommandOrigin] = []
        dropped = 0
        others = iter(sorted_.dropped)
        other = next(others, None)
        for attached in sorted_.kept:
            while other is not None and other.first < attached.first:
                dropped += other.last - other.first + 1
                other = next(others, None)
            first, last = first_seq + attached.first - dropped, first_seq + attached.last - dropped
            if attached.key is not None:
                keys.append(IdempotencyRecord(attached.key[0], first, last, attached.key[1]))
            if attached.actor is not None:
                origins.extend(
                    CommandOrigin(seq, *attached.actor, attached.server or server) for seq in range(first, last + 1)
                )
            if attached.line is not None:
                identity, producer, _ = attached.line
                mark = moved(self._marks.get((identity, producer)), attached.line, last)
                marks.pop((identity, producer), None)
                marks[identity, producer] = mark
                self._marks.pop((identity, producer), None)
                self._marks[identity, producer] = mark
        self._keys.learn(keys)
        self._keep_newest_marks()
        return tuple(keys), tuple(marks.values()), origins

    def _keep_newest_marks(self) -> None:
        while len(self._marks) > PRODUCERS_MAX:
            del self._marks[next(iter(self._marks))]


def _kept(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return entries as a tuple, or as what is used like one."""
    return cast("tuple[Entry, ...]", entries) if isinstance(entries, Readings) else tuple(entries)


def _without(entries: Sequence[Entry], dropped: Sequence[Attached]) -> list[Entry]:
    kept: list[Entry] = []
    start = 0
    for attached in dropped:
        kept += entries[start : attached.first]
        start = attached.last + 1
    return [*kept, *entries[start:]]


def _give(entries: Sequence[Entry], given: Given) -> None:
    for seq, entry in enumerate(entries, given.seq):
        entry.seq = seq
        entry.epoch = given.epoch
        entry.timestamp_utc = given.at_utc


def _give_times(entries: Sequence[Entry], times: Sequence[tuple[str, int]]) -> int:
    """Give entries the times that they had; return the newest, in nanoseconds since 1970."""
    newest_ns, start = 0, 0
    for at_utc, count in times:
        for entry in entries[start : start + count]:
            entry.timestamp_utc = at_utc
        start += count
        newest_ns = max(newest_ns, nanoseconds_of(at_utc))
    return newest_ns


def nanoseconds_of(at_utc: str) -> int:
    """Return the time of an entry in nanoseconds since 1970, exactly."""
    since = datetime.fromisoformat(at_utc) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
