"""What collects until a commit: whoever is withdrawn leaves nothing behind, and the rest stays what it was."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.audit import Actor
from twincast.core.batch import Batch, Placed
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord
from twincast.core.model import Control
from twincast.core.producers import NumberedLine
from twincast.errors import KeyReused, TwincastError

submissions = st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from([None, "x", "y"]))


def _nothing(error: TwincastError | None, last_seq: int) -> None:
    raise AssertionError("a batch tells nobody by itself")


@given(st.lists(submissions, max_size=8), st.sets(st.sampled_from(["x", "y", "z"])))
def test_what_some_lanes_submitted_is_taken_out_with_its_keys_and_origins(
    submitted: list[tuple[int, bool, bool, str | None]], lanes: set[str]
) -> None:
    batch, expected = Batch(), Batch()
    told = []
    for number, (count, keyed, by_somebody, lane) in enumerate(submitted):
        entries = [Control(f"{number}-{index}", "on", Raw(b"{}"), "", "rest") for index in range(count)]
        key = IdempotencyKey(f"key {number}", str(number), lambda _: None) if keyed and entries else None
        actor = Actor(f"who {number}", "here") if by_somebody else None

        def done(error: TwincastError | None, last_seq: int, number: int = number) -> None:
            told.append(number)

        for one in (batch,) if lane in lanes else (batch, expected):
            one.add_all(entries, count, done, lane, key=key, actor=actor)
    kept, refused = batch.without(lanes)
    for tell in refused:
        tell(None, 0)
    assert told == [number for number, (*_, lane) in enumerate(submitted) if lane in lanes]
    assert (kept.entries, kept.keys, kept.origins) == (expected.entries, expected.keys, expected.origins)
    assert kept.submissions == expected.submissions
    assert kept.size_bytes == batch.size_bytes


@given(st.lists(submissions, max_size=8), st.sets(st.integers(0, 7)))
def test_what_is_stored_already_is_left_out_and_answered_again_in_its_turn(
    submitted: list[tuple[int, bool, bool, str | None]], known: set[int]
) -> None:
    batch, expected = Batch(), Batch()
    told: list[tuple[int, int]] = []

    def done(number: int, error: TwincastError | None, last_seq: int) -> None:
        assert error is None
        told.append((number, last_seq))

    records, answers, count_stored = [], [], 0
    for number, (count, keyed, _, lane) in enumerate(submitted):
        entries = [Control(f"{number}-{index}", "on", Raw(b"{}"), "", "rest") for index in range(count)]
        again = partial(lambda number, record: told.append((number, record.last_seq)), number)
        key = IdempotencyKey(f"key {number}", str(number), again) if keyed and entries else None
        actor = Actor(f"who {number}", "here")
        is_known = key is not None and number in known
        batch.add_all(entries, count, partial(done, number), lane, key=key, actor=actor)
        if is_known:
            records.append(IdempotencyRecord(f"key {number}", number + 1, number + 1, str(number)))
            answers.append((number, number + 1))
        else:
            expected.add_all(entries, count, partial(done, number), lane, key=key, actor=actor)
            count_stored += count
            answers.append((number, 100 + count_stored))
    for _ in range(2):  # the second time nothing is left to leave out
        batch.leave_out(records)
    for one in batch, expected:
        one.place(101, "epoch")
    assert (batch.entries, batch.keys, batch.origins) == (expected.entries, expected.keys, expected.origins)
    batch.commit(Placed(range(101, 101 + count_stored), records))
    assert told == answers


def test_a_key_that_is_stored_already_with_other_content_is_refused() -> None:
    batch, errors = Batch(), list[TwincastError | None]()
    key = IdempotencyKey("k", "1", lambda _: None)
    entry = Control("a", "on", Raw(b"{}"), "", "rest")
    batch.add_all([entry], 1, lambda error, _: errors.append(error), key=key)
    known = [IdempotencyRecord("k", 3, 3, "2")]
    batch.leave_out(known)
    batch.commit(Placed(range(5, 5), known))
    assert [type(error) for error in errors] == [KeyReused]


def _told(told: list[str], place: int, error: TwincastError | None, last_seq: int) -> None:
    told.append(str(place))


def _line(producer: str, number: int) -> NumberedLine:
    return NumberedLine("", producer, number, lambda _: None)


def test_behind_a_producers_line_that_is_lost_its_later_ones_go_and_what_is_behind_them_on_their_connections() -> None:
    batch = Batch()
    told: list[str] = []
    sent = [("p", "old"), ("q", "z"), ("p", "new"), (None, "new"), ("r", "new"), ("r", "other"), ("q", "z")]
    for place, (producer, lane) in enumerate(sent):
        line = None if producer is None else _line(producer, place)
        entry = Control(f"{place}", "on", Raw(b"{}"), "", "rest")
        batch.add_all([entry], 1, partial(_told, told, place), lane, line=line)
    kept, refused = batch.without([], [("", "p")])
    for tell in refused:
        tell(None, 0)
    assert told == ["0", "2", "3", "4", "5"]
    assert [entry.topic[1] for entry in kept.entries] == ["1", "6"]
    assert [(place, line.number) for place, line in kept.lines()] == [(0, 1), (1, 6)]
    assert kept.producers() == {("", "q")}


def test_only_who_asked_for_order_has_a_lane() -> None:
    batch = Batch()
    for lane in (None, "x", None, "x", "y"):
        batch.add_all((), 1, _nothing, lane)
    assert batch.lanes() == {"x", "y"}
