"""Watches, against real servers."""

import asyncio

import pytest

from tests.client.collecting import collecting, got
from tests.running import eventually_async
from twincast.client import Gap, Rest, connect
from twincast.errors import (
    ValidationFailed,
)
from twincast.testing import Server

pytestmark = pytest.mark.usefixtures("impatient")


async def test_watches_share_a_connection_and_each_gets_its_part(server: Server) -> None:
    async with (
        connect(server.url, devices="lab/*") as client,
        collecting(client, "lab/*", kinds=["data_update"]) as lab,
        collecting(client, "hall/fan", mode="every") as fan,
        collecting(client, kinds=["control"]) as commands,
    ):
        await client.publish_many([("lab/a", 1), ("hall/fan", 2), ("hall/door", 3)])
        await client.control("lab/a", "blink")
        await client.control("hall/fan", "stop")
        await got(commands, 2)
        assert [event.device_id for event in lab] == ["lab/a"]
        assert [(event.device_id, event.kind) for event in fan] == [
            ("hall/fan", "data_update"),
            ("hall/fan", "control"),
        ]
        assert list(client.state) == ["lab/a"], "the state has what it follows, whatever else is watched"
    with Rest(server.url) as rest:
        assert rest.status()["devices_known"] == 3


async def test_a_watch_begins_with_the_state_if_asked_and_ends_with_its_loop(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        await client.publish_many([("a", 1), ("b", 2), ("a", 3)])
        seen = []
        async for event in client.watch("a", "b", initial=True):
            seen.append((event.device_id, event.value))
            if len(seen) == 2:
                break
        assert seen == [("b", 2), ("a", 3)]
        async with collecting(client, "a") as events:
            await client.publish_many([("b", 4), ("a", 5)])
            assert [event.value for event in await got(events, 1)] == [5]


async def test_a_slow_reader_gets_the_newest_of_each_device_and_how_many_they_were(server: Server) -> None:
    async with connect(server.url) as client, client.watch(mode="latest") as watch:
        await client.publish_many([("a", n) for n in range(100)] + [("b", 1)])
        await client.reached(101)
        seen = []
        async for event in watch:
            seen.append((event.device_id, event.value, event.merged))
            if len(seen) == 2:
                break
    assert seen == [("a", 99, 100), ("b", 1, 1)]


async def test_a_watch_with_a_frequency_is_told_less_often(server: Server) -> None:
    async with connect(server.url) as client, collecting(client, max_hz=5) as events:
        for number in range(40):
            await client.publish("a", number)
        await eventually_async(lambda: bool(events) and events[-1].value == 39, "the newest value comes")
    assert len(events) < 40
    assert sum(event.merged for event in events) == 40


async def test_a_watch_that_asks_for_what_cannot_be_is_refused_at_once(server: Server) -> None:
    async with connect(server.url) as client:
        with pytest.raises(ValidationFailed, match="max_hz"):
            client.watch(mode="every", max_hz=5)
        with pytest.raises(ValidationFailed, match="kinds"):
            client.watch(kinds=["news"])


async def test_a_watch_may_be_looped_over_again_and_begins_again_after_its_end(server: Server) -> None:
    async with connect(server.url, devices=()) as client:
        async with client.watch("lamp", mode="every") as watch:
            await client.publish_many([("lamp", 1), ("lamp", 2)])
            for value in (1, 2):
                async for event in watch:
                    assert event.value == value
                    break
        await client.publish("lamp", 3)
        async with watch:
            await client.publish("lamp", 4)
            async for event in watch:
                assert event.value == 4
                break


async def test_a_rate_of_one_watch_does_not_slow_down_another(server: Server) -> None:
    async with (
        connect(server.url, devices=()) as client,
        client.watch("slow", max_hz=0.01),
        collecting(client, "fast") as fast,
    ):
        for number in range(3):
            await client.publish("fast", number)
        await got(fast, 3)
    assert [event.merged for event in fast] == [1, 1, 1]


async def test_commands_that_nobody_takes_are_bounded_and_their_loss_is_told(server: Server) -> None:
    async with (
        connect(server.url, devices=()) as client,
        connect(server.url, devices=()) as other,
        client.watch("*") as watch,
    ):
        await asyncio.gather(*[other.control("fan", f"c{number}") for number in range(5_000)])
        await other.publish("lamp", 1)
        await client.reached(5_001)
        seen = []
        async for event in watch:
            seen.append(event)
            if event.kind == "data_update":
                break
    assert len(seen) == 4_096 + 1
    assert (seen[0].seq, seen[0].gap) == (905, Gap(1, 904, "slow"))
    assert [event.gap for event in seen[1:]] == [None] * 4_096
