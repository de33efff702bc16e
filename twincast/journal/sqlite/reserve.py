"""A little of the disk that is kept for revoking keys: who fills it with a stolen one must not be safe from that.

The file `-reserve` beside the journal takes 64 KiB. On a full disk a change of keys gives them up, while it holds the
right to write, and commits into the room. A server stores nothing while the reserve is not whole, so what is left of
the room is there for the next key too; whoever comes first when there is room again makes it whole.
"""

import errno
import os
from contextlib import suppress

from twincast.errors import JournalUnavailable
from twincast.machine import OWNER_ALONE, free_bytes, give_to_owner_of

RESERVE_BYTES = 64 * 1024
"""A revocation writes some 12 to 25 KB to the -wal, and where no server runs 32 KiB of -shm have to be made for it."""
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota's error


class Reserve:
    """The reserve of one journal."""

    def __init__(self, path: str) -> None:
        """Name the file of the reserve; see `fill`.

        Args:
            path: the journal's file, with links resolved.
        """
        self._path = path
        self._name = f"{path}-reserve"

    @property
    def is_whole(self) -> bool:
        """Whether the reserve has its full size."""
        try:
            return os.stat(self._name).st_size >= RESERVE_BYTES
        except OSError:
            return False

    @property
    def is_needed(self) -> bool:
        """Whether the disk has less room than the reserve would free."""
        with suppress(OSError):
            return free_bytes(self._path) < RESERVE_BYTES
        return False

    def fill(self) -> None:
        """Bring the reserve to its full size. Where a file cannot be kept at all, there is no reserve.

        Raises:
            JournalUnavailable: the disk has no room for all of it. What there is of it stays.
        """
        try:
            descriptor = self._open()
        except OSError as error:
            _raise_if_full(error)
            return
        try:
            with open(descriptor, "r+b", buffering=0) as file:
                size_bytes = file.seek(0, os.SEEK_END)
                while size_bytes < RESERVE_BYTES:  # of bytes that no file system makes smaller
                    size_bytes += file.write(os.urandom(min(4_096, RESERVE_BYTES - size_bytes)))
                os.fsync(descriptor)
        except OSError as error:
            _raise_if_full(error)

    def release(self) -> None:
        """Free the room that the reserve takes."""
        with suppress(OSError):
            os.truncate(self._name, 0)

    def _open(self) -> int:
        try:
            descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
        except FileExistsError:
            return os.open(self._name, os.O_RDWR)
        give_to_owner_of(self._path, descriptor)
        return descriptor


def _raise_if_full(error: OSError) -> None:
    if error.errno in _FULL:
        raise JournalUnavailable(
            "the journal's disk is full; the rest of it is kept for `twincast keys revoke` and `clear`"
        ) from None
