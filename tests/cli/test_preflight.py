"""What the commands say without the right to what they are for: at once, in one line, with a status."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests import warm
from tests.cli.commands import screen_until
from tests.credentials import bearer
from tests.running import DEADLINE_S, ROOT, eventually
from twincast.testing import Server

TWINCAST = (sys.executable, "-m", "twincast")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path_factory.mktemp('rights') / 'journal.db'}") as server:
        server.add_key("everything", publish=["*"], read=["*"])
        yield server


@pytest.fixture(scope="module")
def reader(server: Server) -> str:
    return server.add_key("reader", read=["lab/*"])


@pytest.fixture(scope="module")
def writer(server: Server) -> str:
    return server.add_key("writer", publish=["lab/*"])


def environment(server: Server, secret: str) -> dict[str, str]:
    return {**os.environ, "TWINCAST_URL": server.url, "TWINCAST_TOKEN": secret}


def clients(server: Server, secret: str) -> object:
    return httpx.get(f"{server.url}/api/status", headers=bearer(secret)).json()["websocket_clients_connected"]


def assert_refused(server: Server, secret: str, right: str, *words: str) -> None:
    with warm.Popen(
        [*TWINCAST, *words],
        env=environment(server, secret),
        cwd=ROOT,
        stdin=subprocess.PIPE,  # which stays open: nobody has to type a line first
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        printed, said = command.stdout.read(), command.stderr.read()
        assert command.wait(DEADLINE_S) == 1, (printed, said)
    *_, last = said.splitlines()
    assert last.startswith("twincast: key:") and f"has no right to {right}" in last, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "--devices", "5"),
        ("simulate", "--seconds", "0.1"),
        ("host", "--interval", "0.05"),
        ("send", "lab/x", "1"),
        ("send", "lab/x", "-"),
        ("delete", "lab/x"),
    ],
    ids=" ".join,
)
def test_without_the_right_to_publish(server: Server, reader: str, words: tuple[str, ...]) -> None:
    assert_refused(server, reader, "publish", *words)


def test_without_the_right_to_publish_this_device(server: Server, writer: str) -> None:
    assert_refused(server, writer, "publish 'hall/x'", "send", "hall/x", "-")
    assert_refused(server, writer, "publish", "simulate")  # its fleet is elsewhere


def test_without_the_right_to_command(server: Server, reader: str) -> None:
    assert_refused(server, reader, "command 'lab/fan'", "control", "lab/fan", "stop")


def test_without_the_right_to_read(server: Server, writer: str, reader: str) -> None:
    assert_refused(server, writer, "read", "watch")
    assert_refused(server, reader, "read 'hall/*', 'door'", "watch", "hall/*", "door")


def test_without_the_right_to_read_in_a_terminal(server: Server, writer: str) -> None:
    ours, theirs = pty.openpty()
    command = warm.Popen(
        [*TWINCAST, "watch"], env=environment(server, writer), cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        assert "has no right to read" in screen_until(ours, None)
        assert command.wait(DEADLINE_S) == 1
    finally:
        command.kill()
        command.wait()
        os.close(ours)


def test_a_right_to_some_of_what_is_watched_is_enough(server: Server, reader: str, writer: str) -> None:
    with warm.Popen(
        [*TWINCAST, "watch", "hall/*", "*/fan"], env=environment(server, reader), cwd=ROOT, stdout=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        eventually(lambda: clients(server, reader) == 1, "watch is connected")
        httpx.post(
            f"{server.url}/api/data", json={"device_id": "lab/fan", "value": 1}, headers=bearer(writer)
        ).raise_for_status()
        assert b'"lab/fan"' in command.stdout.readline()
        command.kill()
