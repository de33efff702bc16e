"""Locks for files that only one program at a time may use: a cursor, a spool."""

import os

import filelock

from twincast.errors import TwincastError
from twincast.machine import OWNER_ALONE


def lock(path: str, what: str, refusal: type[TwincastError]) -> filelock.BaseFileLock:
    """Take the lock beside a file, and return it, to be released. It ends with the process at the latest.

    Args:
        path: the file, which need not exist.
        what: what to call it in an error.
        refusal: the class of the error.

    Raises:
        TwincastError: a `refusal`; another program has the lock, or the folder does not exist or cannot be written.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise refusal(f"the {what} {path} cannot be used: there is no folder {folder}")
    file_lock = filelock.FileLock(f"{path}.lock", timeout=0, mode=OWNER_ALONE, thread_local=False)
    try:
        file_lock.acquire()
    except filelock.Timeout:
        raise refusal(f"the {what} {path} is in use by another program; give each one a file of its own") from None
    except OSError as error:
        raise refusal(f"the {what} {path} cannot be used: {error.strerror or error}") from None
    return file_lock
