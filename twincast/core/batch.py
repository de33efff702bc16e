"""One commit: its entries and all that belongs to them, from the hub to the journal, and what it answers its senders.

Places, a rule for all of this: a submission is the unit. It knows its entries by the count of entries up to its last
one, and what else it brings (an idempotency key, an actor, a numbered line) is kept by its index among the submissions.
Positions exist once a journal has called `place`; then `keys`, `origins` and `marks` state them. Nothing outside of
this file counts from the beginning of a batch.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from twincast.core.audit import Actor, CommandOrigin
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord, OnCommitted, check_same
from twincast.core.model import Entry
from twincast.core.producers import NumberedLine, ProducerId, ProducerMark
from twincast.errors import KeyReused, TwincastError

ENTRY_BYTES = 256
"""What an entry that waits for its commit costs beside its text."""

Lane = object
"""Whose updates are to stay in order: a connection that asked for it. None for all others."""

Submission = tuple[int, OnCommitted, Lane | None, str]
"""How many entries there are up to its last one, its callback, its lane, and the identity of its sender."""


class Placed(NamedTuple):
    """What a journal did with a batch: the positions of its entries, and what of it was stored before."""

    seqs: range
    """Of all entries that are stored now; empty, and where they would begin, if all were stored before."""
    known: Sequence[IdempotencyRecord] = ()
    """Keys of the batch that another writer stored first, before `seqs`. What they stand for is not stored again."""


class Committed(NamedTuple):
    """A stretch of the log as a journal reports it, with what was stored beside its entries in the same transactions.

    A record of a key comes with the last of its entries, so that whoever has that entry knows the key.
    """

    entries: Sequence[Entry]
    keys: Sequence[IdempotencyRecord] = ()
    marks: Sequence[ProducerMark] = ()
    texts: Sequence[bytes] | None = None
    """The entries as JSON, if the journal stored them so: the very bytes of the events on the wire. None: encode them.

    A journal in memory stores no text, and one that reads a file back would have to encode as well.
    """

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
            [record for record in self.keys if record.last_seq > since],
            [mark for mark in self.marks if mark.seq > since],
            self.texts and self.texts[start:],
        )


class _Attached(NamedTuple):
    """What a submission brings beside its entries."""

    key: IdempotencyKey | None
    actor: Actor | None
    line: NumberedLine | None


class Batch:
    """What collects until the next commit, is then appended, and ends with `commit` or `fail`."""

    __slots__ = ("_attached", "_marks", "entries", "first_seq", "leans", "size_bytes", "submissions")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.submissions: list[Submission] = []
        self.size_bytes = 0
        self.leans = False
        """Whether something here was decided in the light of what came before: without that nothing here is stored."""
        self.first_seq = 1
        """Where it begins in the log, once it is placed."""
        self._attached: dict[int, _Attached] = {}
        self._marks: list[ProducerMark] = []  # by the index of the submission, instead of a seq

    # While it collects.

    def add(
        self, entry: Entry, size_bytes: int, done: OnCommitted, lane: Lane | None = None, identity: str = ""
    ) -> None:
        """Take one entry, as most come: without a key, an actor or a number."""
        self.entries.append(entry)
        self.size_bytes += size_bytes
        self.submissions.append((len(self.entries), done, lane, identity))

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
    ) -> None:
        """Take the entries of one submission, which are stored all or none.

        Without entries, the submission is one that waits for all that is here already.
        """
        if entries and not (key is None and actor is None and line is None):
            self._attached[len(self.submissions)] = _Attached(key, actor, line)
        self.entries.extend(entries)
        self.size_bytes += size_bytes
        self.submissions.append((len(self.entries), done, lane, identity))

    def lanes(self) -> set[Lane]:
        """Return the lanes that have a submission here."""
        return {lane for _, _, lane, _ in self.submissions if lane is not None}

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

        What comes behind such a submission in its lane, or of its producer, goes with it. What is left keeps its order,
        and counts as large as before until it is committed.
        """
        kept, refused = Batch(), []
        lost_lanes, lost_producers = set(lanes), set(producers)
        start = 0
        for index, (end, done, lane, identity) in enumerate(self.submissions):
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
                kept.submissions.append((len(kept.entries), done, lane, identity))
            start = end
        kept.size_bytes = self.size_bytes
        return kept, refused

    # On its way to the journal.

    def stamp(self, now_utc: str) -> None:
        """Set the time of all entries: that of the commit."""
        for entry in self.entries:
            entry.timestamp_utc = now_utc

    def mark(self, marks: Sequence[ProducerMark]) -> None:
        """Note up to where its producers have come with it: marks whose `seq` is the index of a submission."""
        self._marks = list(marks)

    # In the journal.

    def leave_out(self, known: Collection[IdempotencyRecord]) -> None:
        """Take out the entries of submissions whose keys are stored already; their senders get the first answer again.

        That answer comes with those of the others: when the state has all that stands before the batch.
        """
        records = {record.key: record for record in known}
        found: dict[int, tuple[IdempotencyKey, IdempotencyRecord]] = {}
        for index, (key, *_) in self._attached.items():
            if key is not None and (record := records.get(key.key)) is not None:
                found[index] = key, record
        if not found:
            return
        entries: list[Entry] = []
        submissions: list[Submission] = []
        start = 0
        for index, (end, done, lane, identity) in enumerate(self.submissions):
            if index in found:
                del self._attached[index]
                submissions.append((len(entries), partial(_answer_again, *found[index], done), lane, identity))
            else:
                entries.extend(self.entries[start:end])
                submissions.append((len(entries), done, lane, identity))
            start = end
        self.entries, self.submissions = entries, submissions
        self._marks = [mark for mark in self._marks if mark.seq not in found]

    def place(self, first_seq: int, epoch: str) -> None:
        """Give each entry its position, and with it all that belongs to entries."""
        self.first_seq = first_seq
        for seq, entry in enumerate(self.entries, first_seq):
            entry.seq = seq
            entry.epoch = epoch

    @property
    def keys(self) -> list[IdempotencyRecord]:
        """The records of its idempotency keys, in order, with the positions that `place` gave."""
        if not self._attached:  # as nearly always: a list less for each commit
            return []
        return [
            IdempotencyRecord(key.key, seqs[0], seqs[-1], key.digest)
            for seqs, (key, _, _) in self._by_position()
            if key is not None
        ]

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
    def marks(self) -> list[ProducerMark]:
        """Up to where its producers have come, in order, with the positions that `place` gave."""
        if not self._marks:
            return []
        before_seq = self.first_seq - 1
        return [mark._replace(seq=before_seq + self.submissions[mark.seq][0]) for mark in self._marks]

    # In the end.

    def commit(self, placed: Placed) -> None:
        """Answer all senders: what they sent is durable, up to the position of its last entry."""
        before_seq = placed.seqs.start - 1
        for count, done, _, _ in self.submissions:
            done(None, before_seq + count)

    def fail(self, error: TwincastError) -> None:
        """Answer all senders with what kept the batch from being stored."""
        for _, done, _, _ in self.submissions:
            done(error, 0)

    def _by_position(self) -> Iterator[tuple[range, _Attached]]:
        submissions, first_seq = self.submissions, self.first_seq
        for index, attached in self._attached.items():
            start = submissions[index - 1][0] if index else 0
            yield range(first_seq + start, first_seq + submissions[index][0]), attached


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


def _seq(entry: Entry) -> int:
    return entry.seq
