"""`twincast status`."""

import json

from tests.cli.commands import run
from tests.running import ServerProcess
from twincast.cli.status import server_rows


def test_status_is_a_table_or_json(server: ServerProcess) -> None:
    assert json.loads(run(server.url, "status", "--json").stdout)["ok"] is True
    table = run(server.url, "status").stdout
    assert "devices_known" in table and "memory:" in table


def test_servers_of_a_shared_log_have_a_line_each() -> None:
    one = {"name": "one", "websocket_clients": 1_200, "seq": 5_000, "behind_entries": 0, "behind_s": 0.0}
    rest = {"leaving": False, "ready": True, "same_settings": True, "version": "0.1.0", "since_utc": "2026-11-27"}
    behind = {"name": "two", "behind_entries": 1_500, "behind_s": 61.0, "ready": False, "same_settings": False}
    assert dict(server_rows([{**one, **rest}, {**one, **rest, **behind}, {**one, **rest, "leaving": True}])) == {
        "server one": "1,200 clients, at 5,000, leaving, 0.1.0 since 2026-11-27",
        "server two": (
            "1,200 clients, at 5,000, 1,500 entries and 61 s behind, not ready, other settings, 0.1.0 since 2026-11-27"
        ),
    }
