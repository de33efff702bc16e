"""A little of the disk that is kept for revoking keys: who fills it with a stolen one must not be safe from that.

The file `-reserve` beside the journal takes 64 KiB. On a full disk a change of keys gives them up, while it holds the
right to write, and commits into the room. A server stores nothing while the reserve is not whole, so what is left of
the room is there for the next key too; whoever comes first when there is room again makes it whole.
"""

import errno
import os
from contextlib import suppress

from twincast.errors import JournalUnavailable
from twincast.journal.sqlite_lock import give_to_owner

RESERVE_BYTES = 64 * 1024
"""A revocation writes some 12 to 25 KB to the -wal, and where no server runs 32 KiB of -shm have to be made for it."""
_FULL = {errno.ENOSPC, errno.EDQUOT}


class Reserve:
    """The reserve of one journal."""

    def __init__(self, path: str) -> None:
        """Know where it is; see `fill`.

        Args:
            path: the journal's file, with links resolved.
        """
        self._path = path
        self._name = f"{path}-reserve"

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there."""
        try:
            return os.stat(self._name).st_size >= RESERVE_BYTES
        except OSError:
            return False

    @property
    def is_needed(self) -> bool:
        """Whether the disk has less room than this gives."""
        with suppress(OSError):
            disk = os.statvfs(os.path.dirname(self._path))
            return disk.f_bavail * disk.f_frsize < RESERVE_BYTES
        return False

    def fill(self) -> None:
        """Make it whole. Where it cannot be kept for other reasons than room, it is done without.

        Raises:
            JournalUnavailable: the disk has no room for all of it. What there is of it stays.
        """
        try:
            descriptor = self._open()
        except OSError as error:
            _raise_if_full(error)
            return
        try:
            size_bytes = os.fstat(descriptor).st_size
            while size_bytes < RESERVE_BYTES:  # of bytes that no file system makes smaller
                size_bytes += os.pwrite(descriptor, os.urandom(min(4_096, RESERVE_BYTES - size_bytes)), size_bytes)
            os.fsync(descriptor)
        except OSError as error:
            _raise_if_full(error)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give its room up."""
        with suppress(OSError):
            os.truncate(self._name, 0)

    def _open(self) -> int:
        try:
            descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return os.open(self._name, os.O_RDWR | os.O_CLOEXEC)
        give_to_owner(descriptor, self._path)
        return descriptor


def _raise_if_full(error: OSError) -> None:
    if error.errno in _FULL:
        raise JournalUnavailable(
            "the journal's disk is full; the rest of it is kept for `twincast keys revoke` and `clear`"
        ) from None
