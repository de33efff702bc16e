"""`twincast status`."""

import json

from tests.cli.commands import run
from tests.running import ServerProcess


def test_status_is_a_table_or_json(server: ServerProcess) -> None:
    assert json.loads(run(server.url, "status", "--json").stdout)["ok"] is True
    table = run(server.url, "status").stdout
    assert "devices_known" in table and "memory:" in table
