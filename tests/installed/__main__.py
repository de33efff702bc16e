"""Try a wheel on each Python that is declared and can be had: `python -m tests.installed WHEEL`."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.running import ROOT, ServerProcess

DECLARED = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
TIMEOUT_S = 300


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that must succeed; return what it printed."""
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if ran.returncode:
        raise SystemExit(f"{shlex.join(map(str, command))} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def try_on(interpreter: str, wheel: Path, url: str) -> None:
    """Try a wheel in a new environment of one Python, against a server at an address."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        run(interpreter, "-m", "venv", "venv", cwd=folder)
        python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        run(*pip, wheel, cwd=folder)
        device = packages(python, folder)
        print(f"  a device: {len(device)} packages besides twincast")
        line = run(python, ROOT / "tests/installed/device.py", url, cwd=folder).strip()
        run(*pip, "pytest", cwd=folder)
        of_pytest = packages(python, folder) - device
        run(python, ROOT / "tests/installed/beside_pytest.py", cwd=folder)
        run(*shlex.split(line), cwd=folder)
        print(f"  a server: {len(packages(python, folder) - of_pytest)}")
        print(f"  {run(python, ROOT / 'tests/smoke.py', cwd=folder).strip()}")


def packages(python: Path, folder: Path) -> set[str]:
    """Return which packages an environment has besides twincast and what pip brings."""
    listed = json.loads(run(python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check", cwd=folder))
    return {each["name"] for each in listed} - {"pip", "setuptools", "twincast"}


def interpreter_of(version: str) -> str | None:
    """Return a Python of a version: that of the path, or pyenv's; None if neither is here and runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    here = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"versions/{version}*/bin/python")))]
    for candidate in filter(None, here):
        asked = subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True, check=False)
        if asked.returncode == 0:
            return candidate
    return None


def main() -> None:
    """Try them all; whatever does not work ends this with an error, and so does no Python at all."""
    wheel = Path(sys.argv[1]).resolve()
    found = {version: interpreter_of(version) for version in DECLARED}
    found[f"{sys.version_info.major}.{sys.version_info.minor}"] = sys.executable
    server = ServerProcess("memory:").ready()
    try:
        for version, interpreter in found.items():
            if interpreter is None:
                print(f"Python {version} is not here, so nothing is tried on it")
                continue
            print(f"Python {version}")
            try_on(interpreter, wheel, server.url)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
