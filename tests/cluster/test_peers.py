"""Heartbeats over a real NATS server."""

from pathlib import Path
from typing import Any

from tests.cluster.members import apart, see
from tests.running import eventually_async
from twincast.cluster.engine import Engine
from twincast.cluster.peers import SETTLE_S, Peers
from twincast.core.peers import Heartbeat


async def test_servers_see_each_other_at_once_and_agree_who_is_first(nats: Engine) -> None:
    async with apart(nats, "a", "b", "c") as servers:
        await see(servers, "a", "b", "c")
        await eventually_async(lambda: servers[0].peers.is_first, "the first has listened for long enough")
        assert not servers[1].peers.is_first
        await servers[0].membership.leave()
        await eventually_async(lambda: servers[1].peers.is_first, "the next one is first")
        assert not servers[0].peers.is_first


async def test_one_that_was_killed_is_forgotten_and_its_tickets_streams_with_it(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        await see((a, b), "a", "b")
        gone: list[str] = []
        b.peers.on_gone.append(gone.append)
        await a.end()
        await eventually_async(lambda: b.seen == ["b"], "the other is forgotten")
        await eventually_async(lambda: b.peers.is_first and gone == ["ida"], "it is first now")


async def test_without_nats_nobody_is_first_and_after_it_all_is_as_before(tmp_path: Path) -> None:
    with Engine(tmp_path / "nats", asks_token=False) as engine:
        async with apart(engine, "a", "b") as (a, b):
            await eventually_async(lambda: a.peers.is_first and b.seen == ["a", "b"], "they see each other")
            engine.kill()
            await eventually_async(lambda: not a.peers.is_first, "it cannot know who is there")
            await see((a,), "a")
            engine.start()
            await see((a, b), "a", "b")
            await eventually_async(lambda: a.peers.is_first, "as before")


async def test_what_is_no_heartbeat_is_passed_over(nats: Engine) -> None:
    async with apart(nats, "a", "b") as (a, b):
        for subject, payload in (
            ("twincast.lab.server.x", b"hello"),
            ("twincast.lab.server.x", b'{"id":"another"}'),
            ("twincast.other.server.x", b'{"id":"x"}'),
        ):
            await a.link.publish(subject, payload)
        await see((a, b), "a", "b")


class QuietLink:
    """A connection on which nobody else is."""

    is_connected = True
    max_payload_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def publish(self, _subject: str, payload: bytes) -> None:
        self.sent.append(payload)


async def test_a_server_that_slept_is_first_only_after_it_has_listened_again() -> None:
    now_s = [0.0]
    link: Any = QuietLink()
    peers = Peers(link, "lab", "a", lambda: Heartbeat(id="a"), clock_s=lambda: now_s[0])
    await peers._beat()
    assert not peers.is_first
    now_s[0] = SETTLE_S
    assert peers.is_first
    now_s[0] = 100.0  # it was stopped, and the others have another first meanwhile
    assert not peers.is_first
    await peers._beat()
    assert not peers.is_first
    now_s[0] += SETTLE_S
    assert peers.is_first
    link.is_connected = False
    assert not peers.is_first
    assert len(link.sent) == 2
