"""Numbered lines: up to which line those of a producer are stored. None is stored twice, however late it comes again.

A producer numbers what it sends, 1, 2, 3, …, and sends it again, from the oldest line without an answer, until all have
one. So no line before its newest stored one may be stored any more: it is stored already, or it was refused. Which of
the two is remembered for as many lines as a client sends ahead of its answers: a window against replays, as in
RFC 4303, section 3.4.3.

A line is new, then pending, then stored or refused. While a later line of its producer is pending, an earlier one is
refused for now (OutOfOrder), since it is not known yet whether the later one has passed it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from twincast.core.idempotency import OnCommitted
from twincast.errors import LinePassed, OutOfOrder, TwincastError

PRODUCERS_MAX = 10_000
"""At most so many producers are remembered, those that wrote last: about 5 MB in memory."""
WINDOW_LINES = 1_024
"""For so many lines before the newest one it is known whether they are stored; older ones count as stored."""
_WINDOW = (1 << WINDOW_LINES) - 1

ProducerId = tuple[str, str]
"""The identity and the name of a producer: no identity can touch the lines of another one."""
LineId = tuple[str, str, int]
"""A producer's identity and name, and the number of one of its lines."""


class ProducerMark(NamedTuple):
    """Up to where a producer's lines are stored, as of an entry of the log."""

    identity: str
    producer: str
    line: int
    """The newest line that is stored."""
    seq: int
    """The position of that line."""
    missing: int = 0
    """Bit n says that line `line - 1 - n` is not stored."""

    def has(self, number: int) -> bool:
        """Whether a line up to the newest is stored, as far as that is remembered."""
        return number == self.line or not self.missing >> (self.line - 1 - number) & 1


class NumberedLine(NamedTuple):
    """The number of one submission, and its callback for the case that the line is stored already."""

    identity: str
    producer: str
    number: int
    again: Callable[[ProducerMark], None]

    @property
    def producer_id(self) -> ProducerId:
        """The producer of the line."""
        return self.identity, self.producer


Waiting = list[tuple[NumberedLine, OnCommitted]]


class ProducerIndex:
    """The newest stored lines of the producers that wrote last, and those that are pending."""

    def __init__(self, marks: Iterable[ProducerMark]) -> None:
        """Begin with what the journal has, in the order of seq."""
        self._marks = {(mark.identity, mark.producer): mark for mark in marks}
        self._pending: dict[ProducerId, dict[int, Waiting]] = {}

    def admit(self, line: NumberedLine, done: OnCommitted) -> OnCommitted | None:
        """Return the callback of a new line, which is pending until it is called; None if the line is not new.

        A line that is stored is answered at once by its `again`; one that is pending, together with the first one.

        Raises:
            LinePassed: the line is not stored, and a later one is.
        """
        pending = self._pending.setdefault(line.producer_id, {})
        if line.number in pending:
            pending[line.number].append((line, done))
            return None
        try:
            if self._is_stored(line):
                return None
            if pending and line.number < next(reversed(pending)):
                done(OutOfOrder("a later line of this producer is pending; send this one again"), 0)
                return None
        finally:
            if not pending:
                del self._pending[line.producer_id]
        self._pending.setdefault(line.producer_id, pending)[line.number] = []
        return self._settling(line, done)

    def marks(self, lines: Sequence[tuple[int, NumberedLine]]) -> list[ProducerMark]:
        """Return the marks to store with a batch: one for each producer, in order, each as of its last line.

        A line that another writer of the log has stored since it was admitted moves none: the journal leaves it out.

        Args:
            lines: in order, each with its index in the batch. The `seq` of a mark is that index.
        """
        marks: dict[ProducerId, ProducerMark] = {}
        for index, line in lines:
            before = marks.get(line.producer_id) or self._marks.get(line.producer_id)
            if before is not None and line.number <= before.line:
                continue
            marks[line.producer_id] = moved(before, (*line.producer_id, line.number), index)
        return sorted(marks.values(), key=lambda mark: mark.seq)

    def learn(self, marks: Iterable[ProducerMark]) -> None:
        """Take marks that are stored, in order: those of an own commit, and those that the log reports.

        An own commit is learned as soon as it is durable, for the marks of the next one build on it. The log reports
        it too, perhaps only after the next one: so what is not newer changes nothing. What others wrote before it may
        come behind it; who wrote last goes by the log all the same.
        """
        newest_seq, is_late = next(reversed(self._marks.values())).seq if self._marks else 0, False
        for mark in marks:
            producer_id = mark.identity, mark.producer
            known = self._marks.get(producer_id)
            if known is None or known.seq < mark.seq:
                self._marks.pop(producer_id, None)  # the producer that wrote last stands last
                is_late |= mark.seq < newest_seq
                newest_seq = max(newest_seq, mark.seq)
                self._marks[producer_id] = mark
        if is_late:
            self._marks = dict(sorted(self._marks.items(), key=lambda item: item[1].seq))
        while len(self._marks) > PRODUCERS_MAX:
            del self._marks[next(iter(self._marks))]

    def _is_stored(self, line: NumberedLine) -> bool:
        mark = self._marks.get(line.producer_id)
        if mark is None or line.number > mark.line:
            return False
        if not mark.has(line.number):
            raise passed_over(line.number, mark)
        line.again(mark)
        return True

    def _settling(self, line: NumberedLine, done: OnCommitted) -> OnCommitted:
        def settle(error: TwincastError | None, last_seq: int) -> None:
            pending = self._pending[line.producer_id]
            waiting = pending.pop(line.number)
            if not pending:
                del self._pending[line.producer_id]
            done(error, last_seq)
            for other, done_other in waiting:
                if error is None:
                    other.again(ProducerMark(line.identity, line.producer, line.number, last_seq))
                else:
                    done_other(error, 0)

        return settle


def moved(before: ProducerMark | None, line: LineId, seq: int) -> ProducerMark:
    """Return the mark after a line: the lines between it and the mark before are not stored."""
    identity, producer, number = line
    step, missing = (number, 0) if before is None else (number - before.line, before.missing)
    # Shifted by one window at most, however large the number that a client sends.
    passed = _WINDOW if step > WINDOW_LINES else (missing << step) | ((1 << step - 1) - 1)
    return ProducerMark(identity, producer, number, seq, passed & _WINDOW)


def passed_over(number: int, mark: ProducerMark) -> LinePassed:
    """Return the error for a line that is not stored, when a later one of its producer is."""
    return LinePassed(f"line {number} was refused or never sent, and line {mark.line} is stored: it is too late for it")
