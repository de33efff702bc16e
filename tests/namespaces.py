"""Machines of a small network, each a network namespace of this one: it takes root and `ip`, and is skipped without."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest

from tests.tools import lacking


class Machine(NamedTuple):
    """A network namespace."""

    name: str

    def command(self, *words: str) -> list[str]:
        """Return a command as it runs there."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str, **how: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command there, to its end."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=False, **how)

    def has(self, *words: str) -> None:
        """Run what sets the machine up. Fails if it does."""
        ran = self.run(*words)
        assert ran.returncode == 0, (words, ran.stderr)


@contextmanager
def machines(*names: str) -> Iterator[Sequence[Machine]]:
    """Make machines that nothing connects yet, their loopback up."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        lacking("network namespaces take root")
    if shutil.which("ip") is None:
        lacking("network namespaces take `ip`, of the package iproute2")
    made: list[Machine] = []
    with ExitStack() as undo:
        for name in names:
            machine = Machine(f"twincast-{os.getpid()}-{name}")
            ran = subprocess.run(["ip", "netns", "add", machine.name], capture_output=True, text=True, check=False)
            if ran.returncode:  # a container may not, whatever is installed in it
                pytest.skip(f"no network namespace can be made here: {ran.stderr.strip()}")
            undo.callback(subprocess.run, ["ip", "netns", "delete", machine.name], check=False)
            machine.has("ip", "link", "set", "lo", "up")
            made.append(machine)
        yield made


def connect(cable: str, first: Machine, second: Machine, *networks: tuple[str, str]) -> None:
    """Lay a cable between two machines; its end has one name in both, and an address of each network."""
    ran = first.run("ip", "link", "add", cable, "type", "veth", "peer", "name", cable, "netns", second.name)
    if ran.returncode:
        pytest.skip(f"no cable can be laid between network namespaces here: {ran.stderr.strip()}")
    for end, machine in enumerate((first, second)):
        machine.run("sysctl", "-q", f"net.ipv6.conf.{cable}.accept_dad=0")  # or addresses would not be ready at once
        machine.has("ip", "link", "set", cable, "up")
        for network in networks:
            machine.has("ip", "address", "add", network[end], "dev", cable, *(["nodad"] if ":" in network[end] else []))
