"""Who may use a journal's file: one server, by what the file is; and no stranger who would take its -wal away.

SQLite locks by POSIX `fcntl`, whose locks belong to the process: a second SQLite library in it, such as Python's own
`sqlite3`, sees none of them, takes itself for the last user when it closes, and removes the -wal under the first; and
whichever closes its descriptor drops the locks of both. Locks of the open file description (Linux, `F_OFD_SETLK`) hold
against everybody, in the same process too. Two such read locks on bytes that SQLite itself uses keep strangers off:

- SHARED of the database: whoever wants to remove the -wal must first have all of it for himself;
- the "dead man's switch" of the -shm: whoever finds it free takes the -shm for a crashed one's, and empties it.

A third, exclusive one on a byte that nobody else uses is the server's: by it a second one is refused by whatever name
it comes (hard link, bind mount, renamed file). Where there are no such locks (macOS, Windows, gVisor), the -lock file
is all: see path_lock.
The numbers are SQLite's: os.h (SHARED_FIRST), os_unix.c (UNIX_SHM_DMS). https://www.sqlite.org/walformat.html
"""

import errno
import os
import struct
import sys
from contextlib import suppress

from twincast.errors import JournalUnusable
from twincast.journal.sqlite.path_lock import NameLock, is_taken
from twincast.machine import OWNER_ALONE, my_name, user_name

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

HAS_FILE_LOCKS = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")
"""Whether the system knows locks by open file, as Linux lays them out; a file system or sandbox may refuse them."""
_LOCKED = {errno.EAGAIN, errno.EACCES}

_SHARED = (0x40000002, 510)
_DEAD_MANS_SWITCH = (128, 1)
_SERVER = (int.from_bytes(b"TWIN") << 32, 1)  # far behind the end of any database

_Range = tuple[int, int]


class JournalInUse(JournalUnusable):
    """Another server has the file."""


class ServerLock:
    """The lock that makes a server the only one on a file. It is taken before SQLite connects, released after."""

    def __init__(self, path: str) -> None:
        """Take the file, and make it if there is none: for its owner alone, as SQLite then makes -wal and -shm.

        Args:
            path: the file, with links resolved.

        Raises:
            JournalUnusable: another server has it, or the -lock file beside it may not be used.
        """
        self._path = path
        self._name: NameLock | None = None
        self._is_made = False
        self._descriptors: list[int] = []
        self._shields: list[tuple[int, _Range]] = []
        try:
            self._take_name()
            self._is_made = _make_private(path)
            self._take_file()
        except BaseException:
            self.discard()
            raise

    def shield(self) -> None:
        """Keep others from removing the -wal and from emptying the -shm. Both are there once SQLite has read.

        Raises:
            JournalUnusable: a stranger is doing that at this moment.
        """
        if not HAS_FILE_LOCKS:
            return
        for path, span in (self._path, _SHARED), (f"{self._path}-shm", _DEAD_MANS_SWITCH):
            descriptor = os.open(path, os.O_RDWR)
            self._descriptors.append(descriptor)
            try:
                if _set(descriptor, fcntl.F_RDLCK, span):
                    self._shields.append((descriptor, span))
            except BlockingIOError:
                raise JournalUnusable(f"another program is just closing the journal {self._path}; try again") from None

    def unshield(self) -> None:
        """Let SQLite remove the -wal, as it does when its last connection is closed."""
        while self._shields:
            descriptor, span = self._shields.pop()
            _set(descriptor, fcntl.F_UNLCK, span)

    def release(self) -> None:
        """Release. No connection of this process may be open: closing a descriptor drops SQLite's own locks."""
        self._shields.clear()
        while self._descriptors:
            os.close(self._descriptors.pop())
        if self._name is not None:
            self._name.release()
            self._name = None

    def discard(self) -> None:
        """Release after a start that came to nothing, and leave no file behind that was made for it and is empty."""
        if self._is_made:
            with suppress(OSError):
                if not os.path.getsize(self._path) and not os.path.exists(f"{self._path}-wal"):
                    os.unlink(self._path)
        name, self._name = self._name, None
        self.release()
        if name is not None:
            name.discard()

    def _take_name(self) -> None:
        try:
            self._name = NameLock(self._path)
        except BlockingIOError:
            raise JournalInUse(_in_use(self._path)) from None
        except OSError as error:
            why = why_not_usable(self._path, ("-lock",)) or error.strerror
            raise JournalUnusable(f"the journal {self._path} cannot be opened: {why}") from None

    def _take_file(self) -> None:
        if not HAS_FILE_LOCKS:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR)
        except OSError:
            return  # SQLite reports what is wrong
        self._descriptors.append(descriptor)
        try:
            _set(descriptor, fcntl.F_WRLCK, _SERVER)
        except BlockingIOError:
            raise JournalInUse(f"{_in_use(self._path)}, perhaps by another name of the same file") from None


def serves_the_file(path: str) -> bool:
    """Return whether a server runs on a file, under any name; under this one, where the system cannot tell."""
    if not HAS_FILE_LOCKS:
        return serves_the_name(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, _SERVER))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
    except OSError:
        return serves_the_name(path)
    finally:
        os.close(descriptor)


def serves_the_name(path: str) -> bool:
    """Return whether a server runs that was started on this path, even if another file is there now."""
    return is_taken(path)


def why_not_usable(path: str, suffixes: tuple[str, ...] = ("", "-wal", "-shm", "-lock", "-reserve")) -> str:
    """Return which of a journal's files, or its folder, this user may not write, and whose it is; "" if none."""
    for name in (f"{path}{suffix}" for suffix in suffixes):
        if os.path.isfile(name) and not os.access(name, os.R_OK | os.W_OK):
            return f"Permission denied: {name} is {_owner(name)}'s, and {my_name()} may not write it"
    folder = os.path.dirname(path) or "."
    if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
        return f"Permission denied: {my_name()} may not make files in {folder}, which is {_owner(folder)}'s"
    return ""


_FLOCK = "hhqqi0q"  # struct flock: type, whence, start, length, process (0 for such locks)


def _lock(kind: int, span: _Range) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, *span, 0)


def _set(descriptor: int, kind: int, span: _Range) -> bool:
    """Set a lock; return whether there are such locks here. Raises BlockingIOError if it is taken."""
    if not HAS_FILE_LOCKS:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(kind, span))
    except OSError as error:
        if error.errno in _LOCKED:
            raise BlockingIOError from None
        return False
    return True


def _in_use(path: str) -> str:
    return f"the journal {path} is in use by another server"


def _make_private(path: str) -> bool:
    """Make the file if there is none. Return whether it was made.

    It holds all that was ever said, and who writes it can let himself in. A file that is there keeps its mode.
    """
    with suppress(OSError):  # SQLite reports what is wrong
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE))
        return True
    return False


def _owner(path: str) -> str:
    return user_name(os.stat(path).st_uid)
