"""What a backup consists of: its manifest, which is written last, by a rename, and names each file with its SHA-256."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from twincast.errors import BackupUnusable
from twincast.journal.sqlite.history.files import digest
from twincast.journal.sqlite.schema import SCHEMA_VERSION
from twincast.machine import OWNER_ALONE, sync_folder

MANIFEST, JOURNAL = "manifest.json", "journal.db"
NEW = ".new"
"""Behind the name of a file that takes another one's place once the manifest names it."""
FORMAT: Literal[1] = 1
_PARTITION = re.compile(re.escape(JOURNAL) + r"-history/\d{12,}(-\d+)?(\.[a-z]+)?\.db")


class BackupFile(Struct):
    """One file of a backup."""

    name: str
    bytes: int
    sha256: str


class Lost(Struct):
    """A closed partition that a backup lacks, since its journal had lost it: its file was gone, or was changed."""

    file: str
    first_seq: int
    last_seq: int
    is_changed: bool
    is_of_sums: bool
    """Whether it is what was left of one that is kept no longer."""

    def __str__(self) -> str:
        what = "the sums of the entries" if self.is_of_sums else "the entries"
        why = "was changed since it was closed" if self.is_changed else "is gone"
        return f"{self.file} {why}: the log lacks {what} from {self.first_seq:,} to {self.last_seq:,}"


class Manifest(Struct, omit_defaults=True):
    """What a backup contains. A folder without a manifest is no backup, or an unfinished one."""

    twincast_backup: Literal[1]
    version: str
    """Of the twincast that wrote it."""
    schema: int
    epoch: str
    """Of the run that wrote the newest entry."""
    seq: int
    """The newest entry."""
    at_utc: str
    files: list[BackupFile]
    lost: list[Lost] = []
    """What the journal's catalog names, and is in no file any more."""


def no_folder(place: str) -> BackupUnusable:
    """Return what is said of a file where a folder must be."""
    return BackupUnusable(f"{place} is a file; a backup is a folder, such as `twincast journal backup` makes")


def read_manifest(folder: str) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        BackupUnusable: the folder is no backup, an unfinished one, or one of a newer twincast.
    """
    try:
        text = Path(folder, MANIFEST).read_bytes()
    except NotADirectoryError:
        raise no_folder(folder) from None
    except OSError as error:
        raise BackupUnusable(
            f"{folder} is no backup, or was not finished: its {MANIFEST} cannot be read: {error.strerror}"
        ) from None
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BackupUnusable(f"{folder} is no backup that this twincast reads: {MANIFEST}: {error}") from None
    if manifest.schema > SCHEMA_VERSION:
        raise BackupUnusable(
            f"{folder} is a backup of a journal of version {manifest.schema}, written by a newer twincast"
            f" ({manifest.version}); this one reads version {SCHEMA_VERSION}"
        )
    names = [file.name for file in manifest.files]
    if names[:1] != [JOURNAL] or not all(map(_PARTITION.fullmatch, names[1:])):
        raise BackupUnusable(
            f"{folder} is no backup that this twincast reads: it has other files than {JOURNAL} and its partitions"
        )
    return manifest


def write_last(folder: str, manifest: Manifest) -> None:
    """Make a folder, whose files are on the disk, the backup that a manifest says. From then on it is that one.

    The journal's own file may still have the name with NEW; `journal_of` finds it.

    Raises:
        OSError: the disk does not take it; what was a backup before still is.
    """
    text = msgspec.json.format(msgspec.json.encode(manifest))
    unfinished = os.path.join(folder, MANIFEST + NEW)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "wb") as file:
        file.write(text + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    os.replace(unfinished, os.path.join(folder, MANIFEST))
    sync_folder(folder)


def files_of(folder: str, manifest: Manifest) -> Iterator[tuple[BackupFile, str]]:
    """Yield the files of a backup, its journal first, each with its path."""
    yield manifest.files[0], journal_of(folder, manifest)
    for file in manifest.files[1:]:
        yield file, os.path.join(folder, file.name)


def journal_of(folder: str, manifest: Manifest) -> str:
    """Return where the journal of a backup is: under its name, or, if making it was cut short at the end, beside it."""
    path, file = os.path.join(folder, JOURNAL), manifest.files[0]
    return path + NEW if is_file(path + NEW, file) and not is_file(path, file) else path


def is_file(path: str, file: BackupFile) -> bool:
    """Return whether what is at a path is the file that a manifest or a catalog says."""
    try:
        return os.path.getsize(path) == file.bytes and digest(path) == file.sha256
    except OSError:
        return False


def check_length(path: str, file: BackupFile) -> None:
    """Check that a file has its length, which costs nothing.

    Raises:
        BackupUnusable: it has not, or cannot be read.
    """
    try:
        found = os.path.getsize(path)
    except OSError as error:
        raise BackupUnusable(f"the backup's file {path} cannot be read: {error.strerror}") from None
    if found != file.bytes:
        raise BackupUnusable(f"{path} is torn: it has {found:,} bytes, and the manifest says {file.bytes:,}")


def check_file(path: str, file: BackupFile) -> None:
    """Check that a file is what was written.

    Raises:
        BackupUnusable: it is not, or cannot be read.
    """
    check_length(path, file)
    if digest(path) != file.sha256:
        raise BackupUnusable(f"{path} was changed since it was written: its SHA-256 is not that of the manifest")
