"""Server, client and commands on macOS and Windows, as far as this system can pretend to be them: see elsewhere.py."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.elsewhere import HIDDEN, STATUS, THEN
from tests.running import DEADLINE_S, ROOT, eventually, free_port

CURSOR = """
import asyncio, sys
from twincast.client import Rest, connect

watched = []

async def watch(until):
    async with (
        connect(sys.argv[4], cursor="device.cursor", spool="outbox.db") as client,
        client.watch("lab/*") as events,
    ):
        if until == "on":
            await client.publish("lab/fan", "on")
        async for event in events:
            watched.append(event.value)
            if event.value == until:
                return

asyncio.run(watch("on"))
with Rest(sys.argv[4]) as rest:
    rest.publish("lab/fan", "off")
asyncio.run(watch("off"))
print(watched[-1])
"""


class Elsewhere:
    """A folder on another system, with a server in it."""

    def __init__(self, system: str, folder: Path) -> None:
        self._system = system
        self.edge = "portable" if "picows" in HIDDEN[system] else "picows"
        self._folder = folder
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        self.url = f"http://127.0.0.1:{free_port()}"

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.elsewhere", self._system, *words],
            cwd=self._folder,
            env={**self._env, "TWINCAST_URL": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *commands: str) -> list[tuple[str, str]]:
        """Run commands, one after another in one process; return what each printed, and its status."""
        words = [word for command in commands for word in (*command.split(), THEN)][:-1]
        printed, _ = self.start(*words).communicate(timeout=2 * DEADLINE_S)
        assert "Traceback" not in printed, printed
        *parts, rest = printed.split(STATUS)
        said, statuses = [parts[0]], []
        for part in (*parts[1:], rest):
            status, _, more = part.partition("\n")
            statuses.append(status)
            said.append(more)
        return list(zip(said, statuses, strict=False))

    def serve(self) -> subprocess.Popen[str]:
        server = self.start("serve", "--port", self.url.rpartition(":")[2])

        def answers() -> bool:
            assert server.poll() is None, server.communicate()[0]
            try:
                return httpx.get(f"{self.url}/readyz").is_success
            except httpx.HTTPError:
                return False

        eventually(answers, "the server is ready", 2 * DEADLINE_S)
        return server


@pytest.fixture(params=sorted(HIDDEN))
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Elsewhere]:
    """Each of the other systems."""
    yield Elsewhere(request.param, tmp_path)


def interrupted(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C, and return what a process printed; it ends well."""
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=DEADLINE_S)
    assert f"{STATUS}0" in printed and "Traceback" not in printed, printed
    return printed


def test_server_client_and_commands_work_there(elsewhere: Elsewhere, tmp_path: Path) -> None:
    server = elsewhere.serve()
    watching = elsewhere.start("watch")
    eventually(lambda: httpx.get(f"{elsewhere.url}/api/status").json()["websocket_clients_connected"], "it is watched")
    _speak(elsewhere)
    assert '"type":"data_update"' in interrupted(watching)
    _remember(elsewhere)
    _keep_keys(elsewhere)
    interrupted(server)
    assert not (tmp_path / "twincast.db-wal").exists(), "it ended in order"
    said = elsewhere.run("journal backup copy", "journal check copy", "journal check", "journal info --json")
    assert [status for _, status in said] == ["0"] * 4, said
    assert json.loads(said[3][0].splitlines()[-1])["newest_seq"] >= 4


def _speak(elsewhere: Elsewhere) -> None:
    said = elsewhere.run(
        "send lab/lamp 21.5",
        "get lab/lamp",
        "status --json",
        "control lab/fan on",
        "host --count 1 --interval 0.1",
        "simulate --devices 2 --seconds 0.2",
    )
    assert [status for _, status in said] == ["0"] * 6, said
    assert said[1][0].strip() == "21.5"
    assert json.loads(said[2][0])["edge"] == elsewhere.edge


def _remember(elsewhere: Elsewhere) -> None:
    """A client goes on where its last process was."""
    printed, _ = elsewhere.start("-c", CURSOR, elsewhere.url).communicate(timeout=2 * DEADLINE_S)
    assert "Traceback" not in printed and printed.splitlines()[-1] == "off", printed


def _keep_keys(elsewhere: Elsewhere) -> None:
    said = elsewhere.run("serve --port 0", "keys add me --may publish,read", "keys list", "audit --json")
    assert [status for _, status in said] == ["1", "0", "0", "0"], said
    assert "is in use by another server" in said[0][0]
    assert "A server runs on" in said[1][0] and "it is in force" in said[1][0]
    assert [json.loads(line)["action"] for line in said[3][0].splitlines()] == ["command", "keys add"]
