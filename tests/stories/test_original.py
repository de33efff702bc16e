"""The contract of the original system, field for field, on both edges, with the clients that its programs used."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from websockets.sync.client import ClientConnection, connect

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess


@pytest.fixture(params=["picows", "portable", "named"])
def edge(request: pytest.FixtureRequest) -> str:
    """Each way to start a server."""
    return str(request.param)


@pytest.fixture
def original(server_process: StartServer, edge: str) -> ServerProcess:
    return server_process("memory:", edge=edge)


def receive(socket: ClientConnection) -> Any:
    message = socket.recv(timeout=DEADLINE_S)
    assert isinstance(message, str)
    return json.loads(message)


def assert_is_recent_utc(text: str) -> None:
    moment = datetime.fromisoformat(text)
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(seconds=DEADLINE_S)


def test_status_says_how_many_devices_and_clients_there_are(original: ServerProcess) -> None:
    original.post("/api/data", {"device_id": "lamp", "value": 1})
    with connect(original.ws_url) as socket:
        receive(socket)
        status = original.get("/api/status")
    assert status["ok"] is True
    assert status["devices_known"] == 1
    assert status["websocket_clients_connected"] == 1
    assert_is_recent_utc(status["timestamp_utc"])


def test_data_holds_the_newest_value_of_every_device(original: ServerProcess) -> None:
    assert original.get("/api/data")["data"] == {}
    for value in (1, {"celsius": 21.5, "on": True, "tags": ["a", None]}):
        original.post("/api/data", {"device_id": "room 1", "value": value})
    answer = original.get("/api/data")
    assert_is_recent_utc(answer["timestamp_utc"])
    twin = answer["data"]["room 1"]
    assert twin["value"] == {"celsius": 21.5, "on": True, "tags": ["a", None]}
    assert_is_recent_utc(twin["updated_at_utc"])


def test_a_posted_reading_is_answered_with_the_event_that_everyone_receives(original: ServerProcess) -> None:
    with connect(original.ws_url) as socket:
        receive(socket)
        response = original.post("/api/data", {"device_id": "lamp", "value": "on"})
        event = receive(socket)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["ok"], answer["stored"]) == (True, True)
    assert answer["event"] == event
    assert (event["type"], event["device_id"], event["value"]) == ("data_update", "lamp", "on")
    assert event["source"] == "rest"
    assert_is_recent_utc(event["timestamp_utc"])


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
def test_a_value_may_be_any_json_also_what_python_calls_false(original: ServerProcess, value: Any) -> None:
    assert original.post("/api/data", {"device_id": "lamp", "value": value}).json()["event"]["value"] == value
    assert original.get("/api/data")["data"]["lamp"]["value"] == value


@pytest.mark.parametrize(
    "body", [{"value": 1}, {"device_id": "", "value": 1}, {"device_id": "lamp"}, {}, {"device_id": 7}]
)
def test_a_reading_without_device_or_value_is_refused_with_422(original: ServerProcess, body: Any) -> None:
    assert original.post("/api/data", body).status_code == 422
    assert original.get("/api/status")["devices_known"] == 0


def test_a_posted_command_reaches_everyone(original: ServerProcess) -> None:
    with connect(original.ws_url) as one, connect(original.ws_url) as two:
        receive(one), receive(two)
        response = original.post("/api/control", {"target": "lamp", "command": "dim", "args": {"percent": 30}})
        events = [receive(one), receive(two)]
    answer = response.json()
    assert (response.status_code, answer["ok"], answer["dispatched"]) == (200, True, True)
    assert events == [answer["event"], answer["event"]]
    event = events[0]
    assert (event["type"], event["target"], event["command"]) == ("control", "lamp", "dim")
    assert (event["args"], event["source"]) == ({"percent": 30}, "rest")
    assert_is_recent_utc(event["timestamp_utc"])


def test_a_command_needs_no_args(original: ServerProcess) -> None:
    response = original.post("/api/control", {"target": "lamp", "command": "off"})
    assert response.json()["event"]["args"] == {}


@pytest.mark.parametrize(
    "body", [{"command": "x"}, {"target": "", "command": "x"}, {"target": "x"}, {"target": "x", "command": ""}]
)
def test_a_command_without_target_or_name_is_refused_with_422(original: ServerProcess, body: Any) -> None:
    assert original.post("/api/control", body).status_code == 422


def test_the_first_message_is_a_hello_with_the_state(original: ServerProcess) -> None:
    original.post("/api/data", {"device_id": "lamp", "value": 1})
    with connect(original.ws_url) as socket:
        hello = receive(socket)
    assert (hello["type"], hello["message"]) == ("hello", "connected")
    assert_is_recent_utc(hello["timestamp_utc"])
    assert hello["data_snapshot"]["lamp"]["value"] == 1
    assert_is_recent_utc(hello["data_snapshot"]["lamp"]["updated_at_utc"])


def test_telemetry_goes_to_all_and_to_its_sender_too(original: ServerProcess) -> None:
    with connect(original.ws_url) as sender, connect(original.ws_url) as watcher:
        receive(sender), receive(watcher)
        sender.send(json.dumps({"type": "telemetry", "device_id": "device-1", "value": {"temperature": 20.5}}))
        events = [receive(sender), receive(watcher)]
    assert events[0] == events[1]
    event = events[0]
    assert (event["type"], event["device_id"], event["source"]) == ("data_update", "device-1", "websocket")
    assert event["value"] == {"temperature": 20.5}
    assert original.get("/api/data")["data"]["device-1"]["value"] == {"temperature": 20.5}


def test_control_over_the_websocket_goes_to_all(original: ServerProcess) -> None:
    with connect(original.ws_url) as sender, connect(original.ws_url) as watcher:
        receive(sender), receive(watcher)
        sender.send(json.dumps({"type": "control", "target": "lamp", "command": "off"}))
        events = [receive(sender), receive(watcher)]
    assert events[0] == events[1]
    event = events[0]
    assert (event["type"], event["target"], event["command"]) == ("control", "lamp", "off")
    assert (event["args"], event["source"]) == ({}, "websocket")


def test_a_ping_message_is_answered_to_its_sender_alone(original: ServerProcess) -> None:
    with connect(original.ws_url) as sender, connect(original.ws_url) as watcher:
        receive(sender), receive(watcher)
        sender.send('{"type":"ping"}')
        pong = receive(sender)
        sender.send('{"type":"telemetry","device_id":"d","value":1}')
        first_of_watcher = receive(watcher)
    assert pong.keys() >= {"type", "timestamp_utc"}
    assert pong["type"] == "pong"
    assert_is_recent_utc(pong["timestamp_utc"])
    assert first_of_watcher["type"] == "data_update"


@pytest.mark.parametrize("message", [{"type": "dance", "steps": [1, 2]}, {"hello": "world"}])
def test_an_unknown_message_is_echoed(original: ServerProcess, message: Any) -> None:
    with connect(original.ws_url) as socket:
        receive(socket)
        socket.send(json.dumps(message))
        echo = receive(socket)
    assert (echo["type"], echo["received"], echo["note"]) == ("echo", message, "Unrecognized message type")
    assert_is_recent_utc(echo["timestamp_utc"])


def test_a_malformed_message_is_an_error_and_the_conversation_goes_on(original: ServerProcess) -> None:
    with connect(original.ws_url) as socket:
        receive(socket)
        socket.send("{not json")
        error = receive(socket)
        socket.send('{"type":"ping"}')
        assert receive(socket)["type"] == "pong"
    assert (error["type"], error["code"], error["retryable"]) == ("error", "malformed_json", False)
    assert error["message"]


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/dashboard"])
def test_the_pages_answer_with_html_and_load_nothing_from_elsewhere(original: ServerProcess, path: str) -> None:
    response = requests.get(original.url + path, timeout=DEADLINE_S)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert 'src="http' not in response.text and 'href="http' not in response.text.replace('href="https://github', "")


def test_the_openapi_document_describes_the_calls(original: ServerProcess) -> None:
    document = original.get("/openapi.json")
    calls = {(path, method) for path, item in document["paths"].items() for method in item}
    originals = {("/api/status", "get"), ("/api/data", "get"), ("/api/data", "post"), ("/api/control", "post")}
    deletions = {("/api/data", "delete"), ("/api/data/{device_id}", "delete")}
    others = {("/api/events", "get"), ("/api/tickets", "post"), ("/api/audit", "get"), ("/metrics", "get")}
    others |= {("/api/pair", "post"), ("/api/cluster", "get")}
    deletions |= {("/api/history", "delete"), ("/api/data/{device_id}/history", "delete")}
    others |= {("/api/erasures", "get")}
    others |= {("/api/history", "get"), ("/api/data/{device_id}/history", "get")}
    assert calls == originals | deletions | others | {("/api/data/{device_id}", "get")}
    assert document["openapi"].startswith("3.1")
