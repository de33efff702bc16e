"""Checks that a journal's files are still those that were opened: a restart would not find what goes to others."""

import os
import struct
from typing import NamedTuple

from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.lock import HAS_FILE_LOCKS

_MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">16s H 10x I")
"""The database's header: magic, bytes a page, pages. https://www.sqlite.org/fileformat2.html#the_database_header"""
_WAL_INDEX = struct.Struct("=14x H I")
"""The -shm's header, in the machine's byte order: bytes a page, frames. https://www.sqlite.org/walformat.html"""
_WAL_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_LARGEST_PAGE = 1  # how both headers write 65,536


class _File(NamedTuple):
    name: str
    device: int
    inode: int


class _Held:
    """A file that is kept open, even if its name leads to another one now."""

    def __init__(self, name: str) -> None:
        self._descriptor: int | None = os.open(name, os.O_RDONLY)

    def head(self, size_bytes: int) -> bytes:
        """Return the first bytes of the file."""
        assert self._descriptor is not None
        return os.pread(self._descriptor, size_bytes, 0)

    @property
    def has_name(self) -> bool:
        """Whether the file still has a name."""
        assert self._descriptor is not None
        return os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Named:
    """The same on Windows, where a file keeps its name while SQLite has it open, and while it is open here, too."""

    def __init__(self, name: str) -> None:
        self._name = name

    def head(self, size_bytes: int) -> bytes:
        """See _Held."""
        with open(self._name, "rb", buffering=0) as file:
            return file.read(size_bytes)

    @property
    def has_name(self) -> bool:
        """See _Held."""
        return os.path.exists(self._name)

    def close(self) -> None:
        """See _Held."""


class Guard:
    """Knows the files behind an open journal: the database, its -wal and its -shm.

    SQLite goes on writing to a file that was removed, renamed or replaced under it, and nobody is told. A look costs
    some microseconds, so there is one before each commit.
    """

    def __init__(self, given_path: str, path: str) -> None:
        """Remember the files that are open now.

        Args:
            given_path: what the user called the file; a link that later leads elsewhere leads to another journal.
            path: the same with links resolved, by which -wal and -shm are called.

        Raises:
            OSError: one of them is not there.
        """
        names = [os.path.abspath(given_path), f"{path}-wal", f"{path}-shm"]
        if not HAS_FILE_LOCKS:
            names.append(f"{path}-lock")  # without it a second server would be let in
        found = [os.stat(name) for name in names]
        self._files = [_File(name, each.st_dev, each.st_ino) for name, each in zip(names, found, strict=True)]
        self._database_bytes = found[0].st_size
        self._cut = ""
        kind = _Held if hasattr(os, "pread") else _Named
        self._database, self._shm = kind(names[0]), kind(names[2])

    def check(self) -> None:
        """Return if what is written now will be found after a restart.

        Raises:
            JournalUnavailable: it would not; the message says what happened, and what to do.
        """
        try:
            wal_bytes = self._wal_bytes()  # before the look: another thread may be appending
            database, wal, *_ = [self._look(file) for file in self._files]
            if not self._cut and database.st_size < self._database_bytes and self._is_database_cut(database.st_size):
                self._cut = self._files[0].name  # for good: a checkpoint makes it long again, but not whole
            if not self._cut and wal.st_size < wal_bytes == self._wal_bytes():
                self._cut = self._files[1].name
            if self._cut:
                raise _lost(self._cut, "was cut short")
        except OSError as error:
            raise JournalUnavailable(f"the journal cannot use its disk: {error.strerror}") from None
        self._database_bytes = database.st_size

    def owns_what_is_beside(self) -> bool:
        """Whether -wal and -shm are those that were opened, so that they may be removed by their names."""
        try:
            return all(_is_same(file, os.stat(file.name)) for file in self._files[1:])
        except OSError:
            return False

    def has_only_moved(self) -> bool:
        """Whether the database that was opened still has a name, though another one."""
        return self._database.has_name

    def close(self) -> None:
        """Close the files. No connection of this process may be open: closing a descriptor drops SQLite's own locks."""
        self._database.close()
        self._shm.close()

    def _look(self, file: _File) -> os.stat_result:
        try:
            found = os.stat(file.name)
        except FileNotFoundError:
            raise _lost(file.name, "was removed or renamed") from None
        if not _is_same(file, found):
            raise _lost(file.name, "was replaced by another file")
        return found

    def _is_database_cut(self, size_bytes: int) -> bool:
        """Whether a file that is shorter than before lacks pages that its header counts; a VACUUM shortens it too."""
        header = self._database.head(_HEADER.size)
        if len(header) < _HEADER.size:
            return True
        magic, page_bytes, pages = _HEADER.unpack(header)
        return bool(magic != _MAGIC or size_bytes < pages * _page_bytes(page_bytes))

    def _wal_bytes(self) -> int:
        """Return how long the -wal is at least, by what the -shm tells: it is written last, and first when emptied."""
        header = self._shm.head(_WAL_INDEX.size)
        if len(header) < _WAL_INDEX.size:
            return 0  # it is cut itself, which SQLite does not survive: the process ends at its next look into it
        page_bytes, frames = map(int, _WAL_INDEX.unpack(header))
        return _WAL_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + _page_bytes(page_bytes)) if frames else 0


def _is_same(file: _File, found: os.stat_result) -> bool:
    return found.st_ino == file.inode and found.st_dev == file.device


def _page_bytes(written: int) -> int:
    return 65_536 if written == _LARGEST_PAGE else written


def _lost(name: str, what: str) -> JournalUnavailable:
    return JournalUnavailable(
        f"{name} {what} while the server ran, so nothing more is stored or promised. What was acknowledged is in the"
        " files that were opened: put them back, or stop the server and see to the journal (`twincast journal check`)"
        " before you start it again"
    )
