"""Which devices are selected: in slices, as devices come and go meanwhile, once for all who ask alike."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.delivery.clients import COSTLY, COSTLY_STEPS
from tests.fakes import CommittingStream, CountedMatches
from twincast.core.model import DataUpdate, Twin
from twincast.core.state import State
from twincast.core.subscription import Subscription, rules_of
from twincast.delivery.cast import Cast
from twincast.delivery.selection import KEPT_MAX, Picking, Selection, Selections
from twincast.wire.messages import encode_all


def state_of(*names: str) -> State:
    stream = CommittingStream()
    for name in names:
        stream.change(name, b"1")
    return stream.state


def born(state: State, name: str) -> None:
    state.apply(DataUpdate(name, Raw(b"1"), "", "rest", state.seq + 1))


def gone(state: State, name: str) -> None:
    if state.twins.pop(name, None) is not None:
        state.deaths += 1


NAMES = ["a", "b", "ab", "ba", "aab", "c", "x/1", "x/2"]
PATTERNS = st.sampled_from(["*", "a*", "*a", "*b*", "a", "x/1", "c", "x/*", "a*b", "**"])
READABLE = st.sampled_from([frozenset({"*"}), frozenset({"a*"}), frozenset({"a", "x/1"}), frozenset[str]()])
KINDS = st.sampled_from([None, ["data_update"], ["control"]])
SUBSCRIPTIONS = st.builds(
    lambda patterns, kinds, readable: Subscription(rules_of(patterns, kinds)).inside(readable),
    st.lists(PATTERNS, max_size=3),
    KINDS,
    READABLE,
)
DOINGS = st.lists(
    st.one_of(
        st.tuples(st.just("born"), st.sampled_from(NAMES)),
        st.tuples(st.just("gone"), st.sampled_from(NAMES)),
        st.tuples(st.just("advance"), st.just("")),
    ),
    max_size=40,
)


@given(
    st.lists(st.sampled_from([*NAMES, "x/11", "x/12", "x/2/1"]), max_size=30, unique=True),
    st.lists(SUBSCRIPTIONS, max_size=8),
    st.lists(st.sampled_from(NAMES), max_size=4),
    st.integers(1, 50),
)
def test_names_in_order_are_searched_to_the_same_end(
    names: list[str], wishes: list[Subscription], late: list[str], max_steps: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twincast.delivery.selection.RUN_NAMES", 4)
        state = state_of(*names)
        selections = Selections(state)
        for wish in wishes:
            found = selections.of(wish)
            while not found.is_done:
                found.advance(max_steps)
            if late:
                born(state, late.pop())
                gone(state, names[0] if names else "")
        for wish in wishes:
            found = selections.of(wish)
            while not found.is_done:
                found.advance(max_steps)
            assert sorted(found.names()) == sorted(n for n in state.twins if wish.selects(("data_update", n)))


def test_a_device_that_was_deleted_before_is_neither_found_nor_counted() -> None:
    state = state_of("a1", "a2")
    Selections(state).of(Subscription(rules_of(["a*"]))).advance(100)
    gone(state, "a1")
    found = Selections(state).of(Subscription(rules_of(["a*"])))
    found.advance(100)
    assert (found.names(), found.count()) == (["a2"], 1)


class CountedName(str):
    """A name that counts how often any of them is looked at."""

    __slots__ = ()
    looks = 0

    def startswith(self, *how: Any) -> bool:
        CountedName.looks += 1
        return super().startswith(*how)

    def endswith(self, *how: Any) -> bool:
        CountedName.looks += 1
        return super().endswith(*how)


@pytest.mark.parametrize("text", ["site{}/*", "*/d{}", "site{}/*1*"])
def test_clients_with_patterns_of_their_own_do_not_look_at_all_devices_each(text: str) -> None:
    state = state_of()
    state.twins |= dict.fromkeys(
        (CountedName(f"site{number % 100}/d{number}") for number in range(20_000)), Twin(Raw(b"1"), "", 1, "rest")
    )
    selections = Selections(state)
    looks = []
    for number in range(10):
        CountedName.looks = 0
        found = selections.of(Subscription(rules_of([text.format(number)])))
        while not found.is_done:
            found.advance(4_000)
        assert found.count() > 0
        looks.append(CountedName.looks)
    assert looks[0] >= 20_000 > 10 * max(looks[2:])


@given(SUBSCRIPTIONS, SUBSCRIPTIONS, DOINGS, st.integers(1, 12), st.booleans())
def test_all_that_is_selected_is_found_and_nothing_else_whatever_comes_and_goes_meanwhile(
    wanted: Subscription, before: Subscription, doings: list[tuple[str, str]], max_steps: int, is_added: bool
) -> None:
    state = state_of("a", "b")
    selections = Selections(state)
    if is_added:
        before = before.inside(wanted.within)
    selection = selections.added(wanted, before) if is_added else selections.of(wanted)
    for what, name in doings:
        if what == "born":
            born(state, name)
        elif what == "gone":
            gone(state, name)
        else:
            selection.advance(max_steps)
    for _ in range(200):
        if selection.is_done:
            break
        selection.advance(max_steps)
    expected = {name for name in state.twins if wanted.selects(("data_update", name))}
    if is_added:
        expected = {name for name in expected if not before.selects(("data_update", name))}
    found = selection.names()
    assert selection.is_done and set(found) == expected and len(found) == len(expected)


def test_a_slice_is_not_longer_than_it_may_be_and_every_slice_goes_on() -> None:
    state = state_of(*("a" * 100 + f"{number:05d}" for number in range(300)))
    costly = Subscription(rules_of(COSTLY))
    for selection in (Selection(state, costly), Selection(state, Subscription(), costly)):
        slices = []
        while not selection.is_done:
            slices.append(selection.advance(4_000))
        assert max(slices) <= 4_000 + COSTLY_STEPS + 100
        assert len(slices) >= 100


def test_a_new_device_is_asked_about_alone_and_those_who_ask_alike_ask_once(matches: CountedMatches) -> None:
    state = state_of(*(f"a{number}x" for number in range(50)))
    selections = Selections(state)
    wishes = [Subscription(rules_of(["a*x"]), max_hz=max_hz) for max_hz in (None, 1.0, 2.0)]
    for stream_query in wishes:
        while not selections.of(stream_query).is_done:
            selections.of(stream_query).advance(100)
    assert matches.count == 50
    born(state, "a-new-x")
    selection = selections.of(wishes[0])
    assert not selection.is_done
    selection.advance(100)
    assert selection.is_done and "a-new-x" in selection.names()
    assert matches.count == 51


def test_only_what_a_change_adds_is_looked_for(matches: CountedMatches) -> None:
    state = state_of(*(f"a{number}" for number in range(50)))
    before = Subscription(rules_of(f"a*{number}" for number in range(99)))
    selections = Selections(state)
    throttled = selections.added(Subscription(before.rules, max_hz=1.0), before)
    assert throttled.is_done or throttled.advance(1) == 0
    assert matches.count == 0
    added = selections.added(before.adding(rules_of(["b*"])), before)
    while not added.is_done:
        added.advance(1_000)
    assert (added.names(), matches.count) == ([], 0)


def test_selections_are_kept_within_bounds_the_last_ones_used() -> None:
    state = state_of("a")
    selections = Selections(state)
    first = selections.of(Subscription(rules_of(["0*"])))
    for number in range(3 * KEPT_MAX):
        selections.of(Subscription(rules_of([f"{number}*"])))
        assert selections.of(Subscription(rules_of(["0*"]))) is first
    assert len(selections._kept) <= KEPT_MAX


@given(SUBSCRIPTIONS, st.lists(st.sampled_from(NAMES), max_size=20), st.integers(1, 10))
def test_picking_in_slices_picks_what_is_selected(wanted: Subscription, names: list[str], max_steps: int) -> None:
    entries = [DataUpdate(name, Raw(b"1"), "", "rest", seq) for seq, name in enumerate(names, 1)]
    cast = Cast(encode_all(entries), entries)
    picking = Picking(cast, wanted)
    while not picking.is_done:
        picking.advance(max_steps)
    selected = zip(cast.messages, cast.entries, strict=True)
    assert picking.picked().messages == [message for message, entry in selected if wanted.selects(entry.topic)]
