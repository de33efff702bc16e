"""`twincast watch`: lines into a pipe, and a terminal that is used and given back."""

import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import httpx
import pyte
import pytest

from tests import warm
from tests.cli.commands import (
    TWINCAST,
    again_and_again,
    assert_one_line,
    environment,
    interrupt,
    run,
    running,
    screen_until,
)
from tests.cli.test_live_table import NOW, deletion, event
from tests.conftest import StartServer
from tests.credentials import bearer
from tests.running import DEADLINE_S, ROOT
from twincast import stdio
from twincast.cli import watch
from twincast.cli.keyboard import keys_of
from twincast.cli.watch import _line
from twincast.client import Reading
from twincast.testing import Server


class Terminal:
    """A command in a terminal of a size, and what is seen there."""

    def __init__(
        self,
        url: str,
        *words: str,
        program: tuple[str, ...] = ("-m", "twincast"),
        columns: int = 80,
        lines: int = 10,
        **env: str,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._theirs = theirs  # kept, so that its mode can be asked for when the command has ended
        self.before = self.mode
        clean = {name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = warm.Popen(
            [sys.executable, *program, *words],
            env={**clean, "TWINCAST_URL": url, "TERM": "xterm-256color", **env},
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )

    @property
    def mode(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    @property
    def rows(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is as awaited."""
        until_s = time.monotonic() + DEADLINE_S
        while not seen(self.rows):
            assert time.monotonic() < until_s, self.rows
            self._read()
        return self.rows

    def end(self) -> int:
        """Wait for the end of the command; return its status."""
        until_s = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < until_s, self.rows
            self._read()
        self._read()
        return self.process.returncode

    def assert_restored(self) -> None:
        assert self.mode == self.before
        # The last word about each is that it is as it was.
        assert self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h") >= 0
        assert self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l") >= 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self) -> None:
        if select.select([self._ours], [], [], 0.1)[0]:
            said = os.read(self._ours, 1 << 16)
            self.raw += said
            self._stream.feed(said)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(f"sqlite:{tmp_path_factory.mktemp('watch') / 'journal.db'}") as server:
        yield server


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    secret = server.add_key("fleet", publish=["*"], read=["*"])
    readings = [{"device_id": f"building/floor/office/d{n:02}", "value": {"n": n, "text": "x" * 90}} for n in range(30)]
    httpx.post(f"{server.url}/api/data", json=readings, headers=bearer(secret)).raise_for_status()
    return secret


@pytest.fixture
def terminal(server: Server, token: str) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*words: str, **options: object) -> Terminal:
        opened.append(Terminal(server.url, *(words or ("watch",)), TWINCAST_TOKEN=token, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


def first(rows: list[str]) -> str:
    return rows[1].split(" ")[0]


@pytest.mark.parametrize("columns", [80, 40])
def test_keys_scroll_sort_and_leave(terminal: Callable[..., Terminal], columns: int) -> None:
    shown = terminal(columns=columns)
    rows = shown.until(lambda rows: first(rows).endswith("d00") and "q: quit" in rows[-1])
    assert rows[0].split()[:2] == ["Device", "Value"] and ("Events" in rows[0]) is (columns == 80)
    assert "30 devices by name; 0 events" in rows[-2] and "q: quit" in rows[-1]
    name, value = rows[1].split(" ", 1)
    assert (
        name.startswith("buil") and value.split()[0].startswith('{"n":0') and len(value.split()[0]) >= columns // 2 - 4
    )
    for key, top in (
        ("j", 1),
        ("\x1b[B", 2),
        ("k", 1),
        ("\x1b[6~", 7),
        ("\x1b[5~", 1),
        ("\x1b[A", 0),
        ("G", 23),
        ("g", 0),
    ):
        shown.press(key)
        shown.until(lambda rows, top=top: first(rows).endswith(f"d{top:02}"))  # type: ignore[misc]
    shown.press("s")
    shown.until(lambda rows: "by newest" in rows[-2])
    shown.press("q")
    assert shown.end() == 0
    shown.assert_restored()


def test_a_change_does_not_move_its_row(server: Server, token: str, terminal: Callable[..., Terminal]) -> None:
    shown = terminal()
    shown.until(lambda rows: first(rows).endswith("d00"))
    reading = {"device_id": "building/floor/office/d03", "value": "changed"}
    httpx.post(f"{server.url}/api/data", json=reading, headers=bearer(token)).raise_for_status()
    rows = shown.until(lambda rows: "changed" in rows[4])
    assert first(rows).endswith("d00")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", [("watch",), ("simulate",)], ids=" ".join)
def test_the_terminal_is_given_back_at_a_signal(
    terminal: Callable[..., Terminal], how: signal.Signals, words: tuple[str, ...]
) -> None:
    shown = terminal(*words)
    shown.until(lambda rows: any("d00" in row or "stored" in row for row in rows))
    shown.process.send_signal(how)
    assert shown.end() == (0 if how is signal.SIGINT else -how)
    assert shown.mode == shown.before
    assert shown.raw.rfind(b"\x1b[?25h") > shown.raw.rfind(b"\x1b[?25l") >= 0
    assert b"Traceback" not in shown.raw
    if words == ("watch",):
        shown.assert_restored()


def test_the_terminal_is_given_back_when_the_server_ends_the_login(tmp_path: Path) -> None:
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        shown = Terminal(server.url, "watch", TWINCAST_TOKEN=server.add_key("passing", read=["*"]))
        try:
            shown.until(lambda rows: "0 devices" in "".join(rows))
            shown.until(lambda rows: "waiting" not in "".join(rows))
            server.revoke_key("passing")
            assert shown.end() == 1
            shown.assert_restored()
            assert b"twincast: " in shown.raw and b"Traceback" not in shown.raw
        finally:
            shown.close()


def test_the_terminal_is_given_back_while_it_is_stopped(terminal: Callable[..., Terminal]) -> None:
    shown = terminal()
    shown.until(lambda rows: first(rows).endswith("d00"))
    shown.process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(shown.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    shown._read()
    shown.assert_restored()
    shown.raw = b""
    shown.process.send_signal(signal.SIGCONT)
    shown.until(lambda rows: b"\x1b[?1049h" in shown.raw)
    shown.press("j")
    shown.until(lambda rows: first(rows).endswith("d01"))
    shown.press("q")
    assert shown.end() == 0
    shown.assert_restored()


def test_a_pipe_that_is_closed_leaves_the_terminal_alone(server: Server, token: str) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = warm.Popen(
        [sys.executable, "-m", "twincast", "watch"],
        env={**os.environ, "TWINCAST_URL": server.url, "TWINCAST_TOKEN": token},
        cwd=ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert command.stdout is not None
        command.stdout.close()
        until_s = time.monotonic() + DEADLINE_S
        while command.poll() is None and time.monotonic() < until_s:
            reading = {"device_id": "building/floor/office/d29", "value": 1}  # no further one: others count them
            httpx.post(f"{server.url}/api/data", json=reading, headers=bearer(token)).raise_for_status()
            time.sleep(0.1)
        assert command.poll() == 141
        assert termios.tcgetattr(theirs) == before
    finally:
        command.kill()
        command.communicate()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("how", ["< /dev/null", "<&-", "without termios"])
def test_without_keys_it_shows_and_tells_of_none(terminal: Callable[..., Terminal], how: str) -> None:
    if how == "without termios":
        program = "import sys; sys.modules['termios'] = None; from twincast.cli.main import main; main()"
        shown = terminal(program=("-c", program))
    else:
        shell = f"exec {sys.executable} -m twincast watch {how}"
        shown = terminal(program=("-c", f"import os; os.execvp('bash', ['bash', '-c', {shell!r}])"))
    shown.until(lambda rows: first(rows).endswith("d00") and "devices by name" in rows[-1])
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 0
    shown.assert_restored()


@pytest.mark.parametrize(
    ("said", "keys"),
    [
        ("jk", ["down", "up"]),
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b[5~\x1b[6~ ", ["page up", "page down", "page down"]),
        ("gG\x1b[H\x1b[F", ["home", "end", "home", "end"]),
        ("sq", ["sort", "quit"]),
        ("x\x1b[1;5Cé\x00", []),
    ],
)
def test_what_a_terminal_says_for_a_key(said: str, keys: list[str]) -> None:
    assert keys_of(said) == keys


def test_a_deletion_is_a_line_as_the_wire_has_it() -> None:
    assert json.loads(_line(deletion("a"))) == {
        "type": "deleted",
        "device_id": "a",
        "timestamp_utc": NOW.isoformat(),
        "source": "rest",
        "seq": 2,
        "epoch": "e",
    }


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_a_line_is_the_same_json_in_whatever_the_output_can_take(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    stdio.prepare()
    print(watch._line(event("lab/é🌡", '21 °C 🌡 "\\ \x7f')), flush=True)
    said = json.loads(printed.getvalue().decode(encoding))
    assert (said["device_id"], said["value"]) == ("lab/é🌡", '21 °C 🌡 "\\ \x7f')


def test_watch_prints_a_line_a_change_into_a_pipe(server_process: StartServer) -> None:
    server = server_process("memory:")
    with running(server.url, "watch", "lab/*", "*/fan") as command:
        assert command.stdout is not None
        with again_and_again(lambda: server.post("/api/data", {"device_id": "lab/probe", "value": 0})):
            assert json.loads(command.stdout.readline())["device_id"] == "lab/probe"
        server.post("/api/data", {"device_id": "elsewhere", "value": 0})
        server.post("/api/data", {"device_id": "lab/x", "value": 1.5})
        server.post("/api/control", {"target": "hall/fan", "command": "stop"})
        run(server.url, "delete", "lab/x")
        lines = (json.loads(line) for line in iter(command.stdout.readline, ""))
        events = list(islice((event for event in lines if event.get("device_id") != "lab/probe"), 3))
        assert interrupt(command)[0] == 0
    first = events[0]["seq"]
    assert [(event["type"], event["seq"] - first) for event in events] == [
        ("data_update", 0),
        ("control", 1),
        ("deleted", 2),
    ]


def test_watch_shows_late_readings_to_who_asks_for_the_kind_in_a_terminal_too(
    server_process: StartServer, terminal: Callable[..., Terminal]
) -> None:
    server = server_process("memory:")
    new, old = "2026-11-27T04:16:10.000000+00:00", "2026-11-26T04:16:10.000000+00:00"
    with running(server.url, "watch", "--kinds", "late,deleted") as command:
        server.post("/api/data", {"device_id": "x", "value": 2, "measured_at_utc": new})
        assert command.stdout is not None
        with again_and_again(lambda: server.post("/api/data", {"device_id": "x", "value": 1, "measured_at_utc": old})):
            event = json.loads(command.stdout.readline())
        assert interrupt(command)[0] == 0
    assert event["type"] == "late" and (event["value"], event["measured_at_utc"]) == (1, old)
    seen = terminal("watch", "--url", server.url, "--kinds", "late", columns=300)
    with again_and_again(lambda: server.post("/api/data", {"device_id": "x", "value": 0, "measured_at_utc": old})):
        seen.until(lambda rows: any('"type":"late"' in row for row in rows))
    assert_one_line(run(server.url, "watch", "--kinds", "late,early"), 2, "'early'")


def test_a_reading_is_a_line_with_its_time_and_its_clock() -> None:
    reading = Reading("a", 1, "e", NOW.isoformat(), "rest", 5, NOW.isoformat(), "off")
    said = json.loads(_line(reading))
    assert (said["measured_at_utc"], said["clock"]) == (NOW.isoformat(), "off")


def test_watch_is_a_live_table_in_a_terminal(server_process: StartServer) -> None:
    server = server_process("memory:")
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
