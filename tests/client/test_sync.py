"""The client without asyncio."""

import threading

import pytest

from tests.running import free_port
from twincast.client import Change
from twincast.client.sync import connect
from twincast.errors import ServerUnreachable, ValidationFailed
from twincast.testing import Server, assert_converged, eventually


def test_it_publishes_watches_and_reads_its_own_writes(twincast_server: Server) -> None:
    with connect(twincast_server.url) as hub:
        watching = hub.watch("lamp", mode="every")
        assert hub.publish("lamp", 1) == 1
        assert hub.publish_many([("lamp", 2), ("door", 3), ("lamp", 4)]) == [2, 3, 4]
        assert [next(watching).value for _ in range(3)] == [1, 2, 4]
        hub.reached(4)
        assert hub.state["door"].value == 3
        assert hub.position and hub.position.seq == 4 and hub.is_connected
        assert_converged(twincast_server, hub)


def test_a_watch_ends_when_nothing_comes_and_may_be_followed_by_another(twincast_server: Server) -> None:
    with connect(twincast_server.url) as hub:
        hub.publish("lamp", 1)
        assert [change.value for change in hub.watch(initial=True, timeout_s=0.2)] == [1]
        assert [change.value for change in hub.watch(initial=True, timeout_s=0.2)] == [1]


def test_commands_call_back_in_a_thread_of_the_client(twincast_server: Server) -> None:
    called: list[tuple[str, bool]] = []
    with connect(twincast_server.url) as hub:

        @hub.on_command("fan")
        def obey(change: Change) -> None:
            called.append((change.command, threading.current_thread() is threading.main_thread()))

        def told() -> list[tuple[str, bool]]:
            hub.control("fan", "start")
            return called

        eventually(told, "the callback is called")
    assert called[0] == ("start", False)


def test_errors_are_raised_where_they_belong(twincast_server: Server) -> None:
    with connect(twincast_server.url) as hub:
        with pytest.raises(ValidationFailed):
            hub.publish("", 1)
        assert hub.publish("lamp", 1) == 1
    with pytest.raises(ServerUnreachable, match="nobody answers"), connect(f"127.0.0.1:{free_port()}", timeout_s=0):
        raise AssertionError("nobody is there")
    assert not [thread for thread in threading.enumerate() if thread.name == "twincast client"]
