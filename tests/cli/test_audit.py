"""`twincast audit` of a server, for who has no journal."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests import warm
from tests.running import DEADLINE_S, ROOT
from twincast.cli.audit import show
from twincast.client import Rest
from twincast.core.audit import AuditRecord
from twincast.errors import NotPermitted, ValidationFailed
from twincast.testing import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        yield server


def audit(*words: str, token: str) -> subprocess.CompletedProcess[str]:
    return warm.run(
        [sys.executable, "-m", "twincast", "audit", *words],
        cwd=ROOT,
        env={**os.environ, "TWINCAST_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_server_tells_what_its_journal_would(server: Server) -> None:
    token = server.add_key("boss", command=["*"], admin=["*"])
    with Rest(server.url, token=token) as rest:
        rest.control("lab/fan", "on")
        newest, made = rest.audit()
        assert (newest.action, newest.target, newest.seq) == ("command", "lab/fan", 1)
        assert made.action == "keys add"
        assert [record.action for record in rest.audit(limit=1)] == ["command"]
        with pytest.raises(ValidationFailed, match="`limit`"):
            rest.audit(limit=-1)
    ran = audit("--url", server.url, "--json", token=token)
    assert [json.loads(line)["action"] for line in ran.stdout.splitlines()] == ["keys add", "command"], ran.stderr
    assert "lab/fan" in audit("--url", server.url, token=token).stdout


def test_it_takes_the_right_to_see_it(server: Server) -> None:
    token = server.add_key("lamp", read=["*"])
    with Rest(server.url, token=token) as rest, pytest.raises(NotPermitted):
        rest.audit()
    ran = audit("--url", server.url, token=token)
    assert ran.returncode == 1 and "admin" in ran.stderr and ran.stderr.count("\n") == 1


def test_of_a_journal_or_of_a_server_not_of_both() -> None:
    ran = audit("--url", "http://127.0.0.1:1", "--journal", "sqlite:x.db", token="")
    assert ran.returncode == 2 and "give one of them" in ran.stderr


def test_the_servers_are_shown_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    alone = AuditRecord("2026-11-27T03:30:00.000001+00:00", "key:1", "192.0.2.1", "command", "fan", "on", 7)
    show([alone], as_json=False)
    assert "server" not in capsys.readouterr().out
    show([alone, replace(alone, server="n1")], as_json=False)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "server" and first.split()[-2:] == ["7", "n1"] and second.split()[-1] == "7"
