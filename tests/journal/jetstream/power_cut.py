"""A folder whose power can be cut under whole programs: what they had not synced is lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running import ROOT, eventually
from tests.tools import lacking

FORGET = "user.forget"
"""The attribute of the root by which `forgetful_disk` forgets."""
MADE_S = 30.0


class FailingPower:
    """The disk, as a test sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where it is mounted."""

    def cut(self) -> None:
        """Forget all that was not synced. Whatever has files open there must have been killed before."""
        os.setxattr(self.folder, FORGET, b"now")


@contextmanager
def failing_power(folder: Path) -> Iterator[FailingPower]:
    """Mount such a disk in a folder that exists, or skip the test with the reason."""
    _check_fuse()
    command = [sys.executable, "-m", "tests.journal.jetstream.forgetful_disk", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: os.path.ismount(folder) or process.poll() is not None, "the disk is mounted", MADE_S)
        if process.poll() is not None:
            assert process.stdout is not None
            lacking(f"no file system can be mounted here: {process.stdout.read().decode()[-500:]}")
        yield FailingPower(folder)
    finally:
        process.terminate()  # which unmounts it
        process.wait(MADE_S)
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def _check_fuse() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        lacking("a file system of the test's own takes /dev/fuse, which is not there or not for this user")
    try:
        import mfusepy  # noqa: F401, PLC0415  # it looks for libfuse as it is imported
    except (ImportError, OSError) as error:
        lacking(f"a file system of the test's own takes mfusepy and libfuse: {error}")
