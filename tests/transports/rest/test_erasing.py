"""REST: a device goes with its history, and the answer says what still has some of it."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from tests.running import eventually
from tests.transports.problems import assert_problem
from twincast.testing import Server

SECRET = "salty-secret"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture(params=["memory:", "sqlite:{}"])
def server(request: pytest.FixtureRequest, path: Path) -> Iterator[Server]:
    with Server(request.param.format(path)) as server:
        publish(server, "lab/fan", SECRET)
        publish(server, "lab/lamp", 1)
        publish(server, "lab/fan", SECRET)
        yield server


def test_the_list_takes_no_parameters(server: Server) -> None:
    problem = assert_problem(httpx.get(f"{server.url}/api/erasures?x=1"), 422, "validation_failed")
    assert problem["detail"] == "this address has no parameters; not 'x'"
    assert_problem(httpx.get(f"{server.url}/api/cluster?x=1"), 422, "validation_failed")


def publish(server: Server, device: str, value: Any) -> None:
    httpx.post(f"{server.url}/api/data", json={"device_id": device, "value": value}).raise_for_status()


def history(server: Server, device: str, kinds: str = "data_update,deleted") -> list[Any]:
    answer = httpx.get(f"{server.url}/api/history", params={"device_id": device, "kinds": kinds})
    return list(answer.json()["entries"]) if answer.is_success else []


def pending(server: Server) -> list[Any]:
    return list(httpx.get(f"{server.url}/api/erasures").raise_for_status().json()["erasures"])


def position(server: Server) -> str:
    status = httpx.get(f"{server.url}/api/status").json()
    return f"{status['epoch']}:{status['seq']}"


@pytest.mark.parametrize("address", ["/api/data/lab%2Ffan/history", "/api/history?device_id=lab/fan"])
def test_a_device_goes_with_its_history_and_the_others_stay(server: Server, address: str) -> None:
    since = position(server).split(":")[0] + ":0"
    answer = httpx.delete(f"{server.url}{address}")
    assert answer.status_code == 202
    said = answer.json()
    assert (said["ok"], said["deleted"], said["event"]["seq"], said["event"]["scope"]) == (True, True, 4, "history")
    eventually(lambda: not pending(server), "nothing is pending")
    assert [(each["type"], each["seq"]) for each in history(server, "lab/fan")] == [("deleted", 4)]
    assert [each["value"] for each in history(server, "lab/lamp")] == [1]
    assert set(httpx.get(f"{server.url}/api/data").json()["data"]) == {"lab/lamp"}
    events = httpx.get(f"{server.url}/api/events?since={since}").json()
    assert [(each["type"], each["seq"]) for each in events["events"]] == [("data_update", 2), ("deleted", 4)]
    assert SECRET not in json.dumps(events)
    publish(server, "lab/fan", "new")
    assert [each["value"] for each in history(server, "lab/fan", "data_update")] == ["new"]


def test_a_stream_that_is_read_back_passes_over_what_is_gone_without_a_gap(server: Server) -> None:
    epoch = position(server).split(":")[0]
    httpx.delete(f"{server.url}/api/history?device_id=lab/fan").raise_for_status()
    publish(server, "lab/lamp", 2)
    headers = {"Accept": "text/event-stream"}
    told: list[Any] = []
    with httpx.stream("GET", f"{server.url}/api/events?since={epoch}:0&mode=every", headers=headers) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                told.append(json.loads(line.removeprefix("data:")))
            if told and told[-1].get("seq") == 5:
                break
    assert told[0]["resumed"]
    assert [(each["type"], each["seq"]) for each in told[1:]] == [
        ("data_update", 2),
        ("deleted", 4),
        ("data_update", 5),
    ]


def test_what_was_read_back_before_is_not_what_is_read_back_now(server: Server) -> None:
    many = [{"device_id": name, "value": SECRET} for name in ("lab/fan", "lab/lamp")] * 300
    httpx.post(f"{server.url}/api/data", json=many).raise_for_status()
    epoch, headers = position(server).split(":")[0], {"Accept": "text/event-stream"}

    def told(until: int) -> list[Any]:
        found: list[Any] = []
        address = f"{server.url}/api/events?since={epoch}:0&mode=every"
        with httpx.stream("GET", address, headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    found.append(json.loads(line.removeprefix("data:")))
                    if found[-1].get("seq") == until:
                        return found[1:]
        return found

    assert len([each for each in told(603) if each["device_id"] == "lab/fan"]) == 302
    httpx.delete(f"{server.url}/api/history?device_id=lab/fan").raise_for_status()
    assert [each["type"] for each in told(604) if each["device_id"] == "lab/fan"] == ["deleted"]


def test_it_is_pending_for_as_long_as_files_have_it(path: Path) -> None:
    with Server(f"sqlite:{path}") as server, closing(apsw.Connection(str(path))) as reading:
        publish(server, "lab/fan", SECRET)
        reading.execute("begin")
        assert reading.execute("select count(*) from log").get, "this read is in the way of emptying the -wal"
        answer = httpx.delete(f"{server.url}/api/data/lab%2Ffan/history").json()
        assert answer["pending"] == ["files"]
        (found,) = pending(server)
        assert (found["device_id"], found["seq"], found["pending"]) == ("lab/fan", answer["event"]["seq"], ["files"])
        assert history(server, "lab/fan", "data_update") == []
        reading.execute("rollback")
        eventually(lambda: not pending(server), "nothing is pending")
        assert SECRET.encode() not in b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())


def test_a_device_that_was_deleted_before_can_go_with_its_history(server: Server) -> None:
    httpx.delete(f"{server.url}/api/data?device_id=lab/fan").raise_for_status()
    assert httpx.delete(f"{server.url}/api/history?device_id=lab/fan").status_code == 202
    assert history(server, "lab/fan", "data_update") == []


def test_the_same_key_erases_once(server: Server) -> None:
    key = {"Idempotency-Key": "k"}
    answers = [httpx.delete(f"{server.url}/api/history?device_id=lab/fan", headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["event"] == answers[1].json()["event"]
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true"]


def test_what_is_no_device_and_what_names_none_is_refused(server: Server) -> None:
    assert_problem(httpx.delete(f"{server.url}/api/history?device_id=nobody"), 404, "no_such_device")
    assert_problem(httpx.delete(f"{server.url}/api/data/nobody/history"), 404, "no_such_device")
    assert_problem(httpx.delete(f"{server.url}/api/history"), 422, "validation_failed")
    assert_problem(httpx.delete(f"{server.url}/api/history?device_id=a&device_id=b"), 422, "validation_failed")
    assert_problem(httpx.delete(f"{server.url}/api/data/lab%2Ffan/history?x=1"), 422, "validation_failed")
    assert len(history(server, "lab/fan", "data_update")) == 2


def test_nothing_that_comes_in_asks_for_it_but_these_calls(server: Server) -> None:
    answer = httpx.delete(f"{server.url}/api/data?device_id=lab/fan&scope=history")
    assert answer.status_code == 422
    httpx.delete(f"{server.url}/api/data?device_id=lab/fan").raise_for_status()
    assert len(history(server, "lab/fan", "data_update")) == 2, "a deletion leaves the history"


def test_a_retry_of_what_is_gone_is_not_stored_again(server: Server) -> None:
    body, key = {"device_id": "lab/fan", "value": SECRET}, {"Idempotency-Key": "k"}
    httpx.post(f"{server.url}/api/data", json=body, headers=key).raise_for_status()
    httpx.delete(f"{server.url}/api/history?device_id=lab/fan").raise_for_status()
    assert_problem(httpx.post(f"{server.url}/api/data", json=body, headers=key), 410, "truncated")
    assert history(server, "lab/fan", "data_update") == []
