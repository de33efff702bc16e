import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.errors import BadCursor
from twincast.history.cursor import Cursor, digest_of
from twincast.history.query import Place

OURS, ANOTHER = digest_of("a", ("x",)), digest_of("a", ("y",))
seqs_s, times_s = st.integers(0, 2**62), st.integers(-(2**62), 2**62)
cursors_s = st.builds(Cursor, times_s, times_s, seqs_s, seqs_s, st.builds(Place, times_s, seqs_s))


@given(cursors_s)
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    text = cursor.text(OURS)
    assert Cursor.parse(text, OURS) == cursor
    assert text.replace("-", "").replace("_", "").isalnum()  # nothing that an address has to encode


def test_a_cursor_of_another_query_is_refused() -> None:
    text = Cursor(0, 1, 0, 5, Place(0, 3)).text(OURS)
    with pytest.raises(BadCursor, match="of another query"):
        Cursor.parse(text, ANOTHER)


@given(st.text(max_size=90) | st.binary(min_size=56, max_size=56).map(lambda raw: raw.hex()[:75]))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        Cursor.parse(text, OURS)


def test_a_cursor_that_nobody_gave_out_is_refused() -> None:
    with pytest.raises(BadCursor, match="something else than a page"):
        Cursor.parse(Cursor(0, 1, 0, -5, Place(0, 3)).text(OURS), OURS)


def test_queries_are_told_apart_however_their_parts_lie() -> None:
    assert (
        len({digest_of("ab", "c"), digest_of("a", "bc"), digest_of("abc"), digest_of(("ab", "c")), OURS, ANOTHER}) == 6
    )
