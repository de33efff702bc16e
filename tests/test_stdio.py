"""Commands whose input or output is closed, full, gone or not UTF-8: each says so in one line, or does its work."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import warm
from tests.conftest import StartServer
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually, free_port
from twincast import stdio

TWINCAST = f"{sys.executable} -m twincast"
ODD = "lab/é🌡"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server that has a device and an audit trail with letters that few encodings have."""
    path = tmp_path_factory.mktemp("place") / "journal.db"
    server = ServerProcess(f"sqlite:{path}")
    server.ready().post("/api/data", {"device_id": ODD, "value": "21 °C 🌡"}).raise_for_status()
    server.post("/api/control", {"target": ODD, "command": "grüßen"}).raise_for_status()
    yield server
    server.stop()


def shell(server: ServerProcess, words: str, streams: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command with streams as a shell writes them; $GONE is the number of a pipe whose reader has left."""
    asked = {"TWINCAST_URL": server.url, "TWINCAST_JOURNAL": server.journal, "PYTHONUNBUFFERED": "", **env}
    with gone() as number:
        return warm.run(
            ["bash", "-c", f"exec {TWINCAST} {words} {streams}"],
            cwd=ROOT,
            env={**os.environ, **asked, "GONE": str(number)},
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
        )


def redirected(server: ServerProcess, words: str, streams: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Do as `shell` without one: the same streams, but for pipelines."""
    asked = {"TWINCAST_URL": server.url, "TWINCAST_JOURNAL": server.journal, "PYTHONUNBUFFERED": "", **env}
    opened: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    closed: list[int] = []
    with gone() as number, open("/dev/full", "w") as full:
        for stream in streams.split():
            direction, target = re.fullmatch(r"(2?[<>])(&-|&\$GONE|/dev/full)", stream).groups()  # type: ignore[union-attr]
            which = {"<": 0, ">": 1, "2>": 2}[direction]
            if target == "&-":
                closed.append(which)
            else:
                opened[("stdin", "stdout", "stderr")[which]] = number if target == "&$GONE" else full.fileno()
        ran = warm.run(
            [sys.executable, "-m", "twincast", *shlex.split(words)],
            cwd=ROOT,
            env={**os.environ, **asked},
            preexec_fn=warm.Closing(*closed) if closed else None,
            **opened,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
        )
    return subprocess.CompletedProcess(ran.args, ran.returncode, ran.stdout or "", ran.stderr or "")


@contextmanager
def gone() -> Iterator[int]:
    """Give a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def assert_no_traceback(printed: str) -> None:
    for part in ("Traceback", "Exception ignored", "Error:"):
        assert part not in printed, printed


COMMANDS = [
    "status",
    "status --json",
    "send lab/x 1",
    "control lab/x on",
    "audit",
    "audit --json",
    "keys list",
    "--help",
]
STARTED = {"status", "keys list"}
"""Those that start from nothing behind a real shell; the others are forked with the same streams."""


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        (">&-", 0, ""),
        (">/dev/full", 1, "twincast: No space left on device: standard output or input\n"),
        (">&$GONE", 141, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_a_result_that_nobody_takes(place: ServerProcess, words: str, streams: str, status: int, said: str) -> None:
    ended = (shell if words in STARTED else redirected)(place, words, streams)
    assert_no_traceback(ended.stderr)
    assert (ended.returncode, ended.stderr) == (status, said)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16"])
@pytest.mark.parametrize("words", ["audit", "audit --json", "send", "delete", "--help"])
def test_a_result_in_letters_that_the_output_lacks(place: ServerProcess, words: str, encoding: str) -> None:
    words = {"send": f"send '{ODD}' '\"🌡\"'", "delete": "delete 'ü🌡'"}.get(words, words)
    place.post("/api/data", {"device_id": "ü🌡", "value": 1}).raise_for_status()
    ended = (shell if words in {"audit"} else redirected)(place, words, "", PYTHONIOENCODING=encoding)
    assert_no_traceback(ended.stderr)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_an_error_in_letters_that_the_locale_lacks(place: ServerProcess, locale: dict[str, str]) -> None:
    ended = shell(place, "delete grün🌡", "", **locale)
    assert_no_traceback(ended.stderr)
    assert ended.returncode in {1, 2} and ended.stderr.startswith("twincast: ")


@pytest.mark.parametrize(
    ("words", "env", "part"),
    [
        (["send", b"lab/\xff", "1"], {}, "argument 2 is not UTF-8"),
        (["send", "lab/x", b"\xff"], {}, "argument 3 is not UTF-8"),
        (["watch", b"\xff*"], {}, "argument 2 is not UTF-8"),
        (["keys", "add", b"\xe9", "--may", "read"], {}, "argument 3 is not UTF-8"),
        (["serve", "--journal", b"sqlite:\xff.db"], {}, "argument 3 is not UTF-8"),
        (["status"], {"TWINCAST_TOKEN": b"\xff"}, "TWINCAST_TOKEN is not UTF-8"),
        (["status"], {"TWINCAST_URL": b"http://127.0.0.1:1/\xff"}, "TWINCAST_URL is not UTF-8"),
        (["status"], {"TWINCAST_URL": "http://127.0.0.1:abc"}, ""),
        (["status"], {"TWINCAST_URL": "http://127.0.0.1:99999"}, ""),
        (["status"], {"TWINCAST_URL": "http://[::1"}, ""),
        (["status", "--url", "http://\u2603.example:1"], {}, ""),
        (["status"], {"TWINCAST_TOKEN": "schlüssel"}, ""),
        (["status"], {"TWINCAST_TOKEN": "a\nb"}, ""),
        (["watch"], {"TWINCAST_TOKEN": "schlüssel"}, ""),
        (["simulate", "--url", "http://127.0.0.1:abc"], {}, ""),
        (["host", "--url", "http://127.0.0.1:abc"], {}, ""),
        (["serve", "--port", "abc"], {}, ""),
        (["serve", "--tls-cert", "a\u0000b".replace("\u0000", "\u0001"), "--tls-key", "x"], {}, ""),
        (["serve", "--journal", "sqlite:/nonexistent/j.db"], {}, ""),
        (["serve", "--journal", "sqlite:/"], {}, ""),
        (["keys", "list", "--journal", "sqlite:/proc/self/mem"], {}, ""),
        (["keys", "add", "[/a]", "--may", "read", "--expires", "1e9d"], {}, ""),
        (["send", "lab/x", "1" * 5_000, "--url", "http://127.0.0.1:1"], {}, ""),
        (["control", "a", "b", "{"], {}, ""),
        (["audit", "--limit", "9" * 30], {}, ""),
    ],
    ids=str,
)  # fmt: skip
def test_odd_words_are_one_line(
    place: ServerProcess, words: list[str | bytes], env: dict[str, str | bytes], part: str, tmp_path: Path
) -> None:
    asked: dict[str, str | bytes] = {"TWINCAST_URL": place.url, "TWINCAST_JOURNAL": f"sqlite:{tmp_path}/j.db", **env}
    ended = warm.run(
        [sys.executable, "-m", "twincast", *words],
        cwd=ROOT,
        env={**{os.fsencode(name): os.fsencode(value) for name, value in {**os.environ, **asked}.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    said = ended.stderr.decode()
    assert_no_traceback(said)
    assert ended.returncode in {1, 2}, said
    assert said.count("\n") == 1 and said.startswith("twincast: ") and part in said, said


def test_names_are_no_markup(place: ServerProcess, server_process: StartServer, tmp_path: Path) -> None:
    name = "[/a] :fire:"
    for words in (f"control '{name}' on", "audit", "audit --json"):
        ended = redirected(place, words, "", COLUMNS="200")
        assert_no_traceback(ended.stderr)
        assert ended.returncode == 0
    assert name in ended.stdout
    folder = tmp_path / "[" / name[2:]
    folder.mkdir(parents=True)
    ended = redirected(place, "keys list", "", TWINCAST_JOURNAL=f"sqlite:{folder}/j.db")
    assert ended.returncode == 1 and f"[/{name[2:]}" in ended.stderr
    assert f"[/{name[2:]}" in server_process(f"sqlite:{folder}/j.db").stop()


def test_a_closed_input_is_said(place: ServerProcess) -> None:
    ended = shell(place, "send lab/x -", "<&-")
    assert (ended.returncode, ended.stderr) == (2, "twincast: standard input is closed, so there is nothing to send\n")


def test_an_input_that_is_no_text_is_one_bad_line(place: ServerProcess) -> None:
    ended = shell(place, "send lab/x -", "< <(printf '1\\n\"\\xff\"\\n2\\n')")
    assert_no_traceback(ended.stderr)
    assert ended.returncode == 1 and ended.stdout == "stored: 2 readings\n"
    assert "line 2: expected a JSON value" in ended.stderr


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", ">/dev/full 2>/dev/full", ">&$GONE"])
def test_a_server_serves_and_ends_well_whoever_reads_what_it_prints(streams: str, tmp_path: Path) -> None:
    port = free_port()
    serve = f"{TWINCAST} serve --journal sqlite:j.db --port {port}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with gone() as number:
        process = warm.Popen(
            ["bash", "-c", f"exec {serve} {streams.replace('$GONE', str(number))}"],
            cwd=tmp_path,
            env=env,
            pass_fds=[number],
        )
    try:
        url = f"http://127.0.0.1:{port}/api/data"
        eventually(lambda: process.poll() is not None or answers(url), "it answers")
        assert requests.post(url, json={"device_id": "a", "value": 1}, timeout=DEADLINE_S).ok
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_watcher_outlives_letters_that_its_output_lacks(server_process: StartServer, encoding: str) -> None:
    server = server_process("memory:")
    env = {**os.environ, "TWINCAST_URL": server.url, "PYTHONIOENCODING": encoding}
    words = [sys.executable, "-m", "twincast", "watch"]
    with warm.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        try:
            line = _first_line(watch, lambda: server.post("/api/data", {"device_id": ODD, "value": "21 °C 🌡"}))
            said = json.loads(line.decode(encoding))
            assert (said["device_id"], said["value"]) == (ODD, "21 °C 🌡")
            assert watch.poll() is None
        finally:
            watch.terminate()


def _first_line(watch: "subprocess.Popen[bytes]", send: Callable[[], object]) -> bytes:
    assert watch.stdout is not None
    os.set_blocking(watch.stdout.fileno(), False)

    def line() -> bytes | None:
        send()
        assert watch.stdout is not None
        return watch.stdout.readline() or None

    return eventually(line, "a line comes") or b""


def test_a_watcher_ends_when_its_reader_does(server_process: StartServer) -> None:
    server = server_process("memory:")
    env = {**os.environ, "TWINCAST_URL": server.url}
    command = f'{TWINCAST} watch | head -1; echo "${{PIPESTATUS[0]}}"'
    with warm.Popen(
        ["bash", "-c", command], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as both:

        def is_over() -> bool:
            server.post("/api/data", {"device_id": "lamp", "value": 1})
            return both.poll() is not None

        eventually(is_over, "it ends")
        printed, complaints = both.communicate()
        assert printed.count("data_update") == 1 and printed.endswith("\n141\n")
        assert complaints == ""


@pytest.mark.parametrize("wish", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_pipe_is_no_terminal_whatever_a_build_system_wishes(place: ServerProcess, wish: str) -> None:
    place.post("/api/data", {"device_id": "lab/lamp", "value": 1}).raise_for_status()
    ended = shell(place, "get 'lab/lamp*'", "| cat", **{wish: "1"})
    assert json.loads(ended.stdout)["device_id"] == "lab/lamp"


def test_on_windows_pipes_and_files_hold_utf_8_as_json_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("grün".encode()), encoding="cp1252"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    stdio.prepare()
    print(sys.stdin.read(), "🌡", end="", flush=True)
    assert written.getvalue().decode() == "grün 🌡"
