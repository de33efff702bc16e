"""`history` and `state_at` of the clients, against a real server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.client.node_client import CLIENT, node
from twincast.client import Rest, connect, sync
from twincast.client.history import PAGE_MAX, History
from twincast.core.model import Position
from twincast.errors import Ahead, ExtraMissing, NoSuchDevice, Unauthenticated, UnknownAggregate, ValidationFailed
from twincast.testing import Clock, Server

START = "2026-11-25T10:00:00+00:00"
AGO_5_MIN = "2026-11-25T10:05:00+00:00"
COUNT = 10


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    clock = Clock(START)
    with Server(clock=clock) as server:
        for number in range(COUNT):
            body = {"device_id": "lab/motor", "value": {"rpm": number, "on": True}}
            httpx.post(f"{server.url}/api/data", json=body).raise_for_status()
            clock.advance(60)
        httpx.post(f"{server.url}/api/control", json={"target": "lab/motor", "command": "stop"}).raise_for_status()
        yield server


@pytest.fixture(params=["rest", "sync", "async"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    """Each client; what the asynchronous one does is waited for."""
    if request.param == "rest":
        with Rest(server.url) as rest:
            yield rest
    elif request.param == "sync":
        with sync.connect(server.url, ()) as client:
            yield client
    else:
        yield SimpleNamespace(
            history=lambda *given, **named: asyncio.run(_ask(server, "history", *given, **named)),
            state_at=lambda *given: asyncio.run(_ask(server, "state_at", *given)),
        )


async def _ask(server: Server, method: str, *given: Any, **named: Any) -> Any:
    async with connect(server.url, ()) as client:
        return await getattr(client, method)(*given, **named)


def seqs(history: History) -> list[int]:
    return [entry.seq for entry in history.entries]


def test_entries_are_read_with_their_values_and_the_position_behind_them(client: Any) -> None:
    history = client.history("lab/motor", limit=2)
    assert seqs(history) == [10, 9]
    assert (history.entries[0].value, history.entries[0].source) == ({"rpm": 9, "on": True}, "rest")
    assert history.entries[0].at_utc == "2026-11-25T10:09:00.000000+00:00"
    assert (history.position.seq, history.has_more) == (11, True)
    assert history.reaches_back_to == "2026-11-25T10:00:00.000000+00:00"


@pytest.mark.parametrize(
    "since", [AGO_5_MIN, datetime.fromisoformat(AGO_5_MIN), datetime.fromisoformat(AGO_5_MIN) + timedelta(0), "-5m"]
)
def test_a_range_is_said_by_text_or_by_a_datetime(client: Any, since: Any) -> None:
    assert seqs(client.history("lab/motor", from_=since, order="asc")) == [6, 7, 8, 9, 10]


def test_a_range_may_end_at_a_position(client: Any) -> None:
    position = client.history("lab/motor", limit=1).position
    assert seqs(client.history("lab/motor", to=Position(position.epoch, 3))) == [3, 2, 1]


def test_buckets_come_by_columns(client: Any) -> None:
    history = client.history("lab/motor", from_=START, every="5m", path="/rpm", agg=["max", "count"])
    (series,) = history.series
    assert (series["max"], series["count"], series.path, len(series)) == ([4, 9], [5, 5], "/rpm", 2)
    assert (history.every, history.is_open, history.entries) == ("5m", False, ())
    names, rows = history.rows()
    assert names == ("device_id", "path", "time", "max", "count")
    assert rows[1] == ("lab/motor", "/rpm", datetime(2026, 11, 25, 10, 5, tzinfo=UTC), 9, 5)


def test_several_devices_are_selected_by_patterns(client: Any) -> None:
    history = client.history(devices=["lab/*", "nobody"], limit=1, kinds=["control"])
    assert [(entry.device_id, entry.kind, entry.command, entry.args) for entry in history.entries] == [
        ("lab/motor", "control", "stop", {})
    ]
    assert [each["max"] for each in client.history(devices=["*"], points=2, path="/rpm").series] == [[9]]
    assert client.history(devices=["nothing"], points=2).series == []


def test_a_deletion_says_whether_it_took_the_history() -> None:
    with Server() as server, Rest(server.url) as rest:
        for takes_history in False, True:
            rest.publish("other/gone", 1)
            rest.delete("other/gone", history=takes_history)
            newest = rest.history("other/gone", kinds="deleted").entries[0]
            assert (newest.kind, newest.scope) == ("deleted", "history" if takes_history else None)


def test_a_text_alone_is_one_pattern_and_one_kind(client: Any) -> None:
    found = client.history(devices="lab/*", limit=1, kinds="control")
    assert [(entry.device_id, entry.kind) for entry in found.entries] == [("lab/motor", "control")]
    assert list(client.history(devices="motor*").entries) == []  # not its characters, of which one is `*`
    assert client.history(devices="motor*", points=2).series == []


def test_a_text_alone_is_one_pattern_of_the_state(server: Server) -> None:
    with Rest(server.url) as rest:
        assert list(rest.data("lab/*")["data"]) == ["lab/motor"]
        assert rest.data("motor*")["data"] == {}
        assert list(rest.twins("motor*")) == []


def test_the_state_at_a_time_is_the_one_that_was_then(client: Any) -> None:
    then = client.state_at(AGO_5_MIN)
    assert (then.position.seq, then.state["lab/motor"].value) == (6, {"rpm": 5, "on": True})
    assert client.state_at(Position(then.position.epoch, 3), "lab/*").state["lab/motor"].seq == 3
    assert client.state_at("now", "nobody").state == {}


def test_refusals_are_raised_in_the_words_of_the_server(client: Any) -> None:
    with pytest.raises(NoSuchDevice, match="there is no device 'nobody'"):
        client.history("nobody")
    with pytest.raises(UnknownAggregate):
        client.history("lab/motor", points=5, agg="median")
    with pytest.raises(Ahead):
        client.state_at("2099-01-01T00:00:00Z")


def test_what_cannot_be_asked_is_refused_before_anything_is_sent(client: Any) -> None:
    with pytest.raises(ValidationFailed, match="of one device, or of `devices`"):
        client.history()
    with pytest.raises(ValidationFailed, match="of one device, or of `devices`"):
        client.history("a", devices=["b"])
    with pytest.raises(ValidationFailed, match="a datetime needs its zone"):
        client.history("a", from_=datetime(2026, 11, 25))
    for no_time in (timedelta(hours=-1), 1764200000, None):
        with pytest.raises(ValidationFailed, match=r"a time is a datetime with its zone.*; not "):
            client.history("a", from_=no_time)
        with pytest.raises(ValidationFailed, match="a time is a datetime with its zone"):
            client.state_at(no_time)
    with pytest.raises(ValidationFailed, match="`limit` is of entries"):
        client.history("a", every="6h", limit=3)
    with pytest.raises(TypeError, match="no parameter 'since'"):
        client.history("a", since="-1h")


def test_pages_are_fetched_until_there_is_enough(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twincast.client.history.PAGE_MAX", 3)
    with Rest(server.url) as rest:
        assert seqs(rest.history("lab/motor", limit=None)) == list(range(10, 0, -1))
        history = rest.history("lab/motor", limit=7)
        assert (seqs(history), history.has_more) == (list(range(10, 3, -1)), True)
        assert seqs(rest.history(devices=["lab/*"], limit=5)) == [10, 9, 8, 7, 6]
        lines = list(rest.history_lines("lab/motor", "csv", limit=None, path="/rpm"))
        assert [line.split(",")[1] for line in lines] == ["seq", *map(str, range(10, 0, -1))]
        assert len(list(rest.history_lines("lab/motor", "ndjson", limit=7))) == 7
    assert PAGE_MAX == 10_000


def test_without_a_credential_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with Server(f"sqlite:{tmp_path / 'j.db'}") as server:
        server.add_key(read=["*"])
        with Rest(server.url) as rest, pytest.raises(Unauthenticated):
            rest.history("a")


@pytest.mark.parametrize(("method", "name"), [("to_pandas", "pandas"), ("to_polars", "polars")])
def test_without_the_library_the_error_says_how_to_install_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with Rest(server.url) as rest:
        history = rest.history("lab/motor")
    with pytest.raises(ExtraMissing, match=f"`pip install {name}` brings it"):
        getattr(history, method)()


def test_the_javascript_client_asks_the_same(server: Server) -> None:
    program = f"""
        import {{ Client }} from {json.dumps(CLIENT.as_uri())};
        globalThis.WebSocket ??= class {{}};
        const client = new Client({{ url: {json.dumps(server.ws_url)} }});
        const ask = (how) => client.history("lab/motor", how);
        const entries = await ask({{ limit: 2, path: ["/rpm"], from: new Date("2026-11-25T10:00:00Z") }});
        const buckets = await ask({{ every: "5m", path: "/rpm", agg: ["max", "count"], from: "-10m" }});
        const then = await client.stateAt({{ epoch: entries.epoch, seq: 3 }}, ["lab/*"]);
        const refused = await client.history("nobody").catch((error) => error.code);
        const ahead = await client.stateAt(new Date("2099-01-01T00:00:00Z")).catch((error) => error.code);
        const one = await client.stateAt("now", "motor*");
        const noTime = await ask({{ from: {{ hours: 1 }} }}).catch((error) => error.message.slice(0, 16));
        const values = entries.entries.map((each) => each.value);
        const found = {{ max: buckets.max, seq: then.seq, one: one.data }};
        console.log(JSON.stringify({{ values, ...found, refused, ahead, noTime }}));
    """
    done = subprocess.run(
        [node(), "--input-type=module", "-e", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        **{"values": [9, 8], "max": [4, 9], "seq": 3, "refused": "no_such_device", "ahead": "ahead"},
        **{"noTime": "a time is a Date", "one": {}},
    }
