"""`scripts/deploy`: prove the units, the image and the cluster on a Debian system, as root."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.deployed import cluster, compose, image, unit
from tests.deployed.system import make_nginx, make_system

IN_NAMESPACES = {"image": image.prove, "cluster": cluster.prove, "compose": compose.prove}
PARTS = ("unit", *IN_NAMESPACES)
BEHIND_NGINX = {"cluster", "compose"}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/deploy", description="Prove the units, the image and the cluster, as root."
    )
    parser.add_argument("part", nargs="?", choices=PARTS, help="all of them if not given")
    parser.add_argument("--shut-in", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shut_in:
        IN_NAMESPACES[options.part](options.shut_in, options.shut_in / "system")
        return 0
    if os.geteuid() != 0:
        parser.error("namespaces and mounts take root")
    # Not in /tmp: that may be memory, and may refuse the device files of a system.
    folder = Path(tempfile.mkdtemp(prefix="twincast-", dir="/var/tmp"))
    try:
        parts = [options.part] if options.part else PARTS
        make_system(folder)
        if not BEHIND_NGINX.isdisjoint(parts):
            make_nginx(folder)
        if "compose" in parts:
            compose.install(folder)
        for part in parts:
            _prove(part, folder)
        return 0
    except subprocess.CalledProcessError as error:
        return error.returncode
    finally:
        shutil.rmtree(folder)


def _prove(part: str, folder: Path) -> None:
    if part == "unit":
        unit.prove(folder, folder / "system")
        return
    again = [sys.executable, "-m", "tests.deployed", part, "--shut-in", str(folder)]
    subprocess.run(["unshare", "--mount", "--net", *again], check=True)


if __name__ == "__main__":
    sys.exit(main())
