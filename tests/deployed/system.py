"""A small Debian of this system's release, and how commands are run and read."""

import platform
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.running import ROOT, eventually

RELEASE = platform.freedesktop_os_release()["VERSION_CODENAME"]
PACKAGES = "systemd,systemd-sysv,dbus,python3-venv,python-is-python3,python3-dev,gcc,libc6-dev"
COMMAND_S = 900.0


def say(text: str) -> None:
    print(text, flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    fails: bool = False,
    timeout_s: float = COMMAND_S,
    folder: Path = ROOT,
) -> str:
    """Run a command that must succeed, or must fail, and return what it printed; of one that fails, the errors too."""
    result = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    both = result.stdout + result.stderr
    assert (result.returncode != 0) == fails, (
        f"{shlex.join(map(str, command))} ended with {result.returncode} and printed:\n{both}"
    )
    return both if fails else result.stdout


def run_until_done(command: Callable[[], str], awaited: str, deadline_s: float = 120.0) -> str:
    """Return what a command printed that fails at first: nodes that have just begun elect a leader."""
    printed: list[str] = []
    problems: list[str] = []

    def is_done() -> bool:
        try:
            printed.append(command())
        except AssertionError as error:
            problems.append(str(error))
        return bool(printed)

    try:
        eventually(is_done, awaited, deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; {problems[-1]}") from error
    return printed[0]


def header_commands(file: Path) -> list[str]:
    """Return the commands that the comment at the head of a file tells its reader to run."""
    head = re.split(r"^(?!#)", file.read_text(), maxsplit=1, flags=re.M)[0]
    lines = [line.removeprefix("#   ") for line in head.splitlines() if line.startswith("#   ")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def make_system(folder: Path) -> Path:
    """Make a Debian that holds what pip needs to install twincast, so that nothing in it needs a network."""
    system = _debian(folder, "system", PACKAGES)
    # By the Python of the release, for wheels are of one version.
    run(["/usr/bin/python3", "-m", "venv", folder / "venv"])
    wheel: list[str | Path] = [folder / "venv/bin/pip", "wheel", "--quiet", "--wheel-dir", system / "wheels"]
    run([*wheel, ".[server,cluster]"])
    run([*wheel, "hatchling>=1.26", "cython>=3.1,<4", "setuptools>=77"])
    (system / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return system


def make_nginx(folder: Path) -> Path:
    """Make a Debian that is there for its nginx."""
    return _debian(folder, "nginx", "systemd,systemd-sysv,dbus,nginx-light")


def _debian(folder: Path, name: str, packages: str) -> Path:
    say(f"Making a small Debian {RELEASE}; this takes a minute or two")
    (folder / "packages").mkdir(exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={packages}", f"--cache-dir={folder / 'packages'}"]
    run([*command, RELEASE, folder / name])
    return folder / name
