"""A server that is compiled and one in Python alone say which they are, and the same to what they are sent."""

import json
from functools import partial
from types import ModuleType
from typing import Any

from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess, eventually

MESSAGES = (
    '{"type":"telemetry","device_id":"lab/lamp","value":{"on":true,"n":[1,2]}}',
    '{"type": "telemetry", "device_id": "lab/lamp", "value": {"on": true, "text": "a: b, c"}}',
    '{"type":"telemetry","device_id":"lab/lämp","value":-0.50}',
    '{"type":"telemetry","device_id":"lab/lamp","value":{"a":{"b":1}}}',
    '{"type":"telemetry","device_id":"lab/lamp","value":{"a":1,"a":2}}',
    '{"type":"telemetry","device_id":"lab/fan","value":18446744073709551616}',
    '{"type":"telemetry","device_id":"lab/fan","value":"%s"}' % ("x" * 65_000),
    '{"type":"telemetry","device_id":"","value":1}',
    '{"type":"control","target":"lab/fan","command":"on"}',
    '{"type":"telemetry","device_id":"lab/fan","value":"%s"}' % ("x" * 200),
    '{"type":"telemetry","device_id":"lab/fan","value":1,"id":7}',
    "not JSON",
    '{"type":"telemetry","device_id":"lab/fan","value":null}',
)
OF_A_RUN = {"timestamp_utc", "epoch", "since"}


def told(url: str) -> list[str]:
    """Send everything, and return what came back, in a fixed order and without what is of this run alone."""
    answers: list[dict[str, Any]] = []
    with connect(url + "?mode=every", max_size=None) as client:
        for message in MESSAGES:
            client.send(message)
        while not answers or answers[-1].get("value", 0) is not None:  # until the last reading is cast
            answers.append(json.loads(client.recv(timeout=DEADLINE_S)))
        client.send('{"type":"ping"}')  # behind what is answered when a reading is durable
        while answers[-1]["type"] != "pong":
            answers.append(json.loads(client.recv(timeout=DEADLINE_S)))
    shown = [{name: part for name, part in answer.items() if name not in OF_A_RUN} for answer in answers[:-1]]
    return sorted(json.dumps(answer, sort_keys=True) for answer in shown)


def _has_printed(server: ServerProcess, line: str) -> bool:
    return line in server.printed()


def test_both_say_which_they_are_and_answer_alike(server_process: StartServer, compiled: ModuleType) -> None:
    said, states = [], []
    for pure, how in (("", "by the compiled module"), ("1", "in Python alone, as TWINCAST_PURE asks")):
        server = server_process("memory:", TWINCAST_PURE=pure)
        line = f"Messages   read and written {how}\n"
        eventually(partial(_has_printed, server, line), f"they are {how}")
        said.append(told(server.ws_url))
        data = server.get("/api/data")["data"]
        states.append({device: twin["value"] for device, twin in data.items()})
    assert said[0] == said[1] and len(said[0]) > len(MESSAGES) // 2
    assert states[0] == states[1] == {"lab/lamp": {"a": {"b": 1}}, "lab/lämp": -0.5, "lab/fan": None}
