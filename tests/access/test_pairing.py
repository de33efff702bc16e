"""Pairing codes: how they look, and how they are read."""

import pytest

from twincast.access import pairing
from twincast.access.pairing import digest_of_code, make_code, make_pairing, normal
from twincast.core.rights import Rights
from twincast.errors import ValidationFailed

LAB = Rights.of({"publish": ["lab/*"]})


def test_a_code_is_in_groups_of_letters_that_look_like_no_others() -> None:
    codes = {make_code() for _ in range(500)}
    assert len(codes) == 500
    assert all(len(code) == 9 and code[4] == "-" for code in codes)
    assert set("".join(codes)) == {*pairing.LETTERS, "-"}
    assert not set("ILOU") & set(pairing.LETTERS)


@pytest.mark.parametrize(
    "typed", ["70K1-9XTV", "70k19xtv", " 70k1 9xtv ", "7oKl-9xTu", "7OKI-9XTU", "7-0-K-1-9-X-T-V", "70K1\u20139XTV"]
)
def test_a_code_is_read_as_people_type_it(typed: str) -> None:
    assert normal(typed) == "70K19XTV"


@pytest.mark.parametrize(
    "typed", ["", "70K1-9XT", "70K1-9XTVV", "70K1-9XT!", "70K1-9XT\u00e9", "70K1-9XT\u0665", "\ud800" * 8]
)
def test_what_can_be_no_code_is_said_to_be_none_and_not_shown(typed: str) -> None:
    with pytest.raises(ValidationFailed, match="8 letters and digits") as refused:
        normal(typed)
    assert not typed or typed not in refused.value.message


def test_a_digest_is_of_the_code_and_not_of_how_it_was_typed() -> None:
    assert digest_of_code("7oKl-9xTu") == digest_of_code("70K19XTV")
    assert digest_of_code("70K19XTV") != digest_of_code("70K19XTW")


def test_what_is_stored_of_a_code_holds_it_in_no_form() -> None:
    made, code = make_pairing("lab/fan", LAB, now_s=1_000, rate_per_s=None, lives_s=None)
    assert made.digest == digest_of_code(code)
    assert (made.name, made.grants, made.until_s) == ("lab/fan", {"publish": ["lab/*"]}, 1_300)
    assert normal(code).lower() not in str(made).lower()


@pytest.mark.parametrize(
    ("name", "rights"), [("", LAB), ("twc_00000000_x", LAB), ("a name", LAB), ("lab/fan", Rights())]
)
def test_a_code_is_for_a_key_that_can_be(name: str, rights: Rights) -> None:
    with pytest.raises(ValidationFailed):
        make_pairing(name, rights, now_s=0, rate_per_s=None, lives_s=None)


def test_a_code_is_not_found_by_guessing_while_it_is_good() -> None:
    """The bound that the throttle sets, against what is possible: all that may wait together, one in ten million."""
    guesses = pairing.WRONG_CODES_PER_MINUTE * (1 + pairing.CODE_LIFE_S / 60)
    possible = len(pairing.LETTERS) ** pairing.CODE_CHARS
    assert guesses * pairing.CODES_MAX / possible < 1e-7
