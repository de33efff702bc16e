"""The folder of closed partitions on a disk whose power is cut."""

import errno
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.journal.sqlite.power_cut import FailingPower, PowerCut
from twincast.journal.sqlite.history import files


class HistoryDisk:
    """What of the folder of partitions is on the platters: content that was synced, names as of the last sync."""

    def __init__(self, folder: str, power: FailingPower, chance: random.Random) -> None:
        self._folder = folder
        self._power = power
        self._chance = chance
        self._synced: dict[int, bytes] = {}
        self._names: dict[str, int] = {}

    def know(self) -> None:
        """Have all that is in the folder on the platters."""
        self._names = self._now()
        for name, number in self._names.items():
            self._synced[number] = Path(self._folder, name).read_bytes()

    def put_in(self, monkeypatch: pytest.MonkeyPatch, *, syncs: bool = True) -> None:
        """Have what this process does to partitions come here from now on; without power it is an OSError.

        Args:
            monkeypatch: has it come here.
            syncs: whether content is synced when that is asked for.
        """
        monkeypatch.setattr(files, "sync", _failing(self.sync) if syncs else lambda path: None)
        monkeypatch.setattr(files, "sync_folder", _failing(self.sync_folder))
        for name in "replace", "unlink":
            monkeypatch.setattr(os, name, _failing(self._spending(getattr(os, name))))

    def sync(self, path: str) -> None:
        """Have the content of a file on the platters."""
        self._power.spend()
        with open(path, "rb") as file:
            self._synced[os.fstat(file.fileno()).st_ino] = file.read()

    def sync_folder(self, path: str) -> None:
        """Have the names in the folder on the platters."""
        self._power.spend()
        if path == self._folder:
            self._names = self._now()

    def restore(self, folder: str) -> None:
        """Write the folder as it may be found after the cut: what was not synced is there or not, whole or torn."""
        now = self._now()
        found = {name: number for name, number in self._names.items() if name in now or self._chance.random() < 0.5}
        found |= {name: number for name, number in now.items() if name in found or self._chance.random() < 0.5}
        if not found and not self._names:
            return
        os.mkdir(folder)
        for name, number in found.items():
            content = self._synced.get(number)
            if content is None:
                path = Path(self._folder, name)
                whole = path.read_bytes() if path.exists() else b""
                content = whole[: self._chance.randrange(len(whole) + 1)]
            Path(folder, name).write_bytes(content)

    def _spending(self, call: Any) -> Any:
        def spent(*arguments: Any, **named: Any) -> Any:
            self._power.spend()
            return call(*arguments, **named)

        return spent

    def _now(self) -> dict[str, int]:
        with suppress(FileNotFoundError):
            return {entry.name: entry.inode() for entry in os.scandir(self._folder)}
        return {}


def _failing(call: Any) -> Any:
    """Return a call that fails as those of the system do."""

    def failing(*arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except PowerCut:
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None

    return failing
