"""A small Debian of this system's release, and how commands are run and read."""

import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.running import ROOT

PACKAGES = "systemd,systemd-sysv,dbus,python3-venv,python-is-python3"


def say(text: str) -> None:
    print(text, flush=True)


def run(command: Sequence[str | Path], *, env: dict[str, str] | None = None, fails: bool = False) -> str:
    """Run a command that must succeed, or must fail, and return what it printed; of one that fails, the errors too."""
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    both = result.stdout + result.stderr
    assert (result.returncode != 0) == fails, (
        f"{shlex.join(map(str, command))} ended with {result.returncode} and printed:\n{both}"
    )
    return both if fails else result.stdout


def header_commands(file: Path) -> list[str]:
    """Return the commands that the comment at the head of a file tells its reader to run."""
    head = re.split(r"^(?!#)", file.read_text(), maxsplit=1, flags=re.M)[0]
    lines = [line.removeprefix("#   ") for line in head.splitlines() if line.startswith("#   ")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def make_system(folder: Path) -> Path:
    """Make a Debian that holds what pip needs to install twincast, so that nothing in it needs a network."""
    system = folder / "system"
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    say(f"Making a small Debian {release}; this takes a minute or two")
    run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, system])
    # By the Python of the release, for wheels are of one version.
    run(["/usr/bin/python3", "-m", "venv", folder / "venv"])
    wheel: list[str | Path] = [folder / "venv/bin/pip", "wheel", "--quiet", "--wheel-dir", system / "wheels"]
    run([*wheel, ".[server]"])
    run([*wheel, "hatchling>=1.26"])
    (system / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return system
