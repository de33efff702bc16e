"""Packages of npm's that tests need, installed once; what needs them is skipped without."""

import getpass
import subprocess
import tempfile
from pathlib import Path

from tests.tools import lacking, program

PACKAGES = ("typescript@7.0.2", "ws@8.23.0")
"""What the JavaScript client is tried with."""
NATS_PACKAGES = ("@nats-io/transport-node@3.4.0",)
NPM_ENV = "TWINCAST_NPM"
INSTALL_DEADLINE_S = 120


def node_modules(packages: tuple[str, ...] = PACKAGES) -> Path:
    """Return the folder that has the packages; it is kept for the next run."""
    name = "-".join(packages).replace("/", "+")
    folder = Path(tempfile.gettempdir()) / f"twincast-npm-{getpass.getuser()}" / name
    if not (folder / "done").exists():
        npm = program("npm", env=NPM_ENV)
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *packages]
        try:
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            lacking(f"npm gives no {' and '.join(packages)}: {error.stderr!r}")
        (folder / "done").touch()
    return folder / "node_modules"
