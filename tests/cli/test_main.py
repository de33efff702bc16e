"""Every command together: help, completion, and how errors end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.core
import typer.main

from tests import warm
from tests.cli.commands import COMPLETED, assert_one_line, run
from tests.running import DEADLINE_S, ROOT, ServerProcess, free_port
from twincast import __version__
from twincast.cli.main import COMMANDS, app

MARK = "imported:"


def test_version_and_help_are_there() -> None:
    assert run("", "--version").stdout.strip() == __version__
    overview = run("", "--help").stdout
    for command in ("serve", "simulate", "watch", "send", "host", "control", "delete", "status"):
        assert command in overview
    assert "[default: TWINCAST_URL or http://127.0.0.1:8000]" in run("", "send", "--help").stdout


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "twincast").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{COMPLETED}" "$@"\n')
    (tmp_path / "twincast").chmod(0o755)
    script = """
        twincast --install-completion >/dev/null && . ~/.bashrc
        ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _twincast_completion twincast; echo "${COMPREPLY[@]}"; }
        ask twincast s; ask twincast keys r; ask twincast serve --allow
    """
    told = warm.run(
        ["bash", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert told.stdout.splitlines() == ["serve simulate send status", "revoke", "--allow-host --allow-origin"], told


SERVER = {"pydantic", "pydantic_settings", "fastapi", "starlette", "uvicorn", "uvloop", "picows", "segno"}
SERVER |= {"prometheus_client", "jwt", "cryptography", "nats"}
SERVER |= {f"twincast.{room}" for room in ("settings", "server.process", "hub", "transports", "app")}
JOURNAL = {"apsw", "twincast.journal"}
DEVICE = SERVER | JOURNAL | {"dotenv", "sqlite3"}
STREAMS = {"asyncio", "websockets", "twincast.client.client", "twincast.client.connection"}
DRAWS = {"twincast.console", "typer.rich_utils"}
ASKS = {"httpx", "twincast.client.rest"}
ONCE = DEVICE | STREAMS | {"psutil", "importlib.metadata"}
SPARED: dict[tuple[str, ...], set[str]] = {
    ("--version",): ONCE | DRAWS | ASKS | {"rich", "msgspec"},
    ("--help",): ONCE | ASKS | {f"twincast.cli.{name}" for name in COMMANDS},
    ("send", "--help"): ONCE | ASKS,
    ("send", "x", "1"): ONCE | DRAWS,
    ("get",): ONCE | DRAWS,
    ("get", "x"): ONCE | DRAWS,
    ("history", "x"): ONCE | DRAWS,
    ("status",): ONCE | DRAWS,
    ("control", "x", "on", "level=3"): ONCE | DRAWS,
    ("delete", "x"): ONCE | DRAWS,
    ("join", "http://127.0.0.1:9", "ABCD"): ONCE | DRAWS,
    ("audit", "--url", "URL", "--json"): ONCE | DRAWS,
    ("send", "x", "-"): DEVICE | DRAWS | {"psutil"},
    ("watch", "x" * 300): DEVICE | DRAWS | {"psutil"},
    ("host", "--url", "ftp://x"): DEVICE | DRAWS | ASKS | {"rich"},
    ("simulate", "--url", "ftp://x"): DEVICE | DRAWS | ASKS | {"psutil"},
    ("keys", "list", "--json"): SERVER | DRAWS | ASKS | {"websockets", "rich"},
    ("pair", "n", "--may", "read"): SERVER | DRAWS | ASKS | {"websockets"},
    ("journal", "info", "--json"): SERVER | DRAWS | ASKS | {"websockets", "rich"},
    ("serve", "--help"): {"fastapi", "uvicorn", "twincast.app", "websockets", "nats"} | JOURNAL | ASKS,
    ("serve", "--port", "x"): {"fastapi", "uvicorn", "twincast.app", "websockets", "nats"} | JOURNAL | ASKS | DRAWS,
}
"""What each command does without: a package that it imported all the same would make it start later, or would not be
there on a device. (The packages of `rich` and `click` are not named where httpx is: it imports them where they are.)"""


@pytest.mark.parametrize("words", SPARED, ids=" ".join)
def test_a_command_imports_only_what_it_needs(words: tuple[str, ...], server: ServerProcess, tmp_path: Path) -> None:
    program = f"""
import sys
from twincast.cli.main import main
try:
    main()
finally:
    print({MARK!r}, *sys.modules, file=sys.stderr)
"""
    journal = f"sqlite:{tmp_path / 'journal.db'}"
    if words[0] in {"keys", "journal"}:
        run("", "keys", "add", "first", "--may", "read", "--journal", journal)
    ran = subprocess.run(  # not from a warm interpreter, which has imported all of it
        [sys.executable, "-c", program, *(server.url if word == "URL" else word for word in words)],
        cwd=tmp_path,  # where there is no .env
        env={**os.environ, "PYTHONPATH": str(ROOT), "TWINCAST_URL": server.url, "TWINCAST_JOURNAL": journal},
        input="1\n",
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    said, _, loaded = ran.stderr.partition(MARK)
    assert "Traceback" not in said
    assert set(loaded.split()) & SPARED[words] == set(), ran


def test_the_list_of_commands_has_what_each_says_of_itself() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, purpose in COMMANDS.items():
        assert (group.commands[name].help or "").partition("\n\n")[0].replace("\n", " ") == purpose
    assert {words[0] for words in SPARED} >= set(COMMANDS)


def test_a_server_that_is_not_up_is_one_line() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for words in (("status",), ("send", "x", "1"), ("send", "x", "-"), ("control", "x", "y"), ("delete", "x")):
        assert_one_line(run(url, *words), 1, f"nobody answers at {url}; `twincast serve` starts a server there")


def test_a_refused_value_is_one_line(server: ServerProcess) -> None:
    assert_one_line(run(server.url, "send", "x" * 129, "1"), 1, "1 to 128 characters")
    assert_one_line(run(server.url, "send", "x", "18446744073709551616"), 1, "64 bits")


def test_wrong_arguments_are_one_line_and_status_2(server: ServerProcess) -> None:
    assert_one_line(run("ftp://x", "status"), 2, "expected a server's address")
    assert_one_line(run(server.url, "simulate", "--devices", "none"), 2, "--devices")
    assert_one_line(run(server.url, "dance"), 2, "dance")
    assert_one_line(run(server.url, "send", "x"), 2, "Missing argument")
