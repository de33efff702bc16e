"""A disk whose power can be cut under whole programs: a file system in memory that forgets what was not synced.

FUSE brings each call of a program here. A sync of a file makes durable its content, and all names so far, as the
journal of ext4 does. `python -m tests.journal.jetstream.forgetful_disk FOLDER` serves it there until it is unmounted.
"""

import errno
import os
import stat
import sys
import time
from itertools import count
from typing import Any

import mfusepy

FORGET = "user.forget"
"""Setting this attribute of the root cuts the power."""
OF_O_SYNC = os.O_SYNC | os.O_DSYNC


class _Node:
    """A file or a folder: what is on its way to the platters, and what they hold."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.changed_s = time.time()
        self.data = bytearray()
        self._synced = bytearray()
        self._unsynced: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, data: bytes) -> None:
        _apply(self.data, offset, data)
        self._unsynced.append((offset, data))
        self.changed_s = time.time()

    def truncate(self, length: int) -> None:
        _apply(self.data, length, None)
        self._unsynced.append((length, None))
        self.changed_s = time.time()

    def sync(self) -> None:
        for change in self._unsynced:
            _apply(self._synced, *change)
        self._unsynced.clear()

    def forget(self) -> None:
        self._unsynced.clear()
        self.data = bytearray(self._synced)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class ForgetfulDisk:
    """The calls that FUSE brings; names as in its interface. It calls one at a time."""

    def __init__(self) -> None:
        self._nodes = {"/": _Node(stat.S_IFDIR | 0o755)}
        self._durable = dict(self._nodes)
        self._open: dict[int, tuple[_Node, bool]] = {}
        self._handles = count(1)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        node = self._open[fh][0] if fh in self._open else self._at(path)
        at = int(node.changed_s * 1e9)
        links = 2 if stat.S_ISDIR(node.mode) else 1
        size = {"st_mode": node.mode, "st_nlink": links, "st_size": len(node.data), "st_blocks": len(node.data) // 512}
        return {**size, "st_uid": os.getuid(), "st_gid": os.getgid(), "st_mtime": at, "st_ctime": at, "st_atime": at}

    def readdir(self, path: str, _fh: int) -> list[str]:
        inside = [name for name in self._nodes if name != "/" and os.path.dirname(name) == path]
        return [".", "..", *map(os.path.basename, inside)]

    def mkdir(self, path: str, mode: int) -> int:
        self._nodes[path] = _Node(stat.S_IFDIR | mode)
        return 0

    def rmdir(self, path: str) -> int:
        if len(self.readdir(path, 0)) > 2:
            raise OSError(errno.ENOTEMPTY, "")
        return self.unlink(path)

    def unlink(self, path: str) -> int:
        self._at(path)
        del self._nodes[path]
        return 0

    def rename(self, old: str, new: str) -> int:
        self._at(old)
        moved = {name: node for name, node in self._nodes.items() if name == old or name.startswith(f"{old}/")}
        for name, node in moved.items():
            del self._nodes[name]
            self._nodes[new + name.removeprefix(old)] = node
        return 0

    def create(self, path: str, mode: int, flags: int) -> int:
        self._nodes[path] = _Node(stat.S_IFREG | mode)
        return self.open(path, flags)

    def open(self, path: str, flags: int) -> int:
        fh = next(self._handles)
        self._open[fh] = self._at(path), bool(flags & OF_O_SYNC)
        return fh

    def release(self, _path: str, fh: int) -> int:
        del self._open[fh]
        return 0

    def read(self, _path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self._open[fh][0].data[offset : offset + size])

    def write(self, _path: str, data: bytes, offset: int, fh: int) -> int:
        node, is_synced = self._open[fh]
        node.write(offset, data)
        if is_synced:
            self._sync(node)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        (self._open[fh][0] if fh in self._open else self._at(path)).truncate(length)
        return 0

    def fsync(self, _path: str, _datasync: int, fh: int) -> int:
        self._sync(self._open[fh][0])
        return 0

    def fsyncdir(self, _path: str, _datasync: int, _fh: int) -> int:
        self._durable = dict(self._nodes)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        node = self._at(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, _uid: int, _gid: int) -> int:
        self._at(path)
        return 0

    def utimens(self, path: str, _times: object = None) -> int:
        self._at(path).changed_s = time.time()
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 20, "f_bfree": 1 << 20, "f_bavail": 1 << 20}

    def setxattr(self, _path: str, name: str, _value: bytes, _options: int, _position: int = 0) -> int:
        if name != FORGET:
            raise OSError(errno.ENOTSUP, "")
        self._nodes = dict(self._durable)
        for node in self._nodes.values():
            node.forget()
        return 0

    def _sync(self, node: _Node) -> None:
        node.sync()
        self._durable = dict(self._nodes)

    def _at(self, path: str) -> _Node:
        try:
            return self._nodes[path]
        except KeyError:
            raise OSError(errno.ENOENT, "") from None


def _serve(folder: str) -> None:
    operations = type("Operations", (ForgetfulDisk, mfusepy.Operations), {"use_ns": True})()
    mfusepy.FUSE(
        operations, folder, foreground=True, nothreads=True, direct_io=True, hard_remove=True,
        attr_timeout=0, entry_timeout=0, negative_timeout=0,
    )  # fmt: skip  # no page of the kernel's remembers what was forgotten


if __name__ == "__main__":
    _serve(sys.argv[1])
