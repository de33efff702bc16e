"""Packages of npm's that the JavaScript client is tried with, installed once; what needs them is skipped without."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PACKAGES = ("typescript@7.0.2", "ws@8.23.0")
NPM_ENV = "TWINCAST_NPM"
INSTALL_DEADLINE_S = 120


def node_modules() -> Path:
    """Return the folder that has the packages; it is kept for the next run."""
    folder = Path(tempfile.gettempdir()) / f"twincast-npm-{os.getuid()}" / "-".join(PACKAGES)
    if not (folder / "done").exists():
        npm = os.environ.get(NPM_ENV) or shutil.which("npm")
        if not npm:
            pytest.skip(f"no npm: install it, or set {NPM_ENV} to its path")
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *PACKAGES]
        try:
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_DEADLINE_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm gives no {' and '.join(PACKAGES)}: {error.stderr!r}")
        (folder / "done").touch()
    return folder / "node_modules"
