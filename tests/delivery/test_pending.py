"""Calls that wait until a client has caught up."""

import pytest

from twincast.delivery.pending import PENDING_MAX, PendingCalls
from twincast.errors import TooLarge


def test_calls_come_in_order_and_one_that_has_begun_comes_before_them() -> None:
    pending, made = PendingCalls(100), []
    pending.add(lambda: made.append(1), 10)
    pending.add(lambda: made.append(2), 10)
    pending.add_first(lambda: made.append(0))
    while pending:
        pending.pop()()
    assert made == [0, 1, 2]


def test_calls_are_bounded_in_number() -> None:
    pending = PendingCalls(100)
    for _ in range(PENDING_MAX):
        pending.add(lambda: None, 0)
    with pytest.raises(TooLarge, match=f"{PENDING_MAX} changes of the subscription wait"):
        pending.add(lambda: None, 0)


def test_calls_are_bounded_in_what_they_keep_and_those_made_count_no_more() -> None:
    pending = PendingCalls(100)
    pending.add(lambda: None, 60)
    with pytest.raises(TooLarge):
        pending.add(lambda: None, 41)
    pending.pop()
    pending.add(lambda: None, 100)
