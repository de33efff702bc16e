"""One device over REST: its newest state, the tag by which a reader asks for news alone, and answers compressed."""

import gzip
import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import StartServer
from tests.credentials import bearer
from tests.running import DEADLINE_S, ServerProcess
from tests.stories.test_deletion import NAMES
from twincast.testing import Server


@pytest.fixture(scope="module", params=["picows", "portable", "jetstream"])
def server(request: pytest.FixtureRequest, shared_log: Callable[[], str]) -> Iterator[ServerProcess]:
    if request.param == "jetstream":
        server = ServerProcess(shared_log()).ready()
    else:
        server = ServerProcess("memory:", edge=request.param).ready()
    yield server
    server.stop()


def get(server: Any, target: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Ask for a target as it is written; most clients would change `..` on the way, and ask for gzip."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.request(method, target, headers={name.replace("_", "-"): text for name, text in headers.items()})
    response = connection.getresponse()
    told = response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()
    connection.close()
    return told


def store(server: Any, name: str, value: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/api/data", json={"device_id": name, "value": value}).raise_for_status()
    event: dict[str, Any] = answer.json()["event"]
    return event


@pytest.mark.parametrize("name", NAMES)
def test_a_device_is_read_whatever_its_name(server: ServerProcess, name: str) -> None:
    event = store(server, name, {"celsius": 21.5})
    status, headers, body = get(server, f"/api/data/{quote(name, safe='')}")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "device_id": name,
        "value": {"celsius": 21.5},
        "updated_at_utc": event["timestamp_utc"],
        "source": "rest",
        "seq": event["seq"],
        "epoch": event["epoch"],
    }
    assert headers["etag"] == f'"{event["epoch"]}:{event["seq"]}"'
    status, of_head, body = get(server, f"/api/data/{quote(name, safe='')}", "HEAD")
    assert (status, body, of_head["etag"]) == (200, b"", headers["etag"])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/data/nobody", 404),
        ("/api/data/lab/lamp", 404),
        ("/api/data/%FF", 422),
        ("/api/data/a%00b", 422),
        ("/api/data/" + "x" * 129, 422),
        ("/api/data/nobody?min_seq=nonsense", 422),
        ("/api/data/nobody?devices=a", 422),
    ],
)
def test_what_names_no_device_is_refused_in_words(server: ServerProcess, target: str, status: int) -> None:
    answer, _, body = get(server, target)
    assert (answer, bool(json.loads(body)["detail"])) == (status, True)


def test_who_has_the_newest_is_told_so_and_nothing_else(server: ServerProcess) -> None:
    event = store(server, "door", "open")
    tag = f'"{event["epoch"]}:{event["seq"]}"'
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*", f'"{event["epoch"]}:{event["seq"]}+gzip"'):
        status, headers, body = get(server, "/api/data/door", If_None_Match=known)
        assert (status, body, headers["etag"]) == (304, b"", tag), known
        assert "content-type" not in headers
    for unknown in ('"other"', "", tag.strip('"') + "0"):
        assert get(server, "/api/data/door", If_None_Match=unknown)[0] == 200
    store(server, "door", "shut")
    status, _, body = get(server, "/api/data/door", If_None_Match=tag)
    assert (status, json.loads(body)["value"]) == (200, "shut")
    assert get(server, "/api/data/nobody", If_None_Match="*")[0] == 404


def test_a_read_behind_a_write_has_it(server: ServerProcess) -> None:
    event = store(server, "lamp", 1)
    assert get(server, f"/api/data/lamp?min_seq={event['epoch']}:{event['seq']}")[0] == 200
    assert get(server, "/api/data/lamp?min_seq=other-log:1")[0] == 410


def test_who_may_not_read_a_device_is_told_what_is_told_of_none(
    tmp_path_factory: pytest.TempPathFactory, edge: str
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    with Server(f"sqlite:{path}", edge=edge) as server:
        store(server, "safe", 1)
        store(server, "lab/lamp", 1)
        reader = bearer(server.add_key("reader", read=["lab/*"]))
        publisher = bearer(server.add_key("publisher", publish=["*"]))
        assert get(server, "/api/data/lab%2Flamp", **reader)[0] == 200
        hidden, missing = (get(server, f"/api/data/{name}", **reader) for name in ("safe", "none"))
        assert hidden[0] == missing[0] == 404
        assert hidden[2].replace(b"safe", b"none") == missing[2]
        assert get(server, "/api/data/lab%2Flamp", **publisher)[0] == 403
        assert get(server, "/api/data/lab%2Flamp")[0] == 401


@pytest.mark.parametrize("accept", ["gzip", "GZIP", "deflate, gzip;q=0.5", "br, *", "x-gzip", "gzip; q=1"])
def test_a_large_answer_is_compressed_when_asked(server: ServerProcess, accept: str) -> None:
    store(server, "wide", "x" * 5_000)
    for target in ("/api/data", "/api/data/wide", "/api/events"):
        plain = get(server, target)
        status, headers, body = get(server, target, Accept_Encoding=accept)
        assert (status, headers["content-encoding"]) == (200, "gzip"), target
        assert "accept-encoding" in headers["vary"]
        assert "content-encoding" not in plain[1]
        state = [json.loads(text) for text in (plain[2], gzip.decompress(body))]
        for each in state:
            each.pop("timestamp_utc", None)
        assert state[0] == state[1]
        assert len(body) < len(plain[2]) / 5
    known = get(server, "/api/data/wide", Accept_Encoding=accept)[1]["etag"]
    assert known.endswith('+gzip"')
    assert get(server, "/api/data/wide", If_None_Match=known)[0] == 304


@pytest.mark.parametrize("accept", ["identity", "gzip;q=0", "*;q=0", "br", "gzip;q=0.000"])
def test_who_does_not_take_gzip_gets_none(server: ServerProcess, accept: str) -> None:
    store(server, "wide", "x" * 5_000)
    _, headers, body = get(server, "/api/data", Accept_Encoding=accept)
    assert "content-encoding" not in headers
    assert json.loads(body)["data"]["wide"]["value"] == "x" * 5_000


def test_small_answers_and_streams_are_not_compressed(server: ServerProcess) -> None:
    store(server, "wide", "x" * 5_000)
    assert "content-encoding" not in get(server, "/api/status", Accept_Encoding="gzip")[1]
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}
    with httpx.stream("GET", f"{server.url}/api/events", headers=headers) as stream:
        assert "content-encoding" not in stream.headers


def test_a_state_in_many_pieces_is_compressed_as_one(server_process: StartServer) -> None:
    server = server_process("memory:", TWINCAST_SNAPSHOT_PART_MAX_BYTES="20000")
    names = [f"device-{number}" for number in range(2_000)]
    body = [{"device_id": name, "value": {"celsius": 21.5, "humid": True}} for name in names]
    httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
    _, headers, text = get(server, "/api/data", Accept_Encoding="gzip")
    assert headers["content-encoding"] == "gzip"
    assert sorted(json.loads(gzip.decompress(text))["data"]) == sorted(names)
    assert get(server, "/api/data", "HEAD", Accept_Encoding="gzip")[2] == b""
