"""Things by the texts of their patterns: all that may select a name are found, and few others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core.literals import LiteralIndex, Literals, Spot
from twincast.core.pattern import Pattern

TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "*", "abba", "bab"]), min_size=1, max_size=6).map("".join)
NAMES = st.text("ab", max_size=12)


@given(st.lists(TEXTS, max_size=30), st.lists(NAMES, max_size=10), st.integers(0, 3), st.sets(st.integers(0, 29)))
def test_whatever_may_select_a_name_is_found_however_crowded_it_is(
    texts: list[str], names: list[str], crowd: int, gone: set[int]
) -> None:
    index: LiteralIndex[int] = LiteralIndex(crowd)
    patterns = dict(enumerate(map(Pattern, texts)))
    spots = {number: index.add(pattern.literals, number) for number, pattern in patterns.items()}
    for number in gone & patterns.keys():
        index.remove(spots[number], number)
        del patterns[number]
    for name in names:
        near = {number for things in index.near(name) for number in things}
        assert {number for number, pattern in patterns.items() if pattern.matches(name)} <= near <= patterns.keys()
    assert bool(index) == bool(patterns)
    for number in patterns:
        index.remove(spots[number], number)
    assert not index and index.look_cost(100) == LiteralIndex[int](crowd).look_cost(100), "nothing is left behind"


@pytest.mark.parametrize(
    "text",
    [
        "site{}/*",
        "*/door{}",
        "*x{}x*",
        "lab/*/sensor-{}/*",
        "*/sensor-{}/temperature",
        "a*{}*b",
        "lab/*/door{}",
        "*-{}-*-y*",
    ],
)
def test_of_ten_thousand_things_a_name_finds_a_handful_wherever_their_patterns_differ(text: str) -> None:
    index: LiteralIndex[int] = LiteralIndex(10)
    patterns = [Pattern(text.format(10_000 + number)) for number in range(10_000)]
    for number, pattern in enumerate(patterns):
        index.add(pattern.literals, number)
    for number in (0, 12, 4_711, 9_999):
        name = text.format(10_000 + number).replace("*", "lab/other")
        near = [other for things in index.near(name) for other in things]
        assert number in near
        assert len(near) <= 60


def test_a_thing_lies_once_where_several_of_its_patterns_would_put_it() -> None:
    index: LiteralIndex[str] = LiteralIndex(10)
    spots: set[Spot[str]] = {index.add(Literals("lab/", "", (f"{number}",)), "group") for number in range(100)}
    assert len(spots) == 1
    assert [list(things) for things in index.near("lab/7")] == [["group"]]
    index.remove(spots.pop(), "group")
    assert not index
