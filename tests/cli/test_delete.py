"""`twincast delete`."""

import pytest

from tests.cli.commands import assert_one_line, run, values
from tests.running import ServerProcess


@pytest.mark.parametrize("name", ["lab/fan", "..", "a b", "é", "-x", "[red]"])
def test_delete_asks_nothing_and_says_what_it_did(server: ServerProcess, name: str) -> None:
    server.post("/api/data", [{"device_id": name, "value": 1}, {"device_id": "other", "value": 1}])
    done = run(server.url, "delete", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"deleted {name}, as number 3\n", "")
    assert values(server) == {"other": 1}
    assert_one_line(run(server.url, "delete", name), 1, f"there is no device {name!r}")
