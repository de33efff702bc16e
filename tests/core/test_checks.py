"""Sums by which servers on one log notice that they made different things of it."""

import zlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from twincast.core.checks import NEWEST, STEP, STEPS, Checks


def fold(messages: Iterable[bytes], checks: Checks) -> Checks:
    crc = 0
    for place, message in enumerate(messages, 1):
        crc = zlib.crc32(message, crc)
        checks.note(place, crc)
    return checks


MESSAGES = st.lists(st.binary(max_size=3), max_size=60)


@given(MESSAGES, st.integers(0, 60), st.integers(0, 60))
def test_servers_that_read_the_same_agree_wherever_each_is(messages: list[bytes], here: int, there: int) -> None:
    one, other = fold(messages[:here], Checks()), fold(messages[:there], Checks())
    assert one.differs_at(other.told()) is None
    assert other.differs_at(one.told()) is None


@given(MESSAGES.filter(bool), st.data())
def test_a_server_that_made_something_else_of_one_message_is_noticed_as_of_the_same_place(
    messages: list[bytes], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(messages) - 1))
    changed = [*messages[:at], messages[at] + b"!", *messages[at + 1 :]]
    one, other = fold(messages, Checks()), fold(changed, Checks())
    assert one.differs_at(other.told()) == len(messages)
    assert other.differs_at(one.told()) == len(messages)


def test_under_load_servers_meet_at_the_steps() -> None:
    apart = 50 * STEP
    messages = [b"%d" % number for number in range(apart + 2 * STEP)]
    ahead = fold(messages, Checks())
    behind = fold([b"else", *messages[1 : 2 * STEP]], Checks())
    assert ahead.differs_at(behind.told()) == STEP
    assert behind.differs_at(ahead.told()) is None, "it has not been there yet"


def test_what_is_kept_and_told_is_bounded() -> None:
    checks = fold((b"x" for _ in range(STEP * (STEPS + 5))), Checks())
    assert len(checks._newest) == NEWEST and len(checks._steps) == STEPS
    assert len(checks.told()) == 2
    assert Checks().told() == {}
