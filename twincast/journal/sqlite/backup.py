"""Backups: a journal is copied into a folder while its server runs, and restored from there while none does.

A folder is a backup once it has a manifest, which is written last, by a rename. The manifest names each file with its
length and SHA-256, so that a torn, changed or foreign file is found before anything is restored. Closed partitions lie
beside the journal as they do where it is served.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

import apsw
import msgspec
from msgspec import Struct

from twincast.errors import BackupUnusable, JournalUnavailable, JournalUnusable
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.health import Facts, facts_of, problems_of, reading, refuse_others
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.catalog import has_parts
from twincast.journal.sqlite.history.files import FOLDER_MODE, digest, path_of
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.merge import bring_back
from twincast.journal.sqlite.lock import ServerLock, serves_the_file, serves_the_name
from twincast.journal.sqlite.schema import SCHEMA_VERSION
from twincast.journal.sqlite.wal import alone
from twincast.machine import OWNER_ALONE, sync_folder

MANIFEST, JOURNAL = "manifest.json", "journal.db"
FORMAT: Literal[1] = 1
_PARTITION = re.compile(re.escape(JOURNAL) + r"-history/\d{12,}(-\d+)?\.db")
_WRITING = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
_STEP_PAGES = 1_000
_NOT_WHOLE = "the journal is not whole, so a copy would be no backup"
_BLOCK_BYTES = 1024 * 1024

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


class BackupFile(Struct):
    """One file of a backup."""

    name: str
    bytes: int
    sha256: str


class Manifest(Struct):
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


def back_up(path: str, folder: str, *, version: str, now_utc: str, progress: Progress) -> Manifest:
    """Copy a journal, as of one moment, into a new or empty folder, and check the copy. The server goes on meanwhile.

    Raises:
        BackupUnusable: the folder is not empty or cannot be written, or its disk is full; it is left as it was.
        JournalUnusable: the journal cannot be read, or is not whole.
    """
    with _new_folder(folder), reading(path) as source:
        copy = os.path.join(folder, JOURNAL)
        facts = copy_journal(source, copy, progress)
        files = [BackupFile(JOURNAL, os.path.getsize(copy), digest(copy)), *_backed_up(copy)]
        manifest = Manifest(FORMAT, version, facts.schema, facts.epoch, facts.newest_seq, now_utc, files)
        _write_last(folder, msgspec.json.format(msgspec.json.encode(manifest)))
        return manifest


def read_manifest(folder: str) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        BackupUnusable: the folder is no backup, an unfinished one, or one of a newer twincast.
    """
    try:
        text = Path(folder, MANIFEST).read_bytes()
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


def check_backup(folder: str) -> Manifest:
    """Check that the files of a backup are those that were written, and that its journal is whole.

    Raises:
        BackupUnusable: they are not; the message says why.
    """
    manifest = read_manifest(folder)
    for file in manifest.files:
        _check_file(os.path.join(folder, file.name), file)
    _check_journal(os.path.join(folder, JOURNAL), manifest)
    return manifest


def restore(folder: str, path: str, *, force: bool, now_utc: str, progress: Progress) -> tuple[Manifest, Sequence[str]]:
    """Restore the journal of a backup to a path, after it was copied and checked.

    Args:
        folder: the backup.
        path: where the journal is to be.
        force: put an existing journal aside, under another name beside it.
        now_utc: the time, for that name.
        progress: called with how much is copied.

    Returns:
        What was restored, and the files that were put aside.

    Raises:
        BackupUnusable: it is torn, changed or foreign; or a journal is in its place, or a server runs on that.
        JournalUnusable: the place cannot be written.
    """
    manifest = read_manifest(folder)
    path = os.path.realpath(path)
    _refuse_served(path)
    there = _files_there(path)
    if there and not force:
        raise BackupUnusable(f"there is a journal already: {there[0]}. --force puts it aside, under another name")
    copy = f"{path}-restoring"
    with _removed_on_failure(copy), _said_of(os.path.dirname(path)):
        _copy_checked(os.path.join(folder, JOURNAL), copy, manifest.files[0], progress)
        if manifest.files[1:]:
            os.mkdir(folder_of(copy), FOLDER_MODE)
        for file in manifest.files[1:]:
            name = os.path.join(folder_of(copy), os.path.basename(file.name))
            _copy_checked(os.path.join(folder, file.name), name, file, progress)
        _check_journal(copy, manifest)
        return manifest, _put_in_place(copy, path, force=force, now_utc=now_utc)


def copy_journal(source: apsw.Connection, copy: str, progress: Progress, *, is_whole: bool = False) -> Facts:
    """Copy an open journal, as it is in the transaction that reads it, into a new file, and check that.

    Args:
        source: the journal.
        copy: the new file.
        progress: called with how much is copied.
        is_whole: have all of the log in that file, as if nothing of it were closed; otherwise its partitions are copied
            beside it.

    Raises:
        JournalUnusable: it is not whole.
        BackupUnusable: the copy cannot be written.
    """
    try:
        with _said_of(os.path.dirname(copy)):
            return _copy(source, copy, progress, is_whole=is_whole)
    except apsw.CorruptError as error:
        raise JournalUnusable(f"{_NOT_WHOLE}: {in_words(error)}") from None


def copied(path: str) -> BinaryIO:
    """Return a journal as of one moment, checked, as an open file that is gone once it is closed; with all of its log.

    Raises:
        JournalUnavailable: the disk does not take it, or the journal cannot be read or is not whole.
    """
    folder = ""
    try:
        folder = tempfile.mkdtemp(prefix=f"{os.path.basename(path)}-copy-", dir=os.path.dirname(os.path.realpath(path)))
        copy = os.path.join(folder, JOURNAL)
        with reading(path) as source:
            copy_journal(source, copy, lambda done, total: None, is_whole=True)
        return open(copy, "rb")
    except (OSError, BackupUnusable, JournalUnusable) as error:
        raise JournalUnavailable(f"the journal cannot be copied: {error}") from None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(source: apsw.Connection, copy: str, progress: Progress, *, is_whole: bool) -> Facts:
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE))
    with closing(apsw.Connection(copy, flags=_WRITING)) as target:
        # Within the source's transaction: later commits neither enter the copy nor restart it.
        with target.backup("main", source, "main") as work:
            while not work.done:
                work.step(_STEP_PAGES)
                progress(work.page_count - work.remaining, work.page_count)
        target.pragma("journal_mode", "delete")  # it stands alone, and can be read where nothing can be written
        journal = source.db_filename("main")
        if is_whole:
            bring_back(target, journal)
        else:
            _copy_partitions(target, journal, copy, progress)
        if found := problems_of(target, copy):
            raise JournalUnusable(f"{_NOT_WHOLE}: {'; '.join(found)}")
        facts = facts_of(target, copy)
    _sync(copy)
    return facts


def _copy_partitions(target: apsw.Connection, journal: str, copy: str, progress: Progress) -> None:
    """Copy the partitions that a copied catalog names. Those that went meanwhile, the oldest, go from it."""
    parts = catalog.parts(target)
    if parts:
        os.mkdir(folder_of(copy), FOLDER_MODE)
    for number, part in enumerate(parts):
        file = BackupFile(part.file, part.bytes, part.sha256)
        try:
            _copy_checked(path_of(journal, part), path_of(copy, part), file, progress)
        except BackupUnusable as error:
            if os.path.exists(path_of(journal, part)):
                raise JournalUnusable(f"{_NOT_WHOLE}: {error}") from None
            for before in parts[:number]:
                os.unlink(path_of(copy, before))
            catalog.remove_up_to(target, part.last_seq)
    if parts:
        sync_folder(folder_of(copy))
        sync_folder(os.path.dirname(copy))


def _backed_up(copy: str) -> Iterator[BackupFile]:
    """Return the partitions of a backup's journal, as its manifest names them."""
    with closing(alone(copy)) as db:
        for part in catalog.parts(db) if has_parts(db) else ():
            yield BackupFile(f"{JOURNAL}-history/{part.file}", part.bytes, part.sha256)


def _copy_checked(source: str, copy: str, file: BackupFile, progress: Progress) -> None:
    _check_length(source, file)
    seen = hashlib.sha256()
    done = 0
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
    with open(source, "rb") as reader, open(descriptor, "wb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            seen.update(block)
            writer.write(block)
            done += len(block)
            progress(done, file.bytes)
        writer.flush()
        os.fsync(writer.fileno())
    if seen.hexdigest() != file.sha256:
        raise BackupUnusable(f"{source} was changed since it was written: its SHA-256 is not that of the manifest")


def _check_length(path: str, file: BackupFile) -> None:
    try:
        found = os.path.getsize(path)
    except OSError as error:
        raise BackupUnusable(f"the backup's file {path} cannot be read: {error.strerror}") from None
    if found != file.bytes:
        raise BackupUnusable(f"{path} is torn: it has {found:,} bytes, and the manifest says {file.bytes:,}")


def _check_file(path: str, file: BackupFile) -> None:
    _check_length(path, file)
    if digest(path) != file.sha256:
        raise BackupUnusable(f"{path} was changed since it was written: its SHA-256 is not that of the manifest")


def _check_journal(path: str, manifest: Manifest) -> None:
    """Check that a file is the journal of the manifest, and leave no other file beside it."""
    try:
        with closing(alone(path)) as db:
            refuse_others(db, path)
            if found := problems_of(db, path):
                raise BackupUnusable(f"the journal in the backup is not whole: {'; '.join(found)}")
            facts = facts_of(db, path)
    except JournalUnusable as error:
        raise BackupUnusable(f"the journal in the backup cannot be used: {error}") from None
    except apsw.Error as error:
        raise BackupUnusable(f"the journal in the backup cannot be used: {in_words(error)}") from None
    if (facts.epoch, facts.newest_seq) != (manifest.epoch, manifest.seq):
        raise BackupUnusable(f"{path} is another journal than the manifest says")


def _put_in_place(copy: str, path: str, *, force: bool, now_utc: str) -> list[str]:
    with ExitStack() as held:
        is_new = not os.path.exists(path)
        try:
            held.callback(ServerLock(path).release)  # no server starts meanwhile
        except JournalUnusable as error:
            raise BackupUnusable(error.message) from None
        if is_new:
            os.unlink(path)  # the lock made it
        there = _files_there(path)
        if there and not force:
            raise BackupUnusable(f"a journal came to {path} meanwhile")
        aside = f"{path}.before-{now_utc[:19].replace(':', '').replace('-', '')}"
        there += [folder_of(path)] if os.path.isdir(folder_of(path)) else []
        for name in there:
            os.rename(name, aside + name.removeprefix(path))
        with suppress(FileNotFoundError):
            os.unlink(f"{path}-shm")  # the index of a -wal that no longer exists
        if os.path.isdir(folder_of(copy)):
            os.rename(folder_of(copy), folder_of(path))
        os.rename(copy, path)
        sync_folder(os.path.dirname(path))
        return [aside + name.removeprefix(path) for name in there]


def _files_there(path: str) -> list[str]:
    return [name for name in (path, f"{path}-wal") if os.path.exists(name) and os.path.getsize(name) > 0]


def _refuse_served(path: str) -> None:
    if serves_the_file(path) or serves_the_name(path):
        raise BackupUnusable(f"a server runs on {path}; end it, and restore then")


def _write_last(folder: str, text: bytes) -> None:
    unfinished = os.path.join(folder, f"{MANIFEST}.new")
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "wb") as file:
        file.write(text + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    os.rename(unfinished, os.path.join(folder, MANIFEST))
    sync_folder(folder)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows syncs only files that are open for writing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _new_folder(folder: str) -> Iterator[None]:
    """Make a folder, or take an empty one; leave it as it was if what is done in it fails."""
    with _said_of(folder):
        is_new = not os.path.lexists(folder)
        if is_new:
            os.makedirs(folder, 0o700)
        elif os.listdir(folder):
            raise BackupUnusable(f"{folder} is not empty; a backup takes a folder of its own, new or empty")
        try:
            yield
        except BaseException:
            shutil.rmtree(folder_of(os.path.join(folder, JOURNAL)), ignore_errors=True)
            for name in (JOURNAL, f"{JOURNAL}-journal", MANIFEST, f"{MANIFEST}.new"):
                with suppress(OSError):
                    os.unlink(os.path.join(folder, name))
            if is_new:
                with suppress(OSError):
                    os.rmdir(folder)
            raise


@contextmanager
def _removed_on_failure(path: str) -> Iterator[None]:
    """Remove what an earlier attempt left, and remove the file if this one fails."""
    shutil.rmtree(folder_of(path), ignore_errors=True)
    with suppress(FileNotFoundError):
        os.unlink(path)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder_of(path), ignore_errors=True)
        with suppress(OSError):
            os.unlink(path)
        raise


@contextmanager
def _said_of(folder: str) -> Iterator[None]:
    """Say in words what keeps files from being written to a folder."""
    try:
        yield
    except apsw.FullError:
        raise BackupUnusable(f"the disk of {folder} is full") from None
    except apsw.CorruptError:
        raise
    except apsw.Error as error:
        raise BackupUnusable(f"the backup failed: {in_words(error)}") from None
    except OSError as error:
        raise BackupUnusable(f"{error.filename or folder} cannot be used: {error.strerror}") from None
