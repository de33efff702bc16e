"""A program that is forked is to its test as one that starts from nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.running import DEADLINE_S, eventually

PROGRAMS = {
    "words": ("import sys; print(sys.argv, __name__, sys.path[0])", "a", "", "ü \udcff"),
    "place": (
        "import os; print(os.getcwd(), os.environ['HERE'], os.environ.get('PYTEST_CURRENT_TEST'), os.getppid())",
    ),
    "input": ("import sys; print(sys.stdin.read().upper(), sys.stdin.encoding)",),
    "outputs": ("import sys; [print(s.encoding, s.errors, s.line_buffering) for s in (sys.stdout, sys.stderr)]",),
    "both": ("import sys; print('one'); print('two', file=sys.stderr); sys.stdout.write('three')",),
    "status": ("import sys; sys.exit(300)",),
    "reason": ("import sys; sys.exit('a reason')",),
    "nothing": ("import sys; sys.exit()",),
    "last words": ("import atexit; atexit.register(print, 'the last'); raise SystemExit(2)",),
    "a thread": ("import threading, time; threading.Thread(target=lambda: (time.sleep(0.05), print('late'))).start()",),
    "a full output": ("import sys; sys.stdout = open('/dev/full', 'w'); print('more than there is')",),
    "a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)",),
    "signals": ("import signal; print(*map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)))",),
    "files": ("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:3])",),
}

forks = pytest.mark.skipif(warm.COLD, reason="every program starts from nothing")


def both(tmp_path: Path, *words: str, **how: Any) -> list[tuple[int, str, str]]:
    how = {"cwd": tmp_path, "env": {**os.environ, "HERE": "here"}, "input": "grün\n", "timeout": DEADLINE_S, **how}
    ran = [
        start([sys.executable, *words], capture_output=True, text=True, **how) for start in (warm.run, subprocess.run)
    ]
    return [(one.returncode, one.stdout, one.stderr) for one in ran]


@forks
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_the_same_as_from_nothing(program: str, tmp_path: Path) -> None:
    forked, started = both(tmp_path, "-c", *PROGRAMS[program])
    assert forked == started


@forks
def test_an_error_ends_it_with_its_traceback(tmp_path: Path) -> None:
    forked, started = both(tmp_path, "-c", "1/0")
    assert forked[:2] == started[:2]
    assert [text.splitlines()[-2:] for _, _, text in (forked, started)] == [started[2].splitlines()[-2:]] * 2


@forks
def test_a_command_is_the_same_as_from_nothing(tmp_path: Path) -> None:
    for words in (
        ["--help"],
        ["serve", "--help"],
        ["status", "--url", "http://127.0.0.1:1"],
        ["send"],
        ["keys", "list"],
    ):
        forked, started = both(tmp_path, "-m", "twincast", *words)
        assert forked == started, words


@forks
def test_it_is_forked_and_a_child_of_the_test(tmp_path: Path) -> None:
    probe = (
        "import sys, os; print('twincast.server.process' in sys.modules, 'twincast.cli' in sys.modules, os.getppid())"
    )
    ran = warm.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stdout.split() == ["True", "False", str(os.getpid())]


@forks
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-16", "ascii:replace", ":ignore"])
def test_a_program_speaks_the_encoding_that_is_set(encoding: str, tmp_path: Path) -> None:
    probe = "import sys; [print(s.encoding, s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)]"
    forked, started = both(tmp_path, "-c", probe, env={**os.environ, "PYTHONIOENCODING": encoding}, errors="replace")
    assert forked == started


@forks
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_stream_may_be_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    probe = (
        "import os, sys; streams = [s and s.encoding for s in (sys.stdin, sys.stdout, sys.stderr)]",
        "new = os.open('.', 0); print(streams, new, file=open('seen', 'w'))",
    )
    seen = []
    for start in (warm.run, subprocess.run):
        start([sys.executable, "-c", "; ".join(probe)], cwd=tmp_path, preexec_fn=warm.Closing(*closed), check=True)
        seen.append((tmp_path / "seen").read_text())
    assert seen[0] == seen[1] != ""


@forks
@pytest.mark.parametrize("how", [{"env": {"PYTHONUTF8": "0"}}, {"start_new_session": True}])
def test_what_an_interpreter_does_as_it_starts_takes_one_that_starts(how: dict[str, Any], tmp_path: Path) -> None:
    probe = "import sys, os; print('twincast' in sys.modules, sys.stdout.encoding, os.getsid(0) == os.getpid())"
    forked, started = both(tmp_path, "-c", probe, **how)
    assert forked == started
    assert forked[1].startswith("False")


@forks
def test_an_interrupt_ends_it_as_one() -> None:
    waits = "print('ready', flush=True); import time; time.sleep(60)"
    with warm.Popen(
        [sys.executable, "-c", waits], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout and waiting.stderr
        waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        assert waiting.stderr.read().rstrip().endswith("KeyboardInterrupt")
    assert waiting.returncode == -signal.SIGINT


@forks
def test_one_that_is_killed_is_gone() -> None:
    waiting = warm.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert waiting.poll() is None
    waiting.kill()
    assert eventually(lambda: waiting.poll() is not None and waiting.returncode, "it ends") == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(waiting.pid, 0)
