"""A disk that is full for a while: writes that make a file longer fail, as all others of the -wal do."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

_numbers = itertools.count()


class FullDisk:
    """Handed out by `full_disk`: the VFS to open files with, and whether there is room."""

    def __init__(self, vfs: str) -> None:
        self.vfs = vfs
        self.is_full = False


class _File(apsw.VFSFile):
    def __init__(self, disk: FullDisk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xWrite(self, data: Any, offset: int) -> None:  # SQLite's name
        if self._disk.is_full:
            raise apsw.FullError
        super().xWrite(data, offset)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, disk: FullDisk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


@contextmanager
def full_disk() -> Iterator[FullDisk]:
    """Give a disk with room, until `is_full` is set."""
    disk = FullDisk(f"full-disk-{next(_numbers)}")
    vfs = _Vfs(disk.vfs, disk)
    try:
        yield disk
    finally:
        vfs.unregister()
