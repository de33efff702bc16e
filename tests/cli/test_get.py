"""`twincast get`, as a person and a script run it."""

import fcntl
import json
import os
import pty
import ssl
import struct
import sys
import termios
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests import warm
from tests.cli.commands import run, screen_until
from tests.credentials import certificate
from tests.running import DEADLINE_S, ROOT, free_port
from twincast.testing import Server

STATE = {"lab/x": 21.5, "lab/[red]é": "on", "hall/fan": {"rpm": 900, "at": [1, None]}, "*": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        body = ",".join(
            f'{{"device_id":{json.dumps(name)},"value":{json.dumps(value)}}}' for name, value in STATE.items()
        )
        text = f'[{body},{{"device_id":"exact","value":1.50}}]'
        httpx.post(
            f"{server.url}/api/data", content=text, headers={"Content-Type": "application/json"}
        ).raise_for_status()
        yield server


def test_into_a_pipe_it_is_a_json_object_a_line(server: Server) -> None:
    for words in ([], ["--json"], ["*"]):
        told = [json.loads(line) for line in run(server.url, "get", *words).stdout.splitlines()]
        assert {twin["device_id"]: twin["value"] for twin in told} == {**STATE, "exact": 1.5}
        assert set(told[0]) == {"device_id", "value", "updated_at_utc", "seq", "source"}
    told = [json.loads(line) for line in run(server.url, "get", "lab/*", "*/fan").stdout.splitlines()]
    assert {twin["device_id"] for twin in told} == {"lab/x", "lab/[red]é", "hall/fan"}
    (line,) = run(server.url, "get", "--json", "lab/x").stdout.splitlines()
    assert json.loads(line)["device_id"] == "lab/x"


@pytest.mark.parametrize(
    ("name", "value"), [("exact", "1.50"), ("lab/[red]é", '"on"'), (r"\*", "true"), ("lab/x", "21.5")]
)
def test_of_a_device_that_is_named_it_is_the_value_as_it_was_sent(server: Server, name: str, value: str) -> None:
    result = run(server.url, "get", name)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{value}\n", "")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nobody"], "there is no device 'nobody'"),
        (["no*", "nobody"], "there is no device that 'no*' or 'nobody' selects"),
        (["--json", "no*"], "there is no device that 'no*' selects"),
    ],
)
def test_nothing_that_matches_is_one_line_and_status_1(server: Server, words: list[str], part: str) -> None:
    result = run(server.url, "get", *words)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"twincast: {part}\n")


def test_a_server_without_devices_one_that_is_not_there_and_one_that_is_no_server() -> None:
    with Server() as empty:
        assert run(empty.url, "get").stderr == "twincast: there are no devices yet\n"
    result = run(f"http://127.0.0.1:{free_port()}", "get")
    assert result.returncode == 1 and "nobody answers" in result.stderr


def test_it_takes_what_the_key_may_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        monkeypatch.setenv("TWINCAST_TOKEN", server.add_key("reader", read=["lab/*"], publish=["lab/*"]))
        assert run(server.url, "send", "lab/x", "1").returncode == 0
        assert run(server.url, "get", "lab/x").stdout == "1\n"
        assert "there is no device 'hall/x'" in run(server.url, "get", "hall/x").stderr
        monkeypatch.setenv("TWINCAST_TOKEN", server.add_key("writer", publish=["*"]))
        result = run(server.url, "get")
        assert result.returncode == 1 and "has no right to read" in result.stderr


class _Below(BaseHTTPRequestHandler):
    """A proxy's part of the world: a server below a path, which somebody may reach with the right token."""

    def do_GET(self) -> None:
        is_known = self.headers["Authorization"] == "Bearer secret"
        is_there = self.path == "/twin/api/data?devices=lab%2Fx"
        twin = b'{"value":1.50,"updated_at_utc":"","seq":1,"source":"rest"}'
        body = b'{"timestamp_utc":"","epoch":"e","seq":1,"data":{"lab/x":%b}}' % twin
        self.send_response(200 if is_known and is_there else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_it_goes_with_a_token_over_tls_below_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(cert, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    monkeypatch.setenv("TWINCAST_TOKEN", "secret")
    with HTTPServer(("127.0.0.1", 0), _Below) as proxy:
        proxy.socket = trust.wrap_socket(proxy.socket, server_side=True)
        thread = Thread(target=proxy.serve_forever)
        thread.start()
        try:
            result = run(f"https://localhost:{proxy.server_port}/twin/", "get", "lab/x")
        finally:
            proxy.shutdown()
            thread.join()
    assert (result.returncode, result.stdout) == (0, "1.50\n"), result


def test_a_large_state_comes_whole(server: Server) -> None:
    with Server() as large:
        for start in range(0, 20_000, 10_000):
            readings = [
                {"device_id": f"d{n}", "value": {"n": n, "text": "x" * 40}} for n in range(start, start + 10_000)
            ]
            httpx.post(f"{large.url}/api/data", json=readings, timeout=DEADLINE_S).raise_for_status()
        lines = run(large.url, "get").stdout.splitlines()
        assert {json.loads(line)["device_id"] for line in lines} == {f"d{n}" for n in range(20_000)}


@pytest.mark.parametrize("columns", [80, 40])
def test_in_a_terminal_it_is_a_table_by_name(server: Server, columns: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    env = {**clean, "TWINCAST_URL": server.url, "TERM": "xterm", "NO_COLOR": "1"}
    command = warm.Popen(
        [sys.executable, "-m", "twincast", "get"], env=env, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = screen_until(ours, None)
    os.close(ours)
    assert command.wait(DEADLINE_S) == 0
    lines = screen.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert lines[0].split()[:2] == ["Device", "Value"]
    names = [line.split()[0] for line in lines[1:] if line[:1].strip()]
    assert names == sorted(names) and set(names) == {*STATE, "exact"}
    assert all(len(line.rstrip()) <= columns for line in lines)
    assert ("Updated" in lines[0]) is (columns == 80)
