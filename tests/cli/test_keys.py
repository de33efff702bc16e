"""`twincast keys` and `twincast audit`, as a person or a script runs them."""

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import httpx
import pytest

from tests import warm
from tests.cli.commands import screen_until
from tests.credentials import bearer
from tests.running import ROOT, free_port
from twincast.testing import Server


def run(journal: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twincast", *arguments, "--journal", f"sqlite:{journal}"]
    return warm.run(command, cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=60, check=False)


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


@pytest.mark.parametrize("columns", [160, 100, 80, 40, None])
def test_an_audit_never_cuts_a_time_and_loses_nothing(journal: Path, columns: int | None) -> None:
    name = "site/" + "gateway-" * 6 + "end"
    assert run(journal, "keys", "add", name, "--may", "publish,read,command,admin").returncode == 0
    at = json.loads(run(journal, "audit", "--json").stdout)["at_utc"][:19]
    _, first, *more = printed_in(columns, journal, "audit")
    assert first.startswith(f"{at} ") or first.startswith(f" {at} ")
    if columns is None:
        assert name in first and not more
    else:
        assert all(len(line) <= columns for line in (first, *more))
        beside = "".join(line[20:].replace(" ", "") for line in (first, *more))
        assert sorted(name) == sorted(letter for letter in name if letter in beside)
        assert name in beside or columns >= 100
    assert name in printed_in(None, journal, "keys", "list")[1]


def printed_in(columns: int | None, journal: Path, *words: str) -> list[str]:
    """Return what a command prints in a terminal of a width, or into a pipe."""
    if columns is None:
        return run(journal, *words).stdout.splitlines()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    command = warm.Popen(
        [sys.executable, "-m", "twincast", *words, "--journal", f"sqlite:{journal}"],
        env={**env, "TERM": "xterm", "NO_COLOR": "1"},
        cwd=ROOT,
        stdout=theirs,
    )
    os.close(theirs)
    screen = screen_until(ours, None)
    os.close(ours)
    assert command.wait(60) == 0
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", screen).splitlines()]


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
    run(journal, "keys", "add", "z", "--may", "read")
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
    result = warm.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "journal on disk" in result.stderr


def test_a_file_that_is_no_journal_is_refused(journal: Path) -> None:
    journal.write_text("# Notes\n" * 1_000)
    result = run(journal, "keys", "list")
    assert result.returncode == 1
    assert "not a journal" in result.stderr
    assert journal.read_text().startswith("# Notes")


def here(folder: Path, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with nothing of ours in the environment but what is given."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TWINCAST_")}
    command = [sys.executable, "-m", "twincast", *arguments]
    return warm.run(
        command, cwd=folder, env=clean | env, capture_output=True, text=True, input=stdin, timeout=60, check=False
    )


ON_A_JOURNAL = [
    ("keys", "list"),
    ("keys", "list", "--json"),
    ("keys", "revoke", "a"),
    ("keys", "clear", "--yes"),
    ("audit",),
]


@pytest.mark.parametrize("arguments", ON_A_JOURNAL, ids=" ".join)
@pytest.mark.parametrize("how", ["--journal", "TWINCAST_JOURNAL", ".env", "by default"])
def test_a_path_without_a_journal_is_an_error_that_makes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], how: str
) -> None:
    if how == ".env":
        (tmp_path / ".env").write_text("TWINCAST_JOURNAL=sqlite:mistyped.db\n")
    env = {how: "sqlite:mistyped.db"} if how == "TWINCAST_JOURNAL" else {}
    option = ("--journal", "sqlite:mistyped.db") if how == "--journal" else ()
    before = sorted(tmp_path.iterdir())
    result = here(tmp_path, *arguments, *option, **env)
    name = "twincast.db" if how == "by default" else "mistyped.db"
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1 and f"no journal at {tmp_path / name}" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [*ON_A_JOURNAL, ("keys", "add", "a", "--may", "read")], ids=" ".join)
def test_a_journal_that_can_hold_no_keys_is_one_line_and_makes_nothing(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "folder").mkdir()
    for journal in ("sqlite:folder", "sqlite:no/such/folder.db", "sqlite:", "sqlite::memory:", "memory:", "tape:x", ""):
        result = here(tmp_path, *arguments, "--journal", journal)
        assert result.returncode == 1, (journal, result)
        assert result.stdout == "" and result.stderr.count("\n") == 1, result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_a_key_is_made_where_the_server_looks(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TWINCAST_JOURNAL=sqlite:data/real.db\n")
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "real.db"
    made = here(tmp_path, "keys", "add", "a", "--may", "read")
    assert f"no journal at {path}; now there is" in made.stderr and f"No server runs on {path} now" in made.stderr
    assert not (tmp_path / "twincast.db").exists()
    with Server(f"sqlite:{path}") as server:
        assert httpx.get(f"{server.url}/api/data", headers=bearer(made.stdout.strip())).status_code == 200
        again = here(tmp_path, "keys", "add", "b", "--may", "read")
        assert "now there is" not in again.stderr and f"A server runs on {path}, so it is in force" in again.stderr
        assert httpx.get(f"{server.url}/api/data", headers=bearer(again.stdout.strip())).status_code == 200
    assert here(tmp_path, "keys", "list").stdout.count("good") == 2
    assert here(tmp_path, "keys", "revoke", "a", TWINCAST_JOURNAL=f"sqlite:{path}").returncode == 0
    assert "keys revoke" in here(tmp_path, "audit").stdout


def test_what_a_new_key_says_to_do_works(tmp_path: Path) -> None:
    folder = tmp_path / "a folder's"
    folder.mkdir()
    said = here(tmp_path, "keys", "add", "a", "--may", "read", "--journal", "sqlite:a folder's/it.db").stderr
    advice = shlex.split(re.findall("`(twincast serve .*)`", said.replace("\n", " "))[0])
    assert advice == ["twincast", "serve", "--journal", "sqlite:a folder's/it.db"]


def test_whoever_talks_to_a_server_finds_it_where_the_settings_are(tmp_path: Path) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        secret = server.add_key(read=["*"], publish=["*"], command=["*"])
        (tmp_path / ".env").write_text(f"TWINCAST_URL={server.url}\nTWINCAST_TOKEN={secret}\n")
        for arguments in (("status",), ("send", "a", "1"), ("control", "a", "b"), ("host", "--count", "1")):
            result = here(tmp_path, *arguments)
            assert result.returncode == 0, result.stderr
        assert here(tmp_path, "send", "a", "-", stdin="2\n").returncode == 0
        # What the environment says counts more, and what a flag says most.
        assert "credential" in here(tmp_path, "send", "a", "1", TWINCAST_TOKEN="twc_0_wrong").stderr
        nobody = f"http://127.0.0.1:{free_port()}"
        assert nobody in here(tmp_path, "status", TWINCAST_URL=nobody).stderr
        assert here(tmp_path, "status", "--url", server.url, TWINCAST_URL=nobody).returncode == 0


def test_a_file_of_settings_that_is_none_is_one_line_for_every_command(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"OWNER=Z\xfcrich\n")
    for arguments in (
        *ON_A_JOURNAL,
        ("keys", "add", "a", "--may", "read"),
        ("status",),
        ("send", "a", "1"),
        ("serve",),
    ):
        result = here(tmp_path, *arguments)
        assert result.returncode == 2, (arguments, result.stderr)
        assert result.stderr.count("\n") == 1 and ".env" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_a_line_of_the_file_that_says_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnot a setting\n")
    made = here(tmp_path, "keys", "add", "a", "--may", "read")
    assert made.returncode == 0
    assert ".env, line 2 is not NAME=VALUE" in made.stderr
