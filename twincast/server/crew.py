"""The workers of one server, and the NATS server of their log, as their parent keeps them: what dies is started again.

The parent serves nothing itself. Its end is the end of all: each worker sees it on its standard input.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

import twincast
from twincast.cluster.engine import Engine
from twincast.errors import TwincastError, WorkerFailed
from twincast.server.banner import Start
from twincast.server.shared_port import SharedPort
from twincast.server.worker import Report, Task

logger = logging.getLogger("twincast.workers")

WAITS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""How long to wait before what died is started again, by how often it died at once."""
LIVED_S = 10.0
"""Who served so long did not die at once."""
FIRST_ATTEMPTS, ATTEMPTS = 3, 5
"""How often a worker may die without a word before the first start is given up; and later, how often all of them, or
the NATS server, may die at once."""
CLOSING_S = 10.0
"""How long a worker may take to close its files, after what is under way has had its time."""


class Member(NamedTuple):
    """One worker: what it is called, and what it serves."""

    name: str
    settings: dict[str, object]


class Crew:
    """The workers, kept running by one event loop."""

    def __init__(
        self,
        members: Sequence[Member],
        port: SharedPort,
        *,
        engine: Engine | None = None,
        inherited: Sequence[int] = (),
        env: dict[str, str] | None = None,
        keeps_to_tls: bool = True,
        shutdown_timeout_s: float = 10.0,
        on_start: Callable[[Start], None],
    ) -> None:
        """Prepare; `run` starts them.

        Args:
            members: the workers.
            port: what they listen on.
            engine: the NATS server of their log, which runs; None if it is somebody else's.
            inherited: descriptors that each of them gets, beside its sockets.
            env: the environment of each; None for this process's.
            keeps_to_tls: see `process.configured`.
            shutdown_timeout_s: how long a worker has for what is under way when it stops.
            on_start: called once, when all serve.
        """
        self._members = members
        self._port = port
        self._engine = engine
        self._inherited = inherited
        self._env = dict(os.environ if env is None else env)
        self._keeps_to_tls = keeps_to_tls
        self._stop_s = shutdown_timeout_s + CLOSING_S
        self._on_start = on_start
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._serving: set[str] = set()
        self._deaths: dict[str, int] = {}
        self._has_started = False
        self._is_stopping = asyncio.Event()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT; the workers have ended when this returns. A second signal ends them at once.

        Raises:
            TwincastError: what a worker says that cannot start, or that one dies again and again.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(each), name=each.name) for each in self._members]
                if self._engine is not None:
                    keepers.append(group.create_task(self._keep_engine(self._engine), name="NATS"))
                await self._is_stopping.wait()
                for keeper in keepers:
                    keeper.cancel()  # which ends its worker; the group waits for that
        except* TwincastError as group:
            raise _first_of(group) from None
        finally:
            if self._engine is not None:
                await asyncio.to_thread(self._engine.stop)  # ends the thread that waits for it

    def _stop(self) -> None:
        if self._is_stopping.is_set():
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    process.kill()
        self._is_stopping.set()

    async def _keep(self, member: Member) -> None:
        """Run one worker, and start it again when it ends."""
        while True:
            report, status, lived_s = await self._one_life(member)
            wait_s = self._wait_s(member.name, lived_s, _why(member.name, report, status))
            ended = f"ended with status {status}" if not report.problem else f"cannot start: {report.problem}"
            logger.error(f"{member.name} {ended}; it is started again in {wait_s:g} s")
            await asyncio.sleep(wait_s)

    async def _one_life(self, member: Member) -> tuple[Report, int, float]:
        """Run a worker to its end; return its report, its exit status, and for how long it served, in seconds."""
        try:
            process = await self._spawned(member)
        except OSError as error:
            return Report(code=WorkerFailed.code, problem=f"the system starts no process: {error.strerror}"), 1, 0.0
        began_s, report = time.monotonic(), Report()
        try:
            assert process.stdout is not None
            if line := await process.stdout.readline():
                report = msgspec.json.decode(line, type=Report)
            if report.start is not None:
                began_s = time.monotonic()
                self._note_start(member.name, report.start)
            status = await process.wait()
            return report, status, time.monotonic() - began_s if report.start is not None else 0.0
        finally:
            await self._ended(member.name, process)
            self._serving.discard(member.name)
            del self._processes[member.name]

    async def _spawned(self, member: Member) -> asyncio.subprocess.Process:
        sockets = self._port.sockets()
        try:
            listeners = [each.fileno() for each in sockets]
            process = await asyncio.create_subprocess_exec(
                *_command(member.name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[*listeners, *self._inherited],
                start_new_session=True,  # Ctrl-C in a terminal is for the parent, which stops all in order
                env=self._env,
            )
        finally:
            for each in sockets:
                each.close()
        self._processes[member.name] = process
        # Who has an engine here has all of its servers here, and they stop together.
        task = Task(member.name, member.settings, listeners, self._keeps_to_tls, has_successors=self._engine is None)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(task) + b"\n")  # it stays open: its end tells a worker of ours
        return process

    async def _ended(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Have a worker end, in order if it serves and can in its time."""
        if process.returncode is not None:
            return
        if name not in self._serving:
            process.kill()  # nothing is under way there, and it may wait for its log without end
        else:
            process.terminate()
        try:
            async with asyncio.timeout(self._stop_s):  # not `wait_for`, which may lose a cancellation
                await process.wait()
        except TimeoutError:
            logger.warning("%s did not end in time; it is killed", name)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _note_start(self, name: str, start: Start) -> None:
        self._serving.add(name)
        if self._has_started:
            logger.warning("%s serves again", name)
        elif len(self._serving) == len(self._members):
            self._has_started = True
            self._deaths.clear()
            self._on_start(start)

    def _wait_s(self, name: str, lived_s: float, why: TwincastError) -> float:
        """Return how long to wait before what died is started again.

        Raises:
            TwincastError: it is given up: a first start fails with words, or often; later, nobody serves any more.
        """
        deaths = self._deaths[name] = 1 if lived_s >= LIVED_S else self._deaths.get(name, 0) + 1
        if not self._has_started and (deaths >= FIRST_ATTEMPTS or not isinstance(why, WorkerFailed)):
            raise why
        if not self._serving and all(self._deaths.get(each.name, 0) >= ATTEMPTS for each in self._members):
            raise why
        return WAITS_S[min(deaths, len(WAITS_S)) - 1]

    async def _keep_engine(self, engine: Engine) -> None:
        """Start the NATS server again when it ends. The workers come back to it by themselves."""
        deaths, began_s = 0, time.monotonic()
        while True:
            status = await asyncio.to_thread(engine.wait)
            deaths = 1 if time.monotonic() - began_s >= LIVED_S else deaths + 1
            wait_s = WAITS_S[min(deaths, len(WAITS_S)) - 1]
            logger.error(f"NATS ended with status {status}; it is started again in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            began_s = time.monotonic()
            try:
                await asyncio.to_thread(engine.start)
            except TwincastError as error:
                logger.error(f"NATS cannot start: {error}")
                if deaths >= ATTEMPTS:
                    raise
            else:
                logger.warning("NATS runs again")


def _command(name: str) -> list[str]:
    # Without -P Python looks for modules in the working directory first, where any file may have the name of one.
    root = Path(twincast.__file__).parents[1]
    safely = [] if root == Path.cwd() else ["-P"]
    return [sys.executable, *safely, "-m", "twincast.server.worker", name]


def _why(name: str, report: Report, status: int) -> TwincastError:
    """Return why a worker ended, as the error that it was there."""
    if not report.problem:
        return WorkerFailed(f"{name} ends again and again, now with status {status}; what it wrote is above")
    kinds = [TwincastError]
    for kind in kinds:
        if kind.code == report.code:
            return kind(report.problem)
        kinds += kind.__subclasses__()
    return TwincastError(report.problem)


def _first_of(group: BaseExceptionGroup[TwincastError]) -> TwincastError:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
