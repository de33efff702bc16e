"""The folder of closed partitions beside a journal: what is in it, what may go, and the open ones among them."""

import hashlib
import itertools
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress

import apsw

from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.history.catalog import Part, has_parts
from twincast.journal.sqlite.history.catalog import parts as parts_of
from twincast.journal.sqlite.history.layout import file_name, folder_of, open_partition
from twincast.journal.sqlite.history.paced import Share
from twincast.machine import sync_folder

OPEN_MAX = 64
"""So many partitions stay open, about 100 KiB each; the one that was not read for longest is closed first."""
_OURS = re.compile(r"\d{12,}(-\d+)?(\.rollup)?\.db|.*\.new(-copy|-scratch)?")
OPEN_END = "open.db"
"""The index of what is not closed, while a server runs."""
FOLDER_MODE = 0o700
FROM_A_BACKUP = "put the file of the same name from a backup in its place"
"""What a person can do about a partition."""
_BLOCK_BYTES = 256 << 10


def path_of(journal: str, part: Part) -> str:
    """Return where a partition's file is."""
    return os.path.join(folder_of(journal), os.path.basename(part.file))  # a catalog may come from elsewhere


def present(journal: str, parts: Iterable[Part]) -> list[Part]:
    """Return those partitions whose files are there. One that is gone is a hole in the log."""
    there: set[str] = set()
    with suppress(OSError), os.scandir(folder_of(journal)) as entries:
        there.update(entry.name for entry in entries if entry.is_file())
    return [part for part in parts if os.path.basename(part.file) in there]


def found(db: apsw.Connection, journal: str) -> list[Part]:
    """Return those partitions whose files are there, by the catalog of a journal of any version, oldest first."""
    return present(journal, parts_of(db)) if has_parts(db) else []


def digest(path: str, *, share: float = 1) -> str:
    """Return a file's SHA-256, in hexadecimal; `share` is how much of a core that takes."""
    seen, pause = hashlib.sha256(), Share(share)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            seen.update(block)
            pause.rest()
    return seen.hexdigest()


def problem_of(path: str, part: Part) -> str | None:
    """Return what is wrong with a partition's file, and what a person is to do; None if nothing is. Reads all of it."""
    try:
        return None if digest(path) == part.sha256 else f"{path} is damaged: {FROM_A_BACKUP}"
    except FileNotFoundError:
        return f"{path} is gone: {FROM_A_BACKUP}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def failing(path: str, part: Part, error: Exception) -> JournalUnavailable:
    """Return what keeps something from being done with a partition, with its file."""
    return JournalUnavailable(problem_of(path, part) or f"{path}: {error}")


def new_file(journal: str, first_seq: int) -> str:
    """Make the folder if there is none yet, and return the path of a partition's file until it is whole."""
    folder = folder_of(journal)
    if not os.path.isdir(folder):
        os.mkdir(folder, FOLDER_MODE)
        sync_folder(os.path.dirname(folder))
    return os.path.join(folder, f"{file_name(first_seq)}.{os.getpid()}.new")


def sync(path: str) -> None:
    """Have a file's content on the disk when this returns."""
    descriptor = os.open(path, os.O_RDWR)  # Windows syncs only files that are open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle(new: str, first_seq: int) -> str:
    """Give a file that is whole and on the disk its name, for good; return that. Only then may the catalog name it."""
    return settle_as(new, file_name(first_seq))


def settle_as(new: str, name: str) -> str:
    """Do what `settle` does, under another name."""
    folder = os.path.dirname(new)
    os.replace(new, os.path.join(folder, name))
    sync_folder(folder)
    return name


def settle_anew(new: str, old: str) -> str:
    """Do what `settle` does, for one that comes in the place of another, under a name that was not used before.

    Args:
        new: the file.
        old: what the other is called.
    """
    folder = os.path.dirname(new)
    stem, _, ending = old.partition(".")
    first, _, number = stem.partition("-")
    name = f"{first}-{int(number or 0) + 1}.{ending}"
    os.replace(new, os.path.join(folder, name))
    sync_folder(folder)
    return name


def name_beside(journal: str, first_seq: int) -> str:
    """Return a name for a partition that takes the place of one that begins at the same entry, and is there still."""
    stem = file_name(first_seq).removesuffix(".db")
    names = (f"{stem}-{number}.db" for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(os.path.join(folder_of(journal), name)))


def remove_unfinished(new: str) -> None:
    """Remove what is left of a file that was not settled, and what it was made of."""
    for name in (new, f"{new}-copy", f"{new}-scratch"):
        with suppress(OSError):
            os.unlink(name)


def remove_unnamed(journal: str, parts: Sequence[Part]) -> list[str]:
    """Remove what a crash has left: files that the catalog does not name yet, or does not name any more.

    The log has what is in them, or was to lose it. Files of other forms of name are left alone.
    """
    folder, named = folder_of(journal), {part.file for part in parts}
    removed = []
    with suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if _OURS.fullmatch(name) and name not in named:
                os.unlink(os.path.join(folder, name))
                removed.append(name)
    return removed


def remove_open_end(journal: str) -> None:
    """Remove what a server that ended uncleanly has left of its index: it is made anew."""
    with suppress(OSError):
        os.unlink(os.path.join(folder_of(journal), OPEN_END))


def unlink(journal: str, parts: Iterable[Part]) -> None:
    """Remove the files of partitions that the catalog does not name any more. One that is in use goes at next start."""
    for part in parts:
        with suppress(OSError):
            os.unlink(path_of(journal, part))


class OpenPartitions:
    """Partitions that are open to be read. Only one thread at a time may use them."""

    def __init__(self, journal: str, *, vfs: str | None = None) -> None:
        self._journal = journal
        self._vfs = vfs
        self._open: OrderedDict[tuple[str, str], apsw.Connection] = OrderedDict()

    def get(self, part: Part) -> apsw.Connection:
        """Return the connection of a partition.

        Raises:
            JournalUnavailable: it cannot be opened.
        """
        key = part.file, part.sha256
        db = self._open.pop(key, None)
        if db is None:
            db = open_partition(path_of(self._journal, part), vfs=self._vfs)
            while len(self._open) >= OPEN_MAX:
                self._open.popitem(last=False)[1].close(True)
        self._open[key] = db
        return db

    def keep_only(self, parts: Iterable[Part]) -> None:
        """Close those that are no longer part of the log."""
        kept = {(part.file, part.sha256) for part in parts}
        for key in self._open.keys() - kept:
            self._open.pop(key).close(True)

    def close(self) -> None:
        """Close all."""
        self.keep_only(())
