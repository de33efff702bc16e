"""Numbered lines: each is stored once, in order, whatever is sent again, fails or comes late."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from twincast.core import producers
from twincast.core.batch import Batch, Placed
from twincast.core.model import DataUpdate
from twincast.core.producers import WINDOW_LINES, NumberedLine, ProducerIndex, ProducerMark
from twincast.errors import JournalUnavailable, LinePassed, NotPermitted, OutOfOrder, TwincastError


class Sent:
    """What one sent line is told."""

    def __init__(self, number: int, producer: str = "p", identity: str = "") -> None:
        self.answers: list[tuple[TwincastError | None, int]] = []
        self.marks: list[ProducerMark] = []
        self.line = NumberedLine(identity, producer, number, self.marks.append)

    def done(self, error: TwincastError | None, last_seq: int) -> None:
        self.answers.append((error, last_seq))


def store(known: ProducerIndex, number: int, seq: int, producer: str = "p", identity: str = "") -> Sent:
    """Have a line stored, alone in its batch."""
    sent = Sent(number, producer, identity)
    settle = known.admit(sent.line, sent.done)
    assert settle is not None, f"line {number} is new"
    known.learn(mark._replace(seq=seq) for mark in known.marks([(0, sent.line)]))
    settle(None, seq)
    return sent


def again(known: ProducerIndex, number: int, producer: str = "p", identity: str = "") -> ProducerMark | None:
    """Send a line again; return what it is told, or None if it would be stored."""
    sent = Sent(number, producer, identity)
    settle = known.admit(sent.line, sent.done)
    if settle is not None:
        settle(NotPermitted("as if it had never come"), 0)
        return None
    (mark,) = sent.marks
    return mark


def test_a_line_that_comes_again_is_told_up_to_which_all_are_stored_and_where_that_is() -> None:
    known = ProducerIndex([])
    for number in (1, 2, 3):
        assert store(known, number, seq=10 * number).answers == [(None, 10 * number)]
    assert [again(known, number) for number in (1, 2, 3)] == [ProducerMark("", "p", 3, 30)] * 3
    assert again(known, 4) is None


def test_those_that_wrote_last_are_the_same_to_whoever_was_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 2)
    known = ProducerIndex([])
    old, own, elsewhere, newest = (
        ProducerMark("", name, 1, seq) for name, seq in (("a", 1), ("b", 3), ("c", 2), ("d", 4))
    )
    known.learn([old])
    known.learn([own])  # durable before the log has reported what another server wrote before it
    known.learn([elsewhere])
    known.learn([newest])
    assert [again(known, 1, name) is not None for name in "abcd"] == [False, True, False, True]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_line_that_another_writer_stores_while_it_waits_here_moves_no_mark(number: int) -> None:
    """On a log of many servers, a producer that had no answer goes to another one with the same line."""
    known = ProducerIndex([])
    first = Sent(number)
    assert known.admit(first.line, first.done) is not None
    known.learn([ProducerMark("", "p", 3, 30)])
    assert known.marks([(0, first.line), (1, Sent(4).line)]) == [ProducerMark("", "p", 4, 1)]
    assert known.marks([(0, first.line)]) == []


def test_what_a_restart_finds_in_the_journal_is_known() -> None:
    known = ProducerIndex([ProducerMark("key:a", "p", 7, 70)])
    assert again(known, 7, identity="key:a") == ProducerMark("key:a", "p", 7, 70)
    assert again(known, 8, identity="key:a") is None


def test_another_identity_neither_holds_back_nor_moves_a_producers_lines() -> None:
    known = ProducerIndex([])
    store(known, 9, 1, identity="key:mallory")
    assert [again(known, number, identity="key:alice") for number in (1, 9)] == [None, None]
    store(known, 1, 2, identity="key:alice")
    assert again(known, 2, identity="key:alice") is None
    assert again(known, 9, identity="key:mallory") is not None


def test_a_line_that_is_under_way_is_answered_like_the_first_one() -> None:
    known, first, second, third = ProducerIndex([]), Sent(1), Sent(1), Sent(1)
    settle = known.admit(first.line, first.done)
    assert settle is not None and known.admit(second.line, second.done) is None
    failure = JournalUnavailable("the disk is full")
    settle(failure, 0)
    assert (first.answers, second.answers) == ([(failure, 0)], [(failure, 0)])
    settle = known.admit(first.line, first.done)
    assert settle is not None and known.admit(third.line, third.done) is None
    known.learn(mark._replace(seq=5) for mark in known.marks([(0, first.line)]))
    settle(None, 5)
    assert (first.answers[1:], third.answers, third.marks) == ([(None, 5)], [], [ProducerMark("", "p", 1, 5)])


def test_a_line_that_was_refused_is_not_taken_for_stored_when_a_later_one_is() -> None:
    known = ProducerIndex([])
    store(known, 1, 1)
    assert again(known, 2) is None  # it was refused
    store(known, 3, 2)
    with pytest.raises(LinePassed, match="line 2 was refused or never sent, and line 3 is stored"):
        again(known, 2)
    assert again(known, 1) is not None and again(known, 3) is not None


def test_behind_one_that_is_under_way_a_line_waits_until_it_is_known_whether_it_was_passed() -> None:
    known, later, earlier = ProducerIndex([]), Sent(3), Sent(2)
    settle = known.admit(later.line, later.done)
    assert settle is not None
    assert known.admit(earlier.line, earlier.done) is None
    [(error, _)] = earlier.answers
    assert isinstance(error, OutOfOrder) and error.retryable
    settle(JournalUnavailable("the disk is full"), 0)
    assert again(known, 2) is None


@pytest.mark.parametrize("step", [1, 2, WINDOW_LINES - 1, WINDOW_LINES, WINDOW_LINES + 1, 1 << 52])
def test_lines_are_remembered_one_by_one_as_far_back_as_a_client_sends_ahead(step: int) -> None:
    known = ProducerIndex([])
    store(known, 1, 1)
    store(known, 1 + step, 2)
    if step > WINDOW_LINES:
        assert again(known, step - WINDOW_LINES) is not None, "what is older is taken for stored"
    else:
        assert again(known, 1) is not None
    for passed in [step, max(2, step - WINDOW_LINES + 1)] if step > 1 else []:
        with pytest.raises(LinePassed):
            again(known, passed)
    [mark] = known.marks([(0, Sent(2 + step).line)])
    assert mark.missing < 1 << WINDOW_LINES


def test_so_many_producers_are_remembered_those_that_wrote_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 2)
    known = ProducerIndex([])
    store(known, 1, 1, producer="a")
    store(known, 1, 2, producer="b")
    store(known, 2, 3, producer="a")
    store(known, 1, 4, producer="c")
    assert [again(known, 1, producer=name) is not None for name in ("a", "b", "c")] == [True, False, True]


def test_nothing_is_left_of_what_was_answered() -> None:
    known = ProducerIndex([])
    store(known, 1, 1)
    again(known, 1)
    again(known, 2)
    store(known, 3, 2)
    with pytest.raises(LinePassed):
        again(known, 2)
    assert known._pending == {}


class Conversations(RuleBasedStateMachine):
    """A producer on connections that are lost, and a server whose commits fail and which starts anew.

    What an old connection has sent may reach the server long after the next one has begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.producers, self.open, self.log = ProducerIndex([]), Batch(), list[int]()
        self.settlings: dict[int, Callable[[TwincastError | None, int], None]] = {}
        self.last = 0  # the newest line that there is
        self.unanswered: dict[int, None] = {}
        self.told: dict[int, str] = {}
        self.refusing: set[int] = set()
        self.refused: set[int] = set()  # some time, by an answer that may be lost
        self.connections: list[dict[str, list[int] | bool]] = []
        self.connect()

    @rule()
    def connect(self) -> None:
        """Begin anew with the oldest line that has no answer; what was sent before may still come."""
        for connection in self.connections:
            connection["heard"] = False
        self.connections.append({"sent": list(self.unanswered), "lost": False, "heard": True})

    @rule(count=st.integers(1, 4), refused=st.booleans())
    def produce(self, count: int, refused: bool) -> None:
        for _ in range(count):
            self.last += 1
            self.unanswered[self.last] = None
            sent = self.connections[-1]["sent"]
            assert isinstance(sent, list)
            sent.append(self.last)
        if refused:
            self.refusing.add(self.last)

    @rule(back=st.integers(0, 2), count=st.integers(1, 3))
    def the_server_reads(self, back: int, count: int) -> None:
        if back >= len(self.connections):
            return
        connection = self.connections[-1 - back]
        sent = connection["sent"]
        assert isinstance(sent, list)
        for _ in range(min(count, len(sent))):
            if not connection["lost"]:
                self.receive(connection, sent.pop(0))

    def receive(self, connection: dict[str, list[int] | bool], number: int) -> None:
        def answered(word: str) -> None:
            if connection["heard"] and number in self.unanswered:
                del self.unanswered[number]
                self.told[number] = word

        def done(error: TwincastError | None, _seq: int) -> None:
            if error is not None and error.retryable:
                connection["lost"] = True
            else:
                answered("refused" if error else "stored")

        if number in self.refusing:
            self.refused.add(number)
            return answered("refused")
        line = NumberedLine("", "p", number, lambda _: answered("stored"))
        try:
            settle = self.producers.admit(line, done)
        except LinePassed:
            assert number not in self.log
            assert number in self.refused, "nothing passes a line but one that was refused"
            return answered("refused")
        if settle is not None:
            entry = DataUpdate("d", Raw(b"%d" % number), "", "rest")
            self.open.add_all([entry], 1, settle, id(connection), line=line)

    @rule()
    def rights_change(self) -> None:
        self.refusing.clear()

    @rule(fails=st.booleans(), more=st.integers(0, 3))
    def commit(self, fails: bool, more: int) -> None:
        batch, self.open = self.open, Batch()
        for back in range(2):  # meanwhile
            self.the_server_reads(back, more)
        if fails:
            self.open, behind = self.open.without(batch.lanes(), batch.producers())
            batch.fail(JournalUnavailable("no"))
            for done in behind:
                done(OutOfOrder("no"), 0)
            return
        batch.mark(self.producers.marks(batch.lines()))
        batch.place(len(self.log) + 1, "")
        self.producers.learn(batch.marks)
        self.log += [line.number for _, line in batch.lines()]
        batch.commit(Placed(range(batch.first_seq, len(self.log) + 1)))

    @precondition(lambda self: self.connections[-1]["lost"])
    @rule()
    def restart(self) -> None:
        self.connections[-1] |= {"lost": False, "sent": list(self.unanswered)}

    @rule()
    def the_server_starts_anew(self) -> None:
        self.open = Batch()
        self.producers = ProducerIndex(self.producers._marks.values())
        self.connections = []
        self.connect()

    @invariant()
    def each_line_is_stored_once_in_order_and_as_it_was_told(self) -> None:
        assert all(one < other for one, other in pairwise(self.log)), self.log
        stored = set(self.log)
        for number, word in self.told.items():
            if word == "stored":
                assert number in stored, f"line {number} was told to be stored"

    def teardown(self) -> None:
        self.rights_change()
        for _ in range(3):
            self.connect()
            self.connections = self.connections[-1:]
            self.the_server_reads(0, 1_000)
            self.commit(fails=False, more=0)
        assert not self.unanswered, "each line has its answer in the end"
        self.each_line_is_stored_once_in_order_and_as_it_was_told()


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
