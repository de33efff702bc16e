"""A large journal: everything is there again after a restart, however the server ended."""

import json
import sqlite3
from pathlib import Path

from tests.conftest import FILES, JournalUrl, StartServer
from tests.running import ServerProcess

DEVICES = 10_000
ENTRIES = 1_000_000


def fill(server: ServerProcess) -> dict[str, int]:
    """Store a million entries of ten thousand devices; return the newest value of each."""
    newest: dict[str, int] = {}
    for batch in range(ENTRIES // DEVICES):
        newest = {f"hall/{number}": batch * DEVICES + number for number in range(DEVICES)}
        lines = "\n".join(json.dumps({"device_id": name, "value": value}) for name, value in newest.items())
        answer = server.post_text("/api/data", lines, "application/x-ndjson")
        assert answer.json()["stored"] == DEVICES
    return newest


def test_ten_thousand_devices_and_a_million_entries_survive_a_kill_and_a_clean_end(
    server_process: StartServer, durable_kind: str, journal_url: JournalUrl, tmp_path: Path
) -> None:
    url, path = journal_url(durable_kind), tmp_path / FILES[durable_kind]
    server = server_process(url)
    newest = fill(server)
    server.kill()
    for _ in range(2):
        server = server_process(url, port=server.port)
        status = server.get("/api/status")
        assert (status["seq"], status["devices_known"]) == (ENTRIES, DEVICES)
        assert {name: twin["value"] for name, twin in server.get("/api/data")["data"].items()} == newest
        server.stop()
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as file:
        assert file.execute("select count(*), max(seq) from log").fetchone() == (ENTRIES, ENTRIES)
        assert file.execute("select count(*) from twin").fetchone() == (DEVICES,)
