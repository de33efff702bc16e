"""One connection's life, step by step, in a loop in which nothing else happens."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.client.fake_server import FakeNetwork, LogServer, TimelessLoop
from twincast.client.client import Client
from twincast.errors import Stopping


@pytest.fixture
def loop() -> Iterator[TimelessLoop]:
    loop = TimelessLoop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["cut off", "refused", "closed"])
@pytest.mark.parametrize("after", range(12))
def test_who_leaves_while_the_connection_is_lost_has_left(
    loop: TimelessLoop, monkeypatch: pytest.MonkeyPatch, after: int, how: str
) -> None:
    network = FakeNetwork(LogServer())
    monkeypatch.setattr("twincast.client.client.open_link", network.open)

    async def story() -> None:
        client = Client("http://server", ["*"], buffer_max_bytes=1 << 20, on_link=None, token="a-key")
        running = asyncio.create_task(client.connection.run(None))
        while not client.connection.is_live:
            await steps(3)
            if network.link is not None:
                network.link.let_client_hear(10)
        assert network.link is not None
        if how == "cut off":
            network.link.end()
        elif how == "refused":
            network.link.to_client.append('{"type":"error","code":"bad_message","message":"no","retryable":false}')
            network.link.let_client_hear(1)
            network.link.end()
        else:
            network.link.session.close(Stopping("the server is shutting down"))
        await steps(after)
        running.cancel()
        await steps(20)
        assert running.done()
        await client.close()

    loop.run_until_complete(story())
