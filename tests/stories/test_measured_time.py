"""Readings that say when they were measured: on every way in, which becomes the twin, and who is told of the others."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw
from websockets.sync.client import connect

from tests.conftest import JournalUrl, StartServer
from tests.running import DEADLINE_S, ServerProcess, eventually_async
from twincast.core.model import DataUpdate, Deleted, Entry
from twincast.hub.hub import Hub
from twincast.journal.stores import open_stores

PLAIN = "application/json"
LINES = "application/x-ndjson"


def ago(seconds: float) -> str:
    """Return a time before now, as it is stored."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")


@pytest.fixture(scope="module", params=["picows", "portable", "jetstream"])
def server(request: pytest.FixtureRequest, shared_log: Callable[[], str]) -> Iterator[ServerProcess]:
    """One server for all, on each edge and on a shared log. Each test uses names of its own."""
    if request.param == "jetstream":
        server = ServerProcess(shared_log()).ready()
    else:
        server = ServerProcess("memory:", edge=request.param).ready()
    yield server
    server.stop()


def reading(device_id: str, value: Any, measured_at_utc: str | None = None) -> dict[str, Any]:
    given = {"device_id": device_id, "value": value}
    return given if measured_at_utc is None else {**given, "measured_at_utc": measured_at_utc}


def twin(server: ServerProcess, device_id: str) -> Any:
    return server.get("/api/data")["data"].get(device_id)


def test_a_single_reading_is_answered_with_what_it_became(server: ServerProcess) -> None:
    newer, older = ago(60), ago(3_600)
    first = server.post("/api/data", reading("single", 1, newer)).json()["event"]
    assert (first["type"], first["measured_at_utc"], "clock" in first) == ("data_update", newer, False)
    late = server.post("/api/data", reading("single", 2, older)).json()
    assert (late["ok"], late["stored"]) == (True, True)
    assert late["event"] == {
        **{"type": "late", "device_id": "single", "value": 2, "source": "rest", "measured_at_utc": older},
        **{key: late["event"][key] for key in ("timestamp_utc", "seq", "epoch")},
    }
    assert late["event"]["seq"] == first["seq"] + 1
    now = twin(server, "single")
    assert (now["value"], now["measured_at_utc"], now["updated_at_utc"]) == (1, newer, first["timestamp_utc"])
    one = server.get("/api/data/single")
    assert (one["value"], one["measured_at_utc"], one["seq"]) == (1, newer, first["seq"])


def test_a_time_comes_in_any_zone_and_is_stored_in_utc(server: ServerProcess) -> None:
    stored = server.post("/api/data", reading("zone", 1, "2026-03-01T12:00:00.1234567+05:30")).json()["event"]
    assert stored["measured_at_utc"] == "2026-03-01T06:30:00.123456+00:00"
    assert server.post("/api/data", reading("zone", 2, "2026-03-01T07:30:00,123456+01:00")).json()["event"]["type"] == (
        "data_update"
    ), "the same instant is no older"


def test_what_says_nothing_is_as_it_was(server: ServerProcess) -> None:
    event = server.post("/api/data", {**reading("plain", 1), "measured_at_utc": None}).json()["event"]
    assert "measured_at_utc" not in event and "measured_at_utc" not in twin(server, "plain")
    assert "measured_at_utc" not in server.get("/api/data/plain")


def test_a_batch_and_lines_are_decided_one_after_the_other(server: ServerProcess) -> None:
    items = [reading("batch", n, ago(s)) for n, s in enumerate((50, 60, 40, 45))]
    since = position(server)
    server.post("/api/data", items)
    server.post_text("/api/data", "\n".join(map(json.dumps, items)), LINES)
    asked = "&devices=batch&kinds=data_update&kinds=late"
    events = server.get(f"/api/events?since={since}{asked}")["events"]
    assert [(event["type"], event["value"]) for event in events] == [
        *(("data_update", 0), ("late", 1), ("data_update", 2), ("late", 3)),
        *(("late", 0), ("late", 1), ("data_update", 2), ("late", 3)),
    ]
    assert [event["measured_at_utc"] for event in events[:4]] == [item["measured_at_utc"] for item in items]
    assert twin(server, "batch")["value"] == 2


def position(server: ServerProcess) -> str:
    status = server.get("/api/status")
    return f"{status['epoch']}:{status['seq']}"


def test_late_readings_reach_those_who_ask_for_the_kind_and_nobody_else(server: ServerProcess) -> None:
    since = position(server)
    with (
        connect(server.ws_url) as unasked,
        connect(f"{server.ws_url}?kinds=late&devices=told*") as asked,
        connect(f"{server.ws_url}?kinds=late&kinds=data_update&kinds=control&kinds=deleted") as every,
    ):

        def hear(socket: Any) -> Any:
            return json.loads(socket.recv(DEADLINE_S))

        for socket in (unasked, asked, every):
            assert hear(socket)["type"] == "hello"
        every.send(json.dumps({"type": "telemetry", **reading("told", 1, ago(10)), "id": 1}))
        every.send(json.dumps({"type": "telemetry", **reading("told", 2, ago(20)), "id": 2}))
        every.send(json.dumps({"type": "telemetry", **reading("told", 3), "id": 3}))
        everything = [hear(every) for _ in range(6)]
        acks = {each["id"]: each["seq"] for each in everything if each["type"] == "ack"}
        told = [(each["type"], each["value"], each["seq"]) for each in everything if each["type"] != "ack"]
        assert told == [("data_update", 1, acks[1]), ("late", 2, acks[2]), ("data_update", 3, acks[3])]
        assert [(each["type"], each["value"]) for each in (hear(unasked), hear(unasked))] == [
            ("data_update", 1),
            ("data_update", 3),
        ]
        assert hear(asked)["value"] == 2
    assert [event["value"] for event in server.get(f"/api/events?since={since}&devices=told")["events"]] == [1, 3]
    late = server.get(f"/api/events?since={since}&devices=told&kinds=late")["events"]
    assert [(event["type"], event["value"]) for event in late] == [("late", 2)]
    with connect(f"{server.ws_url}?since={since}&devices=told&kinds=late&mode=every") as resumed:
        assert json.loads(resumed.recv(DEADLINE_S))["resumed"] is True
        assert json.loads(resumed.recv(DEADLINE_S)) == late[0], "the log has the very event"
    stream = {"Accept": "text/event-stream", "Last-Event-ID": since}
    with httpx.stream("GET", f"{server.url}/api/events?kinds=late&devices=told", headers=stream) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data:") and '"hello"' not in line)
        assert json.loads(next(lines).removeprefix("data:")) == late[0]


def test_a_clock_that_is_ahead_is_marked_and_not_believed(server: ServerProcess) -> None:
    ahead = ago(-3_600)
    event = server.post("/api/data", reading("ahead", 1, ahead)).json()["event"]
    assert (event["type"], event["measured_at_utc"], event["clock"]) == ("data_update", ahead, "off")
    now = twin(server, "ahead")
    assert (now["measured_at_utc"], now["clock"]) == (ahead, "off")
    assert server.get("/api/data/ahead")["clock"] == "off"
    assert server.post("/api/data", reading("ahead", 2, ago(-30))).json()["event"]["type"] == "data_update"
    assert server.post("/api/data", reading("ahead", 3)).json()["event"]["type"] == "data_update"
    assert server.post("/api/data", reading("ahead", 4, ago(60))).json()["event"]["type"] == "late"


def test_what_was_measured_before_a_deletion_does_not_make_the_device_anew(server: ServerProcess) -> None:
    server.post("/api/data", reading("gone", 1))
    assert httpx.delete(f"{server.url}/api/data/gone").is_success
    assert server.post("/api/data", reading("gone", 2, ago(30))).json()["event"]["type"] == "late"
    assert twin(server, "gone") is None
    assert httpx.get(f"{server.url}/api/data/gone").status_code == 404
    assert httpx.delete(f"{server.url}/api/data/gone").status_code == 404
    assert server.post("/api/data", reading("gone", 3, ago(0))).json()["event"]["type"] == "data_update"
    assert twin(server, "gone")["value"] == 3


BAD_TIMES = ["yesterday", "2026-11-27T04:16:10", "2026-02-30T04:16:10Z", "2026-11-27", ""]


@pytest.mark.parametrize("time", BAD_TIMES)
def test_what_is_no_time_is_refused_on_every_way_and_nothing_is_stored(server: ServerProcess, time: str) -> None:
    before = position(server)
    refused = server.post("/api/data", reading("bad", 1, time))
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_time")
    batch = server.post("/api/data", [reading("bad", 1), reading("bad", 1, time)])
    assert (batch.status_code, batch.json()["code"]) == (422, "bad_time")
    assert "reading 2" in batch.json()["detail"]
    lines = server.post_text("/api/data", "\n".join(map(json.dumps, [reading("b", 1), reading("b", 1, time)])), LINES)
    assert (lines.status_code, lines.json()["code"]) == (422, "bad_time") and "line 2" in lines.json()["detail"]
    with connect(server.ws_url) as socket:
        assert json.loads(socket.recv(DEADLINE_S))["type"] == "hello"
        socket.send(json.dumps({"type": "telemetry", **reading("bad", 1, time), "id": 7}))
        error = json.loads(socket.recv(DEADLINE_S))
        assert (error["type"], error["code"], error["id"]) == ("error", "bad_time", 7)
    assert position(server) == before


def test_a_retry_with_another_time_is_another_reading(server: ServerProcess) -> None:
    key = {"Idempotency-Key": "measured"}
    newer, older = ago(5), ago(50)
    server.post("/api/data", reading("again", 0, newer))
    first = httpx.post(f"{server.url}/api/data", json=reading("again", 1, older), headers=key)
    again = httpx.post(f"{server.url}/api/data", json=reading("again", 1, older), headers=key)
    assert (first.json()["event"]["type"], again.json()) == ("late", first.json())
    assert again.headers["idempotency-replayed"] == "true"
    other = httpx.post(f"{server.url}/api/data", json=reading("again", 1, newer), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")


def test_a_numbered_line_may_be_late_and_is_stored_once(server: ServerProcess) -> None:
    with connect(f"{server.ws_url}?ordered=1&devices=") as socket:
        assert json.loads(socket.recv(DEADLINE_S))["type"] == "hello"
        line = {"type": "telemetry", **reading("line", 1, ago(5)), "producer": "p-measured", "line": 1, "id": 1}
        socket.send(json.dumps(line))
        older = {**line, **reading("line", 2, ago(9)), "line": 2, "id": 2}
        socket.send(json.dumps(older))
        socket.send(json.dumps({**older, "id": 3}))
        acks = [json.loads(socket.recv(DEADLINE_S)) for _ in range(3)]
    assert [each["type"] for each in acks] == ["ack"] * 3
    assert acks[2]["line"] == 2 and acks[2]["seq"] == acks[1]["seq"]
    assert twin(server, "line")["value"] == 1


def test_a_file_remembers_across_starts_what_was_measured_and_deleted(
    server_process: StartServer, tmp_path: Path
) -> None:
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    server = server_process(journal)
    server.post("/api/data", [reading("kept", 1, ago(5)), reading("gone", 1)])
    httpx.delete(f"{server.url}/api/data/gone")
    late = server.post("/api/data", reading("kept", 2, ago(9))).json()["event"]
    server.kill()
    for _ in range(2):  # from the log, and from the checkpoint
        server = server_process(journal)
        assert server.get("/api/data")["data"].keys() == {"kept"}
        assert server.post("/api/data", reading("kept", 3, ago(60))).json()["event"]["type"] == "late"
        assert server.post("/api/data", reading("gone", 2, ago(60))).json()["event"]["type"] == "late"
        epoch = late["epoch"]
        assert server.get(f"/api/events?since={epoch}:{late['seq'] - 1}&kinds=late")["events"][0] == {
            **late,
            "epoch": server.get("/api/status")["epoch"],
        }
        server.stop()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        assert db.execute("select device_id, measured_at_utc is null, value from twin").fetchall() == [("kept", 0, "1")]
        assert db.execute("select count(*) from log where type = 'late'").fetchone() == (5,)
        assert db.execute("select device_id from deletion").fetchall() == [("gone",)]


# Against a brute force, through the hub, on each kind of journal


@asynccontextmanager
async def driven(url: str) -> AsyncIterator[Hub]:
    stores = await open_stores(url, memory_max_bytes=1 << 24)
    hub = await Hub.over(stores.journal, open_batch_max_bytes=1 << 20)
    driver = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        driver.cancel()
        await asyncio.wait([driver])
        await stores.close()


def draft(device_id: str, measured_s: float | None) -> Entry:
    if measured_s is None:
        return DataUpdate(device_id, Raw(b"1"), "", "rest")
    return DataUpdate(device_id, Raw(b"1"), "", "rest", measured_at_utc=ago(measured_s))


STEPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.none() | st.sampled_from([0, 5, 9, -30, -90, "delete"]), st.booleans()),
    max_size=10,
)


def expected_kinds(log: Sequence[Entry]) -> list[str]:
    """Return the kinds that entries must have had, by a look at all before each of them."""
    kinds: list[str] = []
    for index, entry in enumerate(log):
        if isinstance(entry, Deleted):
            kinds.append("deleted")
            continue
        stored = datetime.fromisoformat(entry.timestamp_utc)
        claim = datetime.fromisoformat(entry.claim) if entry.claim else None
        before = [
            (kind, other)
            for kind, other in zip(kinds, log[:index], strict=True)
            if other.subject == entry.subject and kind != "late"
        ]
        limit = None
        if before:
            kind, other = before[-1]
            limit = datetime.fromisoformat(other.timestamp_utc)
            if kind == "data_update" and other.claim:
                claimed = datetime.fromisoformat(other.claim)
                limit = claimed if claimed - limit <= timedelta(seconds=60) else limit
        is_believed = claim is not None and claim - stored <= timedelta(seconds=60)
        kinds.append("late" if is_believed and claim and limit and claim < limit else "data_update")
    return kinds


@pytest.mark.parametrize("kind", ["memory", "sqlite", "jetstream"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS)
def test_every_journal_decides_alike(kind: str, journal_url: JournalUrl, steps: list[tuple[str, Any, bool]]) -> None:
    asyncio.run(_decides_alike(journal_url(kind), steps))


async def _decides_alike(url: str, steps: list[tuple[str, Any, bool]]) -> None:
    async with driven(url) as hub:
        begin = hub.state.seq
        for device_id, measured_s, waits in steps:
            if measured_s == "delete":
                entry: Entry = Deleted(device_id, "", "rest")
            else:
                entry = draft(device_id, measured_s)
            hub.submit_all((entry,), 1, lambda _error, _seq: None)
            if waits:
                await hub.intake.settled()
        await hub.intake.settled()
        await eventually_async(lambda: hub.intake.waiting_bytes == 0, "all is stored")
        log = await hub.read(0, 10_000)
        assert [entry.kind for entry in log] == expected_kinds(log)
        assert len(log) - begin <= len(steps)
        newest = {
            entry.subject: entry.seq if isinstance(entry, DataUpdate) else 0 for entry in log if entry.changes_twin
        }
        assert {name: twin.seq for name, twin in hub.state.twins.items()} == {
            name: seq for name, seq in newest.items() if seq
        }
        for entry in log:
            if isinstance(entry, DataUpdate):
                assert (entry.clock is not UNSET) == (entry.claim != "" and _is_ahead(entry))


def _is_ahead(entry: Entry) -> bool:
    ahead = datetime.fromisoformat(entry.claim) - datetime.fromisoformat(entry.timestamp_utc)
    return ahead > timedelta(seconds=60)
