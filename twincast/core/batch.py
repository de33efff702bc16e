"""One commit: its entries and all that belongs to them, from the hub to the journal, and what it answers its senders.

Places, a rule for all of this: a submission is the unit. It knows its entries by the count of entries up to its last
one, and what else it brings (an idempotency key, an actor, a numbered line) is kept by its index among the submissions.
Positions exist once a journal has called `place`; then `keys`, `origins` and `marks` state them. Nothing outside of
this file counts from the beginning of a batch.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from msgspec import UNSET, Struct

from twincast.core import lateness
from twincast.core.audit import Actor, CommandOrigin
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, OnCommitted, check_same
from twincast.core.lateness import Horizon
from twincast.core.model import DataUpdate, Entry
from twincast.core.producers import LineId, NumberedLine, ProducerId, ProducerMark, passed_over
from twincast.errors import KeyReused, TwincastError

ENTRY_BYTES = 256
"""What an entry that waits for its commit costs beside its text."""

Lane = object
"""Whose updates are to stay in order: a connection that asked for it. None for all others."""

Submission = tuple[int, OnCommitted, Lane | None, str, int]
"""How many entries there are up to its last one, its callback, its lane, the identity of its sender, and the size of
the batch up to its end."""


class Placed(NamedTuple):
    """What a journal did with a batch: the positions of its entries, and what of it was stored before."""

    seqs: range
    """Of all entries that are stored now; empty, and where they would begin, if all were stored before."""
    known: Sequence[IdempotencyRecord] = ()
    """Keys of the batch that another writer stored first, before `seqs`. What they stand for is not stored again."""
    has_passed: bool = False
    """Whether some numbered lines of the batch were left out, since another writer has stored those or later ones."""


class Committed(Struct, frozen=True, gc=False):
    """A stretch of the log as a journal reports it, with what was stored beside its entries in the same transactions.

    A record of a key comes with the last of its entries, so that whoever has that entry knows the key.

    Thousands of them are kept. All that they hold is tuples of what can be in no cycle, so the garbage collector does
    not look at them: a full collection would stop the server for as long as there are objects to look at.
    """

    entries: tuple[Entry, ...]
    keys: tuple[IdempotencyRecord, ...] = ()
    marks: tuple[ProducerMark, ...] = ()
    texts: tuple[bytes, ...] | None = None
    """The entries as JSON, if the journal stored them so: the very bytes of the events on the wire. None: encode them.

    A journal in memory stores no text, and one that reads a file back would have to encode as well.
    """
    has_late: bool = False
    """Whether there are late readings among the entries, or places of erased ones: what does not come unasked."""

    @property
    def seqs(self) -> range:
        """The positions."""
        return range(self.entries[0].seq, self.entries[-1].seq + 1)

    def after(self, since: int) -> "Committed":
        """Return the part that follows a position; this very one if that is all of it."""
        if self.entries[0].seq > since:
            return self
        start = bisect_right(self.entries, since, key=_seq)
        return Committed(
            self.entries[start:],
            tuple(record for record in self.keys if record.last_seq > since),
            tuple(mark for mark in self.marks if mark.seq > since),
            self.texts and self.texts[start:],
            self.has_late,
        )


class _Attached(NamedTuple):
    """What a submission brings beside its entries."""

    key: IdempotencyKey | None
    actor: Actor | None
    line: NumberedLine | None

    @property
    def text_bytes(self) -> int:
        """How much text is stored of it, about."""
        key, actor, line = self
        texts = [] if key is None else [key.key, key.digest]
        texts += (*(actor or ()), *(line.producer_id if line is not None else ()))
        return sum(map(len, texts))


class AttachedTo(NamedTuple):
    """What a submission brings beside its entries, and which entries those are."""

    places: range
    """Of its entries among those of the batch, from 0."""
    key: IdempotencyKey | None
    actor: Actor | None
    line: NumberedLine | None


class Batch:
    """What collects until the next commit, is then appended, and ends with `commit` or `fail`."""

    __slots__ = (
        "_attached",
        "_marks",
        "entries",
        "first_seq",
        "has_claims",
        "has_late",
        "horizon",
        "leans",
        "size_bytes",
        "submissions",
        "timestamp_utc",
    )

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.submissions: list[Submission] = []
        self.size_bytes = 0
        self.leans = False
        """Whether something here was decided in the light of what came before: without that nothing here is stored."""
        self.has_claims = False
        """Whether there may be readings here that claim when they were measured; without any, nothing is decided."""
        self.has_late = False
        """Whether there are late readings here, once that is decided."""
        self.horizon: Horizon = _no_horizon
        """Before which time a reading is late, by its device, as of what stands before the batch."""
        self.first_seq = 1
        """Where it begins in the log, once it is placed."""
        self.timestamp_utc = ""
        """The one time of all entries; empty before `stamp`."""
        self._attached: dict[int, _Attached] = {}
        self._marks: list[ProducerMark] = []  # by the index of the submission, instead of a seq

    # While it collects.

    def add(
        self, entry: Entry, size_bytes: int, done: OnCommitted, lane: Lane | None = None, identity: str = ""
    ) -> None:
        """Take one entry, as most come: without a key, an actor or a number."""
        if entry.measured_at_utc is not UNSET if isinstance(entry, DataUpdate) else entry.claim:
            self.has_claims = True
        self.entries.append(entry)
        self.size_bytes = size_bytes = self.size_bytes + size_bytes
        self.submissions.append((len(self.entries), done, lane, identity, size_bytes))

    def add_all(
        self,
        entries: Sequence[Entry],
        size_bytes: int,
        done: OnCommitted,
        lane: Lane | None = None,
        identity: str = "",
        *,
        key: IdempotencyKey | None = None,
        actor: Actor | None = None,
        line: NumberedLine | None = None,
        are_plain: bool = False,
    ) -> None:
        """Take the entries of one submission, which are stored all or none.

        Without entries, the submission is one that waits for all that is here already. Readings that are known to be
        plain, without a claim of when they were measured, are not looked at.
        """
        if not (are_plain or self.has_claims):
            for entry in entries:
                if entry.measured_at_utc is not UNSET if isinstance(entry, DataUpdate) else entry.claim:
                    self.has_claims = True
                    break
        if entries and not (key is None and actor is None and line is None):
            attached = self._attached[len(self.submissions)] = _Attached(key, actor, line)
            size_bytes += attached.text_bytes
        self.entries.extend(entries)
        self.size_bytes = size_bytes = self.size_bytes + size_bytes
        self.submissions.append((len(self.entries), done, lane, identity, size_bytes))

    def lanes(self) -> set[Lane]:
        """Return the lanes that have a submission here."""
        return {lane for _, _, lane, _, _ in self.submissions if lane is not None}

    def producers(self) -> set[ProducerId]:
        """Return the producers that have a numbered line here."""
        return {line.producer_id for _, line in self.lines()}

    def lines(self) -> list[tuple[int, NumberedLine]]:
        """Return the numbered lines in their order, each with the index of its submission."""
        if not self._attached:
            return []
        return [(index, attached.line) for index, attached in self._attached.items() if attached.line is not None]

    def without(
        self, lanes: Collection[Lane], producers: Collection[ProducerId] = ()
    ) -> tuple["Batch", list[OnCommitted]]:
        """Return a batch without the submissions of some lanes and producers, and the callbacks of those.

        What comes behind such a submission in its lane, or of its producer, goes with it. What is left keeps its order.
        """
        kept, refused = Batch(), []
        kept.has_claims = self.has_claims
        lost_lanes, lost_producers = set(lanes), set(producers)
        start = start_bytes = 0
        for index, (end, done, lane, identity, end_bytes) in enumerate(self.submissions):
            attached = self._attached.get(index)
            producer = attached.line.producer_id if attached is not None and attached.line is not None else None
            if lane in lost_lanes or producer in lost_producers:
                refused.append(done)
                if lane is not None:
                    lost_lanes.add(lane)
                if producer is not None:
                    lost_producers.add(producer)
            else:
                if attached is not None:
                    kept._attached[len(kept.submissions)] = attached
                kept.entries.extend(self.entries[start:end])
                kept.size_bytes += end_bytes - start_bytes
                kept.submissions.append((len(kept.entries), done, lane, identity, kept.size_bytes))
            start, start_bytes = end, end_bytes
        return kept, refused

    def split(self, max_bytes: int) -> "Batch | None":
        """Keep as many whole submissions as hold so much text, at least one, and return the rest; None if all fit.

        Both parts lean if this did. To be called while it collects, before its marks are known.

        Args:
            max_bytes: how much text; see `text_bytes`.
        """
        count = max(1, bisect_right(self.submissions, max_bytes, key=_text_bytes))
        if count >= len(self.submissions):
            return None
        rest = Batch()
        end, _, _, _, end_bytes = self.submissions[count - 1]
        rest.entries = self.entries[end:]
        rest.submissions = [
            (place - end, done, lane, identity, size_bytes - end_bytes)
            for place, done, lane, identity, size_bytes in self.submissions[count:]
        ]
        rest.size_bytes = self.size_bytes - end_bytes
        rest.leans, rest.has_claims = self.leans, self.has_claims
        rest._attached = {index - count: each for index, each in self._attached.items() if index >= count}
        del self.entries[end:], self.submissions[count:]
        self.size_bytes = end_bytes
        self._attached = {index: each for index, each in self._attached.items() if index < count}
        return rest

    # On its way to the journal.

    def stamp(self, now_utc: str) -> None:
        """Set the time of all entries: that of the commit."""
        self.timestamp_utc = now_utc
        for entry in self.entries:
            entry.timestamp_utc = now_utc

    def mark(self, marks: Sequence[ProducerMark]) -> None:
        """Note up to where its producers have come with it: marks whose `seq` is the index of a submission."""
        self._marks = list(marks)

    # In the journal.

    @property
    def text_bytes(self) -> int:
        """The length of the text that its entries came in, and of what is stored beside them, about."""
        return self.size_bytes - ENTRY_BYTES * len(self.entries)

    def attached(self) -> list["AttachedTo"]:
        """Return the submissions that bring more than entries, in order, with the places of their entries here."""
        if not self._attached:
            return []
        return [
            AttachedTo(range(self._start_of(index), self.submissions[index][0]), *attached)
            for index, attached in self._attached.items()
        ]

    def leave_out(
        self,
        known: Collection[IdempotencyRecord],
        passed: Mapping[LineId, ProducerMark] = MappingProxyType({}),
    ) -> None:
        """Take out the entries of submissions whose keys, or lines, another writer stored first.

        Their senders get the first answer again. It comes with those of the others: when the state has all that stands
        before the batch.

        Args:
            known: the keys.
            passed: the lines that were not stored, each with the mark of its producer that it found.
        """
        records = {record.key: record for record in known}
        found: dict[int, Callable[[OnCommitted], OnCommitted]] = {}
        for index, (key, _, line) in self._attached.items():
            if key is not None and (record := records.get(key.key)) is not None:
                found[index] = partial(partial, _answer_again, key, record)
            elif line is not None and (mark := passed.get((*line.producer_id, line.number))) is not None:
                found[index] = partial(partial, _answer_passed, line.number, mark)
        if not found:
            return
        entries: list[Entry] = []
        submissions: list[Submission] = []
        start = 0
        for index, (end, done, lane, identity, size_bytes) in enumerate(self.submissions):
            if index in found:
                del self._attached[index]
                answer = found[index](done)
            else:
                answer = done
                entries.extend(self.entries[start:end])
            submissions.append((len(entries), answer, lane, identity, size_bytes))
            start = end
        self.entries, self.submissions = entries, submissions
        self._marks = [mark for mark in self._marks if mark.seq not in found]

    def decide(self) -> None:
        """Decide which of the readings are late, by `horizon`; they have become entries of that kind then."""
        if self.has_claims:
            self.has_late = lateness.decide(self.entries, self.horizon)

    def decide_again(self, newest: dict[str, str]) -> None:
        """Decide anew of the devices that turned out to have newer entries before the batch; see core/lateness."""
        if self.has_claims:
            self.has_late = lateness.decide_again(self.entries, newest)

    def place(self, first_seq: int, epoch: str) -> None:
        """Give each entry its position, and with it all that belongs to entries."""
        self.first_seq = first_seq
        for seq, entry in enumerate(self.entries, first_seq):
            entry.seq = seq
            entry.epoch = epoch

    def committed(self, texts: Sequence[bytes] | None = None) -> Committed:
        """Return it as a stretch of the log, once it is placed; with its events, if the journal has encoded them."""
        known_texts = None if texts is None else tuple(texts)
        return Committed(tuple(self.entries), self.keys, self.marks, known_texts, self.has_late)

    @property
    def keys(self) -> tuple[IdempotencyRecord, ...]:
        """The records of its idempotency keys, in order, with the positions that `place` gave."""
        if not self._attached:  # as nearly always
            return ()
        return tuple(
            IdempotencyRecord(key.key, seqs[0], seqs[-1], key.digest)
            for seqs, (key, _, _) in self._by_position()
            if key is not None
        )

    @property
    def origins(self) -> list[CommandOrigin]:
        """Who sent which of its commands and deletions, in order, with the positions that `place` gave."""
        if not self._attached:
            return []
        return [
            CommandOrigin(seq, *actor)
            for seqs, (_, actor, _) in self._by_position()
            if actor is not None
            for seq in seqs
        ]

    @property
    def marks(self) -> tuple[ProducerMark, ...]:
        """Up to where its producers have come, in order, with the positions that `place` gave."""
        if not self._marks:
            return ()
        before_seq = self.first_seq - 1
        return tuple(mark._replace(seq=before_seq + self.submissions[mark.seq][0]) for mark in self._marks)

    # In the end.

    def commit(self, placed: Placed) -> None:
        """Answer all senders: what they sent is durable, up to the position of its last entry."""
        before_seq = placed.seqs.start - 1
        for count, done, _, _, _ in self.submissions:
            done(None, before_seq + count)

    def fail(self, error: TwincastError) -> None:
        """Answer all senders with what kept the batch from being stored."""
        for _, done, _, _, _ in self.submissions:
            done(error, 0)

    def _by_position(self) -> Iterator[tuple[range, _Attached]]:
        submissions, first_seq = self.submissions, self.first_seq
        for index, attached in self._attached.items():
            yield range(first_seq + self._start_of(index), first_seq + submissions[index][0]), attached

    def _start_of(self, index: int) -> int:
        return self.submissions[index - 1][0] if index else 0


def _answer_again(
    key: IdempotencyKey, record: IdempotencyRecord, done: OnCommitted, error: TwincastError | None, _last_seq: int
) -> None:
    """Answer a submission whose key another writer stored first; `done` takes what goes wrong."""
    if error is None:
        try:
            check_same(record.digest, key.digest)
        except KeyReused as reused:
            error = reused
        else:
            key.again(record)
            return
    done(error, 0)


def _answer_passed(
    number: int, mark: ProducerMark, done: OnCommitted, error: TwincastError | None, _last_seq: int
) -> None:
    """Answer a line that another writer stored first, or behind which it stored a later one."""
    if error is None and not mark.has(number):
        error = passed_over(number, mark)
    done(error, 0 if error is not None else mark.seq)


def _no_horizon(device_id: str) -> str:
    del device_id
    return lateness.NEVER


def _seq(entry: Entry) -> int:
    return entry.seq


def _text_bytes(submission: Submission) -> int:
    """Return the length of the text of a batch up to the end of a submission."""
    return submission[4] - ENTRY_BYTES * submission[0]
