"""A disk whose power can be cut: what was not synced is lost, wholly or in part, in any order."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

SECTOR_BYTES = 512


class PowerCut(apsw.IOError):
    """Raised into SQLite by every call after the cut."""


class _Disk:
    """What the platters hold, and what is still on its way to them, for each file."""

    def __init__(self, chance: random.Random, calls_left: int) -> None:
        self._chance = chance
        self.calls_left = calls_left
        self.synced: dict[str, bytearray] = {}
        self.unsynced: dict[str, list[tuple[int, bytes | None]]] = {}

    def spend(self) -> None:
        """Count one call that changes the disk; the last one that it has power for never happens."""
        self.calls_left -= 1
        if self.calls_left < 0:
            raise PowerCut

    def sync(self, name: str) -> None:
        for change in self.unsynced.pop(name, ()):
            _apply(self.synced.setdefault(name, bytearray()), change)

    def after_the_cut(self, name: str) -> bytes:
        """Return a file as it may be found: synced content, and of the rest any sectors that happened to make it."""
        content = bytearray(self.synced.get(name, b""))
        for offset, data in self.unsynced.get(name, ()):
            if data is None:
                if self._chance.random() < 0.5:
                    _apply(content, (offset, None))
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if self._chance.random() < 0.5:
                    _apply(content, (offset + start, data[start : start + SECTOR_BYTES]))
        return bytes(content)


def _apply(content: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class _File(apsw.VFSFile):
    def __init__(self, disk: _Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "").name

    def xWrite(self, data: Any, offset: int) -> None:  # SQLite's names
        self._disk.spend()
        self._disk.unsynced.setdefault(self._name, []).append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.spend()
        self._disk.unsynced.setdefault(self._name, []).append((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._disk.spend()
        super().xSync(flags)
        self._disk.sync(self._name)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, disk: _Disk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._disk.synced.pop(Path(filename).name, None)
        self._disk.unsynced.pop(Path(filename).name, None)


class FailingPower:
    """Handed out by `failing_power`: the VFS to open files with, and the disk as it is found afterwards."""

    def __init__(self, vfs: str, disk: _Disk) -> None:
        self.vfs = vfs
        self._disk = disk

    def spend(self) -> None:
        """Count a call to another part of the disk. Raises PowerCut when there is no power."""
        self._disk.spend()

    def cut_after(self, calls: int) -> None:
        """Have power for so many calls from now on."""
        self._disk.calls_left = calls

    @property
    def calls_left(self) -> int:
        """For how many calls there is power; negative once one had none."""
        return self._disk.calls_left

    def know(self, path: Path) -> None:
        """Have a file that is there on the disk already."""
        self._disk.synced[path.name] = bytearray(path.read_bytes())

    def restore(self, directory: Path) -> None:
        """Write every file as it may be found after the cut into a directory; temporary ones have no name."""
        for name in {*self._disk.synced, *self._disk.unsynced} - {""}:
            (directory / name).write_bytes(self._disk.after_the_cut(name))


@contextmanager
def failing_power(seed: int, calls: int) -> Iterator[FailingPower]:
    """Give a disk that takes so many writes, truncations and syncs, and then nothing more."""
    disk = _Disk(random.Random(seed), calls)
    vfs = _Vfs(f"power-cut-{seed}", disk)
    try:
        yield FailingPower(f"power-cut-{seed}", disk)
    finally:
        vfs.unregister()
