"""`scripts/deploy`: prove the unit and the image on a Debian system, as root."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.deployed import image, unit
from tests.deployed.system import make_system

PARTS = ("unit", "image")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/deploy", description="Prove the unit and the image, as root.")
    parser.add_argument("part", nargs="?", choices=PARTS, help="both if not given")
    parser.add_argument("--shut-in", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shut_in:
        image.prove(options.shut_in, options.shut_in / "system")
        return 0
    if os.geteuid() != 0:
        parser.error("namespaces and mounts take root")
    # Not in /tmp: that may be memory, and may refuse the device files of a system.
    folder = Path(tempfile.mkdtemp(prefix="twincast-", dir="/var/tmp"))
    try:
        system = make_system(folder)
        if options.part != "image":
            unit.prove(folder, system)
        if options.part == "unit":
            return 0
        again = [sys.executable, "-m", "tests.deployed", "--shut-in", str(folder)]
        return subprocess.run(["unshare", "--mount", "--net", *again], check=False).returncode
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
