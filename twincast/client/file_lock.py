"""Files that belong to one program at a time: a cursor, a spool."""

import os

import filelock

from twincast.errors import TwincastError
from twincast.machine import OWNER_ALONE


def hold(path: str, what: str, refusal: type[TwincastError]) -> filelock.BaseFileLock:
    """Take the lock beside a file, which falls with the process; return it, to be released.

    Args:
        path: the file, which need not be there.
        what: what it is called, for the error.
        refusal: the error.

    Raises:
        TwincastError: as `refusal`; another program has it, or its folder is not there or cannot be written.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise refusal(f"the {what} {path} cannot be used: there is no folder {folder}")
    lock = filelock.FileLock(f"{path}.lock", timeout=0, mode=OWNER_ALONE, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise refusal(f"the {what} {path} is in use by another program; give each one a file of its own") from None
    except OSError as error:
        raise refusal(f"the {what} {path} cannot be used: {error.strerror or error}") from None
    return lock
