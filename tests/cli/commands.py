"""The command line as its users run it: a process of its own, and what they see of it."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, Timer

from tests import warm
from tests.running import DEADLINE_S, ROOT, ServerProcess

TWINCAST = (sys.executable, "-m", "twincast")
HANGS_S = 60.0
COMPLETED = "import sys; sys.argv[0] = 'twincast'; from twincast.cli.main import main; main()"
"""The installed command, for a shell that asks it for completions."""


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
    """Run a command that does not end by itself; at the end of the context it must have ended.

    After a minute it is killed: who waits for a line that does not come reads the end then, and does not hang.
    """
    command = warm.Popen(
        [*TWINCAST, *words], env=environment(url), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = Timer(HANGS_S, command.kill)
    watchdog.start()
    try:
        yield command
    finally:
        watchdog.cancel()
        command.kill()
        command.communicate()


@contextmanager
def again_and_again(do: Callable[[], object]) -> Iterator[None]:
    """Do something until the context ends: a command that has connected is perhaps not subscribed yet."""
    is_over = Event()

    def repeat() -> None:
        while not is_over.wait(0.1):
            do()

    repeating = Thread(target=repeat)
    repeating.start()
    try:
        yield
    finally:
        is_over.set()
        repeating.join()


def interrupt(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Press Ctrl-C; return the exit status and what was printed."""
    command.send_signal(signal.SIGINT)
    printed, complaints = command.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in complaints, complaints
    return command.returncode, printed, complaints


def values(server: ServerProcess) -> dict[str, object]:
    return {name: twin["value"] for name, twin in server.get("/api/data")["data"].items()}


def assert_one_line(result: subprocess.CompletedProcess[str], status: int, part: str) -> None:
    """Check that a command failed with one line on standard error that a person understands."""
    assert result.returncode == status, result
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("twincast: ")
    assert part in result.stderr


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
