from twincast.core.pattern import pattern_set
from twincast.history.query import Names, Place


def names(wanted: str, readable: str) -> Names:
    return Names(pattern_set(frozenset(wanted.split())), pattern_set(frozenset(readable.split())))


def test_names_are_those_that_are_wanted_and_readable() -> None:
    found = names("lab/* x", "lab/a x y")
    assert found.has("lab/a")
    assert found.has("x")
    assert not found.has("lab/b")
    assert not found.has("y")
    assert found.listed is None
    assert not found.are_all


def test_names_that_are_listed_need_no_look_at_the_log() -> None:
    assert names("x y", "lab/* y").listed == frozenset({"y"})
    assert names("x", "*").listed == frozenset({"x"})
    assert names("*", "*").listed is None
    assert names("*", "*").are_all


def test_a_place_is_ordered_by_time_and_then_by_position() -> None:
    assert Place(1, 9) < Place(2, 1) < Place(2, 2)
