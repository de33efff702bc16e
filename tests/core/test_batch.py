"""What collects until a commit: whoever is withdrawn leaves nothing behind, and the rest stays what it was."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.audit import Actor
from twincast.core.batch import Batch
from twincast.core.idempotency import IdempotencyKey
from twincast.core.model import Control
from twincast.core.producers import NumberedLine
from twincast.errors import TwincastError

submissions = st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.sampled_from([None, "x", "y"]))


def _nothing(error: TwincastError | None, last_seq: int) -> None:
    raise AssertionError("a batch tells nobody by itself")


@given(st.lists(submissions, max_size=8), st.sets(st.sampled_from(["x", "y", "z"])))
def test_what_some_lanes_submitted_is_taken_out_with_its_keys_and_deeds(
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
            one.add(entries, key, actor)
            one.await_commit(count, done, lane)
    kept, refused = batch.without(lanes)
    for tell in refused:
        tell(None, 0)
    assert told == [number for number, (*_, lane) in enumerate(submitted) if lane in lanes]
    assert (kept.entries, kept.keys, kept.deeds) == (expected.entries, expected.keys, expected.deeds)
    assert kept.submissions == expected.submissions
    assert kept.size_bytes == batch.size_bytes


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
        batch.add([Control(f"{place}", "on", Raw(b"{}"), "", "rest")], line=line)
        batch.await_commit(1, partial(_told, told, place), lane)
    kept, refused = batch.without([], [("", "p")])
    for tell in refused:
        tell(None, 0)
    assert told == ["0", "2", "3", "4", "5"]
    assert [entry.topic[1] for entry in kept.entries] == ["1", "6"]
    assert [(place, line.number) for place, line in kept.lines] == [(0, 1), (1, 6)]
    assert kept.producers() == {("", "q")}


def test_only_who_asked_for_order_has_a_lane() -> None:
    batch = Batch()
    for lane in (None, "x", None, "x", "y"):
        batch.await_commit(1, _nothing, lane)
    assert batch.lanes() == {"x", "y"}
