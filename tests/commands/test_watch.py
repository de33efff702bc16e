"""The board that `twincast watch` draws."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from twincast import stdio
from twincast.client import Change
from twincast.commands import watch
from twincast.commands.watch import Board, _line

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(device_id: str, value: object, seconds_ago: float = 0, merged: int = 1) -> Change:
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return Change("data_update", device_id, 1, "e", at, "rest", value, merged=merged)


def deletion(device_id: str) -> Change:
    return Change("deleted", device_id, 2, "e", NOW.isoformat(), "rest")


def drawn(board: Board, rows: int = 10) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=100).print(board.table(NOW, rows))
    return screen.getvalue().splitlines()


def test_the_newest_change_is_on_top_and_ages_are_shown() -> None:
    board = Board()
    for change in (event("a", 1, 90), event("b", {"x": 2}, 5), event("a", 3, 0.5)):
        board.take(change)
    rows = [line for line in drawn(board) if "│" in line and "Device" not in line and "┃" not in line]
    assert [row.split("│")[1].strip() for row in rows] == ["a", "b"]
    assert "0.5 s" in rows[0] and "5.0 s" in rows[1]
    assert "2 devices; 3 changes" in drawn(board)[-1]


def test_merged_changes_are_counted_and_what_does_not_fit_is_said() -> None:
    board = Board()
    board.take(event("a", 1, merged=5))
    board.take(event("b", 1))
    assert "2 devices, 1 more below; 6 changes" in drawn(board, rows=1)[-1]


def test_a_device_cannot_style_the_screen() -> None:
    board = Board()
    board.take(event("[red]x[/red]", "[bold]y"))
    text = "\n".join(drawn(board))
    assert "[red]x[/red]" in text and "[bold]y" in text


def test_a_device_that_is_deleted_leaves_the_board() -> None:
    board = Board()
    for change in (event("a", 1), event("b", 2), deletion("a"), deletion("unknown")):
        board.take(change)
    assert "1 devices; 4 changes" in drawn(board)[-1]
    assert not any(line.split("│")[1].strip() == "a" for line in drawn(board) if "│" in line)
    board.take(event("a", 3))
    assert "2 devices; 5 changes" in drawn(board)[-1]


def test_a_deletion_is_a_line_as_the_wire_has_it() -> None:
    assert json.loads(_line(deletion("a"))) == {
        "type": "deleted",
        "device_id": "a",
        "timestamp_utc": NOW.isoformat(),
        "source": "rest",
        "seq": 2,
        "epoch": "e",
    }


def test_a_board_starts_from_the_state_and_shows_the_last_command() -> None:
    board = Board()
    board.take(event("lab/x", 1), is_new=False)
    board.take(Change("control", "lab/fan", 2, "e", NOW.isoformat(), "rest", command="start", args={"rpm": 900}))
    assert '1 devices; 0 changes; last command to lab/fan: start {"rpm":900}' in drawn(board)[-1]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_a_line_is_the_same_json_in_whatever_the_output_can_take(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    stdio.prepare()
    print(watch._line(event("lab/é🌡", '21 °C 🌡 "\\ \x7f')), flush=True)
    said = json.loads(printed.getvalue().decode(encoding))
    assert (said["device_id"], said["value"]) == ("lab/é🌡", '21 °C 🌡 "\\ \x7f')
