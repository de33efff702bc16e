import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.core.pattern import Pattern
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


@given(st.text("ab*", min_size=1, max_size=8), st.text("ab", max_size=10))
def test_a_pattern_agrees_with_the_regular_expression_for_it(pattern: str, name: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert Pattern(pattern).matches(name) == (re.fullmatch(expression, name) is not None)


def test_many_stars_cost_no_more_than_one() -> None:
    # As a regular expression this would take longer than anybody waits.
    assert not Pattern("*a" * 100 + "*b").matches("a" * 128)
