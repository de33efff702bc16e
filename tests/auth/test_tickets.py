"""Tickets for event streams."""

import pytest

from twincast.auth import tickets
from twincast.auth.tickets import Tickets
from twincast.core.rights import ANYONE
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated


def test_a_ticket_is_good_once() -> None:
    issued = Tickets(lambda: 0.0)
    ticket = issued.issue(ANYONE, "here")
    assert issued.redeem(ticket) is ANYONE
    with pytest.raises(Unauthenticated):
        issued.redeem(ticket)


def test_a_ticket_is_good_for_thirty_seconds() -> None:
    now_s = [0.0]
    issued = Tickets(lambda: now_s[0])
    early, late = issued.issue(ANYONE, "here"), issued.issue(ANYONE, "here")
    now_s[0] = 29.9
    issued.redeem(early)
    now_s[0] = 30.0
    with pytest.raises(Unauthenticated):
        issued.redeem(late)


def test_tickets_that_nobody_uses_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "TICKETS_MAX", 3)
    now_s = [0.0]
    issued = Tickets(lambda: now_s[0])
    for _ in range(3):
        issued.issue(ANYONE, "here")
    with pytest.raises(TooManyConnections):
        issued.issue(ANYONE, "here")
    now_s[0] = 31.0
    issued.issue(ANYONE, "here")


def test_an_owner_has_a_bounded_number_of_tickets_and_uses_up_none_of_the_others() -> None:
    now_s = [0.0]
    issued = Tickets(lambda: now_s[0])
    first = issued.issue(ANYONE, "one")
    now_s[0] = 10.0
    for _ in range(99):
        issued.issue(ANYONE, "one")
    with pytest.raises(RateLimited) as limited:
        issued.issue(ANYONE, "one")
    assert limited.value.retry_after_s == 20
    issued.issue(ANYONE, "other")
    issued.redeem(first)
    issued.issue(ANYONE, "one")
    with pytest.raises(RateLimited):
        issued.issue(ANYONE, "one")
    now_s[0] = 40.0
    for _ in range(100):
        issued.issue(ANYONE, "one")
