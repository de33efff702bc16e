"""Tickets for event streams."""

import pytest

from twincast.auth import tickets
from twincast.auth.tickets import Tickets
from twincast.core.rights import ANYONE
from twincast.errors import TooManyConnections, Unauthenticated


def test_a_ticket_is_good_once() -> None:
    issued = Tickets(lambda: 0.0)
    ticket = issued.issue(ANYONE)
    assert issued.redeem(ticket) is ANYONE
    with pytest.raises(Unauthenticated):
        issued.redeem(ticket)


def test_a_ticket_is_good_for_thirty_seconds() -> None:
    now_s = [0.0]
    issued = Tickets(lambda: now_s[0])
    early, late = issued.issue(ANYONE), issued.issue(ANYONE)
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
        issued.issue(ANYONE)
    with pytest.raises(TooManyConnections):
        issued.issue(ANYONE)
    now_s[0] = 31.0
    issued.issue(ANYONE)
