"""Readings as columns are what the same readings are as objects, however they are asked for."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgspec import Raw

from twincast.core.batch import Committed
from twincast.core.model import DataUpdate, Entry
from twincast.journal.jetstream.columns import Columns, Given, Readings, with_entries

AT_UTC = "2026-11-27T04:16:10.000000+00:00"
COUNT = 5


def readings() -> Readings:
    names = [f"lab/{number}" for number in range(COUNT)]
    values = [Raw(b"%d" % number) for number in range(COUNT)]
    return Readings(Columns("rest", names, values, Given(7, "a-b", AT_UTC)))


def entries() -> tuple[Entry, ...]:
    return tuple(DataUpdate(f"lab/{n}", Raw(b"%d" % n), AT_UTC, "rest", 7 + n, "a-b") for n in range(COUNT))


@pytest.mark.parametrize(
    "ask",
    [
        list,
        len,
        bool,
        lambda asked: asked[0],
        lambda asked: asked[-1],
        lambda asked: asked[-COUNT],
        lambda asked: asked[1:3],
        lambda asked: asked[::-1],
        lambda asked: list(reversed(asked)),
        lambda asked: entries()[2] in asked,
        lambda asked: asked.index(entries()[3]),
    ],
)
def test_what_is_asked_of_columns_is_answered_as_by_entries(ask: Callable[[Sequence[Entry]], Any]) -> None:
    asked = readings()
    assert ask(asked) == ask(entries())
    assert ask(asked) == ask(entries()), "once more, whether the entries are made by now or not"


@pytest.mark.parametrize("index", [COUNT, -COUNT - 1])
def test_there_is_nothing_beyond_the_ends(index: int) -> None:
    asked = readings()
    for _ in ("columns", "entries"):
        with pytest.raises(IndexError):
            asked[index]
        list(asked)


def test_a_look_at_one_entry_makes_no_others() -> None:
    asked = readings()
    assert (asked[0].seq, asked[-1].seq) == (7, 7 + COUNT - 1)
    assert asked.columns is not None


def test_entries_are_made_once_so_that_a_change_stays() -> None:
    asked = readings()
    asked[:][0].timestamp_utc = "later"
    assert asked[0].timestamp_utc == "later"
    assert asked.columns is None, "what is changed is not in the columns"


def test_two_threads_may_ask_at_once() -> None:
    with ThreadPoolExecutor(2) as threads:
        for _ in range(200):
            asked = readings()
            assert list(threads.map(tuple, [asked, asked])) == [entries()] * 2


def test_a_stretch_for_those_who_look_at_each_has_a_tuple() -> None:
    columns = Committed(readings())  # type: ignore[arg-type]  # as the fold gives it
    assert with_entries(columns).entries == entries()
    plain = Committed(entries())
    assert with_entries(plain) is plain
