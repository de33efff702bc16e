"""Tickets of one server, used at another, over a real NATS server."""

from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from tests.access.entrance import HERE
from tests.cluster.members import Apart, apart, see
from tests.running import eventually_async
from twincast.access.request import Caller
from twincast.access.tickets import TicketElsewhere, TicketUse
from twincast.cluster.engine import Engine
from twincast.core.rights import Principal, Rate, Rights
from twincast.errors import JournalUnavailable, Unauthenticated

ALICE = Principal("jwt:alice", Rights.of({"read": ["lab/*"]}), 9_000.0, Rate(5.0, 25.0))


def stream(ticket: str, *, again: bool = False) -> TicketUse:
    return TicketUse(ticket, f"ticket={ticket}", is_stream=True, resumes=again)


async def let_in(server: Apart, use: TicketUse) -> Principal:
    server.admission.authenticator.is_required = True
    try:
        return server.admission.identify(HERE, ticket=use).principal
    except TicketElsewhere as error:
        return (await server.admission.identify_elsewhere(HERE, error.use)).principal


def issue(server: Apart) -> str:
    server.admission.authenticator.is_required = True
    return server.admission.issue_ticket(Caller(ALICE, "192.0.2.1"))


async def test_a_ticket_of_one_server_is_good_once_at_another(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        ticket = issue(a)
        assert await let_in(b, TicketUse(ticket, "", is_stream=False, resumes=False)) == ALICE
        for server in (a, b):
            with pytest.raises(Unauthenticated, match="a ticket is good for one"):
                await let_in(server, stream(ticket))


async def test_a_stream_moves_over_the_servers_and_the_newer_ends_the_older(nats: Engine) -> None:
    async with apart(nats, "a", "b", "c") as (a, b, c):
        await see((a, b, c), "a", "b", "c")
        ticket = issue(a)
        ended: list[str] = []
        for number, (name, server) in enumerate((("b", b), ("c", c), ("a", a), ("b", b))):
            assert await let_in(server, stream(ticket, again=number > 0)) == ALICE
            server.admission.tickets.stream_began(ticket, partial(ended.append, name))
            await eventually_async(partial(_has, ended, number), "the older is ended")
        assert ended == ["b", "c", "a"]


def _has(ended: list[str], count: int) -> bool:
    return len(ended) == count


async def test_the_ticket_of_a_dead_server_is_refused_but_for_the_stream_that_was_here(nats: Engine) -> None:
    async with apart(nats, "a", "b", "c") as (a, b, c):
        await see((a, b, c), "a", "b", "c")
        unused, ticket = issue(a), issue(a)
        await let_in(b, stream(ticket))
        end: Callable[[], None] = partial(print, "ended")
        b.admission.tickets.stream_began(ticket, end)
        b.admission.tickets.stream_ended(ticket, end)
        await a.end()
        await eventually_async(lambda: b.seen == c.seen == ["b", "c"], "it is forgotten")
        assert await let_in(b, stream(ticket, again=True)) == ALICE
        for server, use in ((c, stream(ticket, again=True)), (b, stream(unused)), (b, stream("nobody.x"))):
            with pytest.raises(Unauthenticated):
                await let_in(server, use)


async def test_a_stream_on_a_server_that_was_killed_comes_back_for_a_minute(nats: Engine) -> None:
    async with apart(nats, "a", "b", "c") as (a, b, c):
        await see((a, b, c), "a", "b", "c")
        ticket = issue(a)
        await let_in(b, stream(ticket))
        b.admission.tickets.stream_began(ticket, partial(print, "ended"))
        await eventually_async(lambda: len(a.admission.tickets._away) == 1, "its home knows where it is")
        await b.end()
        await eventually_async(lambda: len(a.admission.tickets._away) == 0, "and that it is over")
        a.entrance.now_s += 59
        assert await let_in(c, stream(ticket, again=True)) == ALICE
        a.entrance.now_s += 1
        with pytest.raises(Unauthenticated):
            await let_in(c, stream(ticket, again=True))


async def test_a_server_that_does_not_answer_is_no_refusal(nats: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.cluster.tickets.ASK_S", 0.05)
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        ticket = issue(a)
        monkeypatch.setattr(a.admission.tickets, "redeem_here", _never)
        with pytest.raises(JournalUnavailable):
            await let_in(b, stream(ticket))
        monkeypatch.undo()
        assert await let_in(b, stream(ticket)) == ALICE


def _never(_asked: object) -> None:
    raise TypeError("nothing is answered")


async def test_what_is_no_question_is_passed_over_and_the_next_is_answered(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        for body in (b"", b"{}", msgspec.json.encode({"does": "dance", "by": "x", "key": "y"})):
            await b.link.publish("twincast.lab.ticket.ida", body)
        assert await let_in(b, stream(issue(a))) == ALICE
