"""What collects until a commit: whoever is withdrawn leaves nothing behind, and the rest stays what it was."""

from functools import partial
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.audit import Actor, CommandOrigin
from twincast.core.batch import ENTRY_BYTES, Batch, Placed
from twincast.core.idempotency import IdempotencyKey, IdempotencyRecord
from twincast.core.model import Control
from twincast.core.producers import NumberedLine, ProducerIndex, ProducerMark
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
    assert kept.size_bytes == expected.size_bytes


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


texts = st.tuples(
    st.integers(0, 3), st.integers(0, 40), st.booleans(), st.booleans(), st.sampled_from([None, "p", "q"])
)


@given(st.lists(texts, min_size=1, max_size=12), st.integers(1, 100), st.booleans())
def test_the_parts_of_a_batch_are_together_what_it_was_and_each_holds_what_it_may(
    submitted: list[tuple[int, int, bool, bool, str | None]], max_bytes: int, leans: bool
) -> None:
    whole, parted, told = Batch(), Batch(), list[tuple[int, int]]()
    for number, (count, text_bytes, keyed, by_somebody, producer) in enumerate(submitted):
        entries = [Control(f"{number}-{index}", "on", Raw(b"{}"), "", "rest") for index in range(count)]
        key = IdempotencyKey(f"key {number}", "1", lambda _: None) if keyed else None
        actor = Actor(f"who {number}", "here") if by_somebody else None
        line = _line(producer, number + 1) if producer else None
        size_bytes = text_bytes + ENTRY_BYTES * count if count else 0
        for batch in whole, parted:
            done = partial(lambda number, error, last_seq: told.append((number, last_seq)), number)
            batch.add_all(entries, size_bytes, done, f"lane {number}", f"id {number}", key=key, actor=actor, line=line)
    whole.leans = parted.leans = leans
    assert whole.text_bytes == whole.size_bytes - ENTRY_BYTES * len(whole.entries)
    parts, rest = list[Batch](), Batch()
    while (rest := parted.split(max_bytes)) is not None:  # type: ignore[assignment]
        parts.append(parted)
        parted = rest
    parts.append(parted)
    assert all(part.submissions for part in parts)
    assert all(part.text_bytes <= max_bytes or len(part.submissions) == 1 for part in parts)
    for part, behind in pairwise(parts):  # no more parts than there must be
        assert part.text_bytes + _first_text_bytes(behind) > max_bytes
    assert [size for part in parts for size in _sizes(part)] == _sizes(whole)
    assert all(part.size_bytes == sum(_sizes(part)) for part in parts)
    assert {part.leans for part in parts} == {leans}
    assert [entry for part in parts for entry in part.entries] == whole.entries
    assert [s[2:4] for part in parts for s in part.submissions] == [s[2:4] for s in whole.submissions]
    assert [line.number for part in parts for _, line in part.lines()] == [line.number for _, line in whole.lines()]
    # Stored one behind the other, they are what the whole would have been.
    expected = _stored([whole]), told.copy()
    told.clear()
    assert (_stored(parts), told) == expected


def _sizes(batch: Batch) -> list[int]:
    """Return the size of each submission."""
    return [end - start for start, end in pairwise([0, *(submission[4] for submission in batch.submissions)])]


def _first_text_bytes(batch: Batch) -> int:
    count, *_, size_bytes = batch.submissions[0]
    return size_bytes - ENTRY_BYTES * count


def _stored(batches: list[Batch]) -> tuple[list[IdempotencyRecord], list[CommandOrigin], dict[str, ProducerMark]]:
    """Store batches in a row; return their keys, who sent what, and up to where their producers have come."""
    keys, origins, marks = list[IdempotencyRecord](), list[CommandOrigin](), dict[str, ProducerMark]()
    producers, first_seq = ProducerIndex([]), 101
    for batch in batches:
        batch.mark(producers.marks(batch.lines()))
        batch.place(first_seq, "epoch")
        producers.learn(batch.marks)
        keys += batch.keys
        origins += batch.origins
        marks |= {mark.producer: mark for mark in batch.marks}
        batch.commit(Placed(range(first_seq, first_seq + len(batch.entries))))
        first_seq += len(batch.entries)
    return keys, origins, marks


def test_only_who_asked_for_order_has_a_lane() -> None:
    batch = Batch()
    for lane in (None, "x", None, "x", "y"):
        batch.add_all((), 1, _nothing, lane)
    assert batch.lanes() == {"x", "y"}
