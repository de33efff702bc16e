"""The table that `twincast watch` draws."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len
from rich.console import Console

from twincast.cli.columns import shortened
from twincast.cli.live_table import LiveTable
from twincast.client import Command, Deletion, Event, Reading

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(device_id: str, value: object, seconds_ago: float = 0, merged: int = 1) -> Event:
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return Reading(device_id, 1, "e", at, "rest", value, merged=merged)


def deletion(device_id: str) -> Event:
    return Deletion(device_id, 2, "e", NOW.isoformat(), "rest")


def drawn(table: LiveTable, height: int = 12, width: int = 100) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width).print(table.drawn(NOW, width, height))
    return [line.rstrip() for line in screen.getvalue().splitlines()]


def names(table: LiveTable, height: int = 12, width: int = 100) -> list[str]:
    below = 1 + table.has_keys
    return [line.split()[0] for line in drawn(table, height, width)[1:-below]]


def of(*events: Event) -> LiveTable:
    table = LiveTable()
    for each in events:
        table.take(each)
    return table


def test_rows_keep_their_order_whatever_changes_and_ages_are_shown() -> None:
    table = of(event("b", {"x": 2}, 5), event("a", 1, 90), event("c", 1), event("a", 3, 0.5))
    assert names(table) == ["a", "b", "c"]
    table.take(event("c", 5))
    assert names(table) == ["a", "b", "c"]
    assert "0.5 s" in drawn(table)[1] and "5.0 s" in drawn(table)[2]
    assert drawn(table)[-1] == "3 devices by name; 5 events"


def test_a_key_sorts_by_what_is_newest_by_changes_and_by_name_again() -> None:
    table = of(event("a", 1, 9, merged=2), event("b", 1, 1), event("c", 1, 5, merged=7))
    orders = []
    for _ in range(4):
        orders.append((names(table), drawn(table)[-1].split(";")[0]))
        table.press("sort")
    assert orders == [
        (["a", "b", "c"], "3 devices by name"),
        (["b", "c", "a"], "3 devices by newest"),
        (["c", "a", "b"], "3 devices by events"),
        (["a", "b", "c"], "3 devices by name"),
    ]


def test_keys_scroll_within_what_there_is() -> None:
    table = of(*(event(f"d{number:02}", number) for number in range(30)))
    seen = {}
    for key in ("", "down", "page down", "up", "end", "down", "page up", "home", "up", "page down", "sort"):
        table.press(key)
        rows = names(table)
        seen[key] = rows[0]
        assert len(rows) == 10
    assert seen == {
        "": "d00", "down": "d20", "page down": "d09", "up": "d00", "end": "d20", "page up": "d11", "home": "d00",
        "sort": "d00",
    }  # fmt: skip
    table.press("end")
    assert "30 devices by newest, from 21; 30 events" in drawn(table)[-1]


def test_what_was_deleted_leaves_the_view_where_there_is_something() -> None:
    table = of(*(event(f"d{number:02}", number) for number in range(30)))
    drawn(table)
    table.press("end")
    for number in range(1, 30):
        table.take(deletion(f"d{number:02}"))
    assert names(table) == ["d00"]


def test_merged_changes_are_counted_and_one_is_not_many() -> None:
    assert drawn(of(event("a", 1, merged=5), event("b", 1)))[-1] == "2 devices by name; 6 events"
    assert drawn(of(event("a", 1)))[-1] == "1 device by name; 1 event"


def test_a_device_that_is_deleted_leaves_the_table_and_its_end_counts_as_a_change() -> None:
    table = of(event("a", 1), event("b", 2), deletion("a"), deletion("unknown"))
    assert names(table) == ["b"] and drawn(table)[-1] == "1 device by name; 4 events"
    table.take(event("a", 3))
    assert drawn(table)[-1] == "2 devices by name; 5 events"


def test_a_table_starts_from_the_state_and_shows_the_last_command_and_why_it_waits() -> None:
    table = LiveTable()
    table.take(event("lab/x", 1), is_new=False)
    table.take(Command("lab/fan", 2, "e", NOW.isoformat(), "rest", command="start", args={"rpm": 900}))
    table.waiting = "nobody answers"
    table.has_keys = True
    *_, counts, command, waiting, keys = drawn(table)
    assert counts == "1 device by name; 0 events"
    assert command == 'last command to lab/fan: start {"rpm":900}'
    assert waiting == "waiting: nobody answers"
    assert "s: sort" in keys and "q: quit" in keys


@pytest.mark.parametrize("width", [200, 80, 60, 40, 24])
def test_the_value_has_the_room_and_a_long_name_loses_its_middle(width: int) -> None:
    table = of(event("building-7/floor-3/office-12/thermometer/001", "v" * 200), event("a", 1))
    _, _, row, _ = drawn(table, width=width)
    assert all(cell_len(line) <= width for line in drawn(table, width=width))
    name, value = row.split()[:2]
    assert name.startswith("bui") and name.endswith("001") and ("…" in name) is (width < 150)
    assert len(value) >= len(name) and value.startswith('"vv')
    assert len(value) >= width // 2 - 6  # rich 13 needs one more for its ellipsis
    assert row.rstrip().split()[2:4] == ["0.0", "s"]


@pytest.mark.parametrize("text", ["lab/x", "building/floor/x", "温度計/二階/東側の部屋", "é🌡" * 9])
@pytest.mark.parametrize("cells", [1, 2, 5, 8, 13])
def test_a_shortened_name_fits(text: str, cells: int) -> None:
    short = shortened(text, cells)
    assert cell_len(short) <= cells
    assert (short == text) is (cell_len(text) <= cells)
