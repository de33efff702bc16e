"""Numbered lines: up to where a producer's are stored, so that one that comes again stores nothing twice, however late.

A producer numbers what it sends, 1, 2, 3, …, and sends it again, from the oldest line without an answer, until all have
one. So its newest stored line says of all before it that they are not to be stored: they are, or they were refused.
Which of the two is remembered for as many lines as a client sends ahead of its answers: the window against replays
of RFC 4303, section 3.4.3.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from twincast.core.idempotency import OnCommitted
from twincast.errors import LinePassed, OutOfOrder, TwincastError

PRODUCERS_MAX = 10_000
"""How many producers are remembered, those that wrote last: about 5 MB in memory."""
WINDOW_LINES = 1_024
"""For how many lines before the newest one it is known whether they were stored; older ones are taken for stored."""
_WINDOW = (1 << WINDOW_LINES) - 1

ProducerId = tuple[str, str]
"""Whose producer, and which: an identity cannot touch the lines of another one."""


class ProducerMark(NamedTuple):
    """Up to where a producer's lines are stored, as of an entry of the log."""

    identity: str
    producer: str
    line: int
    """The newest that is stored."""
    seq: int
    """Where that one is in the log; in a batch, counted from its first entry, 0."""
    missing: int = 0
    """Bit n says that line `line - 1 - n` is not stored."""

    def has(self, number: int) -> bool:
        """Whether a line up to the newest is stored, as far as that is remembered."""
        return number == self.line or not self.missing >> (self.line - 1 - number) & 1


class NumberedLine(NamedTuple):
    """The number of one update, and whom to tell if it is stored already: how far that is known."""

    identity: str
    producer: str
    number: int
    again: Callable[[ProducerMark], None]

    @property
    def producer_id(self) -> ProducerId:
        """Whose line it is."""
        return self.identity, self.producer


Waiting = list[tuple[NumberedLine, OnCommitted]]


class ProducerIndex:
    """The newest lines of the producers that wrote last, stored and under way."""

    def __init__(self, marks: Iterable[ProducerMark]) -> None:
        """Begin with what the journal has, in the order of seq."""
        self._marks = {(mark.identity, mark.producer): mark for mark in marks}
        self._under_way: dict[ProducerId, dict[int, Waiting]] = {}

    def admit(self, line: NumberedLine, done: OnCommitted) -> OnCommitted | None:
        """Return what a new line is to call in the end; None if it is answered otherwise, at once or later.

        One that is stored is answered with that; one that is under way as the first one will be.

        Raises:
            LinePassed: it is not stored, and a later one is.
        """
        under_way = self._under_way.setdefault(line.producer_id, {})
        if line.number in under_way:
            under_way[line.number].append((line, done))
            return None
        try:
            if self._is_stored(line):
                return None
            if under_way and line.number < next(reversed(under_way)):  # of which nobody knows yet whether it is stored
                done(OutOfOrder("a later line of this producer is under way; send it again"), 0)
                return None
        finally:
            if not under_way:
                del self._under_way[line.producer_id]
        self._under_way.setdefault(line.producer_id, under_way)[line.number] = []
        return self._settling(line, done)

    def marks(self, lines: Sequence[tuple[int, NumberedLine]]) -> list[ProducerMark]:
        """Return the marks to store with a batch: one for each producer, in order, each as of its last line.

        Args:
            lines: in order, each with its index in the batch. The `seq` of a mark is that index.
        """
        marks: dict[ProducerId, ProducerMark] = {}
        for index, line in lines:
            before = marks.get(line.producer_id) or self._marks.get(line.producer_id)
            marks[line.producer_id] = _moved(before, line, index)
        return sorted(marks.values(), key=lambda mark: mark.seq)

    def learn(self, marks: Iterable[ProducerMark]) -> None:
        """Take marks that are stored, in order: those of an own commit, and those that the log reports.

        An own commit is learned as soon as it is durable, for the marks of the next one build on it. The log reports
        it too, perhaps only after the next one: so what is not newer changes nothing.
        """
        for mark in marks:
            producer_id = mark.identity, mark.producer
            known = self._marks.get(producer_id)
            if known is None or known.seq < mark.seq:
                self._marks.pop(producer_id, None)  # the producer that wrote last stands last
                self._marks[producer_id] = mark
        while len(self._marks) > PRODUCERS_MAX:
            del self._marks[next(iter(self._marks))]

    def _is_stored(self, line: NumberedLine) -> bool:
        mark = self._marks.get(line.producer_id)
        if mark is None or line.number > mark.line:
            return False
        if not mark.has(line.number):
            raise LinePassed(
                f"line {line.number} was refused or never sent, and line {mark.line} is stored: it is too late for it"
            )
        line.again(mark)
        return True

    def _settling(self, line: NumberedLine, done: OnCommitted) -> OnCommitted:
        def settle(error: TwincastError | None, last_seq: int) -> None:
            under_way = self._under_way[line.producer_id]
            waiting = under_way.pop(line.number)
            if not under_way:
                del self._under_way[line.producer_id]
            done(error, last_seq)
            for other, done_other in waiting:
                if error is None:
                    other.again(ProducerMark(line.identity, line.producer, line.number, last_seq))
                else:
                    done_other(error, 0)

        return settle


def _moved(before: ProducerMark | None, line: NumberedLine, index: int) -> ProducerMark:
    """Return a mark that has come to a line; of those that it has passed over nothing is known to be stored."""
    step, missing = (line.number, 0) if before is None else (line.number - before.line, before.missing)
    # Shifted by less than a window beyond it, whatever number somebody sends.
    passed = _WINDOW if step > WINDOW_LINES else (missing << step) | ((1 << step - 1) - 1)
    return ProducerMark(line.identity, line.producer, line.number, index, passed & _WINDOW)
