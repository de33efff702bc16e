import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import CountedMatches
from twincast.core.pattern import Pattern, PatternSet, pattern_set
from twincast.errors import ValidationFailed


@pytest.mark.parametrize(
    ("pattern", "selected", "others"),
    [
        ("lab/*", ["lab/fan", "lab/a/b", "lab/", "lab/*"], ["lab", "old/lab/fan", "LAB/fan", "Lab/"]),
        ("lab/fan", ["lab/fan"], ["lab/fan2", "lab/", "*"]),
        ("*", ["a", "*", "a/b", "."], []),
        ("**", ["a", "a/b"], []),
        ("*/door", ["a/door", "/door", "a/b/door"], ["door", "a/doors"]),
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab"]),
        ("a*b*c", ["abc", "axbxc", "abbcc", "abcbc"], ["acb", "ab", "acc"]),
        ("*ab*ab*", ["abab", "xabyabz"], ["ab", "aba", "abba"]),
        (r"\*", ["*"], ["a", "**", "\\*"]),
        (r"a\*b*", ["a*b", "a*bc"], ["axb"]),
        (r"\\*", ["\\", "\\a"], ["a"]),
        ("a?[b].", ["a?[b]."], ["axb."]),
        ("ü*", ["über"], ["uber"]),
    ],
)
def test_a_pattern_selects_these_names_and_no_others(pattern: str, selected: list[str], others: list[str]) -> None:
    assert [name for name in [*selected, *others] if Pattern(pattern).matches(name)] == selected


def test_a_pattern_without_star_names_exactly_one() -> None:
    assert Pattern(r"a\*b").exact == "a*b"
    assert Pattern("a*b").exact is None


@pytest.mark.parametrize("text", ["", "a" * 257, "a\\", r"a\b", "lab/\ud800", "*\udfff", "\\\ud800"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed, match="pattern") as refused:
        Pattern(text)
    assert refused.value.message.encode()


def expression_of(pattern: str) -> re.Pattern[str]:
    """Return the regular expression that says the same as a pattern."""
    tokens = re.findall(r"(?s)\\.|[^\\]", pattern)
    return re.compile("(?s)" + "".join(".*" if token == "*" else re.escape(token[-1]) for token in tokens))


TEXTS = st.lists(st.sampled_from(["a", "b", "*", r"\*", r"\\"]), min_size=1, max_size=8).map("".join)
NAMES = st.text("ab*\\", max_size=10)


@given(TEXTS, NAMES)
def test_a_pattern_agrees_with_the_regular_expression_for_it(text: str, name: str) -> None:
    assert Pattern(text).matches(name) == (expression_of(text).fullmatch(name) is not None)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        ("lab/*", "*", "lab/x"),
        ("lab/*", "office/*", None),
        ("lab/*", "*/fan", "lab//fan"),
        ("lab/fan", "lab/*", "lab/fan"),
        ("lab/fan", "lab/door", None),
        ("a*x*b", "a*y*b", "axyb"),
        ("*fan", "*door", None),
        ("a*", "ab*c", "abc"),
        (r"\**", "a*", None),
    ],
)
def test_patterns_meet_if_there_is_a_name_for_both(one: str, other: str, name: str | None) -> None:
    assert Pattern(one).meets(Pattern(other)) is Pattern(other).meets(Pattern(one)) is (name is not None)
    assert name is None or (Pattern(one).matches(name) and Pattern(other).matches(name))


@given(st.text("ab*", min_size=1, max_size=6), st.text("ab*", min_size=1, max_size=6), st.text("ab", max_size=9))
def test_patterns_that_select_a_name_together_meet(one: str, other: str, name: str) -> None:
    if Pattern(one).matches(name) and Pattern(other).matches(name):
        assert Pattern(one).meets(Pattern(other))


@given(st.frozensets(TEXTS, max_size=12), st.lists(NAMES, max_size=30, unique=True), st.integers(1, 40))
def test_many_patterns_select_together_what_each_of_them_does(
    texts: frozenset[str], names: list[str], max_steps: int
) -> None:
    together = PatternSet(map(Pattern, texts))
    expected = [name for name in names if any(expression_of(text).fullmatch(name) for text in texts)]
    assert [name for name in names if together.has(name)] == expected
    assert [name for name in names if together.ask(name)[0]] == expected
    found: list[str] = []
    at = 0
    while at < len(names):
        part = together.search(names, at, max_steps)
        assert part.until > at, "every part of a search goes on"
        found += part.names
        at = part.until
    assert found == expected


class CountingName(str):
    """A name that counts how often it is searched, and in how many of its characters that goes on."""

    __slots__ = ("chars", "finds")

    def find(self, part: str, start: int = 0, end: int = 1 << 30) -> int:  # type: ignore[override]
        place = super().find(part, start, end)
        self.finds = getattr(self, "finds", 0) + 1
        self.chars = getattr(self, "chars", 0) + (end if place < 0 else place + len(part)) - start
        return place


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 100 + "*b", "a" * 128),
        ("*" + "a*" * 60 + "b7*", "a" * 123 + "00042"),
        ("*ab" * 60 + "*", "ab" * 30 + "a" * 68),
        ("a*" * 127 + "a", "a" * 128),
        ("*" + "a" * 60 + "b*" + "a" * 60 + "*", "a" * 128),
    ],
)
def test_each_part_is_looked_for_once_and_no_character_for_two_parts_whatever_the_stars(
    pattern: str, name: str
) -> None:
    counting = CountingName(name)
    Pattern(pattern).matches(counting)
    assert getattr(counting, "finds", 0) <= pattern.count("*")
    assert getattr(counting, "chars", 0) <= len(name)
    assert getattr(counting, "finds", 0) <= Pattern(pattern).cost


def test_of_many_patterns_only_those_are_asked_that_begin_or_end_like_the_name(matches: CountedMatches) -> None:
    names = pattern_set(frozenset({*(f"site{n}/*" for n in range(1_000)), *(f"*/door{n}" for n in range(1_000))}))
    assert names.has("site7/x") and names.has("x/door5") and not names.has("hall/x")
    assert matches.count == 2


@pytest.mark.parametrize("text", ["site{}/*", "*/door{}", "*x{}x*"])
def test_a_gateway_of_more_names_than_its_rights_remember_costs_no_more_for_each(
    text: str, matches: CountedMatches
) -> None:
    rights = pattern_set(frozenset(text.format(number) for number in range(100)))
    devices = [
        text.replace("*", "y").format(f"{number % 100}{'' if number < 100 else 'no'}") for number in range(1_500)
    ]
    for device in devices:
        rights.has(device)
    first, matches.count = matches.count, 0
    for _ in range(3):
        for device in devices:
            rights.has(device)
    assert matches.count <= 3 * len(devices), f"the first time it took {first}"


@pytest.mark.parametrize("text", ["*x{}x*", "lab/*-{}-*", "lab/*/door{}"])
def test_a_thousand_patterns_are_told_apart_also_by_what_is_between_their_stars(
    text: str, matches: CountedMatches
) -> None:
    names = pattern_set(frozenset(text.format(number) for number in range(1_000)))
    devices = [text.format(number).replace("*", "lab/any") for number in range(1_000)]
    assert all(names.has(device) for device in devices)
    assert matches.count <= 20 * len(devices)
