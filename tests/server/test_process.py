"""`twincast serve` as a process: how it ends, and what it tells its clients then."""

import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Never

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.credentials import add_key
from tests.raw_websocket import RawWebSocket
from tests.running import DEADLINE_S, ServerProcess
from twincast.errors import AddressUnusable, LoginUnusable
from twincast.server.process import serve
from twincast.settings import Settings

EVERYWHERE = "0.0.0.0"
TLS = {"tls_cert": "missing.pem", "tls_key": "missing.pem"}
A_LOGIN = "twincast keys add NAME --may publish,read,command --devices '*'"
TLS_HERE = "twincast serve ... --tls-cert CERT.pem --tls-key KEY.pem"
TLS_BEFORE = "twincast serve ... --behind-tls-proxy"


def read_to_the_end(server: ServerProcess) -> tuple[list[dict[str, object]], ConnectionClosed]:
    """Connect, stop the server, and return what came and how it ended."""
    messages = []
    with connect(server.ws_url) as client:
        messages.append(json.loads(client.recv(timeout=DEADLINE_S)))
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        try:
            while True:
                messages.append(json.loads(client.recv(timeout=DEADLINE_S)))
        except ConnectionClosed as closed:
            stopping.join()
            return messages, closed


def test_clients_are_told_that_the_server_restarts(server_process: StartServer, edge: str) -> None:
    _, closed = read_to_the_end(server_process("memory:", edge=edge))
    assert closed.rcvd is not None
    assert closed.rcvd.code == 1012


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_stored_and_answered_before_the_end(
    server_process: StartServer, tmp_path: Path, edge: str, how: signal.Signals
) -> None:
    path = tmp_path / "journal.db"
    server = server_process(f"sqlite:{path}", edge=edge)
    acked: set[int] = set()
    with connect(server.ws_url, max_queue=None) as client:
        client.recv(timeout=DEADLINE_S)
        for number in range(2_000):
            client.send(json.dumps({"type": "telemetry", "id": number, "device_id": f"d{number}", "value": number}))
        server.process.send_signal(how)
        try:
            while True:
                message = json.loads(client.recv(timeout=DEADLINE_S))
                if message["type"] == "ack":
                    acked.add(message["id"])
        except ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code == 1012
    server.process.wait(DEADLINE_S)
    again = server_process(f"sqlite:{path}", port=server.port)
    stored = {twin["value"] for twin in again.get("/api/data")["data"].values()}
    assert acked <= stored
    if edge == "picows":  # on the other one uvicorn closes the connections, without asking whose answers are due
        assert stored == acked


def test_a_server_ends_although_a_client_does_not_read_or_close(server_process: StartServer) -> None:
    server = server_process("memory:")
    with (
        RawWebSocket(server.port, receive_buffer_bytes=4_096) as rude,
        socket.create_connection(("127.0.0.1", server.port)),
    ):
        rude.read_message()
        for _ in range(60):
            server.post("/api/data", {"device_id": "d", "value": "x" * 60_000})
        server.stop()
    assert server.process.returncode == 0


def test_requests_that_have_begun_are_answered(server: ServerProcess) -> None:
    answers: list[int] = []

    def post() -> None:
        batch = [{"device_id": f"d{n}", "value": n} for n in range(5_000)]
        try:
            while True:
                answers.append(requests.post(f"{server.url}/api/data", json=batch, timeout=DEADLINE_S).status_code)
        except requests.ConnectionError:
            return  # nobody listens any more

    posting = threading.Thread(target=post)
    posting.start()
    while not answers:
        posting.join(0.01)
    server.stop()
    posting.join(DEADLINE_S)
    assert set(answers) <= {200, 503}
    assert server.process.returncode == 0


@pytest.fixture(autouse=True)
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server that starts here, where it must not, go no further than that."""

    def listen(host: str, port: int) -> Never:
        raise AddressUnusable(f"it would start on {host}")

    monkeypatch.setattr("twincast.server.process.listen", listen)
    monkeypatch.setattr("twincast.logs.configure", lambda _style, _level: None)


@pytest.fixture
def with_a_key(tmp_path: Path) -> str:
    path = tmp_path / "journal.db"
    add_key(path, read=["*"])
    return f"sqlite:{path}"


def refusal(journal: str, host: str = EVERYWHERE, **how: Any) -> str:
    """Return in which words a server does not start."""
    with pytest.raises(AddressUnusable) as refused:
        serve(Settings(host=host, journal=journal, **how))
    return str(refused.value)


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_takes_a_login_and_tls(tmp_path: Path, host: str) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    said = refusal(journal, host)
    assert f"on {host}," in said
    assert f"{A_LOGIN} --journal {journal}" in said
    assert TLS_HERE in said and TLS_BEFORE in said


def test_tls_alone_is_missed(with_a_key: str) -> None:
    said = refusal(with_a_key)
    assert TLS_HERE in said and TLS_BEFORE in said
    assert "a login" not in said


@pytest.mark.parametrize("how", [TLS, {"behind_tls_proxy": True}])
def test_a_login_alone_is_missed(tmp_path: Path, how: dict[str, Any]) -> None:
    said = refusal(f"sqlite:{tmp_path / 'journal.db'}", **how)
    assert A_LOGIN in said
    assert "TLS" not in said and "--behind" not in said


def test_a_login_takes_a_journal_on_disk() -> None:
    said = refusal("memory:", **TLS)
    assert "--journal sqlite:twincast.db" in said and "`twincast keys add`" in said


def test_who_comes_by_a_proxy_is_from_elsewhere(tmp_path: Path) -> None:
    said = refusal(f"sqlite:{tmp_path / 'journal.db'}", "127.0.0.1", behind_tls_proxy=True)
    assert "behind a proxy" in said and A_LOGIN in said and "TLS:" not in said


@pytest.mark.parametrize("login", ["a key", "tokens"])
def test_with_a_login_and_tls_an_address_that_others_reach_is_fit(with_a_key: str, login: str) -> None:
    how = {"journal": with_a_key} if login == "a key" else {"journal": "memory:", "jwt_key": "missing.pem"}
    with pytest.raises(LoginUnusable, match=r"missing\.pem"):  # the next thing that is looked at
        serve(Settings(host=EVERYWHERE, **TLS, **how))  # type: ignore[arg-type]


def test_the_status_names_the_edge_that_serves(server_process: StartServer, edge: str) -> None:
    assert server_process("memory:", edge=edge).get("/api/status")["edge"] == edge


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_its_event_streams_when_it_is_told_to_stop(
    server_process: StartServer, edge: str, how: signal.Signals
) -> None:
    server = server_process("memory:", edge=edge)
    accept = {"Accept": "text/event-stream"}
    with requests.get(f"{server.url}/api/events", headers=accept, stream=True, timeout=DEADLINE_S) as stream:
        lines = stream.iter_lines()
        assert next(lines) == b"retry: 2000"
        printed = server.stop(how)
        assert any(b'"hello"' in line for line in lines)
    assert "Traceback" not in printed


FROZEN = """
import gc, os, signal, sys, threading, time

def look():
    while not gc.get_freeze_count():
        time.sleep(0.02)
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=look, daemon=True).start()
sys.argv = ["twincast", "serve", "--port", "0", "--journal", "memory:"]
from twincast.cli.main import main
main()
"""


def test_what_the_start_made_is_out_of_the_collectors_sight() -> None:
    ran = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, timeout=60, check=True)
    assert "frozen" in ran.stdout


def test_a_server_starts_without_what_it_may_never_use(tmp_path: Path) -> None:
    """Tokens, scrapes, codes to be drawn and certificates of its own: each is imported when it is asked for."""
    program = [sys.executable, "-X", "importtime", "-m", "twincast", "serve", "--port", "0", "--journal", "memory:"]
    with (tmp_path / "imported").open("w+") as imported:
        # Not from a warm interpreter, which has imported all of it.
        with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, stderr=imported, text=True) as server:
            assert server.stdout is not None
            assert "is up" in server.stdout.readline()
            server.terminate()
        imported.seek(0)
        loaded = {line.rpartition("|")[2].strip() for line in imported}
    assert {"fastapi", "twincast.server.http"} <= loaded
    assert not loaded & {"httpx", "jwt", "cryptography", "prometheus_client", "psutil", "segno", "twincast.client.rest"}
