"""The folder that a backup is made in: new, empty, or with an earlier backup of the log, which stays until the end."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apsw

from twincast.core.lineage import Generation, Lineage
from twincast.core.model import Position
from twincast.errors import BackupUnusable
from twincast.journal.sqlite import generations
from twincast.journal.sqlite.backup_manifest import (
    JOURNAL,
    MANIFEST,
    NEW,
    Manifest,
    is_file,
    journal_of,
    no_folder,
    read_manifest,
)
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.path_lock import FolderLock
from twincast.machine import sync_folder


@contextmanager
def taken(folder: str) -> Iterator[Manifest | None]:
    """Make a folder, or take one that is empty or has a backup; leave it as it was if what is done in it fails.

    Yields:
        The manifest of the backup that is there.

    Raises:
        BackupUnusable: it has something else, or a backup that is not whole; or another is being made there.
    """
    with said_of(folder):
        is_new = not os.path.lexists(folder)
        if is_new:
            os.makedirs(folder, 0o700)
        with _alone_in(folder):
            earlier = _earlier(folder)
            try:
                yield earlier
            except BaseException:
                with suppress(OSError, BackupUnusable):
                    _leave_whole(folder)
                    if is_new:
                        os.rmdir(folder)
                raise


def check_goes_on(source: apsw.Connection, folder: str, earlier: Manifest) -> None:
    """Check that a journal has all that a backup has: it replaces that.

    Raises:
        BackupUnusable: it is of another log, or reaches further than the journal.
    """
    log = source.execute("select value from meta where name = 'epoch'").get
    newest = source.execute("select coalesce(max(seq), 0) from log").get
    runs = [Generation("", 0)]
    if source.execute("select count(*) from sqlite_schema where name = 'generation'").get:
        runs = generations.read(source)
    if not Lineage(log, runs).why_not(Position(earlier.epoch, earlier.seq), newest):
        return
    if earlier.epoch.partition("-")[0] == log:
        raise BackupUnusable(
            f"{folder} has a backup up to entry {earlier.seq:,} that reaches further than this journal, or is of"
            " another copy of it: it is not replaced. Name another folder"
        )
    raise BackupUnusable(
        f"{folder} has a backup of another log, {earlier.epoch}: it is not replaced. Name another folder"
    )


def finish(folder: str, made: Manifest) -> None:
    """Bring a backup that its manifest names to its end: its journal gets its name, and what it does not name goes."""
    path = os.path.join(folder, JOURNAL)
    if journal_of(folder, made) != path:
        os.replace(path + NEW, path)
        sync_folder(folder)
    _remove_unnamed(folder, made)


def _leave_whole(folder: str) -> None:
    """Bring a folder back to the backup that its manifest names, or to nothing."""
    if os.path.exists(os.path.join(folder, MANIFEST)):
        finish(folder, read_manifest(folder))
    else:
        _remove_unnamed(folder, None)


def _remove_unnamed(folder: str, made: Manifest | None) -> None:
    """Remove what was to be a backup, and is none; and all of it, if there is no backup."""
    named = set() if made is None else {file.name for file in made.files} | {MANIFEST}
    unfinished = [f"{JOURNAL}{NEW}", f"{JOURNAL}{NEW}-journal", f"{MANIFEST}{NEW}"]
    for name in [*unfinished, JOURNAL, MANIFEST]:
        if name not in named:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
    history = folder_of(os.path.join(folder, JOURNAL))
    if len(named) <= len((JOURNAL, MANIFEST)):
        shutil.rmtree(history, ignore_errors=True)
        return
    for name in os.listdir(history):
        if f"{os.path.basename(history)}/{name}" not in named:
            os.unlink(os.path.join(history, name))


def _earlier(folder: str) -> Manifest | None:
    """Return the manifest of the backup that is in a folder, brought to its end; None if the folder is empty."""
    if not os.listdir(folder):
        return None
    if not os.path.exists(os.path.join(folder, MANIFEST)):
        raise BackupUnusable(
            f"{folder} is not empty, and has no backup that was finished; name a folder that is new, empty, or has one"
        )
    earlier = read_manifest(folder)
    if not is_file(journal_of(folder, earlier), earlier.files[0]):
        raise BackupUnusable(
            f"{folder}/{JOURNAL} is not what its {MANIFEST} says: it was changed, or is in use as a journal. It is not"
            " replaced; name another folder"
        )
    finish(folder, earlier)
    return earlier


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    try:
        lock = FolderLock(folder)
    except BlockingIOError:
        raise BackupUnusable(f"another backup is being made in {folder}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def said_of(folder: str) -> Iterator[None]:
    """Say in words what keeps files from being written to a folder."""
    try:
        yield
    except apsw.FullError:
        raise BackupUnusable(f"the disk of {folder} is full") from None
    except apsw.CorruptError:
        raise
    except apsw.Error as error:
        raise BackupUnusable(f"the backup failed: {in_words(error)}") from None
    except NotADirectoryError as error:
        raise no_folder(str(error.filename or folder)) from None
    except OSError as error:
        raise BackupUnusable(f"{error.filename or folder} cannot be used: {error.strerror}") from None
