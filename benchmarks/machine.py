"""The machine under measurement: cores, processes, ports and memory."""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SERVER_CORE, LOAD_CORE = 0, 1
START_TIMEOUT_S = 20.0
CALM_TIMEOUT_S = 120.0
CALM_S, CALM_STEP_S, CALM_SHARE = 1.5, 0.5, 0.02
"""Who takes less than this share of a core for so long rests."""
_CPUCLOCK_SCHED = 2  # the clock of another process, as clock_getcpuclockid(3) makes it on Linux


def use_core(core: int | None) -> None:
    """Keep this process on one core, or let it use all."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1) if core is None else {core})


def allow_many_files() -> None:
    """Raise the limit on open files to what is allowed; thousands of connections need it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class ServerProcess:
    """A server as a process of its own, on one core or on all."""

    def __init__(self, command: Sequence[str], *, cwd: Path = ROOT, core: int | None = SERVER_CORE) -> None:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would stop the server
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def wait_until_listening(self, port: int) -> None:
        """Return as soon as the port takes connections. Raises RuntimeError if the process ends before."""
        until_s = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process.poll() is not None or time.monotonic() > until_s:
                self._printed.seek(0)
                raise RuntimeError(f"{self._process.args!r} did not start:\n{self._printed.read().decode()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def memory_bytes(self) -> int:
        """What the process has in memory for itself alone: its unique set size, of /proc/PID/smaps."""
        return int(psutil.Process(self._process.pid).memory_full_info().uss)

    @property
    def cpu_s(self) -> float:
        """The processor time that the process has used, to the nanosecond: psutil counts in ticks of 10 ms."""
        return time.clock_gettime(~self._process.pid << 3 | _CPUCLOCK_SCHED)

    def wait_until_calm(self, timeout_s: float = CALM_TIMEOUT_S) -> None:
        """Return once the process has rested for a while. Raises TimeoutError if it does not."""
        until_s, calm_s = time.monotonic() + timeout_s, 0.0
        while calm_s < CALM_S:
            if time.monotonic() > until_s:
                raise TimeoutError("the server does not come to rest")
            before_s = self.cpu_s
            time.sleep(CALM_STEP_S)
            calm_s = calm_s + CALM_STEP_S if self.cpu_s - before_s < CALM_SHARE * CALM_STEP_S else 0.0

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process."""
        self._process.send_signal(how)
        try:
            self._process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def started(
    command: Sequence[str], port: int, *, cwd: Path = ROOT, core: int | None = SERVER_CORE
) -> Iterator[ServerProcess]:
    """Run a server for as long as the context lasts."""
    process = ServerProcess(command, cwd=cwd, core=core)
    try:
        process.wait_until_listening(port)
        yield process
    finally:
        process.stop()


def python(*arguments: str) -> list[str]:
    """Return the command that runs this interpreter."""
    return [sys.executable, *arguments]


def installed(program: str) -> str:
    """Return the path of a program that a package put beside this interpreter."""
    return str(Path(sys.executable).with_name(program))
