"""A Debian that boots in namespaces of its own, and how it is spoken to."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.deployed.system import run
from tests.running import eventually

DEADLINE_S = 120.0
COMMAND_S = 300.0
HIERARCHIES = [Path("/sys/fs/cgroup", name) for name in ("", "systemd", "unified")]
# Two machines in one control group would each take it for its own.
IN_ITS_GROUP = f"""
for hierarchy in {" ".join(map(str, HIERARCHIES))}; do
    if [ -e $hierarchy/cgroup.procs ]; then
        mkdir -p $hierarchy/$0 && echo $$ >$hierarchy/$0/cgroup.procs
    fi
done
exec "$@"
"""


class Machine:
    """A Debian that has booted; `leader` is its first process, as this machine counts. `port` is where it serves."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root, self.leader = root, leader
        self._enter = ["nsenter", f"--target={leader}", "--all", "--wdns=/root", "env", "-i", "HOME=/root"]
        self._enter += ["PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/twincast/bin"]

    def command(self, text: str, **env: str) -> list[str]:
        return [*self._enter, *(f"{name}={value}" for name, value in env.items()), "sh", "-c", text]

    def run(self, text: str, *, fails: bool = False, **env: str) -> str:
        return run(self.command(text, **env), fails=fails, timeout_s=COMMAND_S).strip()

    def succeeds(self, text: str, **env: str) -> bool:
        done = subprocess.run(self.command(text, **env), capture_output=True, check=False, timeout=COMMAND_S)
        return done.returncode == 0

    def shown(self, name: str, unit: str = "twincast") -> str:
        """Return a property of a service."""
        return self.run(f"systemctl show --value --property={name} {unit}")

    def of_process(self, file: str, unit: str = "twincast") -> str:
        """Return a file of /proc of a service's first process."""
        return self.run(f"cat /proc/{self.shown('MainPID', unit)}/{file}")

    def said(self, unit: str = "twincast", since: str = "today") -> str:
        """Return the last lines of a service's journal."""
        # With --since, its own --lines are the first ones.
        return self.run(f"journalctl --unit={unit} --output=cat --since={since} | tail -n 40")

    def status(self, token: str) -> dict[str, Any]:
        """Return what the server says to who presents a credential."""
        told: dict[str, Any] = json.loads(self.run("twincast status --json", TWINCAST_TOKEN=token))
        return told

    def refuses(self, token: str, why: str) -> None:
        printed = self.run("twincast status", TWINCAST_TOKEN=token, fails=True)
        assert why in printed, printed

    def seq(self, token: str) -> int:
        """Return the server's position, 0 while it is down."""
        try:
            return int(self.status(token)["seq"])
        except AssertionError:
            return 0

    def up(self, token: str) -> None:
        self.eventually(lambda: self.succeeds("twincast status", TWINCAST_TOKEN=token), "the server answers")

    def eventually(self, condition: Callable[[], object], awaited: str, unit: str = "twincast") -> None:
        """Wait; say what a service says if it was in vain."""
        try:
            eventually(condition, awaited, DEADLINE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.root.name} says:\n{self.said(unit)}") from error

    def comes_back(self, unit: str = "twincast") -> None:
        """Kill a service's first process, and wait until systemd has started another."""
        killed, restarts = self.shown("MainPID", unit), int(self.shown("NRestarts", unit))
        self.run(f"kill -9 {killed}")
        self.eventually(lambda: int(self.shown("NRestarts", unit)) == restarts + 1, f"{unit} is started again", unit)
        self.eventually(lambda: self.shown("MainPID", unit) not in {"0", killed}, f"{unit} runs again", unit)

    def is_shut_in(self, unit: str, files: str) -> None:
        """Prove that a service has no right of root, a filter of system calls, and its files for itself."""
        told = dict(line.split(":\t", 1) for line in self.of_process("status", unit).splitlines() if ":\t" in line)
        assert "0" not in told["Uid"].split()
        assert (int(told["CapEff"], 16), told["NoNewPrivs"], told["Seccomp"]) == (0, "1", "2")
        modes = set(self.run(f"find {files} -type d -printf 'd%m\\n' -o -printf '%m\\n'").split())
        assert modes == {"d700", "600"}, modes

    def score(self, unit: str) -> str:
        """Return how open systemd holds a service to be."""
        return self.run(f"systemd-analyze security --no-pager {unit} | tail -n 1").strip("→ ")

    def configure(self, *lines: str) -> None:
        """Write what `systemctl edit` would; without lines, take it away."""
        folder = "/etc/systemd/system/twincast.service.d"
        text = "\n".join(["[Service]", *lines])
        write = f"mkdir -p {folder}; cat >{folder}/override.conf <<'END'\n{text}\nEND\n" if lines else f"rm -r {folder}"
        self.run(f"{write}\nsystemctl daemon-reload")


class Casing:
    """What a Debian is booted in by systemd-nspawn, again and again; without a bridge, its network is its own alone."""

    def __init__(self, root: Path, console: Path, *, bridge: str | None = None) -> None:
        self._root, self._console = root, console
        self._network = "--private-network" if bridge is None else f"--network-bridge={bridge}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> Machine:
        """Return once it has booted."""
        command = ["systemd-nspawn", "--quiet", "--boot", self._network, f"--machine={self._root.name}"]
        command.append(f"--directory={self._root}")
        # Where no systemd runs, there is nobody to tell of the new machine, nor who would give it a control group.
        if not Path("/run/systemd/system").is_dir():
            command = ["sh", "-c", IN_ITS_GROUP, str(self._group), *command, "--register=no", "--keep-unit"]
        with self._console.open("a") as printed:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT)
        self._process = process
        try:
            self._leader = eventually(lambda: _first_process_in(process.pid), "the machine starts", DEADLINE_S)
            machine = Machine(self._root, self._leader)
            ask = machine.command("systemctl is-system-running")
            eventually(
                lambda: subprocess.run(ask, capture_output=True, check=False).stdout in {b"running\n", b"degraded\n"},
                "the machine has booted",
                DEADLINE_S,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; its console:\n{self._console.read_text()}") from error
        return machine

    def stop(self) -> None:
        """Shut the machine down, if it runs."""
        self._end(signal.SIGTERM)

    def cut(self) -> None:
        """Take the machine's power, as far as a process can: its first process is killed, and with it all others."""
        os.kill(self._leader, signal.SIGKILL)
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            self._process = None
            for hierarchy in HIERARCHIES:
                _remove_groups(hierarchy / self._group)

    @property
    def _group(self) -> str:
        return f"twincast-{os.getpid()}-{self._root.name}"


@contextmanager
def booted(root: Path, console: Path) -> Iterator[Machine]:
    casing = Casing(root, console)
    try:
        yield casing.boot()
    finally:
        casing.stop()


def _first_process_in(nspawn: int) -> int:
    """Return the child that counts itself as 1 and is systemd already, 0 if none is: there are others on the way."""
    for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        with suppress(FileNotFoundError):
            told = Path(f"/proc/{child}/status").read_text()
            if re.search(r"^Name:\tsystemd$", told, re.M) and re.search(r"^NSpid:.*\t1$", told, re.M):
                return int(child)
    return 0


def _remove_groups(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        Path(folder).rmdir()
