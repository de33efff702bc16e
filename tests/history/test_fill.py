from twincast.history.fill import filled
from twincast.history.pointer import Pointer
from twincast.history.query import Aggregate, Series

EDGES = (0, 10, 20, 30, 50, 60)  # one bucket is longer, as a month may be
AGGREGATES: tuple[Aggregate, ...] = ("avg", "count", "last", "min_t")
SPARSE = Series("a", Pointer(""), [10, 30], [[1.0, 4.0], [2, 3], [b'"x"', b"7"], [11, 33]])


def test_none_leaves_a_series_as_it_is() -> None:
    assert filled(SPARSE, EDGES, AGGREGATES, "none", 60) is SPARSE


def test_null_leaves_new_rows_empty() -> None:
    found = filled(SPARSE, EDGES, AGGREGATES, "null", 60)
    assert list(found.starts_us) == [0, 10, 20, 30, 50]
    assert found.columns == [
        [None, 1.0, None, 4.0, None],
        [0, 2, 0, 3, 0],
        [None, b'"x"', None, b"7", None],
        [None, 11, None, 33, None],
    ]


def test_previous_repeats_the_row_before_but_no_readings() -> None:
    assert filled(SPARSE, EDGES, AGGREGATES, "previous", 60).columns == [
        [None, 1.0, 1.0, 4.0, 4.0],
        [0, 2, 0, 3, 0],
        [None, b'"x"', b'"x"', b"7", b"7"],
        [None, 11, None, 33, None],
    ]


def test_previous_does_not_repeat_sums_and_does_not_go_beyond_now() -> None:
    series = Series("a", Pointer(""), [0], [[5.0], [7], [1]])
    for now_us in (29, 20):
        found = filled(series, EDGES, ("avg", "sum", "count"), "previous", now_us)
        assert found.columns == [[5.0, 5.0, 5.0, None, None], [7, None, None, None, None], [1, 0, 0, 0, 0]]


def test_what_is_there_beyond_now_stays() -> None:
    assert filled(SPARSE, EDGES, AGGREGATES, "previous", 10).columns[0] == [None, 1.0, None, 4.0, None]


def test_linear_draws_a_line_between_both_sides_by_time_and_not_beyond() -> None:
    series = Series("a", Pointer(""), [0, 50], [[0.0, 5.0], [1, 1], [b"1", b"2"], [0, 50]])
    assert filled(series, EDGES, AGGREGATES, "linear", 60).columns == [
        [0.0, 1.0, 2.0, 3.0, 5.0],
        [1, 0, 0, 0, 1],
        [b"1", None, None, None, b"2"],
        [0, None, None, None, 50],
    ]
    assert filled(SPARSE, EDGES, ("avg", "count", "last", "min_t"), "linear", 60).columns[0] == [
        None,
        1.0,
        2.5,
        4.0,
        None,
    ]


def test_an_empty_series_stays_without_values() -> None:
    empty = Series("a", Pointer(""), [], [[], [], [], []])
    for fill in ("previous", "linear", "null"):
        assert filled(empty, EDGES, AGGREGATES, fill, 60).columns[0] == [None] * 5
