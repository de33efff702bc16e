"""A folder on a disk whose power is cut: what was not synced is lost or torn, names of files too."""

import itertools
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest


class PowerCut(Exception):
    """Raised by the call after which there is no power."""


class CutDisk:
    """What of a folder and the folders in it is on the platters, as files of this process are synced, renamed, linked.

    Each of these calls takes of the power; the one for which none is left does not happen, and none after it.
    """

    def __init__(self, folders: Sequence[Path], calls: int, chance: random.Random, *, syncs: bool = True) -> None:
        """Take what is in some folders as being on the platters.

        Args:
            folders: what they have in them, and in folders in them.
            calls: so many calls have power.
            chance: decides what of the rest has made it.
            syncs: whether the disk syncs content when it is told to.
        """
        self._calls, self._chance, self._syncs = calls, chance, syncs
        self._content: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}
        for each in itertools.chain.from_iterable((folder, *folder.rglob("*")) for folder in folders):
            if each.is_dir():
                self._names[each] = _names(each)
            else:
                self._content[each.stat().st_ino] = each.read_bytes()

    def put_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have this process's calls come here from now on."""
        for name in ("replace", "rename", "link", "unlink", "mkdir"):
            monkeypatch.setattr(os, name, self._spending(getattr(os, name)))
        monkeypatch.setattr(os, "fsync", self._spending(self._synced(os.fsync)))

    def restore(self, source: Path, target: Path) -> None:
        """Write a folder as it may be found after the cut. A file that was renamed has its one name or the other."""
        now, before = _names(source), self._names.get(source, {})
        has_happened = {number: self._chance.random() < 0.5 for number in (*before.values(), *now.values())}
        found = {name: number for name, number in before.items() if name in now or not has_happened[number]}
        found |= {name: number for name, number in now.items() if before.get(name) == number or has_happened[number]}
        target.mkdir()
        for name, number in found.items():
            if (source / name).is_dir():
                self.restore(source / name, target / name)
            else:
                (target / name).write_bytes(self._found(source / name, number))

    def _found(self, path: Path, number: int) -> bytes:
        """Return the content of a file: what was synced; else some of what it has now."""
        if (content := self._content.get(number)) is not None:
            return content
        now = path.read_bytes() if path.exists() and path.stat().st_ino == number else b""
        return now[: self._chance.randrange(len(now) + 1)]

    def _spending(self, call: Any) -> Any:
        def spent(*arguments: Any, **named: Any) -> Any:
            self._calls -= 1
            if self._calls < 0:
                raise PowerCut
            return call(*arguments, **named)

        return spent

    def _synced(self, fsync: Any) -> Any:
        def synced(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_dir():
                self._names[path] = _names(path)
            elif self._syncs:
                self._content[path.stat().st_ino] = path.read_bytes()

        return synced


def _names(folder: Path) -> dict[str, int]:
    with suppress(FileNotFoundError):
        return {entry.name: entry.inode() for entry in os.scandir(folder)}
    return {}
