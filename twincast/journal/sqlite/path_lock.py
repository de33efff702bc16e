"""Whether a server was started on a path: a lock on the -lock file beside it, which falls with whoever holds it.

It is the system's `flock`; where there is none (Windows), SQLite's own lock on that file, an empty database: the same
code in C that keeps the journal's writers apart, by what the system has. https://www.sqlite.org/lockingv3.html
"""

import errno
import os
from contextlib import closing, suppress

import apsw

from twincast.machine import OWNER_ALONE, give_to_owner_of

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

_WAIT_MS = 1_000
"""How long to wait for a process that only checks whether the lock is free: a check takes some microseconds."""
_TRIES = 10
"""So often the file is made or opened anew, if it is removed in that very moment: see `NameLock.discard`."""


class NameLock:
    """The lock of one path, held from when this is made until `release`."""

    def __init__(self, path: str) -> None:
        """Take the lock, and make the -lock file if there is none.

        Raises:
            BlockingIOError: another has it.
            OSError: the file cannot be made, opened or locked.
        """
        self._name = name = f"{path}-lock"
        if fcntl is not None:
            self._descriptor, self._is_made = _flocked(name, path)
            return
        descriptor, self._is_made = _opened(name, path)
        os.close(descriptor)
        self._db = apsw.Connection(name)
        try:
            self._db.set_busy_timeout(_WAIT_MS)
            self._db.execute("begin exclusive")
        except apsw.Error as error:
            self._db.close(True)
            if isinstance(error, apsw.BusyError):
                raise BlockingIOError from None
            raise OSError(0, str(error)) from None

    def release(self) -> None:
        """Release the lock."""
        if fcntl is not None:
            os.close(self._descriptor)
        else:
            self._db.close(True)

    def discard(self) -> None:
        """Release the lock, and remove the file if it was made for it: of a start that came to nothing."""
        if self._is_made:
            with suppress(OSError):  # Windows removes no file that is open; there it stays
                os.unlink(self._name)
        self.release()


class FolderLock:
    """A lock on a folder itself, held until `release`; nothing is left in it. On Windows it keeps nobody out."""

    def __init__(self, folder: str) -> None:
        """Take the lock.

        Raises:
            BlockingIOError: another has it.
            OSError: the folder cannot be opened.
        """
        self._descriptor: int | None = None
        if fcntl is None:
            return
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise
        except OSError:
            self.release()  # a file system without locks: then nothing keeps two from one folder

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_taken(path: str) -> bool:
    """Return whether a process holds the lock of a path."""
    name = f"{path}-lock"
    return _is_locked_by_sqlite(name) if fcntl is None else _is_flocked(name)


def _is_flocked(name: str) -> bool:
    assert fcntl is not None
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _is_locked_by_sqlite(name: str) -> bool:
    if not os.path.exists(name):
        return False
    try:
        with closing(apsw.Connection(name, flags=apsw.SQLITE_OPEN_READONLY)) as db:
            db.execute("select count(*) from sqlite_schema")
    except apsw.BusyError:
        return True
    except apsw.Error:
        return False
    return False


def _flocked(name: str, path: str) -> tuple[int, bool]:
    """Return the file, locked, and whether it was made. A lock on one that was removed meanwhile keeps nobody out."""
    assert fcntl is not None
    for _ in range(_TRIES):
        descriptor, is_made = _opened(name, path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(name)):
                    return descriptor, is_made
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise BlockingIOError


def _opened(name: str, path: str) -> tuple[int, bool]:
    """Return the file, opened, and whether it was made."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        except FileExistsError:
            with suppress(FileNotFoundError):
                return os.open(name, os.O_RDWR), False
        else:
            give_to_owner_of(path, descriptor)
            return descriptor, True
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
