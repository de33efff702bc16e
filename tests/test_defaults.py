"""Every command as it comes, with no option, against an open server, one with a login, and one with a login over TLS.

What no test leaves out is what nobody tries: a default that cannot work.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests import warm
from tests.credentials import add_key, certificate
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually
from twincast.cli import main
from twincast.testing import Server

SERVERS = ("open", "login", "login over TLS")
ENDING = {
    "send": (["lab/lamp", "21.5"], ""),
    "send lines": (["lab/lamp", "-"], "1\n2\n"),
    "control": (["lab/fan", "start"], ""),
    "status": ([], ""),
    "get": ([], ""),
    "history": (["lab/old"], ""),
    "audit": ([], ""),
    "keys add": (["lab/gateway", "--may", "publish"], ""),
    "pair": (["lab/fan", "--may", "publish"], ""),
    "join": ([], ""),
    "keys list": ([], ""),
    "keys revoke": (["lab/old"], ""),
    "keys clear": ([], "y\n"),
    "delete": (["lab/old"], ""),
    "journal check": ([], ""),
    "journal info": ([], ""),
    "journal backup": (["backup"], ""),
    "journal restore": (["backup"], ""),
    "journal compact": ([], ""),
}
"""The commands that end by themselves: what they cannot do without, and what they are told."""
ENDLESS = {"watch": "lab/lamp", "host": "", "simulate": ""}
"""Those that do not, and a word of what they print to a pipe."""
ELSEWHERE = {
    "serve": "tests/cli/test_serve.py and all tests that run a server",
    "journal move": "tests/journal/jetstream/test_move_in.py and test_move_out.py, for it takes two places",
    "journal fetch": "tests/stories/test_fetch.py, for it takes another server",
}
SERVERLESS = {"journal restore", "journal compact"}
"""What is refused while a server runs on the journal."""


class Place:
    """A server, and the environment in which commands find it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.folder = folder
        self.kind = kind
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TWINCAST_")},
            "TWINCAST_JOURNAL": f"sqlite:{self.path}",
            "PYTHONUNBUFFERED": "1",
        }
        if kind != "open":
            rights: Any = {action: ["*"] for action in ("publish", "read", "command", "admin")}
            self.environment["TWINCAST_TOKEN"] = add_key(self.path, "me", **rights)
            add_key(self.path, "lab/old", read=["*"])

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "twincast", *words]

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return warm.run(
            self.command(*words),
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )


@pytest.fixture(scope="module", params=SERVERS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    place = Place(request.param, folder)
    settings: Any = {}
    if place.kind == "login over TLS":
        cert, key = certificate(folder)
        settings = {"tls_cert": str(cert), "tls_key": str(key)}
        place.environment["SSL_CERT_FILE"] = str(cert)
    with Server(f"sqlite:{place.path}", **settings) as server:
        place.environment["TWINCAST_URL"] = server.url.replace("127.0.0.1", "localhost")
        yield place


@pytest.mark.parametrize("name", [name for name in ENDING if name not in SERVERLESS])
def test_a_command_without_options_does_what_it_is_for(place: Place, name: str) -> None:
    if name == "keys clear":
        pytest.skip("it would open the server that the others need; tests/cli/test_keys.py has it")
    if name == "keys revoke" and place.kind == "open":
        pytest.skip("an open server has no keys")
    if name == "keys add" and place.kind == "open":
        pytest.skip("the first key would close the server that the others need; tests/cli/test_keys.py has it")
    if name == "join" and place.kind == "open":
        pytest.skip("the first key would close the server that the others need; tests/cli/test_pair.py has it")
    if name in {"delete", "get", "history"}:
        assert place.run("send", "lab/old", "1").returncode == 0
    words, stdin = ENDING[name]
    if name == "join":
        code = place.run("pair", "lab/new", "--may", "publish").stdout.strip()
        words = [place.environment["TWINCAST_URL"], code]
    ran = place.run(*name.removesuffix(" lines").split(), *words, stdin=stdin)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), (ran.stdout, ran.stderr)


@pytest.mark.parametrize("name", ENDLESS)
def test_a_command_that_goes_on_is_connected_without_options(place: Place, name: str) -> None:
    command = warm.Popen(
        place.command(name),
        env=place.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if name == "watch":
            feeder = warm.Popen(place.command("simulate"), env=place.environment, stdout=subprocess.DEVNULL)
            try:
                assert command.stdout is not None
                assert json.loads(command.stdout.readline())["type"] == "data_update"
            finally:
                feeder.kill()
                feeder.wait()
        else:
            known = "host/" if name == "host" else "town/"
            watcher = warm.Popen(
                place.command("watch", f"{known}*"), env=place.environment, stdout=subprocess.PIPE, text=True
            )
            try:
                assert watcher.stdout is not None
                assert json.loads(watcher.stdout.readline())["device_id"].startswith(known)
            finally:
                watcher.kill()
                watcher.communicate()
        assert command.poll() is None
    finally:
        command.kill()
        command.communicate()


def test_every_command_is_tried_here() -> None:
    tried = {name.removesuffix(" lines") for name in ENDING} | set(ENDLESS) | set(ELSEWHERE)
    group = typer.main.get_command(main.app)
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        names |= {f"{name} {inner}" for inner in command.commands} if hasattr(command, "commands") else {name}
    assert names == tried


def test_what_comes_to_lie_in_a_checkout_is_not_committed_with_it(tmp_path: Path) -> None:
    """The first command of the README serves from the checkout, and a key or a token there is nobody else's."""
    server = ServerProcess(f"sqlite:{tmp_path}/twincast.db", TWINCAST_SELF_SIGNED="1", TWINCAST_PARTITION_ENTRIES="0")
    try:
        eventually((tmp_path / "twincast.db-place").exists, "the server")
        left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    finally:
        server.kill()
    assert {"twincast.db-tls-key.pem", "twincast.db-reserve", "twincast.db-wal"} <= left
    others = {
        ".env",
        "fan.cursor",
        "fan.cursor.lock",
        "outbox.db",
        "outbox.db.lock",
        "twincast.db-workers/nats/nats.conf",
    }
    command = ["git", "check-ignore", "--no-index", *sorted(left | others)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(ran.stdout.split()) == left | others
