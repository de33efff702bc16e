"""Packages of npm's that the JavaScript client is tried with, installed once; what needs them is skipped without."""

import getpass
import subprocess
import tempfile
from pathlib import Path

from tests.tools import lacking, program

PACKAGES = ("typescript@7.0.2", "ws@8.23.0")
NPM_ENV = "TWINCAST_NPM"
INSTALL_DEADLINE_S = 120


def node_modules() -> Path:
    """Return the folder that has the packages; it is kept for the next run."""
    folder = Path(tempfile.gettempdir()) / f"twincast-npm-{getpass.getuser()}" / "-".join(PACKAGES)
    if not (folder / "done").exists():
        npm = program("npm", env=NPM_ENV)
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES]
        try:
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            lacking(f"npm gives no {' and '.join(PACKAGES)}: {error.stderr!r}")
        (folder / "done").touch()
    return folder / "node_modules"
