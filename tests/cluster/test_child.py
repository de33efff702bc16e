"""Programs that end with who started them."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.running import eventually
from twincast.cluster.child import start_child

SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems tell no process that its parent has ended")


def lives(pid: int) -> bool:
    """Whether a process runs, and does not only wait for its parent to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_it_runs_in_its_folder_with_its_environment_and_says_how_it_ended(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        program = "import os, sys; print(os.getcwd(), os.environ['HUE'], file=sys.stderr); sys.exit(7)"
        process = start_child([sys.executable, "-c", program], output=output, env={"HUE": "blue"}, folder=tmp_path)
        assert process.wait() == 7
    assert (tmp_path / "output").read_text() == f"{tmp_path} blue\n"


def test_it_is_apart_from_the_terminal(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        program = "import os; print(os.getsid(0) == os.getpid())"
        start_child([sys.executable, "-c", program], output=output).wait()
    assert (tmp_path / "output").read_text() == "True\n"


def test_a_program_that_is_not_there_ends_or_cannot_be_started(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        try:
            assert start_child([str(tmp_path / "none")], output=output).wait() != 0
        except FileNotFoundError:
            return
    assert "FileNotFoundError" in (tmp_path / "output").read_text()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output, pytest.raises(FileNotFoundError):
        start_child(SLEEP, output=output, folder=tmp_path / "none")


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []
    with (tmp_path / "output").open("wb") as output:
        thread = threading.Thread(target=lambda: started.append(start_child(SLEEP, output=output)))
        thread.start()
        thread.join()
    eventually((tmp_path / "output").read_text, "it runs")
    assert started[0].poll() is None
    started[0].kill()
    assert started[0].wait() == -signal.SIGKILL


@LINUX
@pytest.mark.parametrize("is_paused", [False, True], ids=["running", "paused"])
def test_it_ends_with_a_starter_that_is_killed(is_paused: bool, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from twincast.cluster.child import start_child\n"
        f"print(start_child({SLEEP!r}, output=open(sys.argv[1], 'wb')).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "output")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        eventually((tmp_path / "output").read_text, "it runs")
        if is_paused:
            subprocess.run(["kill", "-STOP", str(pid)], check=True)
        starter.kill()
    eventually(lambda: not lives(pid), "it ends with its starter")
