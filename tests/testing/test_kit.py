"""The kit that users test with: the server, its clock, the waits, the fixtures."""

import asyncio
import json
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from websockets.asyncio.client import connect as open_websocket_async
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.sync.client import connect as open_websocket

from twincast.client import Rest, connect
from twincast.errors import JournalUnusable, ValidationFailed
from twincast.testing import Clock, Server, assert_converged, assert_converged_async, eventually, eventually_async

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("edge", ["picows", "portable"])
def test_a_server_serves_everything_on_a_free_port(edge: str) -> None:
    with Server(edge=edge) as server, Rest(server.url) as rest:
        assert rest.publish("lamp", {"on": True})["seq"] == 1
        assert rest.status()["edge"] == edge
        with open_websocket(server.ws_url) as socket:
            assert json.loads(socket.recv(timeout=10))["data_snapshot"]["lamp"]["value"] == {"on": True}
        assert server.state["lamp"].value == {"on": True}
        assert [(event["device_id"], event["seq"]) for event in server.log()] == [("lamp", 1)]


def test_a_restarted_server_is_at_the_same_address_with_what_its_journal_has(tmp_path: Path) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server, Rest(server.url) as rest:
        rest.publish("lamp", 1)
        before = rest.status()
        server.restart()
        after = rest.status()
        log, _, _ = before["epoch"].partition("-")
        assert (after["epoch"].partition("-")[0], after["seq"]) == (log, 1)
        assert after["epoch"] != before["epoch"], "each run has a generation of its own"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep no port for a socket that does not listen")
def test_a_server_that_is_stopped_has_its_port_for_itself_and_answers_nobody() -> None:
    with Server() as server:
        server.stop()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        port = server.port
        server.start()
        assert server.port == port and requests.get(f"{server.url}/readyz", timeout=10).ok


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match="cannot be opened"):
        Server(f"sqlite:{tmp_path / 'nowhere' / 'journal.db'}")


def test_what_a_stopped_server_holds_is_asked_of_nobody() -> None:
    with Server() as server:
        server.stop()
        with pytest.raises(RuntimeError, match="the server is stopped"):
            server.log()
        with pytest.raises(RuntimeError, match="the server is stopped"):
            _ = server.state
        server.start()
        assert server.log() == []


@pytest.mark.parametrize("edge", ["picows", "portable"])
def test_a_key_that_is_added_is_let_in_and_one_that_is_revoked_is_out(tmp_path: Path, edge: str) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}", edge=edge) as server:
        first, second = server.add_key(publish=["*"]), server.add_key("second", read=["lab/*"])
        with Rest(server.url, token=first) as rest:
            rest.publish("lab/lamp", 1)
        headers = {"Authorization": f"Bearer {second}"}
        with open_websocket(server.ws_url, additional_headers=headers) as socket:
            assert list(json.loads(socket.recv(timeout=10))["data_snapshot"]) == ["lab/lamp"]
            server.revoke_key("second")
            assert requests.get(f"{server.url}/api/status", headers=headers, timeout=10).status_code == 401
            with pytest.raises(ConnectionClosed) as ended:
                socket.recv(timeout=10)
            assert ended.value.rcvd is not None and ended.value.rcvd.code == 4502
        with pytest.raises(ValidationFailed, match="no key in use"):
            server.revoke_key("second")


def test_a_stopped_server_knows_the_keys_that_were_added_when_it_starts(tmp_path: Path) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        server.stop()
        token = server.add_key(read=["*"])
        server.start()
        assert requests.get(f"{server.url}/api/status", timeout=10).status_code == 401
        with Rest(server.url, token=token) as rest:
            assert rest.data()["data"] == {}


def test_a_journal_in_memory_keeps_no_keys() -> None:
    with Server() as server, pytest.raises(JournalUnusable, match="keeps no keys"):
        server.add_key(read=["*"])


async def test_a_server_that_ends_says_goodbye_to_clients_in_the_loop_of_the_test() -> None:
    async with Server() as server:
        socket = await open_websocket_async(server.ws_url)
        assert socket.state is State.OPEN
    assert socket.state is not State.OPEN
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            await socket.recv()
    assert ended.value.rcvd is not None and ended.value.rcvd.code == 1012


def test_a_server_stops_while_somebody_streams() -> None:
    accept = {"Accept": "text/event-stream"}
    with Server() as server:
        lines = requests.get(f"{server.url}/api/events", headers=accept, stream=True, timeout=10).iter_lines()
        assert next(lines) == b"retry: 2000"
        server.stop()
        assert any(b'"hello"' in line for line in lines)


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = Clock("2026-05-01T12:00:00+02:00")
    with Server(clock=clock) as server, Rest(server.url) as rest:
        assert rest.publish("lamp", 1)["timestamp_utc"] == "2026-05-01T10:00:00.000000+00:00"
        clock.advance(90.5)
        assert rest.publish("lamp", 2)["timestamp_utc"] == "2026-05-01T10:01:30.500000+00:00"
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)


def test_a_wait_returns_what_came_or_says_what_did_not() -> None:
    seen = iter([0, 0, 7])
    assert eventually(lambda: next(seen), "a number") == 7
    with pytest.raises(AssertionError, match=r"waited 0\.05 s in vain: the moon; the last was ''"):
        eventually(lambda: "", "the moon", deadline_s=0.05)


async def test_a_wait_lets_other_tasks_go_on() -> None:
    done = asyncio.Event()
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(lambda _: done.set())
    assert await eventually_async(done.is_set, "the other task")
    with pytest.raises(AssertionError, match="in vain: the moon"):
        await eventually_async(lambda: False, "the moon", deadline_s=0.05)


async def test_clients_converge_or_the_difference_is_told() -> None:
    async with Server() as server, connect(server.url) as first, connect(server.url) as second:
        seq = await first.publish("lamp", "on")
        await assert_converged_async(server, first, second)
        assert_converged(server, server, first.state, {"lamp": "on"})
        twin = server.state["lamp"]
        liar = SimpleNamespace(state={"lamp": SimpleNamespace(seq=seq, value="off"), "ghost": twin})
        words = (
            "not the same after 0.05 s: client 2 has 'on' (seq 1) for 'ghost', the server nothing;"
            " client 2 has 'off' (seq 1) for 'lamp', the server 'on' (seq 1)"
        )
        with pytest.raises(AssertionError, match=f"^{re.escape(words)}$"):
            assert_converged(server, first, liar, deadline_s=0.05)
        with pytest.raises(AssertionError, match=f"^{re.escape(words)}$"):
            await assert_converged_async(server, first, liar, deadline_s=0.05)
        with pytest.raises(AssertionError, match=r"client 1 has nothing for 'lamp', the server 'on'$"):
            assert_converged(server, {}, deadline_s=0.05)


def test_of_many_differences_the_first_are_told_and_the_others_counted() -> None:
    with Server() as server, pytest.raises(AssertionError, match=r"'4', the server nothing; and 2 more$"):
        assert_converged(server, {str(number): number for number in range(7)}, deadline_s=0.05)


def test_the_fixtures_are_there_in_a_project_of_ones_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import requests

        def test_a_device(twincast_server, twincast_clock, twincast_proxy):
            twincast_clock.advance(60)
            body = {"device_id": "lamp", "value": 1}
            event = requests.post(f"{twincast_proxy.url}/api/data", json=body, timeout=10).json()["event"]
            assert event["timestamp_utc"] == "2026-01-01T00:01:00.000000+00:00"
            assert twincast_server.state["lamp"].value == 1
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
