"""Deleting a device, on every way in, and what everyone who watches is told."""

import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.credentials import add_key, bearer, until_known
from tests.running import DEADLINE_S, ServerProcess
from twincast.testing import Server

NAMES = [
    "lamp",
    "lab/lamp",
    "..",
    ".",
    "../..",
    "a b",
    "100%",
    "%2F",
    "é",
    "\U0001f600",
    "a?b",
    "a#b",
    "a+b",
    "a;b",
    "\\",
    "*",
]


@pytest.fixture(scope="module", params=["picows", "portable", "jetstream"])
def server(request: pytest.FixtureRequest, shared_log: Callable[[], str]) -> Iterator[ServerProcess]:
    """One server for all, on each edge and on a shared log.

    Each test uses names of its own, or says which devices there are.
    """
    if request.param == "jetstream":
        server = ServerProcess(shared_log()).ready()
    else:
        server = ServerProcess("memory:", edge=request.param).ready()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def begin_with_none(request: pytest.FixtureRequest) -> None:
    """Delete what the test before has left."""
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        for name in server.get("/api/data")["data"]:
            assert ask(server, "DELETE", f"/api/data?{urlencode({'device_id': name})}")[0] == 200


def ask(server: Any, method: str, target: str, **headers: str) -> tuple[int, Any]:
    """Send a target as it is written; most clients would change `..` on the way."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request(method, target, headers=headers)
    response = connection.getresponse()
    status, body = response.status, response.read()
    connection.close()
    return status, json.loads(body)


def delete(server: Any, name: str, **headers: str) -> tuple[int, Any]:
    return ask(server, "DELETE", f"/api/data/{quote(name, safe='')}", **headers)


def dotted(name: str) -> str:
    """Percent-encode dots too, as a client may."""
    return quote(name, safe="").replace(".", "%2e")


@pytest.mark.parametrize("way", ["segment", "dots encoded", "query"])
def test_a_device_is_deleted_whatever_its_name(server: ServerProcess, way: str) -> None:
    for name in NAMES:
        _delete_by(way, name, server)


def _delete_by(way: str, name: str, server: ServerProcess) -> None:
    stored = server.post("/api/data", [{"device_id": name, "value": 1}, {"device_id": "other", "value": 2}]).json()
    target = {
        "segment": f"/api/data/{quote(name, safe='')}",
        "dots encoded": f"/api/data/{dotted(name)}",
        "query": f"/api/data?{urlencode({'device_id': name})}",
    }[way]
    status, answer = ask(server, "DELETE", target)
    assert (status, answer["ok"], answer["deleted"]) == (200, True, True)
    event = answer["event"]
    assert (event["type"], event["device_id"], event["source"], event["seq"]) == (
        "deleted",
        name,
        "rest",
        stored["seq"] + 1,
    )
    assert list(server.get("/api/data")["data"]) == ["other"]
    status, problem = ask(server, "DELETE", target)
    assert (status, problem["code"], problem["retryable"]) == (404, "not_found", False)
    assert server.get("/api/status")["seq"] == event["seq"]


@pytest.mark.parametrize("target", ["/api/data/a/b", "/api/data/a%2Fb/", "/api/data//a", "/api/data/../data/a/b"])
def test_a_name_is_one_segment(server: ServerProcess, target: str) -> None:
    server.post("/api/data", [{"device_id": name, "value": 1} for name in ("a", "b", "a/b", "/a")])
    status, problem = ask(server, "DELETE", target)
    assert (status, problem["code"]) == (404, "not_found")
    assert "%2F" in problem["detail"]
    assert len(server.get("/api/data")["data"]) == 4


@pytest.mark.parametrize(
    "target",
    [
        "/api/data",
        "/api/data?device_id=a&device_id=b",
        "/api/data?devices=a",
        "/api/data?device_id=",
        "/api/data/a?device_id=b",
        "/api/data/%FF",
        "/api/data/a%0Ab",
        "/api/data/a%00",
        f"/api/data/{'x' * 129}",
    ],
)
def test_what_names_no_one_device_deletes_none(server: ServerProcess, target: str) -> None:
    server.post("/api/data", [{"device_id": name, "value": 1} for name in ("a", "b")])
    status, problem = ask(server, "DELETE", target)
    assert (status, problem["code"]) == (422, "validation_failed")
    assert len(server.get("/api/data")["data"]) == 2


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_foreign_names_and_pages_delete_nothing(server: ServerProcess, headers: dict[str, str]) -> None:
    server.post("/api/data", {"device_id": "lamp", "value": 1})
    assert delete(server, "lamp", **headers)[0] == 403
    assert ask(server, "DELETE", "/api/data?device_id=lamp", **headers)[0] == 403
    assert list(server.get("/api/data")["data"]) == ["lamp"]


def test_a_page_of_an_allowed_origin_may_delete(server_process: StartServer) -> None:
    server = server_process(TWINCAST_ALLOW_ORIGIN='["https://app.example.org"]')
    server.post("/api/data", {"device_id": "lab/lamp", "value": 1})
    origin = {"Origin": "https://app.example.org"}
    preflight = httpx.options(
        f"{server.url}/api/data/lab%2Flamp", headers={**origin, "Access-Control-Request-Method": "DELETE"}
    )
    assert preflight.status_code == 200
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
    assert delete(server, "lab/lamp", **origin)[0] == 200


def test_a_retry_of_a_deletion_is_answered_as_the_first_one_was(server: ServerProcess) -> None:
    key = {"Idempotency-Key": "once"}
    server.post("/api/data", {"device_id": "lamp", "value": 1})
    _, first = delete(server, "lamp", **key)
    server.post("/api/data", {"device_id": "lamp", "value": 2})
    response = httpx.delete(f"{server.url}/api/data/lamp", headers=key)
    assert (response.status_code, response.json()) == (200, first)
    assert response.headers["idempotency-replayed"] == "true"
    assert server.get("/api/data")["data"]["lamp"]["value"] == 2
    status, problem = delete(server, "other", **key)
    assert (status, problem["code"]) == (422, "key_reused")


def test_on_a_websocket_a_device_is_deleted_and_everyone_is_told(server: ServerProcess) -> None:
    with connect(server.ws_url) as client, connect(f"{server.ws_url}?kinds=data_update&kinds=control") as other:

        def hear() -> Any:
            return json.loads(client.recv(DEADLINE_S))

        def hear_other() -> Any:
            return json.loads(other.recv(DEADLINE_S))

        assert hear()["type"] == hear_other()["type"] == "hello"
        client.send('{"type":"telemetry","device_id":"lab/lamp","value":1}')
        client.send('{"type":"delete","device_id":"lab/lamp","id":1,"update_id":"u"}')
        assert hear()["type"] == "data_update"
        deleted, ack = hear(), hear()
        assert (deleted["type"], deleted["device_id"], deleted["source"]) == ("deleted", "lab/lamp", "websocket")
        assert (ack["type"], ack["id"], ack["seq"]) == ("ack", 1, deleted["seq"])
        client.send('{"type":"delete","device_id":"lab/lamp","id":2}')
        error = hear()
        assert (error["type"], error["code"], error["id"], error["retryable"]) == ("error", "not_found", 2, False)
        client.send('{"type":"delete","device_id":"lab/lamp","id":3,"update_id":"u"}')
        assert (ack := hear())["replayed"] is True and ack["seq"] == deleted["seq"]
        client.send('{"type":"telemetry","device_id":"lab/lamp","value":2}')
        assert (hear_other()["value"], hear_other()["value"]) == (1, 2), "who names kinds is told of those alone"


def test_streams_polls_and_resumes_bring_the_deletion(server: ServerProcess) -> None:
    server.post("/api/data", [{"device_id": "a", "value": 1}, {"device_id": "b", "value": 2}])
    status = server.get("/api/status")
    since = f"{status['epoch']}:{status['seq']}"
    deleted = delete(server, "a")[1]["event"]
    assert server.get(f"/api/events?since={since}")["events"] == [deleted]
    assert server.get(f"/api/events?since={since}&kinds=deleted&devices=a")["events"] == [deleted]
    assert server.get(f"/api/events?since={since}&kinds=data_update&devices=a")["events"] == []
    assert list(server.get("/api/events")["data_snapshot"]) == ["b"]
    assert list(server.get("/api/data?devices=a&devices=b")["data"]) == ["b"]
    with connect(f"{server.ws_url}?since={since}") as client:
        assert json.loads(client.recv(DEADLINE_S))["resumed"] is True
        assert json.loads(client.recv(DEADLINE_S)) == deleted
    stream = {"Accept": "text/event-stream", "Last-Event-ID": since}
    with httpx.stream("GET", f"{server.url}/api/events", headers=stream, timeout=DEADLINE_S) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data:") and '"hello"' not in line)
        assert json.loads(next(lines).removeprefix("data:")) == deleted


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with a login, and keys by what they are for."""
    path = tmp_path / "journal.db"
    every = ["*"]
    keys = {
        "all": add_key(path, "all", publish=every, read=every, command=every, admin=every),
        "lab": add_key(path, "lab", publish=["lab/*"], read=["lab/*"]),
        "reader": add_key(path, "reader", read=every, command=every),
        "lab admin": add_key(path, "lab-admin", admin=["lab/*"]),
    }
    with Server(f"sqlite:{path}") as server:
        for secret in keys.values():
            until_known(server, secret)
        yield server, keys


def test_who_may_publish_may_delete_and_nobody_else(closed: tuple[Server, dict[str, str]]) -> None:
    server, keys = closed
    names = ["lab/a", "lab/b", "hall/c"]
    body = [{"device_id": name, "value": 1} for name in names]
    assert httpx.post(f"{server.url}/api/data", json=body, headers=bearer(keys["all"])).is_success

    def delete(name: str, who: str | None) -> int:
        headers = {} if who is None else bearer(keys[who])
        return httpx.delete(f"{server.url}/api/data/{quote(name, safe='')}", headers=headers).status_code

    assert [delete(name, "reader") for name in names] == [403] * 3
    assert [delete("hall/c", "lab"), delete("hall/unknown", "lab"), delete("lab/unknown", "lab")] == [403, 403, 404]
    assert delete("lab/a", None) == 401
    assert delete("lab/a", "lab") == 200
    with connect(server.ws_url, additional_headers=bearer(keys["reader"])) as socket:
        socket.recv()
        socket.send('{"type":"delete","device_id":"lab/b","id":1}')
        assert json.loads(socket.recv())["code"] == "not_permitted"
    known = httpx.get(f"{server.url}/api/data", headers=bearer(keys["all"])).json()["data"]
    assert sorted(known) == ["hall/c", "lab/b"]


def test_a_deletion_is_in_the_audit_trail_for_those_who_administer_its_device(
    closed: tuple[Server, dict[str, str]],
) -> None:
    server, keys = closed
    body = [{"device_id": name, "value": 1} for name in ("lab/a", "hall/c")]
    assert httpx.post(f"{server.url}/api/data", json=body, headers=bearer(keys["all"])).is_success
    assert httpx.delete(f"{server.url}/api/data/hall%2Fc", headers=bearer(keys["all"])).is_success
    with connect(server.ws_url, additional_headers=bearer(keys["lab"])) as socket:
        socket.recv()
        socket.send('{"type":"delete","device_id":"lab/a","id":1}')
        while json.loads(socket.recv())["type"] != "ack":
            pass

    def seen(who: str) -> list[tuple[str, str, int]]:
        records = httpx.get(f"{server.url}/api/audit", headers=bearer(keys[who])).json()["records"]
        return [
            (record["action"], record["target"], record["seq"]) for record in records if "keys" not in record["action"]
        ]

    assert seen("all") == [("delete", "lab/a", 4), ("delete", "hall/c", 3)]
    assert seen("lab admin") == [("delete", "lab/a", 4)]
