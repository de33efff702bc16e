"""Names as subjects of NATS: every name has one, and comes back from it."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twincast.core.names import NAME_MAX_CHARS, check_id
from twincast.errors import ValidationFailed
from twincast.wire.subjects import SUBJECT_MAX_CHARS, name_of, subject_of

NASTY = (
    *("//", "/", "/lab", "lab/", "lab//t", "*", ">", "lab/*", "lab/>", "%", "%41", "a%", "%/", "a.b", ".", "..", "a b"),
    *("$SYS", "_INBOX", "日" * 128, "😀" * 128, "/" * 128, "é", "e\u0301", "\u2028", "~!", "\x7f"),
)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=NAME_MAX_CHARS)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("lab/t", "lab.t"),
        ("lab", "lab"),
        ("//", "%.%.%"),
        ("/lab/", "%.lab.%"),
        ("*", "%2A"),
        (">", "%3E"),
        ("%41", "%2541"),
        ("a.b c", "a%2Eb%20c"),
        ("é", "%C3%A9"),
        ("Lab-1_x:y", "Lab-1_x:y"),
    ],
)
def test_names_and_their_subjects(name: str, subject: str) -> None:
    assert subject_of(name) == subject
    assert name_of(subject) == name


@given(NAMES | st.sampled_from([name for name in NASTY if name.isprintable()]))
@example("日" * 128)
@example("//")
def test_every_name_comes_back_from_its_subject(name: str) -> None:
    check_id(name, "it")
    assert name_of(subject_of(name)) == name


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_has_a_subject_that_nats_takes(name: str) -> None:
    tokens = subject_of(name).split(".")
    assert all(re.fullmatch(r"[!-~]+", token) for token in tokens)  # one line of the protocol, and no empty token
    assert not {"*", ">"} & set("".join(tokens))


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=24) | NAMES)
@example("%41")
@example("%2a")
@example("a..b")
@example("%%")
@example("a%")
@example("lab.>")
def test_a_subject_is_refused_or_is_the_one_of_its_name(subject: str) -> None:
    try:
        name = name_of(subject)
    except ValidationFailed:
        return
    assert subject_of(name) == subject


@given(NAMES, NAMES)
def test_two_names_have_two_subjects(one: str, other: str) -> None:
    assert (subject_of(one) == subject_of(other)) == (one == other)


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8), min_size=1, max_size=6), NAMES)
def test_a_native_wildcard_selects_a_level_and_all_below_it(levels: list[str], last: str) -> None:
    above = "/".join(levels)
    if above:
        assert subject_of(f"{above}/{last}").startswith(f"{subject_of(above)}.")


@pytest.mark.parametrize(
    "subject",
    [
        *("", "a..b", ".a", "a.", "%41", "%2a", "a%", "%zz", "%%", "%FF", "%ED%A0%80", "*", "lab.>", "a b", "é"),
        *("a\x00", "%0A", "%7F", "%C2%85", "x" * 129, "%E6%97%A5" * 129, "x" * (SUBJECT_MAX_CHARS + 1)),
    ],
)
def test_what_no_name_is_written_as_is_refused(subject: str) -> None:
    with pytest.raises(ValidationFailed):
        name_of(subject)


def test_a_refusal_says_how_it_is_written() -> None:
    with pytest.raises(ValidationFailed, match="'A' for this name"):
        name_of("%41", "the subject")


def test_a_lone_surrogate_has_no_subject() -> None:
    with pytest.raises(ValidationFailed, match="surrogate"):
        subject_of("a\ud800")


def test_the_longest_subject_fits_the_bound() -> None:
    assert max(len(subject_of(name)) for name in NASTY) == SUBJECT_MAX_CHARS
