"""A state that is read device by device."""

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.client.json_stream import members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), VALUES), st.lists(st.integers(0, 400)), st.booleans())
def test_the_members_are_those_of_the_whole_wherever_it_is_cut(
    state: dict[str, object], cuts: list[int], dense: bool
) -> None:
    whole = {"seq": 12, "data": state, "more": {"x": [1]}}
    text = json.dumps(whole, separators=(",", ":")) if dense else json.dumps(whole, indent=1)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    found = dict(members((text[start:end] for start, end in pairwise(places)), "data"))
    assert {name: json.loads(part) for name, part in found.items()} == state


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"data":{', '{"data":{"a":1', '{"data":{"a":1}', '{"data":[]}', '{"data":{"a" 1}}', "<html>"],
)
def test_what_is_not_such_an_object_or_not_all_of_it_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        list(members([text], "data"))


@given(st.text('{}[]",:1e.- \\\\adt\\n', max_size=30), st.integers(0, 30))
def test_whatever_comes_ends_in_members_or_in_an_error(text: str, cut: int) -> None:
    for whole in (text, f'{{"data":{{"a":{text}'):
        with suppress(ValueError):
            for _, part in members([whole[:cut], whole[cut:]], "data"):
                json.loads(part)


def test_a_number_keeps_its_digits() -> None:
    assert list(members(['{"data":{"a":1.', '50,"b":2', "0}}"], "data")) == [("a", "1.50"), ("b", "20")]
