"""Every command together: help, completion, and how errors end."""

import os
import subprocess
import sys
from pathlib import Path

from tests import warm
from tests.cli.commands import COMPLETED, assert_one_line, run
from tests.running import DEADLINE_S, ROOT, ServerProcess, free_port
from twincast import __version__


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


def test_a_command_waits_for_nothing_of_the_server() -> None:
    """Whatever `send` needs not be imported makes it start later, and is not there on a device."""
    program = "import sys; from twincast.cli.main import app; app(['send', '--help'], standalone_mode=False); "
    program += "print(*sorted({name.partition('.')[0] for name in sys.modules}), *sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert "twincast.cli.send" in loaded
    strangers = {"pydantic_settings", "fastapi", "uvicorn", "jwt", "psutil"}
    assert not loaded & (strangers | {f"twincast.{room}" for room in ("settings", "server", "journal", "hub", "app")})


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
