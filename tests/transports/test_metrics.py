"""What Prometheus reads is what happened, and its own parser reads it."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from tests.credentials import add_key, bearer
from tests.running import ROOT, eventually
from twincast.testing import Server
from twincast.transports import metrics as module
from twincast.transports.metrics import LongestStep

BOARD = ROOT / "deploy" / "grafana-dashboard.json"
DEADLINE_S = 10
Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(server: Server, **headers: str) -> Numbers:
    """Return what is read, by name and labels."""
    answer = httpx.get(f"{server.url}/metrics", headers=headers).raise_for_status()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(numbers: Numbers, name: str, **labels: str) -> float:
    return numbers[name, tuple(sorted(labels.items()))]


@pytest.fixture
def server(tmp_path: Path, edge: str) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path / 'journal.db'}", edge=edge) as server:
        yield server


def post(server: Server, body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/api/data", json=body)


def test_what_was_stored_and_delivered_is_counted(server: Server, edge: str) -> None:
    with connect(server.ws_url) as one, connect(f"{server.ws_url}?devices=lab/*") as two:
        for socket in (one, two):
            socket.recv(timeout=DEADLINE_S)
        post(server, [{"device_id": "lab/a", "value": n} for n in range(3)]).raise_for_status()
        post(server, {"device_id": "hall/a", "value": 1}).raise_for_status()
        httpx.post(f"{server.url}/api/control", json={"target": "lab/a", "command": "on"}).raise_for_status()
        for socket, count in ((one, 5), (two, 4)):
            for _ in range(count):
                socket.recv(timeout=DEADLINE_S)
        numbers = scraped(server)
        assert of(numbers, "twincast_readings_stored_total") == 4
        assert of(numbers, "twincast_commands_stored_total") == 1
        assert of(numbers, "twincast_deliveries_total") == 9
        assert of(numbers, "twincast_merged_total") == 0
        assert of(numbers, "twincast_clients", edge=edge) == 2
        assert of(numbers, "twincast_clients", edge="events") == 0
        assert (of(numbers, "twincast_devices"), of(numbers, "twincast_position")) == (2, 5)
        assert of(numbers, "twincast_commit_seconds_count") == 3
        assert of(numbers, "twincast_commit_entries_bucket", le="2.0") == 2
        assert of(numbers, "twincast_commit_entries_sum") == 5
        assert of(numbers, "twincast_journal_sync_seconds_count") == 3
        assert 0 < of(numbers, "twincast_journal_sync_seconds_sum") < of(numbers, "twincast_commit_seconds_sum")
        assert of(numbers, "twincast_ready") == 1
    eventually(lambda: of(scraped(server), "twincast_clients", edge=edge) == 0, "they are gone")


def test_late_readings_and_clocks_that_are_ahead_are_counted(server: Server) -> None:
    times = {"now": None, "late": "2020-01-01T00:00:00Z", "ahead": "2199-01-01T00:00:00Z"}
    for name in ("now", "late", "late", "ahead", "now"):
        claim = {} if times[name] is None else {"measured_at_utc": times[name]}
        post(server, {"device_id": "lab/a", "value": name, **claim}).raise_for_status()
    post(server, {"device_id": "lab/b", "value": "its first", "measured_at_utc": times["late"]}).raise_for_status()
    numbers = scraped(server)
    assert of(numbers, "twincast_readings_stored_total") == 6
    assert of(numbers, "twincast_late_readings_total") == 2
    assert of(numbers, "twincast_clock_off_readings_total") == 1


def test_an_event_stream_is_a_client_too(server: Server) -> None:
    url, headers = f"{server.url}/api/events", {"Accept": "text/event-stream"}
    with httpx.stream("GET", url, headers=headers) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if line.startswith("data:"))
        post(server, {"device_id": "a", "value": 1})
        next(line for line in lines if line.startswith("data:"))
        numbers = scraped(server)
        assert of(numbers, "twincast_clients", edge="events") == 1
        assert of(numbers, "twincast_deliveries_total") == 1


def test_what_a_slow_group_merges_is_counted(server: Server) -> None:
    with connect(f"{server.ws_url}?max_hz=2") as socket:
        socket.recv(timeout=DEADLINE_S)
        for n in range(4):
            post(server, {"device_id": "a", "value": n})
        heard: list[Any] = []
        while not heard or heard[-1]["value"] != 3:
            heard.append(json.loads(socket.recv(timeout=DEADLINE_S)))
        numbers = scraped(server)
        assert of(numbers, "twincast_merged_total") == sum(each.get("merged", 1) - 1 for each in heard) > 0
        assert of(numbers, "twincast_deliveries_total") == len(heard)


def test_refusals_are_counted_by_code_on_every_way_in(server: Server) -> None:
    before = scraped(server)  # of this process, in which others were refused before
    assert post(server, {"device_id": "", "value": 1}).status_code == 422
    with connect(server.ws_url) as socket:
        socket.recv(timeout=DEADLINE_S)
        socket.send('{"type":"telemetry"}')
        assert json.loads(socket.recv(timeout=DEADLINE_S))["code"] == "validation_failed"
    after = scraped(server)
    grown = {
        labels[0][1]: value - before[name, labels]
        for (name, labels), value in after.items()
        if name == "twincast_refusals_total" and value != before[name, labels]
    }
    assert grown == {"validation_failed": 2}


def test_the_journal_is_described(server: Server, tmp_path: Path) -> None:
    post(server, [{"device_id": "a", "value": n} for n in range(10)])
    eventually(lambda: ("twincast_journal_oldest_timestamp_seconds", ()) in scraped(server), "the oldest is known")
    numbers = scraped(server)
    assert of(numbers, "twincast_journal_file_bytes") == (tmp_path / "journal.db").stat().st_size
    assert of(numbers, "twincast_journal_wal_bytes") == (tmp_path / "journal.db-wal").stat().st_size
    assert of(numbers, "twincast_journal_entries") == of(numbers, "twincast_journal_checkpoint_lag_entries") == 10
    assert abs(of(numbers, "twincast_journal_oldest_timestamp_seconds") - time.time()) < 60
    assert of(numbers, "twincast_journal_disk_free_bytes") > 0


def test_a_journal_in_memory_has_numbers_too() -> None:
    with Server() as server:
        post(server, {"device_id": "a", "value": 1})
        numbers = scraped(server)
    assert of(numbers, "twincast_journal_entries") == 1
    assert of(numbers, "twincast_journal_file_bytes") == 0
    assert ("twincast_journal_disk_free_bytes", ()) not in numbers


def test_nothing_that_clients_choose_and_no_secret_is_a_label(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    secret = add_key(path, "name-of-the-key", publish=["*"], read=["*"], admin=["*"])
    with Server(f"sqlite:{path}") as server:
        series = len(scraped(server))
        for n in range(20):
            body = {"device_id": f"device-{n}", "value": f"value-{n}"}
            httpx.post(f"{server.url}/api/data", json=body, headers=bearer(secret)).raise_for_status()
            httpx.get(f"{server.url}/path-{n}", headers=bearer(secret))
        httpx.get(f"{server.url}/api/status", headers={"Authorization": "Bearer twc_11111111_wrong"})
        eventually(lambda: len(scraped(server)) > series, "the oldest change's time is known")
        numbers, text = scraped(server), httpx.get(f"{server.url}/metrics").text
        assert len(numbers) == series + 1, "only the oldest change's time came"
        for told in (secret, "name-of-the-key", "device-1", "value-1", "path-1", "twc_", str(path)):
            assert told not in text
        labels = {name for _, those in numbers for name, _ in those}
        assert labels == {"edge", "version", "le", "code", "generation"}


async def test_what_holds_the_loop_up_is_seen_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_S", 0.001)
    steps = LongestStep()
    assert steps.longest_s() == 0.0
    steps.ask()
    time.sleep(0.05)  # noqa: ASYNC251  # that is what is to be seen
    await asyncio.sleep(0.01)
    assert steps.longest_s() >= 0.04
    monkeypatch.setattr(module, "STEPS_LOOK_S", 0.0)
    assert steps.longest_s() < 0.04, "and no longer"


def test_a_loop_that_ends_leaves_the_next_one_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_S", 0.001)
    steps = LongestStep()

    async def measured() -> bool:
        steps.ask()
        await asyncio.sleep(0.01)
        return bool(steps._late)

    assert asyncio.run(measured())
    steps._late.clear()
    assert asyncio.run(measured())


async def test_nothing_is_measured_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_S", 0.001)
    monkeypatch.setattr(module, "UNASKED_S", 0.0)
    steps = LongestStep()
    steps.ask()
    await asyncio.sleep(0.01)
    assert steps._timer is None
    steps.ask()
    assert steps._timer is not None


def queries_of(board: dict[str, Any]) -> list[str]:
    panels = [*board["panels"], *(inner for panel in board["panels"] for inner in panel.get("panels", ()))]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_every_query_of_the_board_names_numbers_that_there_are(server: Server) -> None:
    post(server, {"device_id": "a", "value": 1})
    eventually(lambda: ("twincast_journal_oldest_timestamp_seconds", ()) in scraped(server), "the oldest is known")
    there_are = {name for name, _ in scraped(server)} | {
        "twincast_journal_full_in_seconds"
    }  # after a minute of writing
    board = json.loads(BOARD.read_text())
    queries = queries_of(board)
    assert len(queries) >= 15
    for query in queries:
        named = set(re.findall(r"\b(?:twincast|python|process)_\w+", query))
        assert named and named <= there_are, query
    told = {name for query in queries for name in re.findall(r"\btwincast_\w+", query)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told}
    every = {re.sub(r"_(bucket|sum|count)$", "", name) for name in there_are if name.startswith("twincast_")}
    assert every - shown <= {"twincast_info", "twincast_position"}, "and all are shown"


OF_A_SHARED_LOG = {
    *("twincast_servers", "twincast_behind_entries", "twincast_copy_behind_messages"),  # see rest/test_cluster.py
    "twincast_nats_sent_total",
}


def test_the_guide_names_numbers_that_there_are(server: Server) -> None:
    guide = (ROOT / "docs" / "operating.md").read_text()
    named = set(re.findall(r"\btwincast_\w+", guide)) - {"twincast_journal_full_in_seconds", *OF_A_SHARED_LOG}
    post(server, {"device_id": "a", "value": 1})
    eventually(lambda: ("twincast_journal_oldest_timestamp_seconds", ()) in scraped(server), "the oldest is known")
    there_are = {name for name, _ in scraped(server)}
    assert named <= there_are | {name.rpartition("_")[0] for name in there_are}
    for name in there_are:
        if name.startswith("twincast_"):
            short = re.sub(r"_(bucket|sum|count)$", "", name)
            assert short in guide or short.replace("twincast_journal", "…") in guide, short


def test_the_board_is_one_that_grafana_imports() -> None:
    board = json.loads(BOARD.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= board.keys()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
