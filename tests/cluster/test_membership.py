"""One server among others: what counts together, and who holds another log."""

import dataclasses
import logging
from functools import partial

import pytest

from tests.cluster.members import apart, see
from tests.running import eventually_async
from twincast.access.request import Caller
from twincast.cluster.engine import Engine
from twincast.core.rights import Principal, Rate
from twincast.errors import RateLimited, TooManyConnections


async def test_connections_of_an_identity_and_of_an_address_count_on_all_servers_together(nats: Engine) -> None:
    async with apart(nats, "a", "b", identity_connections_max=3, address_connections_max=4) as (a, b):
        await see((a, b), "a", "b")
        leases = [a.admission.admit(Caller(Principal("key:1"), "192.0.2.1"), print) for _ in range(3)]
        await eventually_async(lambda: b.membership.of_identity("key:1") == 3, "the other has heard of them")
        with pytest.raises(TooManyConnections, match="key:1"):
            b.entrance.admit("key:1", "198.51.100.1")
        b.entrance.admit("key:2")
        with pytest.raises(TooManyConnections, match="address"):
            b.entrance.admit("key:3")
        leases[0].release()
        await eventually_async(lambda: b.membership.of_identity("key:1") == 2, "and of the end of one")
        b.entrance.admit("key:1", "198.51.100.1")
        await a.end()
        await eventually_async(lambda: b.membership.of_identity("key:1") == 0, "those of a dead server do not count")


async def test_what_an_identity_sends_counts_on_all_servers_together(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        rated = Principal("key:1", rate=Rate(10, 20))
        for server in (a, b):
            server.admission.limits.login.is_required = True
            server.admission.limits.spend(rated, 1)
        a.admission.limits.spend(rated, 19)

        def may_send() -> bool:
            try:
                b.admission.limits.spend(rated, 0)
            except RateLimited:
                return True
            return False

        b.admission.limits.spend(rated, 19)
        await eventually_async(may_send, "the other has heard, and is in debt")


async def test_clients_of_all_servers_are_known(nats: Engine) -> None:
    async with apart(nats, "a", "b", "c") as (a, b, c):
        for count, server in enumerate((a, b, c), 1):
            server.standing = dataclasses.replace(server.standing, clients=count, seq=10 * count)
        await eventually_async(lambda: a.membership.clients_elsewhere() == 5, "the clients of the others")
        assert a.membership.behind_s(30) == 0
        await eventually_async(lambda: a.membership.behind_s(10) > 0, "it is behind for a while")
        assert [member.heartbeat.seq for member in a.membership.members()] == [10, 20, 30]
        assert all(a.membership.heard_s_ago(member) >= 0 for member in a.membership.members())


async def test_servers_that_make_different_things_of_the_log_say_so(
    nats: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        for place in range(1, 4):
            a.checks.note(place, 10 + place)
            b.checks.note(place, 10 + place)
        a.checks.note(4, 14)
        b.checks.note(4, 99)
        for one, other in ((a, "b"), (b, "a")):
            await eventually_async(partial(getattr, one.membership, "problem"), "each of them says so")
            assert f"{other} made different things of the log, up to message 4" in one.membership.problem
        assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [
            logging.CRITICAL
        ] * 2
        await a.end()
        await eventually_async(lambda: not b.membership.problem, "there is nobody who says something else")


async def test_sums_of_another_log_say_nothing(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        a.standing = dataclasses.replace(a.standing, epoch="other-1")
        a.checks.note(1, 1)
        b.checks.note(1, 2)
        await see((a, b), "a", "b")
        assert not a.membership.problem and not b.membership.problem


async def test_servers_with_other_settings_are_warned_once(nats: Engine, caplog: pytest.LogCaptureFixture) -> None:
    async with apart(nats, "a") as (a,), apart(nats, "b", settings="other") as (b,):
        await see((a, b), "a", "b")
        heard: list[object] = []
        a.peers.on_heard.append(heard.append)
        await eventually_async(lambda: len(heard) >= 2, "two heartbeats more")
        assert sum("other settings" in record.message for record in caplog.records) == 2


async def test_how_far_nats_subjects_are_is_known_after_the_server_that_sent_is_gone(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        assert (a.membership.sent, b.membership.sent) == (-1, -1)
        a.membership.sent_here = lambda: 41
        await eventually_async(lambda: b.membership.sent == 41, "the other has heard")
        await a.end()
        async with apart(nats, "c") as (c,):
            await eventually_async(lambda: c.membership.sent == 41, "one that never heard the first has heard it")
        b.standing = dataclasses.replace(b.standing, epoch="another")
        async with apart(nats, "d") as (d,):
            await see((b, d), "b", "d")
            assert d.membership.sent == -1  # a position of another log
