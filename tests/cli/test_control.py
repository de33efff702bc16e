"""`twincast control`."""

import json

import pytest
from websockets.sync.client import connect

from tests.cli.commands import assert_one_line, run
from tests.running import DEADLINE_S, ServerProcess


@pytest.mark.parametrize(
    ("words", "args"),
    [
        ([], {}),
        (['{"rpm": 900}'], {"rpm": 900}),
        (["rpm=900", "mode=eco", "on=true"], {"rpm": 900, "mode": "eco", "on": True}),
    ],
)
def test_control_reaches_who_watches(server: ServerProcess, words: list[str], args: object) -> None:
    with connect(server.ws_url) as socket:
        socket.recv(timeout=DEADLINE_S)
        assert run(server.url, "control", "lab/fan", "start", *words).stdout == "dispatched as number 1\n"
        event = json.loads(socket.recv(timeout=DEADLINE_S))
    assert (event["target"], event["command"], event["args"]) == ("lab/fan", "start", args)


def test_control_says_what_arguments_it_takes(server: ServerProcess) -> None:
    assert_one_line(run(server.url, "control", "fan", "start", "fast"), 2, "NAME=VALUE")
    assert_one_line(run(server.url, "control", "fan", "start", "{bad"), 2, "JSON object")
