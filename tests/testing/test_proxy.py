"""Each fault of the network in front of a server, as a client sees it."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from tests.running import eventually
from twincast.client import Rest
from twincast.testing import Proxy, Server

BROKEN = (OSError, ConnectionClosed, InvalidMessage)  # how the client sees it depends on how far it came
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TELEMETRY = '{"type":"telemetry","device_id":"%s","value":%d}'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@contextmanager
def through(proxy: Proxy) -> Iterator[ClientConnection]:
    with open_websocket(f"ws://127.0.0.1:{proxy.port}/ws?devices=lamp") as websocket:
        assert json.loads(websocket.recv(timeout=10))["type"] == "hello"
        yield websocket


def say(websocket: ClientConnection, value: int, device_id: str = "lamp") -> None:
    websocket.send(TELEMETRY % (device_id, value))


def hear(websocket: ClientConnection, timeout_s: float = 10) -> Any:
    return json.loads(websocket.recv(timeout=timeout_s))["value"]


@contextmanager
def upgraded(proxy: Proxy) -> Iterator[socket.socket]:
    """Open a WebSocket by hand, on a connection that shows how it ends."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.sendall(UPGRADE)
        heard = b""
        while b'"hello"' not in heard:
            heard += client.recv(65_536)
        yield client


def connected(server: Server) -> int:
    with Rest(server.url) as rest:
        return int(rest.status()["websocket_clients_connected"])


def test_everything_passes_until_told_otherwise(proxy: Proxy) -> None:
    with through(proxy) as websocket:
        say(websocket, 1)
        assert hear(websocket) == 1


def test_a_cut_ends_the_connection_without_goodbye(proxy: Proxy) -> None:
    with through(proxy) as websocket:
        proxy.cut()
        with pytest.raises(ConnectionClosed) as ended:
            websocket.recv(timeout=10)
    assert ended.value.rcvd is None
    assert proxy.cuts == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_is_an_end_or_a_reset(proxy: Proxy, server: Server, reset: bool) -> None:
    with upgraded(proxy) as client:
        proxy.cut(reset=reset)
        with pytest.raises(ConnectionResetError) if reset else nullcontext():
            while client.recv(65_536):
                pass
        eventually(lambda: connected(server) == 0, "the server lost the client too")


def test_what_is_cut_while_it_stalls_is_gone_and_counted_once(proxy: Proxy, server: Server) -> None:
    with through(proxy) as websocket:
        proxy.stall()
        say(websocket, 1)
        proxy.cut()
        proxy.cut()
        assert proxy.cuts == 1
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=10)
        eventually(lambda: connected(server) == 0, "the server lost the client too")


def test_who_is_refused_may_come_later(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(BROKEN), through(proxy):
        raise AssertionError("nobody comes through")
    proxy.refuse(False)
    with through(proxy) as websocket:
        say(websocket, 1)
        assert hear(websocket) == 1


def test_what_is_stalled_waits_and_comes_when_it_flows(proxy: Proxy) -> None:
    with through(proxy) as websocket:
        proxy.stall("down")
        say(websocket, 2)
        with pytest.raises(TimeoutError):
            hear(websocket, timeout_s=0.2)
        proxy.flow()
        assert hear(websocket) == 2


def test_a_stall_upwards_keeps_the_server_from_hearing(proxy: Proxy, server: Server) -> None:
    with through(proxy) as websocket:
        before = len(server.log())
        proxy.stall("up")
        say(websocket, 3)
        with pytest.raises(TimeoutError):
            hear(websocket, timeout_s=0.2)
        assert len(server.log()) == before
        proxy.flow()
        assert hear(websocket) == 3


def test_a_delay_keeps_the_order(proxy: Proxy) -> None:
    with through(proxy) as websocket:
        proxy.delay(0.05)
        for value in (4, 5, 6):
            say(websocket, value)
        assert [hear(websocket) for _ in range(3)] == [4, 5, 6]


def test_a_delay_is_one_of_all_that_is_under_way(proxy: Proxy) -> None:
    with through(proxy) as websocket:
        proxy.delay(0.5)
        for value in range(30):
            say(websocket, value)
        assert [hear(websocket) for _ in range(30)] == list(range(30)), "one after another they would not come in time"


def test_a_message_said_twice_is_heard_twice(proxy: Proxy, server: Server) -> None:
    with through(proxy) as websocket:
        before = len(server.log())
        proxy.repeat(2)
        for value in (7, 8, 9):
            say(websocket, value)
        eventually(lambda: len(server.log()) == before + 5, "two of three messages come twice")
    assert [event["value"] for event in server.log()[before:]] == [7, 7, 8, 8, 9]
    assert proxy.repeats == 2


def test_random_messages_are_said_twice_the_same_ones_for_the_same_seed(server: Server) -> None:
    def said_twice(seed: int) -> list[int]:
        before = len(server.log())
        with Proxy(server.port, seed=seed, repeat_every=4) as proxy, through(proxy) as websocket:
            for value in range(40):
                say(websocket, value, "unheard")
            say(websocket, 40)
            assert hear(websocket) == 40
            values = [event["value"] for event in server.log()[before:]]
            eventually(lambda: len(server.log()) - before == 41 + proxy.repeats, "no more than the repeats are stored")
        return [value for value in range(40) if values.count(value) == 2]

    assert said_twice(1) == said_twice(1) != said_twice(2)


def test_bad_luck_may_begin_with_the_next_connection(proxy: Proxy) -> None:
    with through(proxy) as lucky:
        proxy.misbehave(cut_every_bytes=1)
        with pytest.raises(BROKEN), through(proxy):
            raise AssertionError("a connection that breaks after a byte never opens")
        say(lucky, 1)
        assert hear(lucky) == 1
        proxy.misbehave()
        with through(proxy) as websocket:
            say(websocket, 2)
            assert hear(websocket) == 2


def test_connections_break_also_in_what_the_client_says(server: Server) -> None:
    def stored(seed: int) -> list[int]:
        before = len(server.log())
        with Proxy(server.port, seed=seed, cut_every_bytes=20_000) as proxy:
            with pytest.raises(ConnectionClosed), through(proxy) as websocket:
                for count in range(100_000):
                    say(websocket, count, "unheard")
            assert proxy.cuts == 1
        eventually(lambda: connected(server) == 0, "the server lost the client too")
        return [event["value"] for event in server.log()[before:]]

    first = stored(1)
    assert first == list(range(len(first))) and first
    assert first == stored(1) != stored(2)


def test_connections_break_at_the_same_bytes_for_the_same_seed(server: Server) -> None:
    def broken_after(seed: int) -> list[int]:
        heard = []
        with Proxy(server.port, seed=seed, cut_every_bytes=2_000) as proxy:
            for _ in range(3):
                count = 0
                try:
                    with open_websocket(f"ws://127.0.0.1:{proxy.port}/ws?devices=nothing") as websocket:
                        while True:
                            websocket.send('{"type":"dance"}')
                            websocket.recv(timeout=10)
                            count += 1
                except BROKEN:
                    heard.append(count)
            assert proxy.cuts == 3
        return heard

    assert broken_after(1) == broken_after(1) != broken_after(2)
