"""Closed partitions on their way into a backup. None ever changes: one that the backup has stays, others are linked.

A link costs no room, and is the same file under a second name, which only removing both frees. It is made where the
backup is on the file system of the journal; elsewhere, and where the system refuses it, the file is copied.
"""

import errno
import hashlib
import itertools
import os
from collections.abc import Callable
from contextlib import suppress

import apsw

from twincast.errors import BackupUnusable
from twincast.journal.sqlite.backup_manifest import BackupFile, Lost, check_file, check_length, is_file
from twincast.journal.sqlite.health import reading
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.catalog import Part, has_parts
from twincast.journal.sqlite.history.files import FOLDER_MODE, path_of
from twincast.journal.sqlite.history.layout import folder_of
from twincast.machine import OWNER_ALONE, sync_folder

NOT_WHOLE = "the journal is not whole, so a copy would be no backup"
_BLOCK_BYTES = 1024 * 1024
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
"""Another file system, one without links, a file of somebody else: then a copy does."""

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


class Rewritten(Exception):
    """A partition was replaced while the journal was copied, whose catalog names the one before."""


class _NotTaken(Exception):
    """A partition is not there, or is not what it was."""

    def __init__(self, *, is_changed: bool) -> None:
        super().__init__()
        self.is_changed = is_changed


def take_parts(target: apsw.Connection, journal: str, copy: str, progress: Progress) -> list[Lost]:
    """Have the partitions beside a copied journal that its catalog names, each as its digest says, on the disk.

    Those that the journal dropped meanwhile, the oldest, go from the catalog. One that it still names, and whose file
    is gone or changed, is lost: the others are taken, and the catalog goes on naming it. A file that is there under
    the name of one, and is another, stays: the catalog gets a new name.

    Args:
        target: the copied journal.
        journal: whose copy it is.
        copy: the journal's name in the backup, beside which the partitions are.
        progress: called with how many bytes of all partitions are taken.

    Returns:
        What is lost.

    Raises:
        Rewritten: one was replaced; the copy is to be made anew.
        OSError: a disk does not give or take it.
    """
    parts = catalog.parts(target) if has_parts(target) else []
    lost: list[Lost] = []
    if not parts:
        return lost
    os.makedirs(folder_of(copy), FOLDER_MODE, exist_ok=True)
    done, total = 0, sum(part.bytes for part in parts)
    for number, part in enumerate(parts):
        try:
            taken = _taken(part, journal, copy, behind(done, total, progress))
            if taken != part.file:
                target.execute("update part set file = ? where first_seq = ?", (taken, part.first_seq))
        except _NotTaken as error:
            if _is_still_named(journal, part):
                is_of_sums = part.kind == catalog.ROLLUP
                lost.append(Lost(part.file, part.first_seq, part.last_seq, error.is_changed, is_of_sums))
            else:
                dropped = [each for each in parts[: number + 1] if _go_together(each, part)]
                catalog.remove(target, dropped)
                names = {each.file for each in dropped}
                lost = [each for each in lost if each.file not in names]
        done += part.bytes
        progress(done, total)
    sync_folder(folder_of(copy))
    sync_folder(os.path.dirname(copy))
    return lost


def copy_checked(source: str, copy: str, file: BackupFile, progress: Callable[[int], None]) -> None:
    """Copy a file to the disk, and check it on the way.

    Raises:
        BackupUnusable: it is not what was written, or cannot be read.
        OSError: a disk does not give or take it.
    """
    check_length(source, file)
    seen = hashlib.sha256()
    done = 0
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
    with open(source, "rb") as reader, open(descriptor, "wb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            seen.update(block)
            writer.write(block)
            done += len(block)
            progress(done)
        writer.flush()
        os.fsync(writer.fileno())
    if seen.hexdigest() != file.sha256:
        raise BackupUnusable(f"{source} was changed since it was written: its SHA-256 is not that of the manifest")


def _taken(part: Part, journal: str, copy: str, progress: Callable[[int], None]) -> str:
    """Return under which name a partition is in the backup now.

    Raises:
        _NotTaken: the journal does not have it as it was.
    """
    file = BackupFile(part.file, part.bytes, part.sha256)
    for name in _names(part):
        path = os.path.join(folder_of(copy), name)
        if is_file(path, file):
            return name
        if not os.path.lexists(path):
            break
    source = path_of(journal, part)
    try:
        _link_or_copy(source, path, file, progress)
        check_file(path, file)
    except FileNotFoundError:
        raise _NotTaken(is_changed=False) from None
    except BackupUnusable:
        with suppress(FileNotFoundError):
            os.unlink(path)
        raise _NotTaken(is_changed=os.path.exists(source)) from None
    return name


def _names(part: Part) -> "itertools.chain[str]":
    """Return the name of a partition, and those that it gets where another file has that."""
    stem, kind = part.file.partition(".")[::2]
    first = stem.partition("-")[0]
    others = (f"{first}-{number}.{kind}" for number in itertools.count(1))
    return itertools.chain([part.file], (name for name in others if name != part.file))


def _link_or_copy(source: str, path: str, file: BackupFile, progress: Callable[[int], None]) -> None:
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        copy_checked(source, path, file, progress)


def _is_still_named(journal: str, part: Part) -> bool:
    """Return whether a journal names a partition by now as before; it first drops one, then removes the file.

    Raises:
        Rewritten: it has what the partition had in another file.
    """
    with reading(journal) as db:
        named = [now for now in catalog.parts(db) if now.first_seq <= part.last_seq and now.last_seq >= part.first_seq]
    if any((now.file, now.sha256) != (part.file, part.sha256) for now in named):
        raise Rewritten
    return bool(named)


def _go_together(before: Part, gone: Part) -> bool:
    """Return whether one has gone if another one, of the same age or newer, has; what is left of some stays longer."""
    return (before.kind == catalog.ROLLUP) == (gone.kind == catalog.ROLLUP)


def behind(done: int, total: int, progress: Progress) -> Callable[[int], None]:
    """Return what is called with how much is done of one file behind others."""
    return lambda read: progress(done + read, total)
