"""The documents tell the truth: every command of the README is run, every link leads somewhere."""

import asyncio
import os
import re
import signal
import ssl
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from tests.credentials import bearer, certificate
from tests.running import DEADLINE_S, ROOT, eventually, free_port

README, API = (ROOT / "README.md").read_text(), (ROOT / "docs" / "api.md").read_text()
INSTALL_DEADLINE_S = 240.0
SERVE, TEST, RELOAD = "scripts/serve", "scripts/test", "uvicorn main:app --reload"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README + API, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line]
# Commands that do not end by themselves, and how one sees that they do what they are for.
ENDLESS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "twincast host": lambda twins: any(name.startswith("host/") for name in twins),
    "twincast simulate --devices 20 --rate 50": lambda twins: "office/thermometer/001" in twins,
    "twincast watch 'town/*'": lambda twins: True,
}

EXPOSED = [command for command in COMMANDS if command.startswith("twincast keys") or "--tls-cert" in command]
"""Those that make a server one that others may reach; they are a story of their own."""
STREAM = "curl -N -H 'Accept: text/event-stream' 'http://127.0.0.1:8000/api/events?devices=lab/*'"


class Shell:
    """What a reader of the README sits at: a terminal in the checkout, with ports and journal of this test's own."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            **{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
            "TWINCAST_PORT": str(self.port),
            "TWINCAST_URL": self.url,
            "TWINCAST_JOURNAL": f"sqlite:{directory / 'journal.db'}",
        }

    def start(self, command: str, **env: str) -> subprocess.Popen[str]:
        goes_on = command in {SERVE, STREAM, *ENDLESS} or command.startswith(RELOAD)
        line = f"exec {command}" if goes_on else command  # or a shell would stand between Ctrl-C and the command
        if not command.startswith("scripts/"):
            line = f". .venv/bin/activate && {line}"
        if command.startswith("python device_"):
            line += f" --url {self.url}"
        return subprocess.Popen(
            line.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"),
            shell=True,
            cwd=ROOT,
            env={**self._env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """Run a command to its end; it must succeed."""
        process = self.start(command)
        printed, _ = process.communicate(timeout=INSTALL_DEADLINE_S)
        assert process.returncode == 0, f"{command}\n{printed}"
        return printed

    def interrupt(self, process: subprocess.Popen[str]) -> str:
        """Press Ctrl-C, as a terminal does: the signal goes to all that the command started."""
        os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=DEADLINE_S)
        return printed

    def answers(self, path: str, url: str = "") -> Any:
        try:
            return requests.get((url or self.url) + path, timeout=DEADLINE_S).json()
        except requests.ConnectionError:
            return None


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Start the server with the README's first command, and stop it with Ctrl-C at the end."""
    shell = Shell(tmp_path_factory.mktemp("readme"))
    server = shell.start(SERVE)
    eventually(
        lambda: server.poll() is not None or shell.answers("/api/status"), "scripts/serve answers", INSTALL_DEADLINE_S
    )
    assert server.poll() is None, server.communicate()[0]
    yield shell
    printed = shell.interrupt(server)
    assert f"{shell.url}/dashboard" in printed
    assert server.returncode == 0, printed


def test_the_readme_is_as_long_as_a_person_reads() -> None:
    assert len(README.splitlines()) <= 150


def test_the_first_screen_has_the_two_commands_and_a_picture() -> None:
    assert COMMANDS[:2] == [SERVE, TEST]
    assert README.index("](docs/images/dashboard-light.png)") < README.index("## What it is for")


def test_the_commands_of_the_readme_succeed_one_after_the_other(shell: Shell) -> None:
    """One test, for some print what those before them have sent, and each worker of a test run has its own server."""
    ending = [c for c in COMMANDS if c not in {SERVE, STREAM, *ENDLESS, *EXPOSED} and not c.startswith((TEST, RELOAD))]
    assert any(command.startswith("curl") for command in ending)
    for command in ending:
        printed = shell.run(command)
        if command.startswith("curl"):
            assert '"lab/thermometer"' in printed, command


def test_a_server_that_others_reach_is_made_as_the_readme_says(tmp_path: Path) -> None:
    *adding, serving = EXPOSED
    shell = Shell(tmp_path)
    secrets = [shell.run(command).splitlines()[-1] for command in adding]
    assert len(secrets) == 2 and all(secret.startswith("twc_") for secret in secrets)
    cert, key = certificate(tmp_path)
    command = serving.replace("cert.pem", str(cert)).replace("key.pem", str(key)).replace("0.0.0.0", "127.0.0.1")
    server = shell.start(f"exec {command}")
    url = shell.url.replace("http:", "https:")
    trusting = ssl.create_default_context(cafile=str(cert))
    with httpx.Client(base_url=url, verify=trusting, headers={"Host": "twin.example.org"}) as http:
        eventually(lambda: answers(http), "the server answers")
        assert http.get("/api/data").status_code == 401
        for secret in secrets:
            assert http.get("/api/data", headers=bearer(secret)).status_code == 200
    shell.interrupt(server)


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/dashboard").is_success
    except httpx.TransportError:
        return False


def test_the_stream_shows_the_state_and_then_what_comes(shell: Shell) -> None:
    assert STREAM in COMMANDS
    process = shell.start(STREAM)
    assert process.stdout is not None
    assert any('"hello"' in line for line in process.stdout)
    shell.run(next(command for command in COMMANDS if command.startswith("twincast send lab/")))
    assert any('"device_id":"lab/thermometer"' in line for line in process.stdout)
    shell.interrupt(process)


@pytest.mark.parametrize("command", ENDLESS)
def test_a_command_that_goes_on_does_what_it_says_until_it_is_interrupted(shell: Shell, command: str) -> None:
    assert command in COMMANDS
    clients = shell.answers("/api/status")["websocket_clients_connected"]
    process = shell.start(command)
    eventually(
        lambda: (
            shell.answers("/api/status")["websocket_clients_connected"] > clients
            and ENDLESS[command](shell.answers("/api/data")["data"])
        ),
        f"{command} is at work",
    )
    printed = shell.interrupt(process)
    assert process.returncode == 0, printed
    assert "Traceback" not in printed


def test_the_test_command_collects_every_test(shell: Shell) -> None:
    """All of it would run this test again, without end; and every worker would collect the same."""
    collected = shell.run(f"{TEST} --collect-only -q --numprocesses 0")
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert path.relative_to(ROOT).as_posix() in collected


def test_plain_uvicorn_serves_as_the_readme_says(shell: Shell) -> None:
    (command,) = [command for command in COMMANDS if command.startswith(RELOAD)]
    port = free_port()
    process = shell.start(command.replace("--port 8000", f"--port {port}"), TWINCAST_JOURNAL="memory:")
    status = eventually(lambda: shell.answers("/api/status", f"http://127.0.0.1:{port}"), "uvicorn answers")
    assert (status["ok"], status["edge"], status["journal"]) == (True, "portable", "memory:")
    shell.interrupt(process)


async def test_the_python_example_runs(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    assert "http://127.0.0.1:8000" in code
    program: dict[str, Any] = {}
    body = textwrap.indent(code.replace("http://127.0.0.1:8000", shell.url), "    ")
    exec(f"async def example():\n{body}", program)
    example = asyncio.create_task(program["example"]())
    printed = ""
    async with asyncio.timeout(DEADLINE_S):
        while "lab/thermometer 21.5" not in printed:
            assert not example.done(), await example
            await asyncio.sleep(0.02)
            printed += capsys.readouterr().out
    example.cancel()
    await asyncio.wait([example])


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("*.md"))])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    check_links(ROOT / page)


@pytest.mark.parametrize("page", [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/*.md"))])
def test_the_links_of_a_document_lead_somewhere(page: str) -> None:
    check_links(ROOT / page)


def check_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_setting_is_documented_with_its_default() -> None:
    from twincast.settings import Settings  # noqa: PLC0415

    text = (ROOT / "docs" / "command-line.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"TWINCAST_{name.upper()}" in text, name
        if isinstance(field.default, int) and field.default > 10_000:
            assert f"{field.default:,}" in text, name


def test_the_rooms_of_the_architecture_page_are_those_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = {
        path.name for path in (ROOT / "twincast").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    named = set(re.findall(r"^\| `([\w.]+?)/?` \|", text, re.MULTILINE))
    assert rooms - {"__init__.py", "__main__.py"} <= named
