"""twincast on a log that servers share: NATS JetStream with `sync_interval: always`, on one node or on three."""

import http.client
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path

import psutil

from benchmarks.machine import LOAD_CORE, ROOT, SERVER_CORE, ServerProcess, free_port, python, started
from benchmarks.peers import Twincast
from twincast.cluster.configuration import HOST, ClusterBlock
from twincast.cluster.engine import Engine

NAME = "bench"
READY_S = 60.0
QUOTA_PERIOD_US = 10_000
_CGROUPS = Path("/sys/fs/cgroup/cpu")


class NatsNodes:
    """One NATS server, or three that elect leaders, without a proxy between them."""

    def __init__(self, folder: Path, count: int) -> None:
        ports = [free_port() for _ in range(count)]
        self.engines = [
            Engine(
                folder / f"n{i}",
                port=free_port(),
                name=f"n{i}",
                asks_token=False,
                cluster=None if count == 1 else ClusterBlock(NAME, _others(ports, i), ports[i]),
            )
            for i in range(count)
        ]

    def url(self, copy: Path, **options: object) -> str:
        """Return the log's URL for a server."""
        hosts = ",".join(f"{HOST}:{engine.port}" for engine in self.engines)
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"nats://{hosts}/{NAME}?copy={copy}{more}"

    def use_core(self, core: int | None) -> None:
        """Keep the nodes on one core, or let them use all."""
        for engine in self.engines:
            assert engine.pid is not None
            cores = range(os.cpu_count() or 1) if core is None else {core}
            for thread in Path(f"/proc/{engine.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)


def _others(ports: Sequence[int], i: int) -> list[str]:
    return [f"nats://{HOST}:{port}" for number, port in enumerate(ports) if number != i]


@contextmanager
def nats_nodes(count: int) -> Iterator[NatsNodes]:
    """Run NATS on new stores."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory, ExitStack() as undo:
        nodes = NatsNodes(Path(directory), count)
        for engine in nodes.engines:
            undo.callback(engine.stop)
            engine.start()
        yield nodes


class TwincastShared(Twincast):
    """One server on a shared log. NATS runs on the load's core: the figures have its cost in them, but not hidden."""

    def __init__(self, replicas: int, root: Path = ROOT) -> None:
        super().__init__("shared", root)
        self.name = f"twincast, JetStream R{replicas}"
        self._replicas = replicas

    @contextmanager
    def running(
        self, *, core: int | None = SERVER_CORE, file: Path | None = None
    ) -> Iterator[tuple[ServerProcess, int]]:
        """Start NATS and the server, on a new log."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory, nats_nodes(self._replicas) as nodes:
            nodes.use_core(None if core is None else LOAD_CORE)
            url = nodes.url(file or Path(directory) / "copy.db", replicas=self._replicas)
            command = python("-m", "twincast", "serve", "--port", str(port), "--journal", url)
            with started(command, port, core=core, cwd=self.root) as process:
                wait_until_ready(port)
                yield process, port


class TwincastWorkers(Twincast):
    """Workers of one machine, each of which may use a part of a core: what more of them bring is not a faster core.

    On two cores nothing else shows it: the load takes the other one.
    """

    def __init__(self, workers: int, part: float = 0.2, root: Path = ROOT) -> None:
        super().__init__("workers", root)
        self.name = f"twincast, {workers} worker{'s' if workers > 1 else ''}"
        self._workers, self._part = workers, part

    @contextmanager
    def running(
        self, *, core: int | None = SERVER_CORE, file: Path | None = None
    ) -> Iterator[tuple[ServerProcess, int]]:
        """Start them, and give each its part."""
        port = free_port()
        with tempfile.TemporaryDirectory() as directory:
            journal = f"workers:{Path(directory) / 'journal.db'}"
            command = python("-m", "twincast", "serve", "--port", str(port), "--journal", journal)
            command += ["--workers", str(self._workers)]
            with started(command, port, core=core, cwd=self.root) as process:
                wait_until_ready(port)
                with _limited(_workers_of(process.pid), self._part):
                    yield process, port


def can_limit() -> bool:
    """Whether this machine lets a process have a part of a core: control groups of version 1, writable."""
    return os.access(_CGROUPS / "cpu.cfs_quota_us", os.F_OK) and os.access(_CGROUPS, os.W_OK)


def _workers_of(supervisor: int) -> list[psutil.Process]:
    children = psutil.Process(supervisor).children(recursive=True)
    return [child for child in children if "nats-server" not in child.name()]


@contextmanager
def _limited(processes: Sequence[psutil.Process], part: float) -> Iterator[None]:
    groups: list[Path] = []
    try:
        for process in processes:
            group = _CGROUPS / f"twincast-bench-{process.pid}"
            group.mkdir()
            groups.append(group)
            (group / "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(part * QUOTA_PERIOD_US)))
            (group / "cgroup.procs").write_text(str(process.pid))
        yield
    finally:
        for group in groups:
            for pid in (group / "cgroup.procs").read_text().split():
                (_CGROUPS / "cgroup.procs").write_text(pid)
            group.rmdir()


def wait_until_ready(port: int, timeout_s: float = READY_S) -> None:
    """Return when the server serves. Raises RuntimeError if it does not in time."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.01)
    raise RuntimeError("the server is not ready in time")
