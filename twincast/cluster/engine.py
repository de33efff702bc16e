"""A NATS server of our own on this machine: started, asked whether it answers, ended.

It listens on loopback alone, asks for a token that lies in its folder, and syncs to the disk before it acknowledges.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from twincast.cluster.child import start_child
from twincast.cluster.configuration import HOST, ClusterBlock, Configuration, write_privately
from twincast.cluster.knock import NoAnswer, ask, knock
from twincast.errors import AddressUnusable, ExtraMissing, JournalUnusable
from twincast.extras import install_line
from twincast.machine import OWNER_ALONE

try:
    import fcntl
except ImportError:  # Windows, for which there is no package with the program either
    fcntl = None  # type: ignore[assignment]

PROGRAM = "nats-server"
START_S, STOP_S = 30.0, 15.0
_KNOCK_S = 0.5
_PAUSE_S = 0.01
_STAMP = re.compile(r"^\[\d+\] [\d/]+ [\d:.]+ \[[A-Z]+\] ")


class FolderInUse(JournalUnusable):
    """Another NATS server runs in the folder."""


class Engine:
    """One `nats-server` with JetStream in a folder. For code without an event loop; every call has a bound in time.

    It ends with the process that started it: on Linux at once and however that ends; elsewhere where `stop` is called.
    A folder has one engine at a time, also after its starter has ended: the lock is held by the program itself.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        name: str = "twincast",
        asks_token: bool = True,
        sync_interval: str = "always",
        cluster: ClusterBlock | None = None,
        extra: str = "",
    ) -> None:
        """Describe an engine; `start` starts it.

        Args:
            folder: where its configuration, token, log and streams lie; made if it is not there.
            port: where it listens; 0 for any that is free, and the same one at each further start.
            name: its name in the cluster and in its log.
            asks_token: whether clients need `token`.
            sync_interval: when JetStream syncs: "always", or a time like "2m", which loses what was acknowledged.
            cluster: what makes it one of several.
            extra: further lines of its configuration.
        """
        self.folder = folder
        self.port = port
        """Where it listens; 0 until the first start if any will do."""
        self.route_port = 0
        """Where the other nodes of a cluster reach it, once it has started."""
        self._asks_token = asks_token
        self._configuration = Configuration(name, sync_interval, cluster, extra)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_began = 0

    @property
    def url(self) -> str:
        """Where clients reach it, without the token."""
        return f"nats://{HOST}:{self.port}"

    @property
    def token(self) -> str | None:
        """What clients have to give; the same at every start on this folder. None if it asks for none."""
        return self._kept_token() if self._asks_token else None

    @property
    def pid(self) -> int | None:
        """The number of its process; None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self.pid is not None

    def start(self, timeout_s: float = START_S) -> None:
        """Start it, and return when JetStream answers; as one of several, when it takes connections.

        Raises:
            ExtraMissing: the program is not installed.
            AddressUnusable: another program listens on its port.
            JournalUnusable: the folder cannot be used, it ended, or did not answer in time.
            FolderInUse: the folder is another engine's.
        """
        if self.is_running:
            return
        until_s = time.monotonic() + timeout_s
        program = program_path()
        lock = self._prepared()
        try:
            self._process = self._spawned([program, "-c", str(self._config)], lock)
        finally:
            os.close(lock)  # its own copy holds the lock, for as long as it lives
        try:
            self._until_it_answers(until_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End it in order: a leader hands over, what is open is written. What does not end in time is killed."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send its process a signal; does nothing if it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the status that it ended with, negative for a signal; None if it runs on after so long."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def last_line(self) -> str:
        """Return the last line that it wrote since its start, without number and date; empty if it wrote none."""
        for path, offset in ((self._stderr, 0), (self._log, self._log_began)):
            with suppress(OSError), open(path, "rb") as file:
                file.seek(offset if os.fstat(file.fileno()).st_size >= offset else 0)
                if lines := file.read().decode(errors="replace").strip().splitlines():
                    return _STAMP.sub("", lines[-1])
        return ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _config(self) -> Path:
        return self.folder / "nats.conf"

    @property
    def _log(self) -> Path:
        return self.folder / "nats.log"

    @property
    def _stderr(self) -> Path:
        """What it says before it has read its configuration, or when it panics."""
        return self.folder / "nats.err"

    def _prepared(self) -> int:
        """Return the lock of the folder, in which everything that the program reads is written."""
        try:
            self.folder.mkdir(0o700, parents=True, exist_ok=True)
            lock = self._locked()
            try:
                for stale in self.folder.glob("*.ports"):
                    stale.unlink()
                write_privately(self._config, self._configuration.text(self.folder, self.port, self.token))
                self._log_began = self._log.stat().st_size if self._log.exists() else 0
            except BaseException:
                os.close(lock)
                raise
        except OSError as error:
            raise JournalUnusable(f"NATS cannot run in {self.folder}: {error.strerror or error}") from None
        return lock

    def _locked(self) -> int:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, OWNER_ALONE)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise FolderInUse(f"another NATS server runs in {self.folder}: end that, or choose a folder") from None
        return lock

    def _is_free(self) -> bool:
        """Whether no engine runs in the folder."""
        try:
            os.close(self._locked())
        except FolderInUse:
            return False
        except OSError:
            pass
        return True

    def _kept_token(self) -> str:
        path = self.folder / "token"
        with suppress(OSError):
            if token := path.read_text().strip():
                return token
        token = secrets.token_urlsafe(24)
        write_privately(path, token)
        return token

    def _spawned(self, command: list[str], lock: int) -> subprocess.Popen[bytes]:
        try:
            with open(self._stderr, "wb") as output:
                return start_child(command, output=output, pass_fds=(lock,))
        except OSError as error:
            raise JournalUnusable(f"NATS cannot be started: {error.strerror or error}") from None

    def _until_it_answers(self, until_s: float) -> None:
        why = "it does not listen"
        while time.monotonic() < until_s:
            if not self.is_running:
                raise self._why_it_ended()
            if self._knows_its_port():
                try:
                    self._knock()
                except NoAnswer as error:
                    why = str(error)
                else:
                    return
            time.sleep(_PAUSE_S)
        raise JournalUnusable(
            f"NATS did not answer in time: {why}; the last line of {self._log} is: {self.last_line()}"
        )

    def _knock(self) -> None:
        """Return if it answers: one of several waits for the others before JetStream does."""
        if self._configuration.cluster is None:
            ask(self.port, self.token, "INFO", timeout_s=_KNOCK_S)
        else:
            knock(self.port, self.token, timeout_s=_KNOCK_S)

    def _knows_its_port(self) -> bool:
        """Whether it listens: then it writes where."""
        for path in self.folder.glob("*.ports"):
            with suppress(OSError, ValueError, LookupError):
                ports = {what: int(urls[0].rpartition(":")[2]) for what, urls in json.loads(path.read_text()).items()}
                self.port, self.route_port = ports["nats"], ports.get("cluster", 0)
                return True
        return False

    def _why_it_ended(self) -> AddressUnusable | JournalUnusable:
        line = self.last_line()
        if "address already in use" in line:
            return AddressUnusable(f"NATS cannot listen there: {line}. End what does, or choose another port")
        return JournalUnusable(f"NATS ended at its start: {line or 'it said nothing'} ({self._log})")


def running_in(folder: Path) -> Engine | None:
    """Return the engine that somebody else runs in a folder, for its URL and token; None if none answers there."""
    engine = Engine(folder)
    if engine._is_free():  # what a killed one has written is no address: anybody may listen there by now
        return None
    if engine._knows_its_port():
        with suppress(NoAnswer):
            engine._knock()
            return engine
    return None


def program_path() -> str:
    """Return where the program is: of the package beside this Python, else of the system.

    Raises:
        ExtraMissing: it is not installed; the message has the line that brings it.
    """
    for folder in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        if (path := shutil.which(PROGRAM, path=folder)) is not None:
            return os.path.abspath(path)
    if (path := shutil.which(PROGRAM)) is not None:
        return os.path.abspath(path)
    raise ExtraMissing(f"the program {PROGRAM} is not installed. This line brings it:\n  {install_line('cluster')}")
