"""A disk that fails under a running server: nothing is promised any more, nothing that was promised is lost."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.conftest import StartServer
from tests.running import DEADLINE_S, ROOT, ServerProcess, eventually, free_port
from tests.tools import program

# What each kind of failure makes the kernel answer: the log is written by pwrite64 and made durable by fdatasync.
FAILURES = {"a broken disk": "fdatasync:error=EIO", "a full disk": "pwrite64:error=ENOSPC"}


@contextmanager
def failing(server: ServerProcess, injection: str) -> Iterator[None]:
    """Let a kind of system call of the server fail for as long as the context lasts."""
    system_call = injection.partition(":")[0]
    what = f"-e trace={system_call} -e inject={injection} -p {server.process.pid}"
    tracer = subprocess.Popen(f"{program('strace')} -f -qq -o /dev/null {what}".split())
    try:
        eventually(lambda: is_traced(server.process.pid), "strace holds every thread of the server")
        yield
    finally:
        tracer.terminate()
        tracer.wait(DEADLINE_S)


def is_traced(pid: int) -> bool:
    tasks = list(Path(f"/proc/{pid}/task").glob("*/status"))
    try:
        return all("TracerPid:\t0\n" not in task.read_text() for task in tasks)
    except (FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
        return False


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_disk_stops_promises_and_the_server_recovers(
    server_process: StartServer, tmp_path: Path, failure: str
) -> None:
    path = tmp_path / "journal.db"
    server = server_process(f"sqlite:{path}")
    server.post("/api/data", {"device_id": "kept", "value": "before"})
    with connect(server.ws_url) as watcher:
        watcher.recv(timeout=DEADLINE_S)  # hello
        with failing(server, FAILURES[failure]):
            refused = server.post("/api/data", {"device_id": "lost", "value": "during"})
            assert refused.status_code == 503
            assert refused.json()["code"] == "journal_unavailable"
            assert int(refused.headers["retry-after"]) > 0
            batch = [{"device_id": f"lost {i}", "value": i} for i in range(100)]
            assert server.post("/api/data", batch).status_code == 503

            watcher.send('{"type":"telemetry","id":7,"device_id":"lost","value":"during"}')
            error = json.loads(watcher.recv(timeout=DEADLINE_S))
            assert (error["type"], error["code"], error["id"]) == ("error", "journal_unavailable", 7)
            assert error["retryable"] is True

            status = server.get("/api/status")
            assert (status["ok"], status["seq"]) == (False, 1)
            assert status["problem"]
            assert list(server.get("/api/data")["data"]) == ["kept"]

        stored = server.post("/api/data", {"device_id": "kept", "value": "after"})
        assert stored.status_code == 200
        event = json.loads(watcher.recv(timeout=DEADLINE_S))
        assert event == stored.json()["event"], "nothing that failed was cast before it"
        assert event["seq"] == 2
    assert server.get("/api/status")["ok"] is True

    server.kill()
    again = server_process(f"sqlite:{path}", port=server.port)
    assert [(d, t["value"], t["seq"]) for d, t in again.get("/api/data")["data"].items()] == [("kept", "after", 2)]


@pytest.mark.parametrize("edge", ["picows", "portable"])
def test_reads_that_fail_for_a_while_end_nothing(server_process: StartServer, tmp_path: Path, edge: str) -> None:
    path = tmp_path / "journal.db"
    server = server_process(f"sqlite:{path}", edge=edge)
    server.post("/api/data", {"device_id": "kept", "value": "before"})
    with failing(server, "pread64:error=EIO"):
        eventually(lambda: not server.get("/api/status")["ok"], "the status says that something is wrong")
        assert server.get("/api/status")["problem"]
        assert list(server.get("/api/data")["data"]) == ["kept"]
        refused = server.post("/api/data", {"device_id": "lost", "value": "during"})
        assert (refused.status_code, refused.json()["code"]) == (503, "journal_unavailable")
    assert server.post("/api/data", {"device_id": "kept", "value": "after"}).status_code == 200
    eventually(lambda: server.get("/api/status")["ok"], "the keys can be read again")
    assert server.process.poll() is None


def test_a_server_stops_cleanly_while_its_disk_fails(server_process: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    server = server_process(f"sqlite:{path}")
    server.post("/api/data", {"device_id": "kept", "value": 1})
    with failing(server, FAILURES["a broken disk"]):
        assert server.post("/api/data", {"device_id": "lost", "value": 2}).status_code == 503
        server.process.terminate()
        server.process.wait(DEADLINE_S)
    assert server.process.returncode == 0, server.output()
    again = server_process(f"sqlite:{path}", port=server.port)
    assert list(again.get("/api/data")["data"]) == ["kept"]


def test_a_disk_that_is_full_at_the_start_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    ended = subprocess.run(
        [
            *f"{program('strace')} -f -qq -o /dev/null -e trace=pwrite64 -e inject={FAILURES['a full disk']}".split(),
            *(sys.executable, "-m", "twincast", "serve", "--port", str(free_port()), "--journal", f"sqlite:{path}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == f"twincast: the disk of the journal {path} is full\n"
