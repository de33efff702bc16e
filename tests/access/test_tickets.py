"""Tickets for event streams."""

from collections.abc import Callable
from functools import partial

import pytest

from twincast.access import tickets
from twincast.access.tickets import Tickets, TicketUse
from twincast.core.rights import ANYONE, Principal
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated


def use_of(ticket: str) -> TicketUse:
    return TicketUse(ticket, f"ticket={ticket}", is_stream=False, resumes=False)


def stream(ticket: str, query: str = "", *, again: bool = False) -> TicketUse:
    return TicketUse(ticket, f"ticket={ticket}{query}", is_stream=True, resumes=again)


def test_a_ticket_is_good_once() -> None:
    issued = Tickets(lambda: 0.0)
    ticket = issued.issue(ANYONE, "here")
    assert issued.redeem(use_of(ticket)) is ANYONE
    with pytest.raises(Unauthenticated):
        issued.redeem(use_of(ticket))


def test_a_ticket_is_good_for_thirty_seconds() -> None:
    now_s = [0.0]
    issued = Tickets(lambda: now_s[0])
    early, late = issued.issue(ANYONE, "here"), issued.issue(ANYONE, "here")
    now_s[0] = 29.9
    issued.redeem(use_of(early))
    now_s[0] = 30.0
    with pytest.raises(Unauthenticated):
        issued.redeem(use_of(late))


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
    issued.redeem(use_of(first))
    issued.issue(ANYONE, "one")
    with pytest.raises(RateLimited):
        issued.issue(ANYONE, "one")
    now_s[0] = 40.0
    for _ in range(100):
        issued.issue(ANYONE, "one")


class Browser:
    """An EventSource with its ticket: it notes how often its streams were ended."""

    def __init__(self, issued: Tickets, owner: str = "one") -> None:
        self.issued = issued
        self.ticket = issued.issue(Principal(owner), owner)
        self.ended: list[int] = []
        self.opened = 0

    def open(self, *, again: bool = True) -> Callable[[], None]:
        """Open the stream, and return what ends it."""
        assert self.issued.redeem(stream(self.ticket, again=again))
        self.opened += 1
        end = partial(self.ended.append, self.opened)
        self.issued.stream_began(self.ticket, end)
        return end


def test_a_stream_comes_back_by_its_ticket_for_a_minute_after_each_end() -> None:
    now_s = [0.0]
    browser = Browser(Tickets(lambda: now_s[0]))
    end = browser.open(again=False)
    for _ in range(3):
        now_s[0] += 10_000  # as long as it goes on
        browser.issued.stream_ended(browser.ticket, end)
        now_s[0] += 59.9
        end = browser.open()
    browser.issued.stream_ended(browser.ticket, end)
    now_s[0] += 60
    with pytest.raises(Unauthenticated, match="comes back"):
        browser.open()
    assert browser.ended == []


def test_the_newer_stream_ends_the_older_and_outlives_it() -> None:
    browser = Browser(Tickets(lambda: 0.0))
    first = browser.open(again=False)
    second = browser.open()
    assert browser.ended == [1]
    browser.issued.stream_ended(browser.ticket, first)  # which takes its time
    third = browser.open()
    assert browser.ended == [1, 2]
    browser.issued.stream_ended(browser.ticket, second)
    browser.issued.stream_ended(browser.ticket, third)
    browser.open()


@pytest.mark.parametrize("is_open", [True, False], ids=["open", "ended"])
def test_a_used_ticket_opens_nothing_else(is_open: bool) -> None:
    browser = Browser(Tickets(lambda: 0.0))
    end = browser.open(again=False)
    if not is_open:
        browser.issued.stream_ended(browser.ticket, end)
    for other in (
        use_of(browser.ticket)._replace(resumes=True),
        stream(browser.ticket, again=False),
        stream(browser.ticket, "&devices=*", again=True),
        stream("wrong", again=True),
    ):
        with pytest.raises(Unauthenticated):
            browser.issued.redeem(other)
    browser.open()


def test_what_a_ticket_opened_that_is_no_stream_does_not_come_back() -> None:
    issued = Tickets(lambda: 0.0)
    ticket = issued.issue(ANYONE, "here")
    issued.redeem(use_of(ticket))
    issued.stream_began(ticket, lambda: None)
    with pytest.raises(Unauthenticated):
        issued.redeem(stream(ticket, again=True))


def test_streams_that_ended_are_remembered_in_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    issued = Tickets(lambda: now_s[0])
    other = Browser(issued, "other")
    issued.stream_ended(other.ticket, other.open(again=False))
    browsers = []
    for _ in range(150):  # one owner forgets its own
        browsers.append(Browser(issued))
        issued.stream_ended(browsers[-1].ticket, browsers[-1].open(again=False))
    with pytest.raises(Unauthenticated):
        browsers[0].open()
    browsers[-1].open()
    other.open()
    monkeypatch.setattr(tickets, "TICKETS_MAX", 120)
    for number in range(120):
        browser = Browser(issued, f"owner {number}")
        issued.stream_ended(browser.ticket, browser.open(again=False))
        assert len(issued) <= 120 + 2
    now_s[0] = 1_000.0
    issued.issue(ANYONE, "here")
    browser = Browser(issued)
    issued.stream_ended(browser.ticket, browser.open(again=False))
    assert len(issued) == 4  # two that are open, one that is new, one that has just ended
