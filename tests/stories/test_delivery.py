"""docs/delivery.md over the wire: cursors, subscriptions, event streams, long polls, retries. Both edges."""

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from zlib import crc32

import pytest
import requests
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from tests.conftest import JournalUrl, Kit
from twincast.hub.hub import Hub
from twincast.testing import Clock, Proxy, Server
from twincast.transports.rest import data

DEADLINE_S = 20


@pytest.fixture
def server(kit: Kit, journal_url: JournalUrl) -> Iterator[Server]:
    with Server(journal_url(kit.kind), edge=kit.edge) as server:
        yield server


@pytest.fixture
def memory_server() -> Iterator[Server]:
    with Server() as server:
        yield server


def post(server: Server, body: Any, path: str = "/api/data", **headers: str) -> requests.Response:
    return requests.post(server.url + path, json=body, headers=headers, timeout=DEADLINE_S)


def publish(server: Server, *names: str) -> int:
    """Store one reading a name, whose value is its number; return the last seq."""
    before = len(server.log())
    answer = post(server, [{"device_id": name, "value": before + n} for n, name in enumerate(names, 1)]).json()
    seq: int = answer["last_seq"]
    return seq


def get(server: Server, path: str, **parameters: Any) -> Any:
    return requests.get(server.url + path, params=parameters, timeout=DEADLINE_S).json()


@contextlib.contextmanager
def ws(server: Server, **parameters: Any) -> Iterator[ClientConnection]:
    query = urlencode(parameters, doseq=True)
    with connect(f"{server.ws_url}?{query}" if query else server.ws_url, max_size=None) as socket:
        yield socket


def hear(socket: ClientConnection, count: int = 1) -> list[Any]:
    return [json.loads(socket.recv(timeout=DEADLINE_S)) for _ in range(count)]


def ask(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def position(server: Server, seq: int) -> str:
    return f"{get(server, '/api/status')['epoch']}:{seq}"


def events(server: Server, *, last_event_id: str = "", **parameters: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an event stream sends: id and message."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    url = f"{server.url}/api/events?{urlencode(parameters, doseq=True)}"
    with requests.get(url, headers=headers, stream=True, timeout=DEADLINE_S) as response:
        assert response.headers["content-type"] == "text/event-stream"
        event_id = ""
        for line in response.iter_lines(chunk_size=1):
            if line.startswith(b"id: "):
                event_id = line[4:].decode()
            elif line.startswith(b"data: "):
                yield event_id, json.loads(line[6:])


# One cursor.


def test_every_answer_carries_the_position(server: Server) -> None:
    stored = post(server, {"device_id": "lamp", "value": 1}).json()["event"]
    dispatched = post(server, {"target": "lamp", "command": "on"}, "/api/control").json()["event"]
    batch = post(server, [{"device_id": "lamp", "value": 2}]).json()
    with ws(server) as socket:
        [hello] = hear(socket)
        ask(socket, type="telemetry", id=1, device_id="lamp", value=3)
        event, ack = sorted(hear(socket, 2), key=lambda message: message["type"] == "ack")
        ask(socket, type="ping")
        [pong] = hear(socket)
    data = get(server, "/api/data")
    carriers = [stored, dispatched, batch, hello, event, ack, pong, data]
    assert [carrier["seq"] for carrier in carriers] == [1, 2, 3, 3, 4, 4, 4, 4]
    assert len({carrier["epoch"] for carrier in carriers}) == 1


def test_a_websocket_resumes_what_its_filter_selects(server: Server) -> None:
    publish(server, "lab/a", "x", "lab/b", "x", "lab/a")
    with ws(server, since=position(server, 1), devices=["lab/*"], mode="every") as socket:
        hello, third, fifth = hear(socket, 3)
        publish(server, "x", "lab/c")
        [seventh] = hear(socket)
    assert (hello["resumed"], hello["seq"], hello["data_snapshot"]) == (True, 1, {})
    assert [event["seq"] for event in (third, fifth, seventh)] == [3, 5, 7]


def test_a_position_survives_a_restart_of_the_server(server: Server) -> None:
    publish(server, *"abcde")
    since = position(server, 2)
    server.restart()
    with ws(server, since=since) as socket:
        assert [message["seq"] for message in hear(socket, 4)] == [2, 3, 4, 5]
    hello, *missed = (message for _, (_, message) in zip(range(4), events(server, since=since), strict=False))
    assert (hello["resumed"], [event["seq"] for event in missed]) == (True, [3, 4, 5])
    assert [event["seq"] for event in get(server, "/api/events", since=since)["events"]] == [3, 4, 5]


class BackwardClock(Clock):
    """A clock that is set back before each reading, as a machine's may be."""

    def __call__(self) -> str:
        self._now -= timedelta(hours=1)
        return super().__call__()


def test_a_replay_is_in_the_order_of_seq_not_of_time() -> None:
    with Server(clock=BackwardClock()) as server:
        for _ in range(5):
            publish(server, "a")
        with ws(server, since=position(server, 0), mode="every") as socket:
            _, *missed = hear(socket, 6)
    assert [event["seq"] for event in missed] == [1, 2, 3, 4, 5]
    times = [event["timestamp_utc"] for event in missed]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("since", ["feedbeef:1", "{epoch}:99"])
def test_a_position_that_is_not_ours_is_answered_by_the_whole_state(server: Server, since: str) -> None:
    publish(server, "a", "b")
    since = since.format(epoch=position(server, 0).partition(":")[0])
    reason = "epoch" if since.startswith("feed") else "ahead"
    if reason == "ahead" and server._settings.journal.startswith("nats:"):  # another server may be as far
        with ws(server, since=since) as socket, pytest.raises(ConnectionClosedError, match="not_yet"):
            hear(socket)
        return
    with ws(server, since=since) as socket:
        [hello] = hear(socket)
    polled = get(server, "/api/events", since=since)
    for answer in (hello, polled):
        assert (answer["resumed"], answer["reason"], answer["seq"]) == (False, reason, 2)
        assert sorted(answer["data_snapshot"]) == ["a", "b"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"since": "x"},
        {"mode": "some"},
        {"kinds": "news"},
        {"max_hz": "0"},
        {"mode": "every", "max_hz": "1"},
        {"page_size": "-1"},
        {"page": "-1"},
        {"page": "2", "page_size": "2"},
        {"devices": "a\\b"},
        {"device": "a"},
        {"max_hz": "nan"},
    ],
)
def test_a_wish_that_cannot_be_is_said_in_words(server: Server, parameters: dict[str, str]) -> None:
    with ws(server, **parameters) as socket:
        [error] = hear(socket)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=DEADLINE_S)
    assert (error["type"], error["code"]) == ("error", "validation_failed")
    assert closed.value.rcvd and closed.value.rcvd.code == 4500
    url = f"{server.url}/api/events?{urlencode(parameters)}"
    refused = requests.get(url, headers={"Accept": "text/event-stream"}, timeout=DEADLINE_S)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


def test_min_seq_reads_what_was_written_or_says_not_yet(memory_server: Server) -> None:
    seq = publish(memory_server, "a")
    for reached in (str(seq), position(memory_server, seq)):
        assert get(memory_server, "/api/data", min_seq=reached)["seq"] == seq
    assert get(memory_server, "/api/data", min_seq="soon")["code"] == "validation_failed"
    late = requests.get(f"{memory_server.url}/api/data?min_seq=9", timeout=DEADLINE_S)
    assert (late.status_code, late.json()["code"], late.headers["retry-after"]) == (503, "not_yet", "1")


def test_who_waits_for_a_position_in_vain_is_forgotten(memory_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[int] = []

    def when_reached(_hub: Hub, seq: int, _callback: Callable[[], None]) -> Callable[[], object]:
        return lambda: forgotten.append(seq)

    monkeypatch.setattr(Hub, "when_reached", when_reached)
    monkeypatch.setattr(data, "REACH_S", 0.01)
    assert get(memory_server, "/api/data", min_seq=9)["code"] == "not_yet"
    assert forgotten == [9]


# Subscriptions.


def test_a_subscription_is_changed_while_it_runs(server: Server) -> None:
    publish(server, "lab/a", "x", "y")
    with ws(server) as socket:
        hear(socket)
        ask(socket, type="subscribe", id="s", devices=["lab/*"], kinds=["data_update"])
        [ack] = hear(socket)
        assert ack == {"type": "ack", "id": "s", "epoch": ack["epoch"], "seq": 3}
        publish(server, "x", "lab/a")
        assert [event["seq"] for event in hear(socket)] == [5]
        ask(socket, type="subscribe", id=2, devices=["x"])
        snapshot, ack = hear(socket, 2)
        assert (snapshot["type"], list(snapshot["data_snapshot"]), ack["seq"]) == ("snapshot", ["x"], 5)
        ask(socket, type="unsubscribe", id=3, devices=["lab/*"])
        assert hear(socket)[0]["id"] == 3
        publish(server, "lab/a", "x")
        assert [event["seq"] for event in hear(socket)] == [7]
        ask(socket, type="unsubscribe", id=4)
        publish(server, "x")
        ask(socket, type="ping")
        assert [message["type"] for message in hear(socket, 2)] == ["ack", "pong"]


@pytest.mark.parametrize(
    "wish",
    [{"devices": ["\\"]}, {"devices": "a"}, {"kinds": ["news"]}, {"mode": "some"}, {"max_hz": -1}, {"max_hz": "x"}],
)
def test_a_subscription_that_cannot_be_is_refused_and_the_old_one_goes_on(server: Server, wish: dict[str, Any]) -> None:
    with ws(server, devices="a") as socket:
        hear(socket)
        ask(socket, type="subscribe", id=1, **wish)
        [error] = hear(socket)
        assert (error["type"], error["code"], error["id"]) == ("error", "validation_failed", 1)
        publish(server, "b", "a")
        assert hear(socket)[0]["device_id"] == "a"


def test_the_stream_is_live_before_the_acknowledgement_comes(server: Server) -> None:
    with ws(server, devices="") as watching, ws(server, devices="") as publishing:
        hear(watching)
        hear(publishing)
        for number in range(100):
            ask(watching, type="subscribe", id=number, devices=[f"d{number}"])
            [ack] = hear(watching)
            ask(publishing, type="telemetry", device_id=f"d{number}", value=number)
            [event] = hear(watching)
            assert (ack["id"], event["value"]) == (number, number)


def test_at_most_so_often_a_second(server: Server) -> None:
    with ws(server, max_hz=2) as socket:
        hear(socket)
        publish(server, *"aaaa")
        publish(server, *"abab")
        heard: list[Any] = []
        while sum(event.get("merged", 1) for event in heard) < 8:
            heard += hear(socket)
    assert len(heard) <= 4
    assert {event["device_id"]: event["value"] for event in heard} == {"a": 7, "b": 8}


def test_a_snapshot_comes_in_pages_of_the_size_that_was_asked_for(server: Server) -> None:
    publish(server, *(f"d{number}" for number in range(25)))
    with ws(server, page_size=10) as socket:
        pages = hear(socket, 3)
    assert [page["type"] for page in pages] == ["hello", "snapshot", "snapshot"]
    assert [len(page["data_snapshot"]) for page in pages] == [10, 10, 5]
    assert [page.get("more") for page in pages] == [True, True, None]


# Event streams and long polls.


def test_an_event_stream_has_the_state_then_every_change_with_its_position(server: Server) -> None:
    publish(server, "lab/a", "x")
    stream = events(server, devices="lab/*")
    event_id, hello = next(stream)
    assert (hello["type"], list(hello["data_snapshot"]), event_id) == ("hello", ["lab/a"], position(server, 2))
    publish(server, "x", "lab/b")
    event_id, change = next(stream)
    assert (change["seq"], change["device_id"], event_id) == (4, "lab/b", position(server, 4))
    stream.close()  # type: ignore[attr-defined]


def test_a_browser_that_comes_back_goes_on_behind_its_last_event(server: Server) -> None:
    publish(server, *"abc")
    stream = events(server, last_event_id=position(server, 1), since=position(server, 2))
    assert [next(stream)[1]["seq"] for _ in range(3)] == [1, 2, 3]
    stream.close()  # type: ignore[attr-defined]


def test_a_long_poll_returns_what_there_is_and_where_to_go_on(server: Server) -> None:
    publish(server, *"abacada")
    since, seen = position(server, 0), []
    while True:
        answer = get(server, "/api/events", since=since, devices="a", limit=2)
        seen += [event["seq"] for event in answer["events"]]
        since = f"{answer['epoch']}:{answer['seq']}"
        if not answer["more"]:
            break
    assert (seen, since) == ([1, 3, 5, 7], position(server, 7))


def test_a_long_poll_waits_for_the_first_change_that_it_wants(memory_server: Server) -> None:
    publish(memory_server, "a")
    since = position(memory_server, 1)
    with ws(memory_server) as socket:  # its event tells when the poll may have been woken for nothing
        hear(socket)
        with contextlib.closing(requests.Session()) as session, ThreadPoolExecutor(1) as thread:
            url = f"{memory_server.url}/api/events"
            wish: dict[str, Any] = {"since": since, "devices": "b", "wait_s": 20}
            polling = thread.submit(lambda: session.get(url, params=wish, timeout=DEADLINE_S + 5).json())
            publish(memory_server, "a")
            hear(socket)
            assert not polling.done()
            publish(memory_server, "b")
            assert [event["seq"] for event in polling.result(DEADLINE_S)["events"]] == [3]
    silent = get(memory_server, "/api/events", since=position(memory_server, 3), wait_s=0)
    assert (silent["events"], silent["seq"], silent["more"]) == ([], 3, False)


def test_a_poll_without_a_position_begins_with_the_state(server: Server) -> None:
    publish(server, "a", "b")
    answer = get(server, "/api/events", devices="b")
    assert (answer["resumed"], answer["seq"], list(answer["data_snapshot"])) == (False, 2, ["b"])
    assert "reason" not in answer


# Retries.


def test_an_update_that_is_said_twice_is_stored_once(server: Server) -> None:
    with Proxy(server.port) as proxy, connect(f"ws://127.0.0.1:{proxy.port}/ws?devices=") as socket:
        hear(socket)
        proxy.repeat(2)
        ask(socket, type="telemetry", id=1, device_id="lamp", value=1, update_id="u1")
        ask(socket, type="control", id=2, target="lamp", command="on", update_id="u1")
        acks = hear(socket, 4)
        ask(socket, type="telemetry", id=3, device_id="lamp", value=2, update_id="u1")
        [refused] = hear(socket)
        ask(socket, type="telemetry", id=4, device_id="other", value=2, update_id="u1")
        [other] = hear(socket)
    assert sorted((ack["id"], ack["seq"], ack.get("replayed", False)) for ack in acks) == [
        (1, 1, False),
        (1, 1, True),
        (2, 2, False),
        (2, 2, True),
    ]
    assert (refused["code"], refused["id"]) == ("key_reused", 3)
    assert (other["type"], other["seq"]) == ("ack", 3)
    assert len(server.log()) == 3


@pytest.mark.parametrize("restarted", [False, True])
def test_a_request_with_a_key_is_stored_once_and_answered_the_same(server: Server, restarted: bool) -> None:
    body = [{"device_id": "a", "value": 1}, {"device_id": "b", "value": {"x": [1.50]}}]
    bodies: list[tuple[str, Any]] = [
        ("/api/data", body[0]),
        ("/api/data", body),
        ("/api/control", {"target": "t", "command": "c"}),
    ]
    first = [post(server, body, path, **{"Idempotency-Key": f'"k{n}"'}) for n, (path, body) in enumerate(bodies)]
    epoch = get(server, "/api/status")["epoch"]
    if restarted:
        server.restart()
    again = [post(server, body, path, **{"Idempotency-Key": f"k{n}"}) for n, (path, body) in enumerate(bodies)]
    epoch_of_this_run = get(server, "/api/status")["epoch"]
    assert [answer.text for answer in again] == [answer.text.replace(epoch, epoch_of_this_run) for answer in first]
    assert [answer.headers.get("idempotency-replayed") for answer in first + again] == [None] * 3 + ["true"] * 3
    assert len(server.log()) == 4
    reused = post(server, {"device_id": "a", "value": 2}, **{"Idempotency-Key": "k0"})
    assert (reused.status_code, reused.json()["code"]) == (422, "key_reused")
    assert post(server, body, **{"Idempotency-Key": "x" * 129}).json()["code"] == "validation_failed"


def test_contents_with_the_same_checksum_are_told_apart_under_one_key(server: Server) -> None:
    one, other = "plumless", "buckeroo"
    assert crc32(one.encode()) == crc32(other.encode())
    readings = [{"device_id": "lamp", "value": text} for text in (one, other, one)]
    for bodies in (readings, [[reading] for reading in readings]):
        key = {"Idempotency-Key": str(len(server.log()))}
        stored, reused, again = (post(server, body, **key) for body in bodies)
        assert (stored.status_code, reused.status_code, reused.json()["code"]) == (200, 422, "key_reused")
        assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    with ws(server) as socket:
        hear(socket)
        for number, text in enumerate((one, other)):
            ask(socket, type="control", id=number, target="lamp", command="say", args={"x": text}, update_id="u")
        codes = {message["id"]: message.get("code") for message in hear(socket, 3) if "id" in message}
    assert codes == {0: None, 1: "key_reused"}
