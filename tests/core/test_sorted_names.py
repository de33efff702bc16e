"""Names in order: all that begin or end alike are found."""

from hypothesis import given
from hypothesis import strategies as st

from twincast.core.sorted_names import SortedNames

TEXTS = st.text("ab\uffff\U0010ffffz", max_size=6)


@given(st.lists(TEXTS, max_size=40), TEXTS)
def test_the_names_with_a_beginning_or_an_end_are_found_and_no_others(names: list[str], text: str) -> None:
    in_order = SortedNames(names)
    assert in_order.beginning(text) == sorted(name for name in names if name.startswith(text))
    if text:
        assert sorted(in_order.ending(text)) == sorted(name for name in names if name.endswith(text))
