"""What a WebSocket may cost, and that honest clients are not charged for the bounds."""

import json
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.credentials import add_key, bearer, revoke_key, until_known
from tests.raw_websocket import CLOSE, CONTINUATION, PING, PONG, TEXT, RawWebSocket, frame
from tests.running import eventually
from twincast.testing import Server

BIG = 100
"""How many devices of 60 KB make a state that is larger than what a connection takes at once."""
UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"


def publish(server: Server, device_id: str, value: object, headers: dict[str, str] | None = None) -> None:
    body = {"device_id": device_id, "value": value}
    httpx.post(f"{server.url}/api/data", json=body, headers=headers).raise_for_status()


def fill(server: Server, headers: dict[str, str] | None = None) -> None:
    """Make a state that is larger than what a connection takes at once."""
    for number in range(BIG):
        publish(server, f"big{number}", "x" * 60_000, headers)


def read_greeting(client: RawWebSocket) -> dict[str, Any]:
    """Read the state that a client begins with, of however many parts."""
    message = client.read_message()
    twins: dict[str, Any] = message["data_snapshot"]
    while message.get("more"):
        message = client.read_message()
        twins |= message["data_snapshot"]
    return twins


def wait_s(seconds: float) -> None:
    began_s = time.monotonic()
    eventually(lambda: time.monotonic() - began_s > seconds, "time passes")


def test_a_client_that_takes_its_time_with_a_large_greeting_is_not_cut_off(edge: str) -> None:
    with Server(edge=edge, write_timeout_s=0.3) as server:
        fill(server)
        with RawWebSocket(server.port, receive_buffer_bytes=4_096) as slow:
            wait_s(1.0)
            assert len(read_greeting(slow)) == BIG
            publish(server, "news", 1)
            assert slow.read_message()["device_id"] == "news"


def test_what_comes_behind_a_large_greeting_that_is_not_read_is_merged(edge: str) -> None:
    with Server(edge=edge, outbox_max_bytes=65_536) as server:
        fill(server)
        with RawWebSocket(server.port, receive_buffer_bytes=4_096) as slow:
            for number in range(20):
                publish(server, "loud", [number, "y" * 60_000])
            read_greeting(slow)
            last = 0
            merged = []
            while last < 19:
                event = slow.read_message()
                last = event["value"][0]
                merged.append(event.get("merged", 1))
            assert sum(merged) == 20 and len(merged) < 20


def test_who_is_above_its_rate_is_not_taken_for_dead(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    key = add_key(path, read=["*"], publish=["*"], rate_per_s=500)  # and 2,500 at once
    # One read takes some thousand; what stands behind them, a pong too, waits for seconds.
    messages = [{"type": "telemetry", "id": number, "device_id": "a", "value": 1} for number in range(4_500)]
    frames = b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages)
    server = Server(f"sqlite:{path}", edge=edge, ping_interval_s=0.4, pong_timeout_s=1.5)
    with server, RawWebSocket(server.port, "/ws?devices=", headers=bearer(key)) as eager:
        eager.read_message()
        eager.socket.sendall(frames)
        acknowledged: list[int] = []
        while len(acknowledged) < 4_500:
            got = eager.read()
            assert got.opcode != CLOSE, got.payload
            if got.opcode == PING:
                eager.send(PONG, got.payload)
            else:
                acknowledged.append(json.loads(got.payload)["id"])
        assert acknowledged == list(range(4_500))


def test_a_key_is_revoked_while_its_upgrade_fails_or_waits(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    key = add_key(path, "one", read=["*"])
    other = bearer(add_key(path, "other", read=["*"], publish=["*"]))
    head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
    with Server(f"sqlite:{path}", edge=edge) as server, closing(socket.socket()) as client:
        until_known(server, key)
        fill(server, other)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET /api/data HTTP/1.1\r\n{head}\r\n".encode())
        client.recv(1)  # the answer has begun, and is not taken
        client.sendall(f"GET /ws HTTP/1.1\r\n{head}{UPGRADE}\r\n".encode())
        wait_s(0.3)
        revoke_key(path, "one")
        eventually(lambda: httpx.get(f"{server.url}/api/data", headers=bearer(key)).status_code == 401, "it is revoked")
        assert httpx.get(f"{server.url}/api/status", headers=other).json()["websocket_clients_connected"] == 0


def test_empty_fragments_spoil_nothing(edge: str) -> None:
    with Server(edge=edge) as server, RawWebSocket(server.port) as client:
        client.read_message()
        client.send(TEXT, b'{"type":', fin=False)
        client.socket.sendall(frame(CONTINUATION, b"", fin=False) * 1_000)
        client.send(CONTINUATION, b'"ping"}')
        assert client.read_message()["type"] == "pong"


def test_a_closed_conversation_ends_although_its_last_bytes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    key = add_key(path, read=["*"], publish=["*"])
    with Server(f"sqlite:{path}", connections_max=1) as server:
        with httpx.Client(base_url=server.url, headers=bearer(key)) as http:
            for number in range(BIG):
                body = {"device_id": f"big{number}", "value": "x" * 60_000}
                http.post("/api/data", json=body).raise_for_status()
        silent = RawWebSocket(server.port, headers=bearer(key), receive_buffer_bytes=4_096)
        with silent:
            silent.send(CLOSE, (1000).to_bytes(2, "big"))
            eventually(lambda: httpx.get(f"{server.url}/healthy").status_code == 401, "its place is free")
