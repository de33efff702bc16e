"""Tickets for event streams."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincast.access import tickets
from twincast.access.tickets import Asked, Granted, TicketElsewhere, Tickets, TicketUse
from twincast.core.rights import ANYONE, Principal
from twincast.errors import RateLimited, TooManyConnections, Unauthenticated

ALICE = Principal("key:alice")


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


class Bus:
    """Servers that reach one another at once, until one has ended."""

    def __init__(self, *names: str) -> None:
        self.now_s = 0.0
        self.servers = {name: Tickets(lambda: self.now_s) for name in names}
        for name, server in self.servers.items():
            server.join(name, Reached(self, name))

    def end(self, name: str) -> None:
        del self.servers[name]
        for server in self.servers.values():
            server.server_ended(name)


class Reached:
    """The other servers, as one of them reaches them."""

    def __init__(self, bus: Bus, own: str) -> None:
        self.bus = bus
        self.own = own
        self.asked: list[Asked] = []

    async def redeem(self, home: str, asked: Asked) -> Granted | None:
        self.asked.append(asked)
        server = self.bus.servers.get(home)
        return None if server is None else server.redeem_here(asked)

    def tell_began(self, home: str, key: str) -> None:
        def end() -> None:
            if self.own in self.bus.servers:
                self.bus.servers[self.own].end_stream(key)

        if home in self.bus.servers:
            self.bus.servers[home].began_elsewhere(key, self.own, end)

    def tell_ended(self, home: str, key: str) -> None:
        if home in self.bus.servers:
            self.bus.servers[home].ended_elsewhere(key, self.own)


async def redeem(server: Tickets, use: TicketUse) -> Principal:
    try:
        return server.redeem(use)
    except TicketElsewhere as error:
        return await server.redeem_elsewhere(error.use)


async def test_a_ticket_that_one_server_issued_is_good_once_on_all() -> None:
    bus = Bus("a", "b", "c")
    ticket = bus.servers["a"].issue(ALICE, "alice")
    assert ticket.startswith("a.")
    assert await redeem(bus.servers["b"], use_of(ticket)) == ALICE
    for server in bus.servers.values():
        with pytest.raises(Unauthenticated):
            await redeem(server, use_of(ticket))
    late = bus.servers["a"].issue(ALICE, "alice")
    bus.now_s = 30.0
    with pytest.raises(Unauthenticated):
        await redeem(bus.servers["b"], use_of(late))


async def test_no_ticket_is_told_to_another_server() -> None:
    bus = Bus("a", "b")
    ticket = bus.servers["a"].issue(ALICE, "alice")
    await redeem(bus.servers["b"], stream(ticket))
    reached = bus.servers["b"]._elsewhere
    assert isinstance(reached, Reached)
    assert not any(ticket.partition(".")[2] in text for text in map(str, reached.asked))


async def test_a_server_that_is_alone_knows_no_other() -> None:
    alone = Tickets(lambda: 0.0)
    assert "." not in alone.issue(ALICE, "alice")
    with pytest.raises(Unauthenticated):
        alone.redeem(use_of("a.ticket"))


async def test_a_stream_comes_back_to_its_server_after_the_one_that_issued_its_ticket_has_ended() -> None:
    bus = Bus("a", "b", "c")
    ticket, ended = bus.servers["a"].issue(ALICE, "alice"), list[int]()
    b = bus.servers["b"]
    await redeem(b, stream(ticket))
    end = partial(ended.append, 1)
    b.stream_began(ticket, end)
    bus.end("a")
    b.stream_ended(ticket, end)
    assert await redeem(b, stream(ticket, again=True)) == ALICE
    for server, use in (
        (b, stream(ticket)),
        (b, use_of(ticket)),
        (bus.servers["c"], stream(ticket, again=True)),
    ):
        with pytest.raises(Unauthenticated):
            await redeem(server, use)
    bus.now_s += 60
    with pytest.raises(Unauthenticated):
        await redeem(b, stream(ticket, again=True))


class Page:
    """A page with an EventSource over servers that end, and what it may expect."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.ticket = bus.servers["a"].issue(ALICE, "alice")
        self.ended: list[int] = []
        self.opened = 0
        self.at = ""
        self.end: Callable[[], None] = lambda: None

    async def open(self, name: str) -> None:
        """Open the stream at a server, first or again, and see the one before it end, and no other."""
        server, older = self.bus.servers[name], self.at
        await redeem(server, stream(self.ticket, again=self.opened > 0))
        self.ended.clear()
        self.opened += 1
        self.at, self.end = name, partial(self.ended.append, self.opened)
        server.stream_began(self.ticket, self.end)
        assert self.ended == ([self.opened - 1] if older else [])

    def close(self) -> None:
        self.bus.servers[self.at].stream_ended(self.ticket, self.end)
        self.at = ""

    def kill(self, name: str) -> None:
        self.bus.end(name)
        self.at = "" if self.at == name else self.at


@given(st.lists(st.sampled_from([*"abcabcabc", "close", "close", "wait", "kill b", "kill c"]), max_size=20))
async def test_over_servers_that_end_the_newest_stream_of_a_ticket_goes_on_and_ends_the_older(did: list[str]) -> None:
    bus = Bus("a", "b", "c")
    page = Page(bus)
    silent_s = 0.0
    for each in did:
        if each in bus.servers:
            await page.open(each)
        elif each == "close" and page.at:
            page.close()
        elif each.startswith("kill") and each[-1] in bus.servers:
            page.kill(each[-1])
        elif each == "wait":
            later_s = 10_000.0 if page.at else min(20.0, 29.0 - silent_s)
            bus.now_s += later_s
            silent_s += later_s
        silent_s = 0.0 if page.at else silent_s
    assert len(bus.servers["a"]) == 1, "one ticket, in one state"


def test_streams_on_other_servers_are_remembered_in_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "STREAMS_ELSEWHERE_MAX", 3)
    issued = Tickets(lambda: 0.0)
    for number in range(5):
        asked = stream(issued.issue(ALICE, f"owner {number}")).asked
        issued.redeem_here(asked)
        issued.began_elsewhere(asked.key, "b", lambda: None)
    assert len(issued) == 3
    issued.server_ended("b")
    assert len(issued._away) == 0 and len(issued._resumable) == 3
