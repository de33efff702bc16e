import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.errors import BadPath
from twincast.history.pointer import Pointer

# RFC 6901, section 5
RFC = '{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\\\j":5,"k\\"l":6," ":7,"m~n":8}'


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        *(("/foo", '["bar","baz"]'), ("/foo/0", '"bar"'), ("/", "0"), ("/a~1b", "1"), ("/c%d", "2"), ("/e^f", "3")),
        *(("/g|h", "4"), ("/i\\j", "5"), ('/k"l', "6"), ("/ ", "7"), ("/m~0n", "8"), ("", RFC)),
        *(
            ("/foo/2", None),
            ("/foo/-", None),
            ("/foo/01", None),
            ("/foo/bar", None),
            ("/nowhere", None),
            ("/a/b", None),
        ),
        *(("/foo/0/x", None), ("/foo/99999999999999999999", None)),
    ],
)
def test_the_examples_of_the_rfc_are_found(pointer: str, expected: str | None) -> None:
    found = Pointer(pointer).find(RFC.encode())
    assert (None if found is None else found.decode()) == expected


def test_a_part_is_the_text_that_was_stored() -> None:
    assert Pointer("/x").find(b'{"x":1.500}') == b"1.500"
    assert Pointer("").find(b" 1E2\n") == b"1E2"


def test_a_tilde_and_a_slash_are_not_mixed_up() -> None:
    assert Pointer("/~01").tokens == ("~1",)
    assert Pointer("/~01").find(b'{"~1":1,"/":2}') == b"1"


@pytest.mark.parametrize("text", ["x", "motor/rpm", "/~", "/~2", "/a~", "$.x", "/" * 1_025])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(BadPath):
        Pointer(text)


values_s = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(values_s, st.data())
def test_every_part_of_a_value_is_found_by_its_pointer(value: Any, data: st.DataObject) -> None:
    text, part = "", value
    while isinstance(part, dict | list) and part and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        text += "/" + str(key).replace("~", "~0").replace("/", "~1")
        part = part[key]
    found = Pointer(text).find(json.dumps(value).encode())
    assert found is not None
    assert json.loads(found) == part


def test_pointers_with_one_text_are_equal() -> None:
    assert Pointer("/x") == Pointer("/x")
    assert len({Pointer("/x"), Pointer("/x"), Pointer("/y")}) == 2
    assert Pointer("/x") != "/x"
    assert repr(Pointer("/x")) == "Pointer('/x')"
