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


def test_with_its_history_it_asks_before(server: ServerProcess) -> None:
    server.post("/api/data", [{"device_id": "lab/fan", "value": 1}, {"device_id": "other", "value": 1}])
    asked = run(server.url, "delete", "lab/fan", "--history")
    assert asked.returncode == 130
    assert "Erase all that the log has of lab/fan?" in asked.stdout
    declined = run(server.url, "delete", "lab/fan", "--history", stdin="n\n")
    assert (declined.returncode, declined.stderr) == (1, "nothing was erased\n")
    assert values(server) == {"lab/fan": 1, "other": 1}
    done = run(server.url, "delete", "lab/fan", "--history", "--yes")
    assert done.returncode == 0
    assert done.stdout.startswith("erased lab/fan, as number 3: no answer has anything of it any more\n")
    assert values(server) == {"other": 1}
    assert_one_line(run(server.url, "delete", "nobody", "--history", "--yes"), 1, "there is no device 'nobody'")


def test_of_a_device_that_there_is_not_it_asks_nothing(server: ServerProcess) -> None:
    refused = run(server.url, "delete", "nobody", "--history", stdin="y\n")
    assert_one_line(refused, 1, "there is no device 'nobody', and no history of one")
    assert refused.stdout == ""


def test_a_history_without_a_newest_value_is_asked_about(server: ServerProcess) -> None:
    server.post("/api/data", {"device_id": "lab/fan", "value": 1})
    run(server.url, "delete", "lab/fan")
    done = run(server.url, "delete", "lab/fan", "--history", stdin="y\n")
    assert (done.returncode, "erased lab/fan" in done.stdout) == (0, True)
