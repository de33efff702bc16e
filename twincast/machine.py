"""What differs between operating systems: limits, users, folders, shells."""

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]
try:
    import pwd
except ImportError:  # Windows keeps its users elsewhere
    pwd = None  # type: ignore[assignment]

BINARY = getattr(os, "O_BINARY", 0)
"""For os.open: on Windows bytes are otherwise taken for text."""
OWNER_ALONE = 0o600
"""The mode of what holds secrets. On Windows only the write bit counts: there the folder decides."""


def open_files_max() -> int | None:
    """Return how many files and sockets this process may have open; None where the system sets no such bound."""
    if resource is None:
        return None
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if files == resource.RLIM_INFINITY else int(files)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sync_folder(path: str) -> None:
    """Make the list of a folder's files durable. On Windows it is at once, and folders cannot be opened.

    Raises:
        OSError: the disk refuses it.
    """
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: str) -> int:
    """Return how many bytes this user may still write on a file's disk.

    Raises:
        OSError: there is no such folder.
    """
    return shutil.disk_usage(os.path.dirname(path) or ".").free


def my_name() -> str:
    """Return the name of the user whose files this process may use."""
    return login_name() if pwd is None else user_name(os.geteuid())


def login_name() -> str:
    """Return the name of the user who started this process."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def user_name(number: int) -> str:
    """Return a user's name."""
    if pwd is None:
        return "another user"
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def give_to_owner_of(path: str, descriptor: int) -> None:
    """Give a file that root has made, who ran a server once, to another file's owner, as SQLite does with the -wal."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        with suppress(OSError):
            owner = os.stat(path)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def quoted(word: str) -> str:
    """Quote a word for this system's shell."""
    return subprocess.list2cmdline([word]) if sys.platform == "win32" else shlex.quote(word)
