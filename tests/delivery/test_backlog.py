"""What is recorded once for all that are behind, against queues that each keep it for themselves."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.delivery.test_outbox import PLENTY_BYTES, cast_of, control, deletion, messages_of, update
from twincast.core.model import Entry, Snapshot
from twincast.core.state import State
from twincast.delivery.backlog import Backlog
from twincast.delivery.cast import Cast
from twincast.delivery.outbox import LatestOutbox


class Pair:
    """An outbox that may follow a backlog, and one that is handed everything."""

    def __init__(self) -> None:
        self.outbox = LatestOutbox()
        self.expected = LatestOutbox()
        self.is_following = False


class OutboxesThatFollow(RuleBasedStateMachine):
    """Outboxes that begin and end to follow one backlog, whenever they like."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State(Snapshot("e", 0, {}))
        self.backlog = Backlog()
        self.pairs: list[Pair] = []

    @precondition(lambda self: len(self.pairs) < 6)
    @rule(follows=st.booleans())
    def come(self, follows: bool) -> None:
        self.pairs.append(Pair())
        if follows:
            self.begin_to_follow(-1)

    @rule(names=st.lists(st.sampled_from(["a", "b", "c", "-a", "-b", None]), min_size=1, max_size=5))
    def commit(self, names: list[str | None]) -> None:
        entries: list[Entry] = []
        for seq, name in enumerate(names, self.state.seq + 1):
            if name is None:
                entries.append(control(seq))
            elif name.startswith("-"):
                entries.append(deletion(seq, name[1:]))
            else:
                entries.append(update(seq, name))
        self.state.apply_all(entries)
        cast = cast_of(*entries)
        if any(pair.is_following for pair in self.pairs):
            self.backlog.add(cast)
        for pair in self.pairs:
            pair.expected.enqueue(cast, self.state.seq)
            if not pair.is_following:
                pair.outbox.enqueue(cast, self.state.seq)

    @precondition(lambda self: self.pairs)
    @rule(chosen=st.integers(0, 5))
    def begin_to_follow(self, chosen: int) -> None:
        pair = self._pair(chosen)
        if not pair.is_following:
            pair.is_following = pair.outbox.follow(self.backlog)

    @precondition(lambda self: self.pairs)
    @rule(chosen=st.integers(0, 5))
    def unfollow(self, chosen: int) -> None:
        pair = self._pair(chosen)
        pair.outbox.unfollow()
        pair.is_following = False

    @precondition(lambda self: self.pairs)
    @rule(chosen=st.integers(0, 5))
    def leave(self, chosen: int) -> None:
        pair = self._pair(chosen)
        pair.outbox.close()
        self.pairs.remove(pair)

    @precondition(lambda self: self.pairs)
    @rule(chosen=st.integers(0, 5), size=st.integers(0, 200))
    def reply(self, chosen: int, size: int) -> None:
        for outbox in (self._pair(chosen).outbox, self._pair(chosen).expected):
            outbox.enqueue(Cast((b'"%b"' % (b"p" * size),)), self.state.seq)

    @precondition(lambda self: self.pairs)
    @rule(chosen=st.integers(0, 5), max_bytes=st.one_of(st.integers(1, 500), st.just(PLENTY_BYTES)))
    def drain(self, chosen: int, max_bytes: int) -> None:
        pair = self._pair(chosen)
        told, expected = (each.drain(self.state, max_bytes) for each in (pair.outbox, pair.expected))
        assert messages_of(told) == messages_of(expected)
        assert [cast.merged_away for cast in told] == [cast.merged_away for cast in expected]

    @precondition(lambda self: self.pairs)
    @rule(chosen=st.integers(0, 5))
    def drop_entries(self, chosen: int) -> None:
        pair = self._pair(chosen)
        assert pair.outbox.drop_entries() == pair.expected.drop_entries()
        assert messages_of(pair.outbox.replies()) == messages_of(pair.expected.replies())

    @rule(max_bytes=st.integers(0, 2_000))
    def look_for_those_above_a_bound(self, max_bytes: int) -> None:
        for pair in self.pairs:
            assert pair.outbox.exceeds(max_bytes) == pair.expected.exceeds(max_bytes)

    @rule(chosen=st.integers(0, 5))
    def measure(self, chosen: int) -> None:
        if self.pairs:
            assert self._pair(chosen).outbox.size_bytes >= self._pair(chosen).expected.size_bytes

    @invariant()
    def something_waits_where_it_should(self) -> None:
        for pair in getattr(self, "pairs", ()):
            assert bool(pair.outbox) == bool(pair.expected)

    def teardown(self) -> None:
        for pair in self.pairs:
            told, expected = (each.drain(self.state, PLENTY_BYTES) for each in (pair.outbox, pair.expected))
            assert messages_of(told) == messages_of(expected)
            pair.outbox.close()
        assert not self.backlog

    def _pair(self, chosen: int) -> Pair:
        return self.pairs[chosen % len(self.pairs)]


TestOutboxesThatFollow = OutboxesThatFollow.TestCase
TestOutboxesThatFollow.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def following(backlog: Backlog) -> LatestOutbox:
    outbox = LatestOutbox()
    outbox.follow(backlog)
    return outbox


def test_a_check_is_due_exactly_when_the_first_outbox_is_above_its_bound() -> None:
    backlog, state = Backlog(), State(Snapshot("e", 0, {}))
    command_bytes = LatestOutbox()
    command_bytes.enqueue(cast_of(control(1)), 1)
    early = following(backlog)
    assert not early.exceeds(3 * command_bytes.size_bytes)
    due = []
    for seq in range(1, 6):
        if seq == 2:
            late = following(backlog)
            assert not late.exceeds(3 * command_bytes.size_bytes)
        backlog.add(cast_of(control(seq)))
        if backlog.is_check_due():
            due.append((seq, [each.exceeds(3 * command_bytes.size_bytes) for each in (early, late)]))
            early.drain(state, PLENTY_BYTES)
            early.exceeds(3 * command_bytes.size_bytes)
    assert due == [(4, [True, False]), (5, [False, True])]


def test_a_device_that_is_deleted_and_made_again_and_again_is_no_more_than_one_deletion() -> None:
    backlog, state = Backlog(), State(Snapshot("e", 0, {}))
    outbox = following(backlog)
    checks = 0
    for seq in range(1, 2_001, 2):
        entries: list[Entry] = [deletion(seq), update(seq + 1)]
        state.apply_all(entries)
        backlog.add(cast_of(*entries))
        if backlog.is_check_due():
            checks += 1
            assert not outbox.exceeds(10_000)
        elif seq == 1:
            assert not outbox.exceeds(10_000)
    assert 0 < checks <= 1_000 * 256 / 10_000 + 1
    [message] = messages_of(outbox.drain(state, PLENTY_BYTES))
    assert b'"merged":2000' in message


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_those_that_come_and_go_beside_one_that_stays_leave_nothing_behind(lingers: list[bool]) -> None:
    """However often another client falls behind and catches up, the record of a device stays small, and right."""
    backlog = Backlog()
    first, others, expected = following(backlog), list[LatestOutbox](), 0
    counts: list[int] = []
    most = 0
    for seq, stays in enumerate(lingers, 1):
        other = following(backlog)
        others.append(other)
        counts.append(expected)
        backlog.add(cast_of(update(seq)))
        expected += 1
        most = max(most, len(others) + 1)
        if not stays:
            others.pop(0).close()
            counts.pop(0)
    state = State(Snapshot("e", 0, {}))
    state.apply_all([update(seq) for seq in range(1, len(lingers) + 1)])

    def merged(outbox: LatestOutbox) -> Any:
        [cast] = outbox.drain(state, PLENTY_BYTES)
        assert cast.merged is not None
        return cast.merged[0]

    assert len(backlog) == 1
    assert len(backlog._slots["a"].before or ()) <= 2 * most + 9
    assert [merged(outbox) for outbox in others] == [expected - count for count in counts]
    assert merged(first) == expected
