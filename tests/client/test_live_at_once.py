"""From when on a program is told: what comes the moment that a call returns is heard."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from tests.running import eventually, eventually_async
from twincast.client import Client, Event, Rest, connect
from twincast.client import sync as without_asyncio
from twincast.errors import ServerUnreachable, ValidationFailed
from twincast.testing import Proxy, Server

TIMES = 100


@pytest.fixture
def slow(twincast_server: Server) -> Iterator[Proxy]:
    """A network on which everything takes its time."""
    with Proxy(twincast_server.port) as proxy:
        proxy.delay(0.01)
        yield proxy


async def commanded_at_once(server: Server, client: Client, number: int, how: str) -> list[Event]:
    """Have somebody else send a command, as soon as somebody listens to it."""
    heard: list[Event] = []
    target = f"{how} {number}"
    if how == "awaited":
        listening = await client.on_command(target, heard.append)
    elif how == "context":
        listening = await client.on_command(target, heard.append).__aenter__()
    else:
        client.on_command(target)(heard.append)
        await client.listening()
        [listening] = [listener for listener in client._listeners if listener._target == target]
    with Rest(server.url) as rest:
        await asyncio.to_thread(rest.control, target, "on")
    await eventually_async(lambda: len(heard) == 1, f"command {number} is heard")
    await listening.end()
    return heard


@pytest.mark.parametrize("how", ["awaited", "context", "decorated"])
async def test_a_command_that_comes_as_soon_as_it_returns_is_heard(twincast_server: Server, how: str) -> None:
    async with connect(twincast_server.url, devices=()) as client:
        for number in range(TIMES):
            await commanded_at_once(twincast_server, client, number, how)


@pytest.mark.parametrize("how", ["awaited", "context", "decorated"])
async def test_over_a_slow_network_too(twincast_server: Server, slow: Proxy, how: str) -> None:
    async with connect(slow.url, devices=()) as client:
        await asyncio.gather(*(commanded_at_once(twincast_server, client, number, how) for number in range(20)))


async def test_one_after_another_over_a_slow_network(twincast_server: Server, slow: Proxy) -> None:
    async with connect(slow.url, devices=()) as client:
        for number in range(TIMES):
            await commanded_at_once(twincast_server, client, number, "awaited")


@pytest.mark.parametrize("is_slow", [False, True])
def test_without_asyncio_it_is_live_when_it_returns(twincast_server: Server, slow: Proxy, is_slow: bool) -> None:
    heard: list[str] = []
    url = slow.url if is_slow else twincast_server.url
    with without_asyncio.connect(url, devices=()) as client, Rest(twincast_server.url) as rest:
        for number in range(TIMES):
            with client.on_command(f"fan {number}", lambda event: heard.append(event.device_id)):
                rest.control(f"fan {number}", "on")
                eventually(lambda: len(heard) == number + 1, "it is heard")  # noqa: B023

        @client.on_command("lamp")
        def obey(event: Event) -> None:
            heard.append(event.command)

        assert heard == [f"fan {number}" for number in range(TIMES)]
        rest.control("lamp", "off")
        eventually(lambda: heard[-1] == "off", "what is decorated hears too")


async def test_a_watch_is_live_in_its_context_and_without_asyncio_when_it_returns(
    twincast_server: Server, slow: Proxy
) -> None:
    async with connect(slow.url, devices=()) as client:
        for number in range(20):
            async with client.watch(f"lamp {number}") as events:
                with Rest(twincast_server.url) as rest:
                    await asyncio.to_thread(rest.publish, f"lamp {number}", number)
                assert (await anext(events.__aiter__())).value == number


def test_a_watch_without_asyncio_is_live_when_it_returns_and_over_when_it_is_left(twincast_server: Server) -> None:
    with without_asyncio.connect(twincast_server.url, devices=()) as client, Rest(twincast_server.url) as rest:
        for number in range(20):
            events = client.watch("lamp", mode="every")
            rest.publish("lamp", number)
            assert next(events).value == number
            events.close()


def test_a_loop_that_is_left_takes_nothing_any_more(twincast_server: Server) -> None:
    with without_asyncio.connect(twincast_server.url, devices=()) as client:
        watching = client.watch("lamp", mode="every")
        client.publish("lamp", 1)
        for event in watching:
            assert event.value == 1
            break
        with client.watch("lamp", mode="every") as again:
            client.publish("lamp", 2)
            assert next(again).value == 2
        del watching
        gc.collect()
        eventually(lambda: not client._client._incoming._watches, "no watch is left behind")


async def test_an_end_ends_it_and_what_it_is_about_to_do(twincast_server: Server) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def obey(_: Event) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with connect(twincast_server.url, devices=()) as client:
        async with client.on_command("fan", obey):
            await client.control("fan", "on")
            await begun.wait()
        assert ended.is_set()
        assert not client._incoming._watches


async def test_what_is_refused_is_raised_by_who_waits_and_logged(
    twincast_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(twincast_server.url, devices=()) as client:
        async with client.watch(*(f"device {number}" for number in range(1_000)), kinds=["control"]):
            with pytest.raises(ValidationFailed):
                await client.on_command("one too many", print)
            with pytest.raises(ValidationFailed):
                await client.listening()
        assert "no longer called" in caplog.text


async def test_while_there_is_no_connection_it_waits_and_the_end_of_the_hub_ends_that(
    twincast_server: Server,
) -> None:
    with Proxy(twincast_server.port) as proxy:
        async with connect(proxy.url, devices=()) as client:
            proxy.refuse()
            proxy.cut()
            await eventually_async(lambda: not client.is_connected, "it is lost")
            waiting = asyncio.ensure_future(client.on_command("fan", print).__aenter__())
            await asyncio.sleep(0.05)
            assert not waiting.done()
        with pytest.raises(ServerUnreachable):
            await waiting
