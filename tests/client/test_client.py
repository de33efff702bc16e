"""The client against real servers: what it sends, what it hears, and how it takes a server's end."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.running import DEADLINE_S, eventually_async, free_port
from twincast.client import Event, Link, connect
from twincast.errors import (
    CredentialExpired,
    ServerUnreachable,
)
from twincast.testing import Proxy, Server

pytestmark = pytest.mark.usefixtures("impatient")


async def test_who_waits_when_the_hub_is_closed_learns_it(server: Server, proxy: Proxy) -> None:
    async with connect(proxy.url) as client:
        proxy.stall("up")
        waiting = asyncio.create_task(client.publish("lamp", 1))
        await asyncio.sleep(0)
    with pytest.raises(ServerUnreachable, match="closed"):
        await waiting


async def test_commands_call_back_in_order_and_an_error_does_not_end_it(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []
    async with connect(server.url, devices=()) as client:

        @client.on_command("fan")
        async def obey(event: Event) -> None:
            called.append(event.command)
            if event.command == "explode":
                raise RuntimeError("boom")

        @client.on_command("*")
        def note(event: Event) -> None:
            called.append(f"any {event.command}")

        await client.listening()
        for target, command in (("fan", "explode"), ("other", "on"), ("fan", "stop")):
            await client.control(target, command)
        await eventually_async(lambda: len(called) == 5, "the callbacks are called")
    assert [command for command in called if command[:3] != "any"] == ["explode", "stop"]
    assert [command for command in called if command[:3] == "any"] == ["any explode", "any on", "any stop"]
    assert "the callback for commands to fan failed" in caplog.text


async def test_a_server_that_is_not_there_yet_is_waited_for(server_process: StartServer) -> None:
    port = free_port()
    links: list[Link] = []
    waiting = asyncio.Event()

    def on_link(link: Link) -> None:
        links.append(link)
        waiting.set()

    async def client() -> int:
        async with connect(f"http://127.0.0.1:{port}", timeout_s=None, on_link=on_link) as client:
            return await client.publish("lamp", 1)

    task = asyncio.create_task(client())
    await waiting.wait()
    server = await asyncio.to_thread(server_process, port=port)
    assert await asyncio.wait_for(task, DEADLINE_S) == 1
    assert "nobody answers" in links[0].reason
    assert [link.phase for link in links][-1] == "live"
    assert server.get("/api/status")["seq"] == 1


async def test_who_waits_learns_that_the_key_was_revoked(tmp_path: Path) -> None:
    async with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        token = await asyncio.to_thread(lambda: server.add_key("me", publish=["*"]))
        parts = server._app.parts
        parts.limits = replace(parts.limits, close_timeout_s=0.05)  # the client's close frame cannot reach the server
        with Proxy(server.port) as proxy:
            async with connect(proxy.url, devices=(), token=token, close_timeout_s=0.05) as client:
                proxy.stall("up")
                waiting = [asyncio.create_task(client.publish("d", number)) for number in range(3_000)]
                seen = asyncio.create_task(client.reached(1_000_000))
                await eventually_async(
                    lambda: len(client._outgoing._lanes[0].unanswered) == 1_024, "as many as may are under way"
                )
                await asyncio.to_thread(server.revoke_key, "me")
                results = await asyncio.wait_for(asyncio.gather(*waiting, seen, return_exceptions=True), DEADLINE_S)
                assert {type(result) for result in results} == {CredentialExpired}
                with pytest.raises(CredentialExpired):
                    await client.publish("d", 1)
                with pytest.raises(CredentialExpired):
                    await client.reached(1_000_000)
                with pytest.raises(CredentialExpired):
                    await client.watch("d").__aenter__()


async def test_a_callback_that_returns_when_it_is_cancelled_ends_with_its_listener(server: Server) -> None:
    begun = asyncio.Event()

    async def obey(event: Event) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with connect(server.url, devices=()) as client, asyncio.timeout(10), client.on_command("fan", obey):
        await client.control("fan", "start")
        await begun.wait()


async def test_what_a_callback_raises_ends_nothing(
    server: Server, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def on_link(link: Link) -> None:
        raise ValueError("a fault of the program")

    async with connect(proxy.url, devices=(), on_link=on_link) as client:

        @client.on_command("fan")
        async def obey(event: Event) -> None:
            called.append(event.command)
            raise asyncio.CancelledError if event.command == "first" else KeyError(event.command)

        await client.listening()
        await client.control("fan", "first")
        proxy.cut()
        await client.control("fan", "second")
        await eventually_async(lambda: called == ["first", "second"], "both are called")
    assert "the callback for the state of the connection failed" in caplog.text
