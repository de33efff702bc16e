"""Numbered lines on both WebSocket edges: stored once over restarts, each identity's its own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.conftest import JournalUrl, Kit
from tests.credentials import bearer
from twincast.testing import Server

DEADLINE_S = 30.0


class Producer:
    """A conversation that keeps order, of a producer that has this name."""

    def __init__(self, socket: ClientConnection, name: str = "p") -> None:
        self._socket, self._name = socket, name

    def send(self, line: int, **fields: Any) -> None:
        update = {"type": "telemetry", "device_id": "lamp", "value": line} | fields
        self._socket.send(json.dumps(update | {"id": line, "producer": self._name, "line": line}))

    def answer(self) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv(timeout=DEADLINE_S))
            if message["type"] in {"ack", "error"}:
                return message

    def told(self, line: int, **fields: Any) -> tuple[Any, ...]:
        """Send a line; return its seq, whether it came before, and up to which line all are stored then."""
        self.send(line, **fields)
        answer = self.answer()
        assert answer["id"] == line
        if answer["type"] == "error":
            return (answer["code"],)
        return answer["seq"], answer.get("replayed", False), answer.get("line")


@contextmanager
def producer(server: Server, token: str = "", name: str = "p") -> Iterator[Producer]:
    with connect(f"{server.ws_url}?ordered=1&devices=", additional_headers=bearer(token) if token else {}) as socket:
        yield Producer(socket, name)


@pytest.fixture
def server(kit: Kit, journal_url: JournalUrl) -> Iterator[Server]:
    with Server(journal_url(kit.kind), edge=kit.edge) as server:
        yield server


def test_lines_are_stored_once_over_restarts_of_the_server(server: Server) -> None:
    with producer(server) as one:
        assert [one.told(line) for line in (1, 2, 3)] == [(1, False, None), (2, False, None), (3, False, None)]
        assert one.told(2) == (3, True, 3)
    server.restart()
    with producer(server) as one:
        for line in (2, 3, 4, 5):
            one.send(line)
        answers = [one.answer() for _ in range(4)]
        assert [answer.get("replayed", False) for answer in answers] == [True, True, False, False]
        assert [answer["seq"] for answer in answers] == [3, 3, 4, 5]
        assert one.told(6, type="control", target="lamp", command="on") == (6, False, None)
        assert one.told(7, type="delete") == (7, False, None)
        assert one.told(7, type="delete") == (7, True, 7)
    assert [(entry["type"], entry.get("value")) for entry in server.log()] == [
        *(("data_update", line) for line in range(1, 6)),
        ("control", None),
        ("deleted", None),
    ]


def test_a_refused_line_is_passed_and_told_so_when_it_comes_again_after_a_restart(server: Server) -> None:
    with producer(server) as one:
        assert one.told(1, device_id="nobody", type="delete") == ("not_found",)
        assert one.told(2) == (1, False, None)
    server.restart()
    with producer(server) as one:
        assert one.told(1) == ("line_passed",)
        assert one.told(2) == (1, True, 2)


def test_a_producer_is_its_identitys_also_after_a_restart(server: Server) -> None:
    alice, mallory = (server.add_key(name, publish=["lamp"]) for name in ("alice", "mallory"))
    with producer(server, mallory) as hers:
        assert hers.told(1_000) == (1, False, None)
    with producer(server, alice) as own:
        assert [own.told(1), own.told(2)] == [(2, False, None), (3, False, None)]
        assert own.told(3, device_id="door") == ("not_permitted",)
    server.restart()
    with producer(server, alice) as own:
        assert own.told(2) == (3, True, 2)
        assert own.told(4) == (4, False, None)
    with producer(server, mallory) as hers:
        assert hers.told(4) == ("line_passed",), "what is alice's is not told to others"


def test_a_connection_without_order_takes_no_lines(server: Server) -> None:
    with connect(server.ws_url) as socket:
        assert Producer(socket).told(1) == ("validation_failed",)
    assert server.log() == []
