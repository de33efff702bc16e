"""The fold: state is what the log leaves behind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from twincast.core.model import Control, DataUpdate, Deleted, Entry, Snapshot, Twin
from twincast.core.state import State


def update(seq: int, device_id: str = "a", value: bytes = b"1") -> DataUpdate:
    return DataUpdate(device_id, Raw(value), f"time {seq}", "rest", seq)


def entry_of(kind: str, name: str, seq: int) -> Entry:
    if kind == "update":
        return update(seq, name, b"%d" % seq)
    if kind == "deletion":
        return Deleted(name, "", "rest", seq)
    return Control(name, "do", Raw(b"{}"), "", "rest", seq)


def empty() -> State:
    return State(Snapshot("e", 0, {}))


def test_an_update_becomes_the_twin_of_its_device() -> None:
    state = empty()
    state.apply(update(1, "a", b"20.5"))
    assert (state.epoch, state.seq) == ("e", 1)
    assert state.twins == {"a": Twin(Raw(b"20.5"), "time 1", 1, "rest")}


def test_a_later_update_replaces_the_twin_of_its_device_only() -> None:
    state = empty()
    for entry in (update(1, "a", b"1"), update(2, "b", b"2"), update(3, "a", b"3")):
        state.apply(entry)
    assert {device: (bytes(twin.value), twin.seq) for device, twin in state.twins.items()} == {
        "a": (b"3", 3),
        "b": (b"2", 2),
    }


def test_a_command_moves_the_position_and_changes_no_twin() -> None:
    state = empty()
    state.apply(Control("a", "on", Raw(b"{}"), "now", "rest", 1))
    assert (state.seq, state.twins) == (1, {})


def test_a_deletion_takes_the_twin_of_its_device_and_a_later_update_makes_it_anew() -> None:
    state = empty()
    for entry in (update(1, "a"), update(2, "b"), Deleted("a", "now", "rest", 3)):
        state.apply(entry)
    assert (state.seq, list(state.twins), state.newest("a")) == (3, ["b"], None)
    state.apply(Deleted("never known", "now", "rest", 4))
    state.apply(update(5, "a", b"9"))
    assert (state.seq, bytes(state.twins["a"].value), state.twins["a"].seq) == (5, b"9", 5)


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 100])
def test_an_entry_that_is_not_the_next_one_is_refused_and_changes_nothing(seq: int) -> None:
    state = empty()
    state.apply(update(1))
    state.apply(update(2))
    with pytest.raises(ValueError, match=f"goes on at 3, not at {seq}"):
        state.apply(update(seq, "b"))
    assert (state.seq, list(state.twins)) == (2, ["a"])


def test_the_fold_goes_on_from_a_snapshot() -> None:
    state = State(Snapshot("e", 41, {"old": Twin(Raw(b"0"), "then", 40, "websocket")}))
    state.apply(update(42, "new"))
    assert state.seq == 42
    assert set(state.twins) == {"old", "new"}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["update", "command", "deletion"]))),
    st.integers(min_value=0),
)
def test_folding_in_two_steps_equals_folding_in_one(changes: list[tuple[str, str]], cut: int) -> None:
    log = [entry_of(kind, name, seq) for seq, (name, kind) in enumerate(changes, 1)]
    once, first = empty(), empty()
    for entry in log:
        once.apply(entry)
    for entry in log[:cut]:
        first.apply(entry)
    second = State(Snapshot(first.epoch, first.seq, first.twins))
    for entry in log[cut:]:
        second.apply(entry)
    assert (second.seq, second.twins) == (once.seq, once.twins)
