"""What the client sends, against real servers: stored once, in order, or refused."""

import asyncio

import pytest

from tests.client.collecting import collecting, got
from tests.running import DEADLINE_S, eventually_async
from twincast.client import Link, connect
from twincast.errors import (
    BufferFull,
    NotFound,
    TooLarge,
    ValidationFailed,
)
from twincast.testing import Proxy, Server

pytestmark = pytest.mark.usefixtures("impatient")


async def test_publish_returns_the_position_and_the_change_comes_back(server: Server) -> None:
    async with connect(server.url) as client, collecting(client) as events:
        assert await client.publish("lamp", {"on": True}) == 1
        assert await client.control("lamp", "dim", {"percent": 30}) == 2
        data, command = await got(events, 2)
    assert (data.kind, data.device_id, data.value, data.seq) == ("data_update", "lamp", {"on": True}, 1)
    assert (command.kind, command.device_id, command.command, command.args) == (
        "control",
        "lamp",
        "dim",
        {"percent": 30},
    )


async def test_many_readings_travel_ahead_of_their_answers_and_keep_their_order(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        futures = [await client.submit("counter", number) for number in range(5_000)]
        await client.settle()
        assert [await future for future in futures] == list(range(1, 5_001))
        assert await client.publish_many([("counter", -1), ("counter", -2)]) == [5_001, 5_002]
        assert client.state == {}, "who only publishes is told nothing"
    assert server.state["counter"].value == -2


async def test_a_refusal_is_raised_in_the_servers_words_and_the_next_reading_goes_on(server: Server) -> None:
    async with connect(server.url) as client:
        with pytest.raises(ValidationFailed, match="1 to 128 characters"):
            await client.publish("", 1)
        assert await client.publish("lamp", 1) == 1


async def test_what_was_not_acknowledged_before_a_cut_is_stored_once(server: Server, proxy: Proxy) -> None:
    async with connect(proxy.url, devices=()) as client:
        for number in range(20):
            proxy.stall("down")  # the server hears and stores, its answers do not come
            futures = [await client.submit("counter", [number, part]) for part in range(3)]
            await eventually_async(lambda n=number: len(server.log()) >= 3 * n + 1, "some are stored")  # type: ignore[misc]
            proxy.cut()
            proxy.flow()
            assert [await future for future in futures] == [3 * number + 1, 3 * number + 2, 3 * number + 3]
    assert [event["value"] for event in server.log()] == [[n, part] for n in range(20) for part in range(3)]


async def test_what_is_published_offline_waits_within_a_bound_and_goes_out_in_order(
    server: Server, proxy: Proxy
) -> None:
    offline = asyncio.Event()

    def on_link(link: Link) -> None:
        if link.phase == "waiting":
            offline.set()

    async with connect(proxy.url, devices=(), buffer_max_bytes=2_000, on_link=on_link) as client:
        proxy.refuse()
        proxy.cut()
        await offline.wait()
        futures: list[asyncio.Future[int]] = []
        with pytest.raises(BufferFull, match="no connection"):
            while True:
                futures.append(await client.submit("counter", len(futures)))
        assert 10 < len(futures) < 30
        proxy.refuse(False)
        await asyncio.wait_for(client.settle(), DEADLINE_S)
    assert [event["value"] for event in server.log()] == list(range(len(futures)))


@pytest.mark.parametrize("size", [65_000, 66_000, 140_000, 5_000_000])
async def test_a_reading_that_is_too_large_is_refused_by_itself(server: Server, size: int) -> None:
    links: list[Link] = []
    async with connect(server.url, devices=(), on_link=links.append) as client:
        large = await client.submit("large", "x" * size)
        behind = await client.submit("behind", 1)
        with pytest.raises(TooLarge, match=f"{size + 2}"):
            await large
        assert await behind == 1
        with pytest.raises(TooLarge):
            await client.publish_many([("a", 1), ("large", "x" * size), ("b", 2)])
        with pytest.raises(TooLarge):
            await client.control("large", "set", {"to": "x" * size})
        assert await client.publish("last", 3) == 4
    assert [link.phase for link in links] == ["live"], "nothing of this is an accident of the network"
    assert [event["device_id"] for event in server.log()] == ["behind", "a", "b", "last"]


async def test_a_deletion_whose_refusal_was_lost_takes_nothing_away_that_came_later(
    server: Server, proxy: Proxy
) -> None:
    async with connect(proxy.url) as client:
        await client.publish("door", 1)
        proxy.stall("down")
        deleting = asyncio.create_task(client.delete("lamp"))
        await asyncio.sleep(0)
        publishing = asyncio.create_task(client.publish("lamp", 1))
        await asyncio.sleep(0.3)  # until the server has all that comes; nothing tells, for no answer passes
        proxy.cut()
        proxy.flow()
        with pytest.raises(NotFound):
            await deleting
        await client.reached(await publishing)
        assert client.state["lamp"].value == server.state["lamp"].value == 1
