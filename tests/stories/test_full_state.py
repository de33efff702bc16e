"""How much strangers may create: the same bound on every way in, told in words, and gone when something is deleted."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.credentials import add_key, bearer, until_known
from twincast.testing import Server

NDJSON = "application/x-ndjson"


def post(server: Server, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{server.url}/api/data", json=body, headers=headers)


def reading(name: str, size_bytes: int = 1) -> dict[str, Any]:
    return {"device_id": name, "value": "x" * (size_bytes - 2) if size_bytes > 2 else 1}


def told(server: Server, name: str) -> Any:
    """Send a reading on a WebSocket and return the answer."""
    with connect(f"{server.ws_url}?devices=") as socket:
        socket.recv()
        socket.send(json.dumps({"type": "telemetry", "id": 1, **reading(name)}))
        return json.loads(socket.recv())


@pytest.mark.parametrize(
    "bounds", [{"devices_max": 2}, {"state_max_bytes": 2 * (512 + 1) + 400}], ids=lambda bounds: next(iter(bounds))
)
def test_a_full_state_takes_no_new_device_on_any_way_in(bounds: dict[str, Any]) -> None:
    with Server("memory:", **bounds) as server:
        assert post(server, [reading("a"), reading("b")]).is_success
        refused = post(server, reading("c"))
        assert (refused.status_code, refused.headers["content-type"]) == (507, "application/problem+json")
        problem = refused.json()
        assert (problem["code"], problem["retryable"], problem["status"]) == ("state_full", False, 507)
        assert f"TWINCAST_{next(iter(bounds)).upper()}" in problem["detail"]
        assert post(server, [reading("a"), reading("c")]).status_code == 507, "all or none"
        lines = "\n".join(json.dumps(reading(name)) for name in "bc")
        answer = httpx.post(f"{server.url}/api/data", content=lines, headers={"Content-Type": NDJSON})
        assert answer.status_code == 507
        error = told(server, "c")
        assert (error["type"], error["code"], error["id"], error["retryable"]) == ("error", "state_full", 1, False)
        assert httpx.get(f"{server.url}/api/status").json()["seq"] == 2, "nothing of it is in the log"
        assert post(server, [reading("a"), reading("b")]).is_success, "what is there stays up to date"
        control = httpx.post(f"{server.url}/api/control", json={"target": "c", "command": "on"})
        assert control.is_success, "a command makes no state"
        assert httpx.delete(f"{server.url}/api/data/a").is_success
        assert told(server, "c")["type"] == "ack"
        assert post(server, reading("a")).status_code == 507


@pytest.mark.parametrize(
    "bounds", [{"devices_max": 2}, {"state_max_bytes": 2 * (512 + 1) + 100}], ids=lambda bounds: next(iter(bounds))
)
def test_a_full_state_takes_history(bounds: dict[str, Any]) -> None:
    """A late reading changes no twin. A spool that is told that it cannot be stored forgets it."""
    ago = {"measured_at_utc": "2020-01-01T00:00:00Z"}
    with Server("memory:", **bounds) as server:
        assert post(server, [reading("a"), reading("gone")]).is_success
        assert httpx.delete(f"{server.url}/api/data/gone").is_success
        assert post(server, reading("b")).is_success
        backlog = [reading("a", 300) | ago, reading("a", 300) | ago, reading("gone", 300) | ago]
        assert post(server, backlog).is_success
        assert post(server, backlog[0]).json()["event"]["type"] == "late"
        past = httpx.get(f"{server.url}/api/data/gone/history").json()["entries"]
        assert [entry["value"] for entry in past] == [1, "x" * 298]
        assert post(server, reading("new", 300) | ago).status_code == 507, "it would be its device's first"
        assert httpx.get(f"{server.url}/api/data").json()["data"].keys() == {"a", "b"}
        if "state_max_bytes" in bounds:
            assert post(server, reading("a", 300)).status_code == 507, "it would be the newest"
            assert post(server, [reading("a"), reading("a", 300) | ago]).status_code == 507, "who knows, behind that"


def test_a_refused_reading_leaves_its_key_free() -> None:
    key = {"Idempotency-Key": "k"}
    with Server("memory:", devices_max=1) as server:
        assert post(server, reading("a")).is_success
        assert post(server, reading("b"), **key).status_code == 507
        assert httpx.delete(f"{server.url}/api/data/a").is_success
        answer = post(server, reading("b"), **key)
        assert answer.is_success and "idempotency-replayed" not in answer.headers


def test_an_identity_has_a_share_that_begins_anew_at_a_start_and_the_whole_does_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    one, two = (add_key(path, name, publish=["*"], read=["*"]) for name in ("one", "two"))
    bounds: dict[str, Any] = {"identity_state_max_bytes": 2 * 1_512, "state_max_bytes": 5 * 1_512}

    def status(who: str, *names: str) -> int:
        return post(server, [reading(name, 1_000) for name in names], **bearer(who)).status_code

    with Server(f"sqlite:{path}", **bounds) as server:
        until_known(server, two)
        assert status(one, "a", "b") == 200
        refused = post(server, reading("c", 1_000), **bearer(one))
        assert (refused.status_code, "key:" in refused.json()["detail"]) == (507, True)
        assert status(two, "b", "c") == 200
        assert status(one, "d") == 200, "b is the other's since it wrote it last"
        assert status(two, "a") == 507
    with Server(f"sqlite:{path}", **bounds) as server:
        until_known(server, two)
        assert [status(two, "e"), status(two, "b")] == [200, 200], "what was written before the start is nobody's"
        assert status(two, "c") == 507, "what it writes again counts again"
        assert status(one, "f") == 507, "all together are bounded as before"
        assert "TWINCAST_STATE_MAX_BYTES" in post(server, reading("f", 1_000), **bearer(one)).json()["detail"]
