"""The client against real servers: what it sends, what it hears, and how it takes a server's end."""

import asyncio
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess, free_port
from twincast.client import Rest, connect, connections, error_of, http_url
from twincast.errors import (
    JournalUnavailable,
    MalformedJson,
    ServerUnreachable,
    TwincastError,
    ValidationFailed,
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("ws://127.0.0.1:8000/ws", "http://127.0.0.1:8000"),
        ("wss://twin.example", "https://twin.example"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_may_be_written_in_several_ways(written: str, meant: str) -> None:
    assert http_url(written) == meant


@pytest.mark.parametrize("written", ["", "ftp://x", "http://", "///"])
def test_what_is_no_address_is_refused_in_words(written: str) -> None:
    with pytest.raises(ValueError, match="expected a server's address"):
        http_url(written)


async def test_publish_returns_the_position_and_the_event_comes_back(server: ServerProcess) -> None:
    async with connect(server.url) as hub:
        assert hub.hello["data_snapshot"] == {}
        assert await hub.publish("lamp", {"on": True}) == 1
        assert await hub.control("lamp", "dim", {"percent": 30}) == 2
        events = [message async for message in first(2, hub)]
    assert [(event["type"], event["seq"]) for event in events] == [("data_update", 1), ("control", 2)]
    assert events[0]["value"] == {"on": True}
    assert events[1]["args"] == {"percent": 30}


async def test_many_readings_travel_ahead_of_their_answers_and_keep_their_order(server: ServerProcess) -> None:
    async with connect(server.url, listen=False) as hub:
        futures = [await hub.submit("counter", number) for number in range(5_000)]
        await hub.settle()
        assert [await future for future in futures] == list(range(1, 5_001))
    assert server.get("/api/data")["data"]["counter"]["value"] == 4_999


async def test_a_refusal_is_raised_in_the_servers_words_and_the_next_reading_goes_on(server: ServerProcess) -> None:
    async with connect(server.url) as hub:
        with pytest.raises(ValidationFailed, match="1 to 128 characters"):
            await hub.publish("", 1)
        assert await hub.publish("lamp", 1) == 1


async def test_who_waits_for_an_answer_learns_that_the_connection_was_lost(server_process: StartServer) -> None:
    server = server_process("memory:")
    async with connect(server.url) as hub:
        await hub.publish("lamp", 1)
        server.kill()
        with pytest.raises(ServerUnreachable):
            await asyncio.wait_for(drain(hub), DEADLINE_S)
        with pytest.raises(ServerUnreachable):
            await hub.publish("lamp", 2)


async def test_connections_come_back_by_themselves(server_process: StartServer) -> None:
    port = free_port()
    waits: list[str] = []
    epochs = []
    server: ServerProcess | None = None

    def waiting(reason: ServerUnreachable, _wait_s: float) -> None:
        nonlocal server
        waits.append(reason.message)
        server = server or server_process("memory:", port=port)

    async for hub in connections(f"http://127.0.0.1:{port}", waiting=waiting):
        epochs.append(hub.hello["epoch"])
        if len(epochs) == 2:
            break
        assert server is not None
        await asyncio.to_thread(server.stop)
        server = None
        with pytest.raises(ServerUnreachable, match="restarting"):
            await asyncio.wait_for(drain(hub), DEADLINE_S)
    assert "nobody answers" in waits[0]
    assert epochs[0] != epochs[1]


async def test_nobody_there_is_said_in_one_sentence_that_helps() -> None:
    port = free_port()
    with pytest.raises(ServerUnreachable, match=f"nobody answers at http://127.0.0.1:{port}; `twincast serve`"):
        async with connect(f"http://127.0.0.1:{port}"):
            raise AssertionError("nobody could have answered")
    with Rest(f"http://127.0.0.1:{port}") as rest, pytest.raises(ServerUnreachable, match="nobody answers"):
        rest.status()


async def test_another_kind_of_server_is_told_apart() -> None:
    async def teapot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 3\r\n\r\ntea")
        await writer.drain()

    async with await asyncio.start_server(teapot, "127.0.0.1", 0) as other:
        url = "http://127.0.0.1:{1}".format(*other.sockets[0].getsockname())
        with pytest.raises(ServerUnreachable, match="does not speak like a twincast server"):
            async with connect(url):
                raise AssertionError("a teapot is no server")
        with Rest(url) as rest, pytest.raises(ServerUnreachable, match="does not speak like"):
            await asyncio.to_thread(rest.status)


def test_rest_stores_reads_and_commands(server: ServerProcess) -> None:
    with Rest(server.url) as rest:
        assert rest.publish("lamp", "on")["seq"] == 1
        assert rest.publish_all([("lamp", "off"), ("door", None)]) == range(2, 4)
        assert rest.control("lamp", "dim")["args"] == {}
        assert {name: twin["value"] for name, twin in rest.data()["data"].items()} == {"lamp": "off", "door": None}
        assert rest.status()["seq"] == 4
        with pytest.raises(ValidationFailed):
            rest.publish("", 1)


@pytest.mark.parametrize("kind", [MalformedJson, JournalUnavailable, ValidationFailed])
def test_a_code_on_the_wire_becomes_its_error_again(kind: type[TwincastError]) -> None:
    error = error_of(kind.code, "words")
    assert type(error) is kind
    assert error.message == "words"


def test_a_code_from_a_newer_server_is_still_an_error_with_its_words() -> None:
    assert "brand_new: words" in str(error_of("brand_new", "words"))


async def first(count: int, hub: Any) -> Any:
    async for message in hub:
        yield message
        count -= 1
        if not count:
            return


async def drain(hub: Any) -> None:
    async for _ in hub:
        pass
