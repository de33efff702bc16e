"""Rights on every path: whatever a path is for, it does for the devices of the right, and for no others."""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import apsw
import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.credentials import AUDIENCE, ISSUER, Issuer, add_key, bearer, jwks, revoke_key, set_ahead, until_known
from tests.raw_websocket import BINARY, CLOSE, PING, PONG, TEXT, RawWebSocket, frame
from tests.running import eventually
from twincast.access.revocation import KEYRING_LOOK_S
from twincast.core.rights import ACTIONS
from twincast.delivery.session import Limits
from twincast.testing import Server
from twincast.transports.rest import audit

LAB, HOME = "lab/a", "home/a"
JSON = {"Content-Type": "application/json"}
DEADLINE_S = 10


class Place(NamedTuple):
    """A server with a login, on one of the edges, and a key for each right on `lab/*`."""

    server: Server
    path: Path
    master: dict[str, str]
    keys: dict[str, dict[str, str]]

    def change_both(self) -> None:
        """Store a reading and a command of both devices; everybody has been told when this returns."""
        for name in (HOME, LAB):
            self.post("/api/data", {"device_id": name, "value": time.time()}, self.master).raise_for_status()
            self.post("/api/control", {"target": name, "command": "x"}, self.master).raise_for_status()

    def post(self, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
        return httpx.post(f"{self.server.url}{path}", json=body, headers=headers)

    def get(self, path: str, headers: dict[str, str]) -> httpx.Response:
        return httpx.get(f"{self.server.url}{path}", headers=headers)

    def position(self) -> str:
        status = self.get("/api/status", self.master).json()
        return f"{status['epoch']}:{status['seq']}"

    def websocket(self, headers: dict[str, str], query: str = "") -> ClientConnection:
        return connect(f"{self.server.ws_url}?{query}", additional_headers=headers)


@pytest.fixture(scope="module", params=["picows", "portable"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    path = tmp_path_factory.mktemp("access") / "journal.db"
    on_all: Any = {action: ["*"] for action in ACTIONS}
    on_lab: dict[str, Any] = {action: {action: ["lab/*"]} for action in ACTIONS}
    on_lab["all"] = {action: ["lab/*"] for action in ACTIONS}
    master = bearer(add_key(path, "master", **on_all))
    keys = {name: bearer(add_key(path, name, **grants)) for name, grants in on_lab.items()}
    # Failed logins are many here, and none is to be taken for the address's; and nothing is to end by a timeout.
    patience: dict[str, Any] = {"failed_logins_per_minute": 10_000, "auth_timeout_s": 60.0}
    with Server(f"sqlite:{path}", edge=request.param, identity_connections_max=100, **patience) as server:
        place = Place(server, path, master, keys)
        place.change_both()
        yield place


def say(socket: ClientConnection, *messages: dict[str, Any]) -> list[Any]:
    """Say something, and return all that comes up to the answer to a ping."""
    for message in (*messages, {"type": "ping"}):
        socket.send(json.dumps(message))
    heard: list[Any] = []
    while not heard or heard[-1]["type"] != "pong":
        heard.append(json.loads(socket.recv(timeout=10)))
    return heard


def names_in(messages: list[Any]) -> set[str]:
    """Return the devices that messages tell of, by whatever field."""
    told = [{**each, "subscription": None} if isinstance(each, dict) else each for each in messages]
    text = json.dumps(told)  # less the patterns that the client has said itself
    return {name for name in (LAB, HOME) if f'"{name}"' in text}


# What each path is for: the devices for which it did what it does.

Probe = Callable[[Place, dict[str, str]], set[str]]


def posted(path: str, body: Callable[[str], Any]) -> Probe:
    def probe(place: Place, key: dict[str, str]) -> set[str]:
        answers = {name: place.post(path, body(name), key) for name in (LAB, HOME)}
        assert {answer.status_code for answer in answers.values()} <= {200, 403}
        return {name for name, answer in answers.items() if answer.status_code == 200}

    return probe


def post_lines(place: Place, key: dict[str, str]) -> set[str]:
    done = set()
    for name in (LAB, HOME):
        line = json.dumps({"device_id": name, "value": 1})
        headers = {**key, "Content-Type": "application/x-ndjson"}
        answer = httpx.post(f"{place.server.url}/api/data", content=f"{line}\n{line}\n", headers=headers)
        done |= {name} if answer.status_code == 200 else set()
    return done


def said(message: Callable[[str], dict[str, Any]]) -> Probe:
    def probe(place: Place, key: dict[str, str]) -> set[str]:
        done = set()
        with place.websocket(key) as socket:
            for name in (LAB, HOME):
                socket.send(json.dumps({**message(name), "id": name}))
                while (answer := json.loads(socket.recv(timeout=10))).get("id") != name:
                    pass
                assert answer["type"] == "ack" or answer["code"] == "not_permitted"
                done |= {name} if answer["type"] == "ack" else set()
        return done

    return probe


def deleted(address: Callable[[str], str]) -> Probe:
    def probe(place: Place, key: dict[str, str]) -> set[str]:
        answers = {name: httpx.delete(f"{place.server.url}{address(name)}", headers=key) for name in (LAB, HOME)}
        place.change_both()  # so that both are there again
        assert {answer.status_code for answer in answers.values()} <= {200, 202, 403}
        return {name for name, answer in answers.items() if answer.is_success}

    return probe


def erasing(place: Place, key: dict[str, str]) -> set[str]:
    with closing(apsw.Connection(str(place.path))) as db:
        db.execute("begin")
        assert db.execute("select count(*) from log").get, "as long as this reads, the old rows are in the -wal"
        for name in (LAB, HOME):
            httpx.delete(f"{place.server.url}/api/history?device_id={name}", headers=place.master).raise_for_status()
        names = got("/api/erasures")(place, key)
    place.change_both()
    return names


def say_delete(place: Place, key: dict[str, str]) -> set[str]:
    done = said(lambda name: {"type": "delete", "device_id": name})(place, key)
    place.change_both()
    return done


def got(path: str) -> Probe:
    def probe(place: Place, key: dict[str, str]) -> set[str]:
        answer = place.get(path, key)
        assert answer.status_code in {200, 403}
        return names_in([answer.json()]) if answer.status_code == 200 else set()

    return probe


def got_one(path: str) -> Probe:
    """Return a probe of a path that has a name in it, or two names: as one segment of a path, and as a parameter."""

    def probe(place: Place, key: dict[str, str]) -> set[str]:
        answers = {
            name: place.get(path.format(segment=quote(name, safe=""), name=quote(name)), key) for name in (LAB, HOME)
        }
        assert {answer.status_code for answer in answers.values()} <= {200, 403, 404}
        return {name for name, answer in answers.items() if answer.status_code == 200}

    return probe


def counted(place: Place, key: dict[str, str]) -> set[str]:
    return {LAB, HOME} if place.get("/api/status", key).json()["devices_known"] == 2 else got_count(place, key)


def got_count(place: Place, key: dict[str, str]) -> set[str]:
    return {LAB} if place.get("/api/status", key).json()["devices_known"] == 1 else set()


def greeted(place: Place, key: dict[str, str]) -> set[str]:
    with place.websocket(key) as socket:
        return names_in([json.loads(socket.recv(timeout=10))])


def told_live(query: str) -> Probe:
    def probe(place: Place, key: dict[str, str]) -> set[str]:
        with place.websocket(key, query) as socket:
            hello = json.loads(socket.recv(timeout=10))
            assert hello["type"] == "hello"
            place.change_both()
            return names_in(say(socket))

    return probe


def told_on_resuming(place: Place, key: dict[str, str]) -> set[str]:
    since = place.position()
    place.change_both()
    with place.websocket(key, f"since={since}") as socket:
        assert json.loads(socket.recv(timeout=10))["resumed"]
        return names_in(say(socket))


def told_on_subscribing(place: Place, key: dict[str, str]) -> set[str]:
    with place.websocket(key, "devices=") as socket:
        assert json.loads(socket.recv(timeout=10))["data_snapshot"] == {}
        heard = say(socket, {"type": "subscribe", "devices": ["*", LAB, HOME]})
        place.change_both()
        return names_in([message["data_snapshot"] for message in heard if "data_snapshot" in message] + say(socket))


def streamed(query: str, *, resumes: bool = False) -> Probe:
    def probe(place: Place, key: dict[str, str]) -> set[str]:
        since = place.position()
        if resumes:
            place.change_both()
        address = f"{place.server.url}/api/events?{query}{f'&since={since}' if resumes else ''}"
        with httpx.stream("GET", address, headers={**key, "Accept": "text/event-stream"}, timeout=10) as answer:
            if answer.status_code == 403:
                return set()
            names: set[str] = set()
            changes = 0
            for line in answer.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                names |= names_in([message])
                if message["type"] == "hello" and not resumes:
                    place.change_both()
                changes += message["type"] in {"data_update", "control"} and LAB in line
                if changes == 2:  # the last that was changed
                    return names
            return names

    return probe


def streamed_by_ticket(place: Place, key: dict[str, str]) -> set[str]:
    answer = place.post("/api/tickets", {}, key)
    if answer.status_code == 403:
        return set()
    return streamed(f"ticket={answer.json()['ticket']}")(place, {})


def streamed_again_by_ticket(place: Place, key: dict[str, str]) -> set[str]:
    answer = place.post("/api/tickets", {}, key)
    if answer.status_code == 403:
        return set()
    query = f"ticket={answer.json()['ticket']}"
    streamed(query)(place, {})
    return streamed(query)(place, {"Last-Event-ID": place.position()})


def polled(place: Place, key: dict[str, str]) -> set[str]:
    since = place.position()
    place.change_both()
    return got(f"/api/events?since={since}")(place, key)


def polled_waiting(place: Place, key: dict[str, str]) -> set[str]:
    since, names = place.position(), set[str]()
    changing = threading.Timer(0.1, place.change_both)
    changing.start()
    until = int(since.split(":")[1]) + 4
    while int(since.split(":")[1]) < until:
        answer = place.get(f"/api/events?since={since}&wait_s=1", key)
        if answer.status_code == 403:
            break
        names |= names_in(answer.json()["events"])
        since = f"{answer.json()['epoch']}:{answer.json()['seq']}"
    changing.join()
    return names


PATHS: dict[str, tuple[str, Probe]] = {
    "POST a reading": ("publish", posted("/api/data", lambda name: {"device_id": name, "value": 1})),
    "POST readings": ("publish", posted("/api/data", lambda name: [{"device_id": name, "value": 1}] * 2)),
    "POST lines": ("publish", post_lines),
    "say telemetry": ("publish", said(lambda name: {"type": "telemetry", "device_id": name, "value": 1})),
    "say telemetry with a key": (
        "publish",
        said(lambda name: {"type": "telemetry", "device_id": name, "value": 1, "update_id": "k"}),
    ),
    "DELETE a device": ("publish", deleted(lambda name: f"/api/data/{quote(name, safe='')}")),
    "DELETE by parameter": ("publish", deleted(lambda name: f"/api/data?device_id={name}")),
    "say delete": ("publish", say_delete),
    "DELETE a history": ("admin", deleted(lambda name: f"/api/data/{quote(name, safe='')}/history")),
    "DELETE a history by parameter": ("admin", deleted(lambda name: f"/api/history?device_id={name}")),
    "GET the erasures": ("admin", erasing),
    "POST a command": ("command", posted("/api/control", lambda name: {"target": name, "command": "x"})),
    "say control": ("command", said(lambda name: {"type": "control", "target": name, "command": "x"})),
    "GET the state": ("read", got("/api/data")),
    "GET some of the state": ("read", got(f"/api/data?devices={LAB}&devices={HOME}")),
    "GET a device": ("read", got_one("/api/data/{segment}")),
    "GET the state as it was": ("read", got("/api/data?at=now")),
    "GET some of the state as it was": ("read", got(f"/api/data?at=now&devices={LAB}&devices={HOME}")),
    "GET a device as it was": ("read", got_one("/api/data/{segment}?at=now")),
    "GET a device's history": ("read", got_one("/api/data/{segment}/history")),
    "GET a device's buckets": ("read", got_one("/api/data/{segment}/history?points=10")),
    "GET history by parameter": ("read", got_one("/api/history?device_id={name}")),
    "GET buckets by parameter": ("read", got_one("/api/history?device_id={name}&every=1h&agg=last")),
    "GET histories": ("read", got("/api/history?devices=*")),
    "GET histories with marks": ("read", got("/api/history?devices=*&kinds=control,deleted")),
    "GET histories by name": ("read", got(f"/api/history?devices={LAB}&devices={HOME}&limit=1")),
    "GET buckets of several": ("read", got("/api/history?devices=*&every=1h&agg=last")),
    "count devices": ("read", counted),
    "be greeted": ("read", greeted),
    "watch": ("read", told_live("")),
    "watch by name": ("read", told_live(f"devices={LAB}&devices={HOME}")),
    "watch every": ("read", told_live("mode=every")),
    "watch slowly": ("read", told_live("max_hz=1000")),
    "watch commands": ("read", told_live("kinds=control")),
    "resume": ("read", told_on_resuming),
    "subscribe": ("read", told_on_subscribing),
    "stream": ("read", streamed("")),
    "stream by name": ("read", streamed(f"devices={LAB}&devices={HOME}")),
    "stream on": ("read", streamed("", resumes=True)),
    "stream by ticket": ("read", streamed_by_ticket),
    "stream by ticket again": ("read", streamed_again_by_ticket),
    "poll the state": ("read", got("/api/events")),
    "poll": ("read", polled),
    "poll and wait": ("read", polled_waiting),
    "GET the audit trail": ("admin", got("/api/audit")),
}


@pytest.mark.parametrize("right", [*ACTIONS, "all", "master"])
@pytest.mark.parametrize("name", PATHS)
def test_a_path_serves_those_who_have_its_right_for_the_devices_of_that(place: Place, name: str, right: str) -> None:
    action, probe = PATHS[name]
    if right == "master":
        assert probe(place, place.master) == {LAB, HOME}
    else:
        assert probe(place, place.keys[right]) == ({LAB} if right in {action, "all"} else set())


@pytest.mark.parametrize("right", [*ACTIONS, "all", "master", "none"])
def test_the_numbers_of_the_server_are_for_whoever_administers_all_of_it(place: Place, right: str) -> None:
    key = {"master": place.master, "none": {}}.get(right) if right in {"master", "none"} else place.keys[right]
    assert key is not None
    assert place.get("/api/cluster", key).status_code == {"master": 200, "none": 401}.get(right, 403)
    copied = place.get("/api/cluster/copy", key).status_code
    assert copied == {"master": 404, "none": 401}.get(right, 403), "404: it shares its log with nobody"
    passed_on = {**key, "Via": "1.1 somewhere"}  # else it is of this machine, as tests/transports/test_scrape.py has it
    answer = place.get("/metrics", passed_on)
    assert answer.status_code == {"master": 200, "none": 401}.get(right, 403)


def test_every_operation_and_every_message_is_in_the_matrix(place: Place) -> None:
    operations = {
        f"{method.upper()} {path}"
        for path, item in place.get("/openapi.json", {}).json()["paths"].items()
        for method in item
    }
    assert operations == {
        "GET /api/status",
        "GET /api/data",
        "POST /api/data",
        "DELETE /api/data",
        "GET /api/data/{device_id}",
        "GET /api/data/{device_id}/history",
        "GET /api/history",
        "DELETE /api/history",
        "DELETE /api/data/{device_id}/history",
        "GET /api/erasures",
        "DELETE /api/data/{device_id}",
        "POST /api/control",
        "GET /api/events",
        "POST /api/tickets",
        "POST /api/pair",  # takes no credential and gives one: test_pairing.py
        "GET /api/audit",
        "GET /api/cluster",  # for administrators of all of it, as the numbers are; /api/cluster/copy is in no document
        "GET /metrics",
    }


@pytest.mark.parametrize("path", ["/api/status", "/api/data", "/api/events", "/api/audit", "/nothing", "/api/"])
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer twc_00000000_x"}, {"Authorization": "Basic YTpi"}])
def test_without_a_good_credential_everything_but_the_pages_is_401(
    place: Place, path: str, header: dict[str, str]
) -> None:
    answer = place.get(path, header)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/redoc", "/asyncapi", "/dashboard", "/openapi.json", "/dashboard/app.js", "/guides/client.md"],
)
def test_the_pages_need_no_credential_to_be_loaded(place: Place, path: str) -> None:
    assert place.get(path, {}).status_code == 200


def test_a_reading_that_is_refused_is_not_stored_and_its_batch_neither(place: Place) -> None:
    before = place.position()
    body = [{"device_id": LAB, "value": 1}, {"device_id": HOME, "value": 1}]
    answer = place.post("/api/data", body, place.keys["publish"])
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    assert place.position() == before


def test_what_a_server_says_to_a_device_that_is_not_there_is_what_it_says_to_one_that_may_not_be_seen(
    place: Place,
) -> None:
    for key in (place.keys["read"], place.keys["publish"]):
        for path in ("/api/history?device_id={}", "/api/history?device_id={}&points=5", "/api/data/{}/history"):
            seen, unseen = (place.get(path.format(quote(name, safe="")), key) for name in (HOME, "nohere"))
            assert seen.status_code == unseen.status_code != 200
            assert seen.text.replace(HOME, "nohere") == unseen.text
        for path in ("/api/data?devices={}", "/api/events?devices={}"):
            seen, unseen = (place.get(path.format(name), key) for name in (HOME, "nowhere"))
            assert seen.status_code == unseen.status_code
            if seen.is_success:
                assert seen.json().get("data", seen.json().get("data_snapshot")) == {}
                assert unseen.json().keys() == seen.json().keys()
    answers = [
        place.post("/api/data", {"device_id": name, "value": 1}, place.keys["read"]) for name in (HOME, "nohere")
    ]
    assert answers[0].text.replace(HOME, "nohere") == answers[1].text


def test_nobody_learns_by_the_key_of_a_retry_what_somebody_else_has_stored(place: Place) -> None:
    body = {"device_id": LAB, "value": 42}
    first = place.post("/api/data", body, {**place.master, "Idempotency-Key": "secret-key"})
    again = place.post("/api/data", body, {**place.master, "Idempotency-Key": "secret-key"})
    other = place.post("/api/data", body, {**place.keys["publish"], "Idempotency-Key": "secret-key"})
    assert again.json()["event"]["seq"] == first.json()["event"]["seq"]
    assert other.json()["event"]["seq"] > first.json()["event"]["seq"]
    assert "idempotency-replayed" not in other.headers


def test_an_update_id_counts_for_one_identity(place: Place) -> None:
    message = {"type": "telemetry", "device_id": LAB, "value": 42, "update_id": "secret-id", "id": 1}

    def stored(key: dict[str, str]) -> tuple[int, bool]:
        with place.websocket(key, "devices=") as socket:
            assert json.loads(socket.recv(timeout=10))["type"] == "hello"
            socket.send(json.dumps(message))
            ack = json.loads(socket.recv(timeout=10))
            return ack["seq"], ack.get("replayed", False)

    first_seq, _ = stored(place.master)
    assert stored(place.master) == (first_seq, True)
    other_seq, replayed = stored(place.keys["publish"])
    assert other_seq > first_seq
    assert not replayed


def test_the_audit_trail_says_who_commanded_what_from_where(place: Place) -> None:
    place.post("/api/control", {"target": LAB, "command": "audited"}, place.keys["command"]).raise_for_status()
    who = place.get("/api/status", place.keys["command"]).json()["identity"]
    records = place.get("/api/audit?limit=5", place.master).json()["records"]
    assert (records[0]["who"], records[0]["address"]) == (who, "127.0.0.1")
    assert (records[0]["action"], records[0]["target"], records[0]["detail"]) == ("command", LAB, "audited")
    assert records[0]["seq"] == int(place.position().split(":")[1])
    assert all(
        record["target"].startswith("lab/") for record in place.get("/api/audit", place.keys["admin"]).json()["records"]
    )


def audited(server: Server, key: dict[str, str], limit: int = 100) -> list[str]:
    answer = httpx.get(f"{server.url}/api/audit?limit={limit}", headers=key)
    return [record["target"] for record in answer.raise_for_status().json()["records"]]


def test_what_an_administrator_may_not_see_takes_no_place_among_what_he_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    master = bearer(add_key(path, "master", admin=["*"], command=["*"]))
    lab = bearer(add_key(path, "lab", admin=["lab/*"]))
    monkeypatch.setattr(audit, "BLOCK_RECORDS", 2)
    monkeypatch.setattr(audit, "LOOK_MAX_RECORDS", 8)
    with Server(f"sqlite:{path}") as server:
        for target in ("lab/0", "lab/1", "lab/2", *["home"] * 5):
            body = {"target": target, "command": "x"}
            httpx.post(f"{server.url}/api/control", json=body, headers=master).raise_for_status()
        assert audited(server, lab, 1) == ["lab/2"]
        assert audited(server, lab, 2) == ["lab/2", "lab/1"]
        assert audited(server, lab) == ["lab/2", "lab/1", "lab/0"]
        assert audited(server, lab, 0) == []
        assert audited(server, master, 6) == ["home"] * 5 + ["lab/2"]
        httpx.post(f"{server.url}/api/control", json=body, headers=master).raise_for_status()
        assert audited(server, lab) == ["lab/2", "lab/1"]  # it looks back so far


def test_changes_of_the_keys_are_shown_to_administrators_of_all_devices_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    master = bearer(add_key(path, "master", admin=["*"]))
    narrow = bearer(add_key(path, "narrow", admin=["k*", "key:*"]))
    with Server(f"sqlite:{path}") as server:
        assert [target[:4] for target in audited(server, master)] == ["key:", "key:"]
        assert audited(server, narrow) == []


def test_the_status_shows_the_journals_place_to_administrators_alone(place: Place) -> None:
    assert "journal" in place.get("/api/status", place.master).json()
    assert "journal" not in place.get("/api/status", place.keys["read"]).json()


# The WebSocket's own ways.


@contextmanager
def unknown(place: Place) -> Iterator[ClientConnection]:
    with connect(f"{place.server.ws_url}?auth=message") as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "auth_required"
        yield socket


def close_code(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=10)
    return None if closed.value.rcvd is None else int(closed.value.rcvd.code)


def test_a_first_message_may_say_who_it_is(place: Place) -> None:
    with unknown(place) as socket:
        secret = place.keys["read"]["Authorization"].removeprefix("Bearer ")
        socket.send(json.dumps({"type": "auth", "token": secret}))
        assert json.loads(socket.recv(timeout=10))["data_snapshot"].keys() == {LAB}


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"auth","token":"wrong"}',
        '{"type":"auth"}',
        '{"type":"telemetry","device_id":"lab/a","value":1}',
        '{"type":"ping"}',
        "nonsense",
        b"\x00",
        json.dumps({"type": "auth", "token": "x" * 9_000}),
        "oversized",
    ],
    ids=["wrong", "no token", "telemetry", "ping", "no JSON", "binary", "a long token", "a good one, oversized"],
)
def test_a_first_message_that_says_nothing_good_is_the_last(place: Place, message: str | bytes) -> None:
    good = json.dumps({"type": "auth", "token": place.keys["read"]["Authorization"].removeprefix("Bearer ")})
    first = good + " " * 8_192 if message == "oversized" else message
    payload = first if isinstance(first, bytes) else first.encode()
    with RawWebSocket(place.server.port, "/ws?auth=message") as socket:
        assert socket.read_message()["type"] == "auth_required"
        opcode = BINARY if isinstance(first, bytes) else TEXT
        socket.socket.sendall(frame(opcode, payload) + frame(TEXT, good.encode()))  # so that both are read at once
        assert socket.read_message()["type"] == "error"
        closing = socket.read()
        assert closing.opcode == CLOSE
        assert (closing.close_code or 0) >= 4500


@pytest.mark.parametrize(
    "headers", [{"Host": "rebound.example.org"}, {"Origin": "https://elsewhere.example.org"}], ids=["Host", "Origin"]
)
@pytest.mark.parametrize("query", ["?auth=message", ""])
def test_a_page_from_elsewhere_does_not_come_so_far_as_to_log_in(
    place: Place, headers: dict[str, str], query: str
) -> None:
    with RawWebSocket(place.server.port, f"/ws{query}", headers) as refused:
        assert refused.status == 403


# A ticket and the stream that comes back by it.


class EventSource:
    """A browser's event stream as it comes and goes: one address, and its last position."""

    def __init__(self, place: Place, query: str = "") -> None:
        self._place = place
        ticket = place.post("/api/tickets", {}, place.keys["read"]).json()["ticket"]
        self.address = f"/api/events?ticket={ticket}{query}"
        self.last = ""

    def status(self, address: str = "", *, last: str | None = None, accept: str = "text/event-stream") -> int:
        """Ask once more, and leave at once."""
        headers = {"Accept": accept, "Last-Event-ID": self.last if last is None else last}
        headers = {name: text for name, text in headers.items() if text}
        with httpx.stream("GET", f"{self._place.server.url}{address or self.address}", headers=headers) as answer:
            return answer.status_code

    @contextmanager
    def opened(self) -> Iterator[Iterator[str]]:
        """Open the stream; yields the lines of its data, and keeps the newest position."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": self.last} if self.last else {})}
        address = f"{self._place.server.url}{self.address}"
        with httpx.stream("GET", address, headers=headers, timeout=DEADLINE_S) as answer:
            assert answer.status_code == 200

            def data() -> Iterator[str]:
                for line in answer.iter_lines():
                    if line.startswith("id:"):
                        self.last = line.removeprefix("id:").strip()
                    elif line.startswith("data:"):
                        yield line.removeprefix("data:")

            yield data()


def test_an_event_source_with_a_ticket_comes_back_and_misses_nothing(place: Place) -> None:
    source = EventSource(place, "&devices=lab/*")
    with source.opened() as data:
        assert json.loads(next(data))["type"] == "hello"
    for number in range(3):  # as often as its connection is lost
        place.post("/api/data", {"device_id": LAB, "value": number}, place.master).raise_for_status()
        with source.opened() as data:
            assert json.loads(next(data))["resumed"] is True
            assert json.loads(next(data))["value"] == number


def test_a_used_ticket_opens_nothing_but_its_own_stream_again(place: Place) -> None:
    source = EventSource(place, "&devices=lab/*")
    with source.opened() as data:
        next(data)
    epoch = place.position().partition(":")[0]
    ticket = source.address.partition("ticket=")[2].partition("&")[0]
    for status in (
        source.status(f"/api/events?ticket={ticket}"),
        source.status(f"/api/events?ticket={ticket}&devices=*"),
        source.status(f"/api/events?devices=lab/*&ticket={ticket}"),
        source.status(f"/api/data?ticket={ticket}"),
        source.status(f"/api/status?ticket={ticket}"),
        source.status(accept="application/json"),
        source.status(last="nonsense"),
        source.status(last="00000000-00000000:1"),
        source.status(last=f"{epoch}:999999999"),
    ):
        assert status == 401
    last, source.last = source.last, ""
    assert source.status() == 401
    source.last = last
    assert source.status() == 200


def test_the_newer_stream_of_a_ticket_ends_the_older(place: Place) -> None:
    source = EventSource(place, "&devices=lab/*")
    with source.opened() as older:
        next(older)
        with source.opened() as newer:
            assert json.loads(next(newer))["type"] == "hello"
            assert list(older) == []
            place.post("/api/data", {"device_id": LAB, "value": 1}, place.master).raise_for_status()
            assert json.loads(next(newer))["value"] == 1


def test_a_stream_does_not_come_back_when_its_owners_key_was_revoked(tmp_path: Path, edge: str) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}", edge=edge) as server:
        place = Place(server, tmp_path, {}, {"read": bearer(server.add_key("gone", read=["*"]))})
        source = EventSource(place)
        with source.opened() as data:
            next(data)
            server.revoke_key("gone")
            assert list(data) == []
        assert source.status() == 401


def test_a_stream_that_comes_back_takes_its_own_place(tmp_path: Path, edge: str) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}", edge=edge, identity_connections_max=1) as server:
        source = EventSource(Place(server, tmp_path, {}, {"read": bearer(server.add_key(read=["*"]))}))
        with source.opened() as first:
            next(first)
            with source.opened() as second:  # its line is dead, though the server does not know
                next(second)


# What libraries of devices and phones say of themselves, pages within apps say too, and a page from elsewhere.
ORIGINS = [
    "file://",
    "null",
    "app://-",
    "capacitor://localhost",
    "ws://192.0.2.1:8000",
    "https://elsewhere.example.org",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_good_credential_in_an_upgrades_head_makes_its_origin_void(place: Place, origin: str) -> None:
    def status(**headers: str) -> int:
        with RawWebSocket(place.server.port, "/ws", {"Origin": origin, **headers}) as socket:
            return socket.status

    good = place.keys["read"]["Authorization"]
    assert status(Authorization=good) == 101
    assert status(Authorization="Bearer twc_00000000_x") == 401
    assert status(Authorization=good.removeprefix("Bearer ")) == 401
    assert status() == 403
    assert status(Authorization=good, Host="rebound.example.org") == 403
    # A page could send it over REST, once its browser has asked whether it may; so there the Origin counts.
    assert place.get("/api/data", {**place.keys["read"], "Origin": origin}).status_code == 403


def test_without_a_login_no_credential_is_good_so_the_origin_counts(edge: str) -> None:
    with Server("memory:", edge=edge) as server:
        for origin in ORIGINS:
            headers = {"Origin": origin, "Authorization": "Bearer twc_00000000_x"}
            with RawWebSocket(server.port, "/ws", headers) as refused:
                assert refused.status == 403


def test_an_origin_that_is_allowed_is_allowed_to_read_the_answer_however_it_was_set(edge: str) -> None:
    with Server("memory:", edge=edge, allow_origin=("HTTPS://App.Example:443/", "capacitor://localhost")) as server:
        for origin in ("https://app.example", "capacitor://localhost"):
            answer = httpx.get(f"{server.url}/api/data", headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == origin
            with RawWebSocket(server.port, "/ws", {"Origin": origin}) as socket:
                assert socket.status == 101


FORWARDED = [
    "203.0.113.{}",
    "203.0.113.{}:41234",
    "[2001:db8:{}::1]:443",
    "::ffff:203.0.113.{}",
    "203.0.113.{}, 10.0.0.1:80",
]


@pytest.mark.parametrize("form", FORWARDED)
def test_who_guesses_behind_a_proxy_locks_out_nobody_else(tmp_path: Path, edge: str, form: str) -> None:
    path = tmp_path / "journal.db"
    add_key(path, read=["*"])
    behind: dict[str, Any] = {"behind_tls_proxy": True, "trusted_proxy": ("127.0.0.0/8", "10.0.0.0/8")}
    with Server(f"sqlite:{path}", edge=edge, failed_logins_per_minute=2, **behind) as server:

        def login(who: int) -> int:
            headers = {"X-Forwarded-For": form.format(who), "Authorization": "Bearer wrong"}
            return httpx.get(f"{server.url}/api/data", headers=headers).status_code

        assert [login(5) for _ in range(3)] == [401, 401, 429]
        assert login(77) == 401


def test_an_upgrade_with_a_wrong_credential_is_401(place: Place) -> None:
    headers = {"Authorization": "Bearer twc_00000000_x"}
    with pytest.raises(InvalidStatus) as refused, place.websocket(headers):
        pass
    assert refused.value.response.status_code == 401


def test_whoever_does_not_say_who_he_is_in_time_is_let_go(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    add_key(path, read=["*"])
    with Server(f"sqlite:{path}", edge=edge, auth_timeout_s=0.2) as server, connect(server.ws_url) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "auth_required"
        assert close_code(socket) == 4501


def test_an_expired_token_closes_the_socket_unless_it_was_renewed(tmp_path: Path, edge: str) -> None:
    issuer, file = Issuer(), tmp_path / "keys.json"
    file.write_text(jwks(issuer))
    how: dict[str, Any] = {"jwt_jwks": str(file), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}

    def token(lives_s: float) -> str:
        return issuer.token(lives_s=lives_s - 30, twincast={"read": ["*"]})  # 30 s is the leeway

    with Server("memory:", edge=edge, **how) as server:
        headers = bearer(token(60))
        with (
            connect(server.ws_url, additional_headers=headers) as left,
            connect(server.ws_url, additional_headers=headers) as renewed,
        ):
            for socket in (left, renewed):
                assert json.loads(socket.recv(timeout=10))["type"] == "hello"
            renewed.send(json.dumps({"type": "auth", "token": token(900), "id": 1}))
            assert json.loads(renewed.recv(timeout=10))["type"] == "ack"
            set_ahead(server, 100)
            assert close_code(left) == 4502
            assert say(renewed)[-1]["type"] == "pong"
            renewed.send(json.dumps({"type": "auth", "token": token(600), "id": 2}))
            assert json.loads(renewed.recv(timeout=10))["type"] == "ack"
            set_ahead(server, 700)
            assert close_code(renewed) == 4502  # a renewal may shorten too


def test_a_revoked_key_is_gone_soon_while_a_load_goes_on(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    publisher = bearer(add_key(path, "publisher", publish=["*"], rate_per_s=1e6))
    watcher = bearer(add_key(path, "watcher", read=["*"]))
    with Server(f"sqlite:{path}", edge=edge) as server:
        until_known(server, watcher["Authorization"].removeprefix("Bearer "))
        stop, pushed = threading.Event(), list[int]()

        def push() -> None:
            body = [{"device_id": f"d{number}", "value": number} for number in range(1_000)]
            with httpx.Client(headers=publisher) as http:
                while not stop.is_set():
                    pushed.append(http.post(f"{server.url}/api/data", json=body).raise_for_status().status_code)

        pushing = threading.Thread(target=push)
        pushing.start()
        try:
            with connect(server.ws_url, additional_headers=watcher, max_size=None) as socket:
                socket.recv(timeout=10)
                eventually(lambda: len(pushed) > 1, "the load has begun")
                revoke_key(path, "watcher")
                before = len(pushed)
                code = close_code(socket)
                meanwhile = len(pushed) - before
            assert code == 4502 and pushing.is_alive()
            # The promise is a second: the keys are read ten times in it, and no load delays that by more than a little.
            assert KEYRING_LOOK_S <= 0.1 and meanwhile < 200
            answer = httpx.get(f"{server.url}/api/data", headers=watcher)
            assert (answer.status_code, answer.json()["code"]) == (401, "credential_expired")
        finally:
            stop.set()
            pushing.join()


def test_a_revoked_key_ends_streams_and_polls_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    key = bearer(add_key(path, read=["*"]))
    with Server(f"sqlite:{path}") as server:
        statuses: list[int] = []
        since = httpx.get(f"{server.url}/api/status", headers=key).json()

        def poll() -> None:
            address = f"{server.url}/api/events?since={since['epoch']}:{since['seq']}&wait_s=30"
            statuses.append(httpx.get(address, headers=key, timeout=60).status_code)

        polling = threading.Thread(target=poll)
        polling.start()
        with httpx.stream("GET", f"{server.url}/api/events", headers={**key, "Accept": "text/event-stream"}) as answer:
            lines = answer.iter_lines()
            assert next(lines)
            revoke_key(path)
            for _ in lines:
                pass  # the stream ends
        polling.join(10)
        assert statuses == [401]


@contextmanager
def unread(server: Server, key: dict[str, str], *paths: str) -> Iterator[socket.socket]:
    """Ask for large answers, one behind the other on one connection, and do not read them."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
        client.settimeout(DEADLINE_S)
        client.connect(("127.0.0.1", server.port))
        fields = "".join(f"{name}: {value}\r\n" for name, value in {**key, "Accept": "text/event-stream"}.items())
        client.sendall("".join(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n" for path in paths).encode())
        yield client


def read_until(client: socket.socket, end: bytes) -> bytes:
    """Read up to some bytes or the end of the connection; return the last part."""
    read = b""
    with suppress(ConnectionResetError):
        while not read.endswith(end) and (part := client.recv(1 << 20)):
            read = (read + part)[-1_000:]
    return read


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, dict[str, str]]]:
    """Run a server with a large state, and make a key that may read it."""
    monkeypatch.setattr("twincast.app.Limits", partial(Limits, close_timeout_s=0.2))
    path = tmp_path / "journal.db"
    reader, publisher = bearer(add_key(path, "read", read=["*"])), bearer(add_key(path, "publish", publish=["*"]))
    with Server(f"sqlite:{path}", value_max_bytes=4_100_000) as server:
        for name in "abcd":
            body = {"device_id": name, "value": "x" * 4_000_000}
            httpx.post(f"{server.url}/api/data", json=body, headers=publisher).raise_for_status()
        yield server, reader


def test_a_stream_that_is_not_read_ends_soon_after_its_key(
    large: tuple[Server, dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, key = large
    caplog.set_level(logging.INFO, "twincast")
    with unread(server, key, "/api/events") as client:
        eventually(lambda: "is of key:" in caplog.text, "the stream begins")
        revoke_key(tmp_path / "journal.db", "read")
        eventually(lambda: "did not take its end" in caplog.text, "the server waits no longer")
        assert not read_until(client, b"0\r\n\r\n").endswith(b"0\r\n\r\n")


def test_a_stream_whose_key_is_revoked_while_it_waits_for_its_turn_tells_nothing(
    large: tuple[Server, dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, key = large
    caplog.set_level(logging.INFO, "twincast")
    with unread(server, key, "/api/data?devices=a", "/api/events?devices=a") as client:
        eventually(lambda: "is of key:" in caplog.text, "the stream waits for the answer before it to be read")
        revoke_key(tmp_path / "journal.db", "read")
        eventually(lambda: "is over" in caplog.text, "its place is given back")
        end = b"\r\n\r\nd\r\nretry: 2000\n\n\r\n0\r\n\r\n"
        assert read_until(client, end).endswith(end)


def test_the_first_key_takes_effect_at_once(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    with Server(f"sqlite:{path}", edge=edge) as server, connect(server.ws_url) as socket:
        socket.recv(timeout=10)
        assert httpx.get(f"{server.url}/api/data").status_code == 200
        secret = add_key(path, read=["*"])
        assert close_code(socket) == 4501
        assert httpx.get(f"{server.url}/api/data").status_code == 401
        assert httpx.get(f"{server.url}/api/data", headers=bearer(secret)).status_code == 200


def test_where_reading_is_open_one_reads_and_nothing_else(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, publish=["*"])
    with Server(f"sqlite:{path}", edge=edge, anonymous="read") as server:
        until_known(server, secret)
        body = {"device_id": LAB, "value": 1}
        httpx.post(f"{server.url}/api/data", json=body, headers=bearer(secret)).raise_for_status()
        assert httpx.get(f"{server.url}/api/data").json()["data"].keys() == {LAB}
        assert httpx.post(f"{server.url}/api/data", json=body).status_code == 403
        assert httpx.post(f"{server.url}/api/control", json={"target": "a", "command": "b"}).status_code == 403
        assert httpx.get(f"{server.url}/api/audit").status_code == 403
        assert httpx.get(f"{server.url}/api/data", headers=bearer("wrong")).status_code == 401
        with connect(server.ws_url) as socket:
            assert json.loads(socket.recv(timeout=10))["data_snapshot"].keys() == {LAB}
            for message in (
                {"type": "telemetry", "device_id": LAB, "value": 2, "id": 1},
                {"type": "control", "target": LAB, "command": "x", "id": 1},
            ):
                refusal, _pong = say(socket, message)
                assert (refusal["code"], refusal["id"]) == ("not_permitted", 1)
        assert [entry["type"] for entry in server.log()] == ["data_update"]


def test_a_rate_is_kept_by_answers_over_rest_and_by_patience_over_a_websocket(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    key = bearer(add_key(path, publish=["*"], rate_per_s=10))  # and 50 at once
    with Server(f"sqlite:{path}", edge=edge) as server:
        until_known(server, key["Authorization"].removeprefix("Bearer "))
        with connect(server.ws_url, additional_headers=key) as socket:
            socket.recv(timeout=10)
            began_s = time.monotonic()
            for numbers in (range(60), range(60, 65)):  # what comes later is read when the first ones are paid for
                for number in numbers:
                    socket.send(json.dumps({"type": "telemetry", "device_id": "a", "value": number, "id": number}))
                answers = [json.loads(socket.recv(timeout=30)) for _ in numbers]
                assert [(each["type"], each["id"]) for each in answers] == [("ack", number) for number in numbers]
            assert time.monotonic() - began_s > 0.9  # 60 updates at 10/s, less 50 at once
        # What came over one way counts on the other.
        refused = httpx.post(f"{server.url}/api/data", json=[{"device_id": "a", "value": 1}] * 50, headers=key)
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert int(refused.headers["retry-after"]) >= 1


def test_reading_counts_by_what_it_costs_for_whoever_asks_and_nobody_else(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    publisher = bearer(add_key(path, "publisher", publish=["*"], rate_per_s=1e6))
    greedy, modest = (add_key(path, name, read=["*"]) for name in ("greedy", "modest"))
    costly = [("devices", "*" + "a*" * 60 + f"b{number}*") for number in range(20)]
    with Server(f"sqlite:{path}", edge=edge, rate_updates_per_s=100) as server:  # and 500 units at once
        until_known(server, modest)
        readings = [{"device_id": "a" * 100 + str(number), "value": 1} for number in range(300)]
        httpx.post(f"{server.url}/api/data", json=readings, headers=publisher).raise_for_status()

        def read(path: str, secret: str) -> httpx.Response:
            return httpx.get(f"{server.url}{path}", headers=bearer(secret), timeout=60)

        assert read(f"/api/data?{urlencode(costly)}", greedy).json()["data"] == {}
        for refused in (read("/api/data", greedy), read("/api/events", greedy)):
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert len(read("/api/data", modest).json()["data"]) == 300
        assert read("/api/status", greedy).json()["devices_known"] == 300
        with connect(server.ws_url, additional_headers=bearer(greedy)) as socket:  # it is told all the same
            assert len(json.loads(socket.recv(timeout=10))["data_snapshot"]) == 300


def test_a_flood_of_pings_is_answered_whole_and_in_order(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, read=["*"])
    with Server(f"sqlite:{path}", edge=edge, rate_updates_per_s=100) as server:  # and 500 at once
        until_known(server, secret)
        with RawWebSocket(server.port, headers=bearer(secret)) as flooding:
            flooding.read_message()
            middle = frame(TEXT, b'{"type":"ping"}')
            pings = [frame(PING, str(number).encode()) for number in range(600)]
            flooding.socket.sendall(b"".join([*pings[:300], middle, *pings[300:]]))
            heard = [flooding.read() for _ in range(601)]
    assert [int(each.payload) for each in heard if each.opcode == PONG] == list(range(600))
    if edge == "picows":  # uvicorn's own answers pings by itself
        assert heard[300].opcode == TEXT


def test_an_identity_has_sixteen_streams(tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    key = bearer(add_key(path, read=["*"]))
    with Server(f"sqlite:{path}", edge=edge) as server:
        until_known(server, key["Authorization"].removeprefix("Bearer "))
        with ExitStack() as open_sockets:
            sockets = [open_sockets.enter_context(connect(server.ws_url, additional_headers=key)) for _ in range(16)]
            with pytest.raises(InvalidStatus) as refused, connect(server.ws_url, additional_headers=key):
                pass
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["retry-after"] == "1"
            sockets[0].close()
            eventually(lambda: _opens(server, key), "there is room again")


def _opens(server: Server, key: dict[str, str]) -> bool:
    try:
        with connect(server.ws_url, additional_headers=key):
            return True
    except InvalidStatus:
        return False
