"""The client without asyncio."""

import gc
import os
import threading
from pathlib import Path

import pytest

from tests.running import eventually, free_port
from twincast.client import Command, Event, Link
from twincast.client.sync import Client, connect
from twincast.errors import ServerUnreachable, ValidationFailed
from twincast.testing import Proxy, Server, assert_converged


def test_it_publishes_watches_and_reads_its_own_writes(twincast_server: Server) -> None:
    with connect(twincast_server.url) as client:
        watching = client.watch("lamp", mode="every")
        assert client.publish("lamp", 1) == 1
        assert client.publish_many([("lamp", 2), ("door", 3), ("lamp", 4)]) == [2, 3, 4]
        assert [next(watching).value for _ in range(3)] == [1, 2, 4]
        client.reached(4)
        assert client.state["door"].value == 3
        assert client.position and client.position.seq == 4 and client.is_connected
        assert_converged(twincast_server, client)


def test_a_watch_ends_when_nothing_comes_and_may_be_followed_by_another(twincast_server: Server) -> None:
    with connect(twincast_server.url) as client:
        client.publish("lamp", 1)
        for _ in range(2):
            assert [event.value for event in client.watch(initial=True, timeout_s=1.0)] == [1]


def test_commands_call_back_in_a_thread_of_the_client(twincast_server: Server) -> None:
    called: list[tuple[str, bool]] = []
    with connect(twincast_server.url) as client:

        @client.on_command("fan")
        def obey(event: Event) -> None:
            called.append((event.command, threading.current_thread() is threading.main_thread()))

        client.control("fan", "start")
        eventually(lambda: called, "the callback is called")
    assert called == [("start", False)]


def test_the_end_waits_for_a_callback_that_returns_and_does_not_call_it_for_that_command_again(
    twincast_server: Server, tmp_path: Path
) -> None:
    """The thread has done its work, and returns while the client ends already."""
    may_return, obeyed = threading.Event(), list[str]()

    def obey(command: Command) -> None:
        obeyed.append(command.command)
        with connect(twincast_server.url, devices=()) as other:
            other.publish("fan", command.command)
        may_return.wait()

    def run(name: str) -> None:
        may_return.clear()
        ending = threading.Timer(0.1, may_return.set)
        with connect(twincast_server.url, cursor=tmp_path / "cursor") as client:
            client.on_command("fan", obey)
            client.control("fan", name)
            eventually(lambda: obeyed[-1:] == [name], "it is called")
            ending.start()
        ending.join()

    run("first")
    run("second")
    assert obeyed == ["first", "second"]


def test_a_callback_may_end_itself(twincast_server: Server, tmp_path: Path) -> None:
    has_ended, obeyed = threading.Event(), list[str]()

    def obey(command: Command) -> None:
        obeyed.append(command.command)
        listening.end()
        has_ended.set()

    for name in ("first", "second"):
        has_ended.clear()
        with connect(twincast_server.url, cursor=tmp_path / "cursor") as client:
            listening = client.on_command("fan", obey)
            client.control("fan", name)
            assert has_ended.wait(10)
    assert obeyed == ["first", "second"]


def test_errors_are_raised_where_they_belong(twincast_server: Server) -> None:
    with connect(twincast_server.url) as client:
        with pytest.raises(ValidationFailed):
            client.publish("", 1)
        assert client.publish("lamp", 1) == 1
    with pytest.raises(ServerUnreachable, match="nobody answers"), connect(f"127.0.0.1:{free_port()}", timeout_s=0):
        raise AssertionError("nobody is there")
    assert not [thread for thread in threading.enumerate() if thread.name == "twincast client"]


def test_in_a_forked_child_it_raises_and_ends(twincast_server: Server) -> None:
    with connect(twincast_server.url) as client:
        client.publish("lamp", 1)
        child = os.fork()
        if child == 0:  # nothing of the test may go on here
            try:
                client.publish("lamp", 2)
            except RuntimeError as error:
                os._exit(0 if "forked" in str(error) else 1)
            finally:
                os._exit(2)
        ended: list[int] = []

        def has_ended() -> bool:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended.append(os.waitstatus_to_exitcode(status))
            return bool(pid)

        eventually(has_ended, "the child ends")
        assert ended == [0]
        assert client.publish("lamp", 3) == 2


def test_what_would_wait_for_itself_raises_and_a_closed_client_says_so(twincast_server: Server) -> None:
    raised: list[BaseException] = []
    hubs: list[Client] = []

    def on_link(link: Link) -> None:
        for client in hubs:
            try:
                client.publish("lamp", 1)
            except RuntimeError as error:
                raised.append(error)

    with Proxy(twincast_server.port) as proxy, connect(proxy.url, on_link=on_link, wait_max_s=0.1) as client:
        hubs.append(client)
        proxy.cut()
        eventually(lambda: raised, "the callback is called")
    assert "for ever" in str(raised[0])
    with pytest.raises(ServerUnreachable, match="closed"):
        client.publish("lamp", 1)


def test_a_client_that_nobody_holds_any_more_ends_by_itself(twincast_server: Server) -> None:
    client = connect(twincast_server.url).__enter__()
    assert client.publish("lamp", 1) == 1
    del client
    gc.collect()
    eventually(lambda: not any(t.name == "twincast client" for t in threading.enumerate()), "its thread ends")
