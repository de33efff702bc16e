"""A journal that keeps so much and no more, under load: clients resume or are told, and the disk does not fill."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from tests import warm
from tests.conftest import StartServer
from tests.running import DEADLINE_S, ServerProcess, eventually
from twincast.client import Rest
from twincast.client.sync import connect as connect_client
from twincast.journal.retention import ENTRY_MIN_BYTES, HEADROOM_BYTES
from twincast.journal.sqlite.health import facts, problems
from twincast.testing import Server

RESUMED_FROM = 40
KEEP_BYTES = HEADROOM_BYTES + ENTRY_MIN_BYTES * RESUMED_FROM + 6_000_000
BOUNDS = {"TWINCAST_KEEP_BYTES": str(KEEP_BYTES), "TWINCAST_RESUME_MAX_ENTRIES": str(RESUMED_FROM)}
VALUE = "x" * 60_000
BATCH = 30


def batch(number: int) -> list[dict[str, Any]]:
    return [{"device_id": f"d{each}", "value": [number, VALUE]} for each in range(BATCH)]


def on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())


class Publisher:
    """Posts batches, one after another, and knows the last one that was acknowledged."""

    def __init__(self, server: ServerProcess, first: int) -> None:
        self.acknowledged = first - 1
        self._server = server
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                answer = self._server.post("/api/data", batch(self.acknowledged + 1))
            except requests.RequestException:
                return
            assert answer.status_code == 200, answer.text
            self.acknowledged += 1

    def join(self) -> int:
        self._thread.join(DEADLINE_S)
        return self.acknowledged


def test_a_server_that_is_killed_while_it_trims_stays_within_its_bound_and_loses_no_newest_value(
    server_process: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    acknowledged = -1
    for _ in range(2):
        server = server_process(f"sqlite:{path}", **BOUNDS)
        state = server.get("/api/data")["data"]
        if acknowledged >= 0:
            assert {twin["value"][0] for twin in state.values()} <= {acknowledged, acknowledged + 1}
            acknowledged = state["d0"]["value"][0]
        oldest = server.get("/api/status")["space"]["oldest_seq"]
        publisher = Publisher(server, acknowledged + 1)
        eventually(lambda s=server, o=oldest: s.get("/api/status")["space"]["oldest_seq"] > o + 40, "it trims")  # type: ignore[misc]
        assert on_disk(path) <= KEEP_BYTES
        server.kill()
        acknowledged = publisher.join()
        assert problems(str(path)) == []
    assert facts(str(path)).newest_seq >= (acknowledged + 1) * BATCH
    server = server_process(f"sqlite:{path}", **BOUNDS)
    assert len(server.get("/api/data")["data"]) == BATCH
    server.stop()
    checked = warm.run(
        [sys.executable, "-m", "twincast", "journal", "check", "--journal", f"sqlite:{path}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (checked.returncode, checked.stderr.strip()) == (0, f"{path} is whole.")


@pytest.fixture
def kept(tmp_path: Path, edge: str) -> Iterator[Server]:
    """A server that keeps little, on each edge."""
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    with Server(journal, edge=edge, keep_bytes=KEEP_BYTES, resume_max_entries=RESUMED_FROM) as server:
        yield server


def publish_until_trimmed(server: Server, beyond: int) -> int:
    """Publish until the log begins behind a position; return the newest one."""
    with Rest(server.url) as rest:
        while rest.status()["space"]["oldest_seq"] <= beyond:
            newest = rest.publish_all([(f"d{each}", VALUE) for each in range(BATCH)])[-1]
            assert newest < 3_000
    return newest


def test_a_cursor_behind_the_oldest_change_is_told_so_on_every_transport(kept: Server) -> None:
    with Rest(kept.url) as rest:
        since = f"{rest.publish('d0', 1)['epoch']}:1"
    publish_until_trimmed(kept, 1)
    state = requests.get(f"{kept.url}/api/data", timeout=DEADLINE_S).json()["data"]

    poll = requests.get(f"{kept.url}/api/events", params={"since": since}, timeout=DEADLINE_S).json()
    assert (poll["resumed"], poll["reason"], poll["events"]) == (False, "too_old", [])
    assert poll["data_snapshot"] == state

    headers = {"Accept": "text/event-stream", "Last-Event-ID": since}
    with requests.get(f"{kept.url}/api/events", headers=headers, stream=True, timeout=DEADLINE_S) as stream:
        hello = next(json.loads(line[5:]) for line in stream.iter_lines() if line.startswith(b"data:"))
    assert (hello["resumed"], hello["reason"]) == (False, "too_old")

    with connect(f"{kept.ws_url}?since={since}", max_size=None) as client:
        hello = json.loads(client.recv(timeout=DEADLINE_S))
    assert (hello["resumed"], hello["reason"]) == (False, "too_old")

    with connect_client(kept.url, devices=(), since=since) as watcher, watcher.watch(mode="every") as events:
        gap = next(iter(events)).gap
    assert gap is not None
    assert (gap.reason, gap.from_seq) == ("too_old", 2)


def test_a_client_that_falls_behind_while_the_log_is_trimmed_hears_all_or_of_a_gap(kept: Server) -> None:
    small = socket.create_connection(("127.0.0.1", kept.port))
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    with connect(f"{kept.ws_url}?mode=every", sock=small, max_size=None, max_queue=1, close_timeout=0.1) as client:
        hello = json.loads(client.recv(timeout=DEADLINE_S))
        assert hello["seq"] == 0
        newest = publish_until_trimmed(kept, 150)  # meanwhile the client takes nothing
        expected, gaps = 1, []
        while expected <= newest:
            message = json.loads(client.recv(timeout=DEADLINE_S))
            if message["type"] == "gap":
                assert message["from"] == expected
                gaps.append((message["from"], message["to"]))
                expected = message["to"] + 1
            elif message["type"] == "data_update":
                assert message["seq"] == expected
                expected += 1
        assert len(gaps) == 1, "what was trimmed is declared"


def test_a_retry_of_what_is_no_longer_kept_is_not_stored_again(kept: Server) -> None:
    def post() -> requests.Response:
        body, headers = {"device_id": "meter", "value": 1}, {"Idempotency-Key": "the same"}
        return requests.post(f"{kept.url}/api/data", json=body, headers=headers, timeout=DEADLINE_S)

    stored, again = post().json()["event"], post()
    assert (again.json()["event"], again.headers["Idempotency-Replayed"]) == (stored, "true")
    newest = publish_until_trimmed(kept, stored["seq"])
    refused = post()
    assert (refused.status_code, refused.json()["code"]) == (410, "truncated")
    assert f"stored before, under the same key, as entry {stored['seq']}" in refused.json()["detail"]
    with Rest(kept.url) as rest:
        assert rest.status()["seq"] == newest


def within_bound(space: dict[str, Any]) -> dict[str, Any]:
    return space if space["used_bytes"] <= KEEP_BYTES - HEADROOM_BYTES else {}


def test_the_status_says_how_full_the_journal_is(kept: Server, tmp_path: Path) -> None:
    newest = publish_until_trimmed(kept, 1)
    with Rest(kept.url) as rest:
        space = eventually(lambda: within_bound(rest.status()["space"]), "what is too much is gone")
    assert space["file_bytes"] == (tmp_path / "journal.db").stat().st_size
    assert space["wal_bytes"] == (tmp_path / "journal.db-wal").stat().st_size
    assert space["oldest_seq"] + space["entries"] - 1 == newest
    assert space["keep_bytes"] == KEEP_BYTES >= space["file_bytes"] + space["wal_bytes"]
    assert space["disk_free_bytes"] > 0
    assert (space["keep_s"], space["problem"], space["full_in_s"]) == (None, None, None)
    oldest = kept.log(space["oldest_seq"] - 1)[0]
    assert (oldest["seq"], oldest["timestamp_utc"]) == (space["oldest_seq"], space["oldest_at_utc"])


def test_a_journal_in_memory_says_that_it_keeps_a_window_whatever_is_set(caplog: pytest.LogCaptureFixture) -> None:
    with Server("memory:", keep="1d", memory_journal_max_bytes=1 << 20) as server, Rest(server.url) as rest:
        rest.publish("lamp", 1)
        space = rest.status()["space"]
    assert "one in memory keeps the newest 1048576 bytes" in caplog.text
    assert (space["keep_s"], space["keep_bytes"], space["entries"]) == (None, 1 << 20, 1)


def test_bounds_that_cannot_be_kept_end_the_start_in_one_line(tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "twincast", "serve", "--port", "0", "--journal", f"sqlite:{tmp_path / 'j.db'}"]
    for bound, said in (("--keep-bytes=100MB", "give it 154MB or more"), ("--keep=0", "--keep: must be a time")):
        ended = warm.run([*serve, bound], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert said in ended.stderr
    assert not list(tmp_path.iterdir()), "and nothing was made"
