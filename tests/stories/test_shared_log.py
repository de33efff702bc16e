"""Servers on one log, as their clients see them: it does not matter which one they came to, nor whether it lives on."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import requests
from websockets.sync.client import connect

from tests.running import DEADLINE_S, eventually
from twincast.testing import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def two(cluster: Cluster) -> Cluster:
    """Two servers at the same position."""
    cluster.wait_until_equal()
    return cluster


def post(cluster: Cluster, i: int, value: Any, **headers: str) -> requests.Response:
    body = {"device_id": "lamp", "value": value}
    return requests.post(f"{cluster.url(i)}/api/data", json=body, headers=headers, timeout=DEADLINE_S)


def stored(cluster: Cluster, i: int, value: Any) -> int:
    """Store a reading as soon as the server takes it; return its seq."""

    def store() -> requests.Response | None:
        answer = post(cluster, i, value)
        return answer if answer.ok else None

    answer = eventually(store, "the server takes a reading")
    assert answer is not None
    seq: int = answer.json()["event"]["seq"]
    return seq


def position(cluster: Cluster, i: int) -> str:
    status = cluster.status(i)
    return f"{status['epoch']}:{status['seq']}"


def hello(cluster: Cluster, i: int, since: str) -> dict[str, Any]:
    query = urlencode({"since": since, "mode": "every"})
    with connect(f"{cluster.ws_url(i)}?{query}") as socket:
        said: dict[str, Any] = json.loads(socket.recv(timeout=DEADLINE_S))
        return said


def both(cluster: Cluster, condition: Callable[[dict[str, Any]], bool], awaited: str) -> None:
    eventually(lambda: all(condition(cluster.status(i)) for i in (0, 1)), awaited)


def test_a_retry_at_another_server_is_answered_as_the_first_one_was(two: Cluster) -> None:
    first = post(two, 0, "once", **{"Idempotency-Key": "one"})
    again = post(two, 1, "once", **{"Idempotency-Key": "one"})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json()["event"]["seq"] == again.json()["event"]["seq"]
    assert post(two, 1, "other", **{"Idempotency-Key": "one"}).json()["code"] == "key_reused"
    assert [event["value"] for event in two.log(1)].count("once") == 1


def test_retries_that_come_to_two_servers_at_once_are_stored_once(two: Cluster) -> None:
    acks: list[dict[int, int]] = []
    with connect(f"{two.ws_url(0)}?devices=") as one, connect(f"{two.ws_url(1)}?devices=") as other:
        for number in range(50):
            text = json.dumps(
                {"type": "telemetry", "id": number, "device_id": "fan", "value": number, "update_id": f"{number}"}
            )
            one.send(text)
            other.send(text)
        for socket in (one, other):
            told = [json.loads(socket.recv(timeout=DEADLINE_S)) for _ in range(51)]
            acks.append({ack["id"]: ack["seq"] for ack in told if ack["type"] == "ack"})
    assert len(acks[0]) == 50
    assert acks[0] == acks[1]
    two.wait_until_equal()
    assert sorted(event["value"] for event in two.log(0) if event["device_id"] == "fan") == list(range(50))


def test_a_client_resumes_at_another_server_from_where_it_was(two: Cluster) -> None:
    since = position(two, 0)
    seq = stored(two, 0, "behind")
    two.wait_until_equal()
    query = urlencode({"since": since, "mode": "every"})
    with connect(f"{two.ws_url(1)}?{query}") as socket:
        said, event = (json.loads(socket.recv(timeout=DEADLINE_S)) for _ in range(2))
    assert (said["resumed"], event["seq"], event["value"]) == (True, seq, "behind")


def test_what_was_acknowledged_before_a_server_was_killed_is_at_the_other(two: Cluster) -> None:
    seqs = [stored(two, 1, number) for number in range(20)]
    two.kill(1)
    try:
        log = {event["seq"]: event["value"] for event in two.log(0)}
        assert [log.get(seq) for seq in seqs] == list(range(20))
    finally:
        two.start(1)
    two.wait_until_equal()
    assert two.log(1) == two.log(0)


def test_servers_outlive_nats_and_take_what_comes_when_it_is_back(two: Cluster) -> None:
    before = position(two, 0)
    two.nats.kill(0)
    both(two, lambda status: not status["ok"], "both say that NATS is gone")
    assert post(two, 0, "lost").status_code == 503
    assert hello(two, 1, before)["resumed"], "reads go on"
    two.nats.start(0)
    both(two, lambda status: bool(status["ok"]), "both say that NATS is back")
    stored(two, 1, "after")
    two.wait_until_equal()
    assert two.log(0) == two.log(1)


def test_a_stream_that_lost_its_end_is_another_run_of_the_log(two: Cluster) -> None:
    kept = position(two, 0)
    pids = [two.pid(i) for i in (0, 1)]
    backup = two.nats.backup()
    both(two, lambda status: bool(status["ok"]), "both go on after the backup")
    stored(two, 0, "to be lost")
    two.wait_until_equal()
    lost = position(two, 1)
    two.nats.restore(backup)
    both(two, lambda status: status.get("epoch") not in {None, kept.partition(":")[0]}, "both see another run")
    both(two, lambda status: bool(status["ok"]), "both are ready again")
    two.wait_until_equal()
    assert hello(two, 0, kept)["resumed"], "up to there it is the same log"
    refused = hello(two, 1, lost)
    assert (refused["resumed"], refused["reason"]) == (False, "epoch")
    stored(two, 0, "anew")
    two.wait_until_equal()
    assert two.log(0) == two.log(1)
    assert "to be lost" not in [event["value"] for event in two.log(0)]
    assert pids == [two.pid(i) for i in (0, 1)], "the same processes"


def test_a_stream_that_was_deleted_is_another_log(two: Cluster) -> None:
    before = position(two, 0)
    two.nats.delete_stream(two.name)
    both(two, lambda status: status.get("epoch") not in {None, before.partition(":")[0]}, "both see another log")
    both(two, lambda status: bool(status["ok"]), "both are ready again")
    refused = hello(two, 1, before)
    assert (refused["resumed"], refused["reason"]) == (False, "epoch")
    assert stored(two, 0, "first") == 1
    two.wait_until_equal()
    assert [event["value"] for event in two.log(1)] == ["first"]
