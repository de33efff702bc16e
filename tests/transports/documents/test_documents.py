"""The OpenAPI and the AsyncAPI document, held against what is really said; and the page that shows the second."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
from websockets.sync.client import connect

from tests.browser import Witness, open_browser
from twincast.errors import BadMessage
from twincast.testing import Server
from twincast.transports.documents.conversation import FROM_CLIENT, TO_CLIENT
from twincast.wire import client_messages
from twincast.wire.client_messages import ClientMessage


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(request_max_updates=10_000) as server:
        yield server


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return requests.get(f"{server.url}/asyncapi.json", timeout=10).json()


def check(document: Any, schema: Any, instance: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema.validate(instance, whole, cls=jsonschema.Draft202012Validator)


def payload(document: Any, name: str) -> Any:
    return document["components"]["messages"][name]["payload"]


def test_the_document_is_asyncapi_3_and_every_reference_leads_somewhere(document: Any, server: Server) -> None:
    assert document["asyncapi"] == "3.0.0"
    assert {server["protocol"] for server in document["servers"].values()} == {"ws", "http"}
    assert document["servers"]["websocket"]["host"] == f"127.0.0.1:{server.port}"

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    for reference in references(document):
        node = document
        for name in reference.removeprefix("#/").split("/"):
            node = node[name]


def test_what_the_server_really_says_is_what_the_document_says(document: Any, server: Server) -> None:
    said: dict[str, Any] = {}
    with connect(f"{server.ws_url}?page_size=1") as socket:

        def hear(*types: str) -> None:
            while not set(types) <= set(said):
                message = json.loads(socket.recv(timeout=10))
                said[message["type"]] = message
                check(document, payload(document, message["type"]), message)

        hear("hello")
        socket.send('{"type":"telemetry","id":1,"update_id":"u","device_id":"lamp","value":{"on":[true,null]}}')
        hear("data_update", "ack")
        socket.send('{"type":"control","id":2,"target":"lamp","command":"blink"}')
        hear("control")
        socket.send('{"type":"ping"}')
        socket.send('{"type":"dance"}')
        socket.send('{"type":"telemetry","id":3}')
        hear("pong", "echo", "error")
        socket.send('{"type":"subscribe","devices":["nothing"]}')
        socket.send('{"type":"subscribe","id":4,"devices":["*"],"mode":"latest","max_hz":5}')
        hear("snapshot")
        socket.send('{"type":"delete","id":5,"update_id":"u","device_id":"lamp"}')
        hear("deleted")
    with connect(f"{server.ws_url}?ordered=1") as socket:
        for _ in range(2):
            socket.send('{"type":"telemetry","id":6,"producer":"p","line":1,"device_id":"lamp","value":1}')
        while said["ack"].get("line") != 1:
            del said["ack"]
            hear("ack")
    with connect(f"{server.ws_url}?kinds=late") as socket:
        for second in (2, 1):
            measured = f'"measured_at_utc":"2026-11-27T04:16:1{second}Z"'
            socket.send(f'{{"type":"telemetry","device_id":"late","value":1,{measured}}}')
        hear("late")
    with connect(f"{server.ws_url}?auth=message") as socket:
        hear("auth_required")
    assert set(said) == {str(kind.__struct_config__.tag) for kind in TO_CLIENT} - {"gap"}
    check(document, payload(document, "gap"), {"type": "gap", "epoch": "e", "from": 1, "to": 2})


@pytest.mark.parametrize("kind", TO_CLIENT, ids=lambda kind: kind.__name__)
def test_a_message_without_one_of_its_fields_does_not_pass(document: Any, kind: Any) -> None:
    """The control: a schema that lets everything through would hold nothing."""
    schema = document["components"]["schemas"][kind.__name__]
    assert set(schema["required"]) >= {"type"}
    with pytest.raises(jsonschema.ValidationError):
        check(document, schema, {"type": kind.__struct_config__.tag + "x"})
    with pytest.raises(jsonschema.ValidationError):
        check(document, schema, {name: None for name in schema["required"]})


MESSAGES: dict[str, list[Any]] = {
    "telemetry": [
        {"device_id": "a", "value": None},
        {"device_id": "a", "value": 1, "id": "x", "update_id": "u"},
        {"device_id": "a", "value": 1, "producer": "p", "line": 1},
    ],
    "control_message": [
        {"target": "a", "command": "b"},
        {"target": "a", "command": "b", "args": {}, "id": 1},
        {"target": "a", "command": "b", "producer": "p", "line": 1},
    ],
    "delete": [
        {"device_id": "a"},
        {"device_id": "a", "id": 1, "update_id": "u"},
        {"device_id": "a", "producer": "p", "line": 1},
    ],
    "auth": [{"token": "t"}, {"token": "t", "id": 1}],
    "restart": [{}, {"id": 1}],
    "ping": [{}],
    "subscribe": [{}, {"id": 1, "devices": ["a*"], "kinds": ["control"], "mode": "every"}, {"max_hz": 2.5}],
    "unsubscribe": [{}, {"id": "x", "devices": ["a*"]}],
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_the_document_lets_a_client_say_is_what_is_taken(document: Any, name: str) -> None:
    kind = name.removesuffix("_message")
    for fields in MESSAGES[name]:
        message = {"type": kind, **fields}
        check(document, payload(document, name), message)
        assert client_messages.decode_message(json.dumps(message).encode()).type == kind
    schema = document["components"]["schemas"][payload(document, name)["$ref"].split("/")[-1]]
    assert set(schema["properties"]) <= set(ClientMessage.__struct_fields__)
    documented = {kind.__struct_config__.tag for kind in FROM_CLIENT}
    assert documented == {n.removesuffix("_message") for n in MESSAGES} == set(client_messages.CHECKS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("telemetry", {"type": "telemetry", "device_id": "", "value": 1}),
        ("telemetry", {"type": "telemetry", "device_id": "x" * 129, "value": 1}),
        ("telemetry", {"type": "telemetry", "device_id": "a"}),
        ("control_message", {"type": "control", "target": "a"}),
        ("control_message", {"type": "control", "target": "a", "command": "b", "args": [1]}),
        ("delete", {"type": "delete"}),
        ("delete", {"type": "delete", "device_id": ""}),
        ("subscribe", {"type": "subscribe", "devices": "a"}),
        ("unsubscribe", {"type": "unsubscribe", "devices": [1]}),
        ("auth", {"type": "auth"}),
        ("auth", {"type": "auth", "token": 1}),
    ],
)
def test_what_the_document_forbids_is_refused(document: Any, name: str, message: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(document, payload(document, name), message)
    with pytest.raises(BadMessage):
        client_messages.decode_message(json.dumps(message).encode())


def test_rest_answers_with_what_the_openapi_document_says(server: Server) -> None:
    openapi = requests.get(f"{server.url}/openapi.json", timeout=10).json()

    def answer(method: str, path: str, documented: str = "", **how: Any) -> None:
        response = requests.request(method, server.url + path, timeout=10, **how)
        operation = openapi["paths"][documented or path.partition("?")[0]][method]
        content = operation["responses"][str(response.status_code)]["content"]
        media = response.headers["content-type"]
        check(openapi, content[media]["schema"], response.json())

    answer("post", "/api/data", json={"device_id": "lamp", "value": [1]})
    answer("post", "/api/data", json=[{"device_id": "lamp", "value": 1}])
    answer("post", "/api/data", json={"device_id": ""})
    answer("post", "/api/control", json={"target": "lamp", "command": "on"})
    answer("get", "/api/status")
    answer("get", "/api/data")
    answer("get", "/api/data?nonsense=1")
    answer("get", "/api/events")
    epoch = requests.get(f"{server.url}/api/status", timeout=10).json()["epoch"]
    answer("get", f"/api/events?since={epoch}:0")
    answer("delete", "/api/data/lamp", "/api/data/{device_id}")
    answer("delete", "/api/data/lamp", "/api/data/{device_id}")
    answer("delete", "/api/data?device_id=lamp")
    answer("get", f"/api/events?since={epoch}:0")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/openapi.json"),
        ("HEAD", "/openapi.json"),
        ("GET", "/asyncapi.json"),
        ("GET", "/nothing"),
        ("DELETE", "/api/data"),
        ("GET", "/api/events"),
    ],
)
def test_documents_streams_and_refusals_are_neither_guessed_at_nor_kept(server: Server, method: str, path: str) -> None:
    accept = {"Accept": "text/event-stream"}
    with requests.request(method, server.url + path, headers=accept, stream=True, timeout=10) as response:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


def test_the_page_shows_every_message_and_its_fields(server: Server) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        witness = Witness(page)
        page.goto(f"{server.url}/asyncapi")
        page.wait_for_selector("section.message")
        names = page.locator("section.message h3").all_inner_texts()
        assert set(names) >= {"telemetry", "subscribe", "hello", "data_update", "gap"}
        telemetry = page.locator("section.message", has=page.get_by_role("heading", name="telemetry", exact=True))
        assert "device_id" in telemetry.inner_text() and "1 to 128 characters" in telemetry.inner_text()
        assert witness.wrongs == []
