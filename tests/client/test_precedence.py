"""What passes a backlog: readings, but none of a device that is about to be deleted; commands in their order."""

import pytest

from twincast.client.precedence import Precedence
from twincast.client.spool_line import Lines, Row


def reading(device: str) -> Row:
    return Row(1, f'{{"type":"telemetry","device_id":"{device}","value":1}}', 1, "")


def deletion(device: str) -> Row:
    return Row(1, f'{{"type":"delete","device_id":"{device}"}}', 0, "")


CONTROL = Row(1, '{"type":"control","target":"a","command":"on","args":{}}', 0, "")
LIVE, BACKLOG, UNDECIDED = True, False, None
NONE = Lines(0, 0, 0, 0)


def lines(*rows: Row) -> Lines:
    return Lines(len(rows), 1, len(rows), sum(row.size_bytes for row in rows))


def precedence(*backlog: Row) -> Precedence:
    return Precedence(NONE, lines(*backlog), NONE, [(row, BACKLOG) for row in backlog])


@pytest.mark.parametrize("row", [reading("a"), deletion("a"), CONTROL])
def test_before_it_is_decided_what_is_live_nothing_is(row: Row) -> None:
    waiting = precedence()
    assert waiting.place(row, is_live=False) is UNDECIDED and waiting.undecided == 1


@pytest.mark.parametrize("row", [reading("a"), deletion("a"), CONTROL])
def test_without_a_backlog_everything_is_live(row: Row) -> None:
    waiting = precedence()
    assert waiting.place(row, is_live=True) is LIVE and waiting.live == 1


def test_readings_and_commands_pass_a_backlog_of_readings_and_a_deletion_does_not() -> None:
    waiting = precedence(*[reading("c")] * 5)
    assert waiting.place(reading("a"), is_live=True) is LIVE
    assert waiting.place(CONTROL, is_live=True) is LIVE
    assert waiting.place(deletion("a"), is_live=True) is BACKLOG
    assert waiting.held == {'"a"'}
    assert waiting.place(reading("a"), is_live=True) is BACKLOG, "it makes the device anew"
    assert waiting.place(reading("b"), is_live=True) is LIVE


def test_a_command_keeps_its_place_behind_commands_and_deletions() -> None:
    assert precedence(CONTROL).place(CONTROL, is_live=True) is BACKLOG
    assert precedence(deletion("b")).place(CONTROL, is_live=True) is BACKLOG
    assert precedence(CONTROL).place(reading("a"), is_live=True) is LIVE


def test_what_is_answered_holds_back_nothing_any_more() -> None:
    waiting = precedence(deletion("a"), deletion("a"))
    waiting.remove(deletion("a"), BACKLOG)
    assert waiting.place(reading("a"), is_live=True) is BACKLOG
    waiting.remove(reading("a"), BACKLOG)
    waiting.remove(deletion("a"), BACKLOG)
    assert waiting.place(reading("a"), is_live=True) is LIVE and not waiting.held


def test_a_live_deletion_holds_the_backlog_until_it_is_answered() -> None:
    waiting = precedence()
    assert waiting.place(deletion("a"), is_live=True) is LIVE and waiting.holds_backlog
    waiting.place(reading("a"), is_live=False)
    waiting.decide_backlog(NONE)
    assert waiting.holds_backlog
    waiting.remove(deletion("a"), LIVE)
    assert not waiting.holds_backlog


@pytest.mark.parametrize(
    ("backlog", "undecided", "may"),
    [
        ([], [reading("a"), deletion("a"), CONTROL], True),
        ([reading("a")], [reading("a")], True),
        ([reading("a")], [deletion("a")], False),
        ([reading("a")], [CONTROL], False),
        ([CONTROL], [reading("a")], False),
        ([deletion("a")], [reading("a")], False),
    ],
)
def test_what_waited_passes_as_a_whole_only_where_order_does_not_matter(
    backlog: list[Row], undecided: list[Row], may: bool
) -> None:
    waiting = precedence(*backlog)
    for row in undecided:
        waiting.place(row, is_live=False)
    assert waiting.may_all_be_live is may


def test_lines_are_counted_where_they_go() -> None:
    rows = [reading("a"), deletion("a"), CONTROL, reading("b")]
    waiting = precedence()
    for row in rows:
        waiting.place(row, is_live=False)
    assert (waiting.undecided, waiting.undecided_bytes) == (4, sum(row.size_bytes for row in rows))
    waiting.decide_all_live()
    assert (waiting.live, waiting.undecided, waiting.undecided_bytes, waiting.holds_backlog) == (4, 0, 0, True)
    waiting.take_back(lines(*rows[1:]), rows[1:3])
    assert (waiting.live, waiting.undecided, waiting.holds_backlog) == (1, 3, False)
    assert waiting.undecided_bytes == sum(row.size_bytes for row in rows[1:])
    waiting.decide_backlog(lines(rows[3]))
    assert (waiting.live, waiting.undecided, waiting.undecided_bytes) == (2, 0, 0)
    assert waiting.held == frozenset({'"a"'})


@pytest.mark.parametrize("is_live", [False, True])
def test_a_reading_behind_a_deletion_has_no_time_nor_have_those_behind_it(is_live: bool) -> None:
    waiting = precedence()
    assert waiting.timed(reading("a")) == reading("a")
    waiting.place(deletion("a"), is_live=is_live)
    first, given = waiting.timed(reading("a")), reading("a")._replace(measured_at_utc="2026")
    assert first.measured_at_utc == "" and first.holds_device
    assert waiting.timed(given) == given, "what the program says of it stands"
    assert [waiting.timed(row) for row in (reading("b"), CONTROL, deletion("a"))] == [
        reading("b"),
        CONTROL,
        deletion("a"),
    ]
    part = waiting.place(first, is_live=is_live)
    waiting.remove(deletion("a"), LIVE if is_live else UNDECIDED)
    assert waiting.timed(reading("a")) == first, "or it would be before what it follows"
    assert waiting.holds_backlog is is_live
    waiting.remove(first, part)
    assert waiting.timed(reading("a")) == reading("a") and not waiting.holds_backlog


def test_a_reading_without_a_time_holds_its_device_in_the_backlog() -> None:
    waiting = precedence(reading("a")._replace(measured_at_utc=""))
    assert waiting.place(reading("a"), is_live=True) is BACKLOG
    assert waiting.place(reading("b"), is_live=True) is LIVE
    assert waiting.held == {'"a"'} and not waiting.may_all_be_live
