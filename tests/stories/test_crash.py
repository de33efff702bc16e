"""The plug is pulled, again and again, under load: what was acknowledged is there afterwards."""

import json
import random
import sqlite3
import threading
from collections import Counter
from pathlib import Path

import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.conftest import FILES, JournalUrl, StartServer
from tests.running import DEADLINE_S, ServerProcess, free_port

ROUNDS = {"sqlite": 50, "jetstream": 15}
"""How often each is killed. A shared log is killed in more ways, and its nodes too, by `scripts/soak --cluster`."""
IN_FLIGHT = 256
BATCH = 50


def telemetry(key: str) -> str:
    return json.dumps({"type": "telemetry", "id": key, "device_id": f"d{hash(key) % 97}", "value": key})


def pull_the_plug_under_load(server: ServerProcess, round_: int, acks_before: int) -> dict[str, int]:
    """Keep readings in flight until so many are acknowledged, kill the server, and return every ack that arrived."""
    acked: dict[str, int] = {}
    with connect(server.ws_url, compression=None, ping_interval=None) as socket:
        sent = 0

        def send_next() -> None:
            nonlocal sent
            socket.send(telemetry(f"{round_}/{sent}"))
            sent += 1

        for _ in range(IN_FLIGHT):
            send_next()
        while len(acked) < acks_before:
            message = json.loads(socket.recv(timeout=DEADLINE_S))
            if message["type"] == "ack":
                acked[message["id"]] = message["seq"]
                send_next()
        server.process.kill()
        acked.update(read_to_the_end(socket))
    server.output()
    return acked


def read_to_the_end(socket: ClientConnection) -> dict[str, int]:
    acked = {}
    try:
        while True:
            message = json.loads(socket.recv(timeout=DEADLINE_S))
            if message["type"] == "ack":
                acked[message["id"]] = message["seq"]
    except ConnectionClosed:
        return acked


def post_batches(server: ServerProcess, round_: int, acked: set[str]) -> None:
    """Post batches until the server is gone; note those that it said were stored."""
    number = 0
    with requests.Session() as session:
        while True:
            name = f"batch {round_}/{number}"
            body = [{"device_id": "batches", "value": name}] * BATCH
            try:
                if session.post(f"{server.url}/api/data", json=body, timeout=DEADLINE_S).json()["stored"] == BATCH:
                    acked.add(name)
            except requests.RequestException:
                return
            number += 1


def test_kill_nine_again_and_again_loses_nothing_that_was_acknowledged(
    server_process: StartServer, durable_kind: str, journal_url: JournalUrl, tmp_path: Path
) -> None:
    url, path = journal_url(durable_kind), tmp_path / FILES[durable_kind]
    port = free_port()
    chance = random.Random(0)
    acked: dict[str, int] = {}
    acked_batches: set[str] = set()
    for round_ in range(ROUNDS[durable_kind]):
        server = server_process(url, port=port)
        assert server.get("/api/status")["seq"] >= max(acked.values(), default=0)
        poster = threading.Thread(target=post_batches, args=(server, round_, acked_batches), daemon=True)
        poster.start()
        acked.update(pull_the_plug_under_load(server, round_, chance.randrange(1, 1_500)))
        poster.join(DEADLINE_S)

    server = server_process(url, port=port)
    rows = sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute(
        "select seq, device_id, value from log order by seq"
    )
    log = [(seq, device_id, json.loads(value)) for seq, device_id, value in rows]
    assert [seq for seq, _, _ in log] == list(range(1, len(log) + 1))
    stored = {value: seq for seq, device_id, value in log if device_id != "batches"}
    assert {key: stored.get(key) for key in acked} == acked
    assert len(acked) > ROUNDS[durable_kind] * IN_FLIGHT

    sizes = Counter(value for _, device_id, value in log if device_id == "batches")
    assert set(sizes.values()) == {BATCH}, "a batch is stored whole or not at all"
    assert acked_batches <= set(sizes)

    newest = {device_id: (seq, value) for seq, device_id, value in log}
    assert {d: (twin["seq"], twin["value"]) for d, twin in server.get("/api/data")["data"].items()} == newest
