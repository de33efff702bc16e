from twincast.cli.plot import axis, plot


def test_a_line_goes_from_the_smallest_to_the_largest_with_a_dot_at_the_average() -> None:
    lows, highs, averages = [0.0, 1.0, None, 3.0], [2.0, 1.0, None, 4.0], [1.0, 1.0, None, 4.0]
    assert list(plot(lows, highs, averages, height=5)) == [
        "4 ┤   ●",
        "3 ┤   │",
        "2 ┤│",
        "1 ┤●●",
        "0 ┤│",
    ]


def test_numbers_that_are_all_the_same_are_one_row() -> None:
    assert list(plot([7.0, 7.0], [7.0, 7.0], [7.0, 7.0], height=12)) == ["7 ┤●●"]


def test_an_axis_need_not_begin_at_zero() -> None:
    rows = list(plot([1_000.0], [1_010.0], [1_005.0], height=3))
    assert rows == ["1010 ┤│", "1005 ┤●", "1000 ┤│"]


def test_the_axis_says_when_it_begins_and_ends() -> None:
    assert list(axis("10:00", "11:00", 20, 3, 80)) == ["   └" + "─" * 20, "    10:00" + " " * 10 + "11:00"]


def test_times_that_are_longer_than_the_axis_stand_together_and_fit_the_terminal() -> None:
    assert list(axis("10:00", "11:00", 6, 3, 80)) == ["   └" + "─" * 6, "    10:00 to 11:00"]
    assert list(axis("10:00", "11:00", 6, 3, 12)) == ["   └" + "─" * 6, "    10:00 to", "    11:00"]
    assert list(axis("10:00", "11:00", 3, 5, 9)) == ["     └" + "─" * 3, " 10:00 to", " 11:00"]
