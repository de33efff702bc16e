"""The command line as its users run it: real processes against a real server."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests import warm
from tests.conftest import StartServer
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually, free_port
from twincast import __version__
from twincast.cli.main import FIRST_SETTINGS
from twincast.settings import Settings

TWINCAST = (sys.executable, "-m", "twincast")
COMPLETED = "import sys; sys.argv[0] = 'twincast'; from twincast.cli.main import main; main()"
"""The installed command, for a shell that asks it for completions."""


@pytest.fixture
def server(server_process: StartServer) -> ServerProcess:
    return server_process("memory:")


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "TWINCAST_URL": url, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}


def run(url: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return warm.run(
        [*TWINCAST, *words],
        env=environment(url),
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@contextmanager
def running(url: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command that does not end by itself; at the end of the context it must have ended."""
    command = warm.Popen(
        [*TWINCAST, *words], env=environment(url), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield command
    finally:
        command.kill()
        command.communicate()


def interrupt(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Press Ctrl-C; return the exit status and what was printed."""
    command.send_signal(signal.SIGINT)
    printed, complaints = command.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in complaints, complaints
    return command.returncode, printed, complaints


def values(server: ServerProcess) -> dict[str, object]:
    return {name: twin["value"] for name, twin in server.get("/api/data")["data"].items()}


def is_newest(server: ServerProcess, number: int) -> bool:
    return values(server).get("tap") == number


def assert_one_line(result: subprocess.CompletedProcess[str], status: int, part: str) -> None:
    """Check that a command failed with one line on standard error that a person understands."""
    assert result.returncode == status, result
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("twincast: ")
    assert part in result.stderr


def test_version_and_help_are_there() -> None:
    assert run("", "--version").stdout.strip() == __version__
    overview = run("", "--help").stdout
    for command in ("serve", "simulate", "watch", "send", "host", "control", "delete", "status"):
        assert command in overview
    assert "[default: TWINCAST_URL or http://127.0.0.1:8000]" in run("", "send", "--help").stdout


def test_the_help_of_serve_has_every_setting_with_its_default_and_its_variable() -> None:
    wide = {**os.environ, "COLUMNS": "400"}
    told = warm.run([*TWINCAST, "serve", "--help"], env=wide, capture_output=True, text=True, check=True).stdout
    first, _, advanced = told.partition("Advanced")
    for name, field in Settings.model_fields.items():
        option = f"--{name.replace('_', '-')} "
        (line,) = [line for line in told.splitlines() if option in line]
        assert f"[env: TWINCAST_{name.upper()}]" in line and field.description, name
        if isinstance(field.default, int | float) and not isinstance(field.default, bool):
            assert f"[default: {field.default}]" in line
        assert (option in first) is (name in FIRST_SETTINGS) is (option not in advanced)
    assert "--host " in first and "[default: 127.0.0.1]" in first
    assert len(FIRST_SETTINGS) == 14


def test_an_advanced_setting_is_a_flag_and_a_wrong_one_is_named() -> None:
    assert_one_line(run("", "serve", "--outbox-max-bytes", "1"), 2, "--outbox-max-bytes: it takes at least 65536")
    assert_one_line(run("", "serve", "--log-format", "xml"), 2, "--log-format: it takes 'text' or 'json'")


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("21.5", 21.5),
        ("on", "on"),
        ('{"a":[1]}', {"a": [1]}),
        ("null", None),
        ("true", True),
        ("-3", -3),
        ('"5"', "5"),
        ("NaN", "NaN"),
    ],
)
def test_send_takes_json_or_else_text_and_says_which(server: ServerProcess, text: str, value: object) -> None:
    result = run(server.url, "send", "lab/x", text)
    as_text = ", as text" if value == text else ""
    assert (result.returncode, result.stdout) == (0, f"stored as number 1{as_text}\n")
    assert values(server) == {"lab/x": value}


def test_send_stores_no_json_that_went_wrong(server: ServerProcess) -> None:
    for words in (["{bad"], ["[1, 2"], ['"on'], ["{a:", "1}"], ["-", "1"]):
        assert_one_line(run(server.url, "send", "lab/x", *words), 2, """quoted as a whole: '{"rpm": 900}'""")
    for word in ("1e400", '{"a":1,"a":2}', "[" * 33 + "]" * 33):
        assert_one_line(run(server.url, "send", "lab/x", word), 1, "")
    assert values(server) == {}
    assert "must be JSON" in " ".join(run("", "send", "--help").stdout.replace("│", "").split())


def test_send_reads_one_value_a_line_and_names_a_bad_one(server: ServerProcess) -> None:
    result = run(server.url, "send", "lab/x", "-", stdin='1\n\n{"a":1}\nnonsense\n1.50\n1e400\n')
    assert result.returncode == 1
    assert result.stdout == "stored: 3 readings\n"
    assert "line 4: expected a JSON value, not 'nonsense': at character 1" in result.stderr
    assert "line 6: a number is beyond 64 bits" in result.stderr
    assert server.get("/api/status")["seq"] == 3


def test_one_is_not_many(server: ServerProcess) -> None:
    assert run(server.url, "send", "lab/x", "-", stdin="1\n").stdout == "stored: 1 reading\n"
    assert "not stored: 1 line\n" in run(server.url, "send", "lab/x", "-", stdin="x\n").stderr
    result = run(server.url, "host", "--count", "1", "--interval", "0.05")
    assert result.stdout == "stored: 1 reading\n"
    assert "of 1 device stored" in run(server.url, "simulate", "--devices", "1", "--seconds", "0.3").stdout


def test_send_passes_lines_on_as_they_come(server: ServerProcess) -> None:
    command = warm.Popen([*TWINCAST, "send", "tap", "-"], env=environment(server.url), cwd=ROOT, stdin=subprocess.PIPE)
    assert command.stdin is not None
    for number in range(3):
        command.stdin.write(f"{number}\n".encode())
        command.stdin.flush()
        eventually(partial(is_newest, server, number), f"{number} is stored")
    command.stdin.close()
    assert command.wait(DEADLINE_S) == 0


def test_send_a_fast_source_loses_nothing(server: ServerProcess) -> None:
    result = run(server.url, "send", "lab/x", "-", stdin="".join(f"{number}\n" for number in range(10_000)))
    assert (result.returncode, result.stdout) == (0, "stored: 10,000 readings\n")
    assert server.get("/api/status")["seq"] == 10_000
    assert values(server) == {"lab/x": 9_999}


@pytest.mark.parametrize(
    ("words", "args"),
    [
        ([], {}),
        (['{"rpm": 900}'], {"rpm": 900}),
        (["rpm=900", "mode=eco", "on=true"], {"rpm": 900, "mode": "eco", "on": True}),
    ],
)
def test_control_reaches_who_watches(server: ServerProcess, words: list[str], args: object) -> None:
    with connect(server.ws_url) as socket:
        socket.recv(timeout=DEADLINE_S)
        assert run(server.url, "control", "lab/fan", "start", *words).stdout == "dispatched as number 1\n"
        event = json.loads(socket.recv(timeout=DEADLINE_S))
    assert (event["target"], event["command"], event["args"]) == ("lab/fan", "start", args)


def test_control_says_what_arguments_it_takes(server: ServerProcess) -> None:
    assert_one_line(run(server.url, "control", "fan", "start", "fast"), 2, "NAME=VALUE")
    assert_one_line(run(server.url, "control", "fan", "start", "{bad"), 2, "JSON object")


@pytest.mark.parametrize("name", ["lab/fan", "..", "a b", "é", "-x", "[red]"])
def test_delete_asks_nothing_and_says_what_it_did(server: ServerProcess, name: str) -> None:
    server.post("/api/data", [{"device_id": name, "value": 1}, {"device_id": "other", "value": 1}])
    done = run(server.url, "delete", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"deleted {name}, as number 3\n", "")
    assert values(server) == {"other": 1}
    assert_one_line(run(server.url, "delete", name), 1, f"there is no device {name!r}")


def test_status_is_a_table_or_json(server: ServerProcess) -> None:
    assert json.loads(run(server.url, "status", "--json").stdout)["ok"] is True
    table = run(server.url, "status").stdout
    assert "devices_known" in table and "memory:" in table


def test_simulate_pushes_a_fleet_at_its_rate_for_its_time(server: ServerProcess) -> None:
    result = run(server.url, "simulate", "--devices", "30", "--rate", "500", "--seconds", "1")
    assert result.returncode == 0
    assert "readings of 30 devices stored" in result.stdout
    status = server.get("/api/status")
    assert status["devices_known"] == 30
    assert 30 <= status["seq"] <= 500
    assert f"{status['seq']} readings" in result.stdout


def test_simulate_ends_cleanly_at_ctrl_c(server: ServerProcess) -> None:
    with running(server.url, "simulate", "--devices", "5", "--rate", "100") as command:
        eventually(lambda: server.get("/api/status")["devices_known"] == 5, "the fleet is there")
        status, printed, _ = interrupt(command)
    assert status == 0
    assert "readings of 5 devices stored" in printed


def test_host_pushes_this_machines_vitals(server: ServerProcess) -> None:
    result = run(server.url, "host", "--count", "2", "--interval", "0.1", "--device", "host/here")
    assert (result.returncode, result.stdout) == (0, "stored: 2 readings\n")
    vitals = server.get("/api/data")["data"]["host/here"]["value"]
    assert 0 < vitals["memory_percent"] <= 100
    assert set(vitals) >= {"cpu_percent", "disk_percent", "network_in_bytes_per_s", "disk_write_bytes_per_s"}


def test_host_waits_for_a_server_and_outlives_it(server_process: StartServer) -> None:
    port = free_port()
    with running(f"http://127.0.0.1:{port}", "host", "--interval", "0.05") as command:
        assert command.stderr is not None
        assert "This machine is host/" in command.stderr.readline()
        assert "nobody answers" in command.stderr.readline()
        server = server_process("memory:", port=port)
        eventually(lambda: server.get("/api/status")["seq"] > 1, "readings arrive")
        server.kill()
        server = server_process("memory:", port=port)
        eventually(lambda: server.get("/api/status")["seq"] > 1, "readings arrive again")
        assert interrupt(command)[0] == 0


def test_watch_prints_a_line_a_change_into_a_pipe(server: ServerProcess) -> None:
    with running(server.url, "watch", "lab/*", "*/fan") as command:
        eventually(lambda: server.get("/api/status")["websocket_clients_connected"] == 1, "watch is connected")
        server.post("/api/data", {"device_id": "elsewhere", "value": 0})
        server.post("/api/data", {"device_id": "lab/x", "value": 1.5})
        server.post("/api/control", {"target": "hall/fan", "command": "stop"})
        run(server.url, "delete", "lab/x")
        assert command.stdout is not None
        events = [json.loads(command.stdout.readline()) for _ in range(3)]
        assert interrupt(command)[0] == 0
    assert [(event["type"], event["seq"]) for event in events] == [("data_update", 2), ("control", 3), ("deleted", 4)]


def test_watch_is_a_live_table_in_a_terminal(server: ServerProcess) -> None:
    server.post("/api/data", {"device_id": "lab/[bold]x", "value": "before"})
    ours, theirs = pty.openpty()
    env = {**environment(server.url), "TERM": "xterm-256color", "LINES": "30"}
    command = warm.Popen([*TWINCAST, "watch"], env=env, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        assert "lab/[bold]x" in screen_until(ours, "before")
        server.post("/api/data", {"device_id": "lab/[bold]x", "value": "after"})
        screen_until(ours, "after")
        command.send_signal(signal.SIGINT)
        assert "Traceback" not in screen_until(ours, None)
        assert command.wait(DEADLINE_S) == 0
    finally:
        command.kill()
        command.wait()
        os.close(ours)


def screen_until(terminal: int, part: str | None) -> str:
    """Read a terminal until the part appears on it; until its end if there is none to wait for."""
    screen = ""
    until_s = time.monotonic() + DEADLINE_S
    while part is None or part not in screen:
        ready, _, _ = select.select([terminal], [], [], max(0, until_s - time.monotonic()))
        assert ready, f"{part!r} did not appear on the screen:\n{screen}"
        try:
            screen += os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:  # EIO: the other side has closed
            break
    return screen


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


def test_serve_refuses_more_than_one_worker_and_says_why() -> None:
    assert_one_line(run("", "serve", "--workers", "2"), 2, "one process owns the journal")


def test_serve_refuses_a_public_address_and_says_what_to_do() -> None:
    result = run("", "serve", "--host", "0.0.0.0")
    assert result.returncode == 1
    assert "twincast keys add" in result.stderr
    assert "--tls-cert" in result.stderr
    assert "--behind-tls-proxy" in result.stderr


def test_serve_says_that_its_port_is_in_use(server: ServerProcess) -> None:
    assert_one_line(
        run("", "serve", "--port", str(server.port), "--journal", "memory:"), 1, "another program is listening"
    )


def test_serve_says_what_is_wrong_with_a_setting() -> None:
    assert_one_line(run("", "serve", "--port", "70000"), 2, "--port")
    assert_one_line(run("", "serve", "--journal", "tape:x"), 1, "sqlite:PATH")


def test_serve_says_which_variable_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINCAST_ALLOW_HOST", "[twin.example.org]")  # what is left when something eats the quotes
    assert_one_line(run("", "serve"), 2, "TWINCAST_ALLOW_HOST")


@pytest.mark.parametrize("content", [b"this is a letter, not a database" * 40, b"SQLite format 3\0" + b"x" * 4_000])
def test_serve_refuses_a_file_that_is_no_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    result = run("", "serve", "--port", str(free_port()), "--journal", f"sqlite:{path}")
    assert_one_line(result, 1, str(path))
    assert path.read_bytes() == content


def test_serve_says_where_the_dashboard_is_and_ends_cleanly_at_ctrl_c(server: ServerProcess) -> None:
    printed = server.stop(signal.SIGINT)
    assert f"{server.url}/dashboard" in printed
    assert "Traceback" not in printed
    assert server.process.returncode == 0
