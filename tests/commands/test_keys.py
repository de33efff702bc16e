"""`twincast keys` and `twincast audit`, as a person or a script runs them."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.access import bearer
from tests.running import ROOT
from twincast.testing import Server


def run(journal: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twincast", *arguments, "--journal", f"sqlite:{journal}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=60, check=False)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_a_key_is_shown_once_alone_on_standard_output(journal: Path) -> None:
    added = run(
        journal, "keys", "add", "lab/gateway", "--may", "publish,read", "--devices", "lab/*", "--expires", "30d"
    )
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("twc_") and added.stdout.count("\n") == 1
    assert "lab/gateway" in added.stderr and "shown this once" in added.stderr
    listed = run(journal, "keys", "list", "--json")
    assert added.stdout.strip() not in listed.stdout
    assert not [path for path in journal.parent.iterdir() if added.stdout.strip().encode() in path.read_bytes()]
    (key,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (key["name"], key["grants"]) == ("lab/gateway", {"publish": ["lab/*"], "read": ["lab/*"]})
    assert key["expires_s"] > 0
    assert "digest" not in key


def test_keys_change_beside_a_server_that_runs(journal: Path) -> None:
    with Server(f"sqlite:{journal}") as server:
        assert httpx.get(f"{server.url}/api/data").status_code == 200
        secret = run(journal, "keys", "add", "a", "--may", "read").stdout.strip()
        assert httpx.get(f"{server.url}/api/data").status_code == 401
        assert httpx.get(f"{server.url}/api/data", headers=bearer(secret)).status_code == 200
        assert run(journal, "keys", "revoke", "a").returncode == 0
        assert httpx.get(f"{server.url}/api/data", headers=bearer(secret)).status_code == 401
        assert "revoked" in run(journal, "keys", "list").stdout
        assert run(journal, "keys", "clear", "--yes").returncode == 0
        assert httpx.get(f"{server.url}/api/data").status_code == 401
    with Server(f"sqlite:{journal}") as server:
        assert httpx.get(f"{server.url}/api/data").status_code == 200


def test_the_audit_trail_shows_who_did_what(journal: Path) -> None:
    secret = run(journal, "keys", "add", "a", "--may", "command").stdout.strip()
    with Server(f"sqlite:{journal}") as server:
        order = {"target": "lab/fan", "command": "set_speed", "args": {"rpm": 900}}
        httpx.post(f"{server.url}/api/control", json=order, headers=bearer(secret)).raise_for_status()
    run(journal, "keys", "revoke", "a")
    records = [json.loads(line) for line in run(journal, "audit", "--json").stdout.splitlines()]
    assert [record["action"] for record in records] == ["keys add", "command", "keys revoke"]
    assert records[1]["who"] == f"key:{secret.split('_')[1]}"
    assert (records[1]["target"], records[1]["detail"], records[1]["seq"]) == ("lab/fan", "set_speed", 1)
    assert records[0]["who"].startswith("local:")
    assert "set_speed" in run(journal, "audit").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (("keys", "add", "a", "--may", "fly"), 1, "publish, read, command, admin"),
        (("keys", "add", "a b", "--may", "read"), 1, "name"),
        (("keys", "add", "a", "--may", "read", "--expires", "soon"), 1, "30d"),
        (("keys", "add", "a", "--may", "read", "--rate", "0"), 1, "rate"),
        (("keys", "add", "a", "--may", "read", "--devices", ""), 1, "pattern"),
        (("keys", "add", "a"), 2, "--may"),
        (("keys", "revoke", "nobody"), 1, "nobody"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_why(
    journal: Path, arguments: tuple[str, ...], status: int, part: str
) -> None:
    result = run(journal, *arguments)
    assert result.returncode == status, result
    assert result.stderr.count("\n") == 1
    assert part in result.stderr


def test_a_name_is_used_once_at_a_time(journal: Path) -> None:
    assert run(journal, "keys", "add", "a", "--may", "read").returncode == 0
    assert "already" in run(journal, "keys", "add", "a", "--may", "read").stderr
    run(journal, "keys", "revoke", "a")
    assert run(journal, "keys", "add", "a", "--may", "read").returncode == 0


def test_forgetting_all_keys_is_asked_about(journal: Path) -> None:
    run(journal, "keys", "add", "a", "--may", "read")
    run(journal, "keys", "clear", stdin="n\n")
    assert "a" in run(journal, "keys", "list").stdout


def test_a_journal_that_keeps_nothing_keeps_no_keys(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twincast", "keys", "list", "--journal", "memory:"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "journal on disk" in result.stderr


def test_a_file_that_is_no_journal_is_refused(journal: Path) -> None:
    journal.write_text("# Notes\n" * 1_000)
    result = run(journal, "keys", "list")
    assert result.returncode == 1
    assert "not a journal" in result.stderr
    assert journal.read_text().startswith("# Notes")
