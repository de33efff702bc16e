"""Each fault of the network in front of a server, as a client sees it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from twincast.testing import Proxy, Server, eventually

TELEMETRY = '{"type":"telemetry","device_id":"lamp","value":%d}'


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
    with open_websocket(f"ws://127.0.0.1:{proxy.port}/ws?devices=lamp") as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "hello"
        yield socket


def say(socket: ClientConnection, value: int) -> None:
    socket.send(TELEMETRY % value)


def hear(socket: ClientConnection, timeout_s: float = 10) -> Any:
    return json.loads(socket.recv(timeout=timeout_s))["value"]


def test_everything_passes_until_told_otherwise(proxy: Proxy) -> None:
    with through(proxy) as socket:
        say(socket, 1)
        assert hear(socket) == 1


def test_a_cut_ends_the_connection_without_goodbye(proxy: Proxy) -> None:
    with through(proxy) as socket:
        proxy.cut()
        with pytest.raises(ConnectionClosed) as ended:
            socket.recv(timeout=10)
    assert ended.value.rcvd is None
    assert proxy.cuts == 1


def test_who_is_refused_may_come_later(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises((OSError, InvalidMessage)), through(proxy):
        raise AssertionError("nobody comes through")
    proxy.refuse(False)
    with through(proxy) as socket:
        say(socket, 1)
        assert hear(socket) == 1


def test_what_is_stalled_waits_and_comes_when_it_flows(proxy: Proxy) -> None:
    with through(proxy) as socket:
        proxy.stall("down")
        say(socket, 2)
        with pytest.raises(TimeoutError):
            hear(socket, timeout_s=0.2)
        proxy.flow()
        assert hear(socket) == 2


def test_a_stall_upwards_keeps_the_server_from_hearing(proxy: Proxy, server: Server) -> None:
    with through(proxy) as socket:
        before = len(server.log())
        proxy.stall("up")
        say(socket, 3)
        with pytest.raises(TimeoutError):
            hear(socket, timeout_s=0.2)
        assert len(server.log()) == before
        proxy.flow()
        assert hear(socket) == 3


def test_a_delay_keeps_the_order(proxy: Proxy) -> None:
    with through(proxy) as socket:
        proxy.delay(0.05)
        for value in (4, 5, 6):
            say(socket, value)
        assert [hear(socket) for _ in range(3)] == [4, 5, 6]


def test_a_message_said_twice_is_heard_twice(proxy: Proxy, server: Server) -> None:
    with through(proxy) as socket:
        before = len(server.log())
        proxy.repeat(2)
        for value in (7, 8, 9):
            say(socket, value)
        eventually(lambda: len(server.log()) == before + 5, "two of three messages come twice")
    assert [event["value"] for event in server.log()[before:]] == [7, 7, 8, 8, 9]


def test_connections_break_at_the_same_bytes_for_the_same_seed(server: Server) -> None:
    def broken_after(seed: int) -> list[int]:
        heard = []
        with Proxy(server.port, seed=seed, cut_every_bytes=2_000) as proxy:
            for _ in range(3):
                count = 0
                try:
                    with open_websocket(f"ws://127.0.0.1:{proxy.port}/ws?devices=nothing") as socket:
                        while True:
                            socket.send('{"type":"dance"}')
                            socket.recv(timeout=10)
                            count += 1
                except (ConnectionClosed, OSError, InvalidMessage):
                    heard.append(count)
            assert proxy.cuts == 3
        return heard

    assert broken_after(1) == broken_after(1) != broken_after(2)
