"""A device program as somebody writes it, with a spool and a cursor, over restarts of its server and of itself."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import warm
from tests.running import ROOT, ServerProcess, eventually, free_port
from twincast.client import Rest
from twincast.client.sync import connect

PROGRAM = """
import asyncio, sys
from twincast.client import connect

async def main(url, first):
    async with connect(url, devices=(), spool="outbox.db", cursor="fan.cursor", wait_max_s=0.2) as client:

        @client.on_command("lab/fan")
        async def obey(event):
            await client.publish("lab/fan", event.args["rpm"])

        for number in range(int(first), sys.maxsize):
            await client.publish("lab/thermometer", number)
            print(number, flush=True)
            await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""


class Fan:
    """The program, in a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self.accepted: list[int] = []

    def boot(self) -> None:
        first = str(self.accepted[-1] + 2 if self.accepted else 0)  # one more may have been accepted in its last moment
        env = {"PYTHONPATH": str(ROOT), "PATH": ""}
        self.process = warm.Popen(
            [sys.executable, "-c", PROGRAM, self._url, first],
            cwd=self._folder,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )

    def goes_on(self, count: int = 10) -> None:
        assert self.process.stdout is not None
        for _ in range(count):
            line = self.process.stdout.readline()
            assert line, "the device program has ended"
            self.accepted.append(int(line))

    def loses_power(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.stdout is not None
        self.accepted += [int(line) for line in self.process.stdout if line.endswith("\n")]
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def fan(tmp_path: Path) -> Iterator[Fan]:
    fan = Fan(f"http://127.0.0.1:{free_port()}", tmp_path)
    yield fan
    fan.process.kill()
    fan.process.wait()


def in_log(journal: Path, device_id: str) -> list[int]:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        sql = "select value from log where device_id = ? and type = 'data_update' order by seq"
        return [json.loads(row[0]) for row in db.execute(sql, (device_id,))]


def test_a_device_program_survives_three_restarts_of_server_and_device(fan: Fan, tmp_path: Path) -> None:
    journal, port = tmp_path / "journal.db", int(fan._url.rpartition(":")[2])
    fan.boot()
    fan.goes_on()  # the server has never been there
    server = ServerProcess(f"sqlite:{journal}", port=port).ready()
    eventually(lambda: fan.accepted[-1] in in_log(journal, "lab/thermometer"), "what it has measured is stored")
    eventually((tmp_path / "fan.cursor").exists, "it listens")
    commanded = []
    for restart in range(3):
        fan.loses_power()
        with Rest(fan._url) as rest:
            rest.control("lab/fan", "start", {"rpm": restart})  # while it is off
            commanded.append(restart)
        server.kill()
        fan.boot()
        fan.goes_on()  # while there is no server
        if restart == 1:
            fan.loses_power()
            fan.boot()
            fan.goes_on()
        server = ServerProcess(f"sqlite:{journal}", port=port).ready()
        eventually(lambda: set(commanded) <= set(in_log(journal, "lab/fan")), "what was commanded is obeyed")
        eventually(lambda: fan.accepted[-1] in in_log(journal, "lab/thermometer"), "what was measured is stored")
    fan.loses_power()
    with connect(fan._url, devices=(), spool=tmp_path / "outbox.db") as client:
        client.settle()
    server.stop()
    measured = in_log(journal, "lab/thermometer")
    assert measured == sorted(set(measured)), "each once, in order"
    assert set(fan.accepted) <= set(measured), "all that it accepted"
