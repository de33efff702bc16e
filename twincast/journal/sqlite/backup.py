"""Backups: a journal is copied into a folder while its server runs, and restored from there while none does.

A folder is a backup once it has a manifest, which is written last, by a rename. The manifest names each file with its
length and SHA-256, so that a torn, changed or foreign file is found before anything is restored. Closed partitions lie
beside the journal as they do where it is served. Made again in the same folder, a backup replaces the one before in
that rename, and takes only the partitions that this one has not.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import BinaryIO

import apsw

from twincast.errors import BackupUnusable, JournalUnavailable, JournalUnusable
from twincast.journal.sqlite import backups
from twincast.journal.sqlite.backup_folder import check_goes_on, finish, said_of, taken
from twincast.journal.sqlite.backup_manifest import (
    FORMAT,
    JOURNAL,
    NEW,
    BackupFile,
    Lost,
    Manifest,
    check_file,
    files_of,
    journal_of,
    read_manifest,
    write_last,
)
from twincast.journal.sqlite.backup_parts import NOT_WHOLE, Progress, Rewritten, behind, copy_checked, take_parts
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.health import Facts, facts_of, problems_of, reading, refuse_others
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.catalog import has_parts
from twincast.journal.sqlite.history.files import FOLDER_MODE, digest, sync
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.merge import bring_back
from twincast.journal.sqlite.lock import ServerLock, serves_the_file, serves_the_name
from twincast.journal.sqlite.wal import alone
from twincast.machine import OWNER_ALONE, sync_folder

_WRITING = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
_STEP_PAGES = 1_000
_TRIES = 3
"""So often a copy is begun, as partitions are replaced meanwhile."""


def back_up(path: str, folder: str, *, version: str, now_utc: str, progress: Progress) -> Manifest:
    """Copy a journal, as of one moment, into a folder, and check the copy. The server goes on meanwhile.

    An earlier backup of the log in that folder is replaced, in one step at the end; until then it is the backup. What
    it has of the closed log stays, and is checked again. Closed partitions that the journal has lost, and the earlier
    backup has not either, are named in the manifest; all others are in the backup.

    Args:
        path: the journal.
        folder: it is new, empty, or has a backup of the log.
        version: of this twincast.
        now_utc: the time.
        progress: called with how many bytes are copied: of the journal's file, then of its partitions.

    Raises:
        BackupUnusable: the folder has something else, or a backup that this journal does not go on from; it cannot be
            written, or its disk is full. It is left as it was.
        JournalUnusable: the journal cannot be read, or its file is not whole.
    """
    with taken(folder) as earlier:
        for last_try in range(1, _TRIES + 1):
            try:
                facts, files, lost = _copied_into(folder, path, earlier, progress)
                break
            except Rewritten:
                if last_try == _TRIES:
                    raise JournalUnusable(f"the partitions of {path} are being replaced: try again") from None
        manifest = Manifest(FORMAT, version, facts.schema, facts.epoch, facts.newest_seq, now_utc, files, lost)
        write_last(folder, manifest)
        finish(folder, manifest)
        return manifest


def _copied_into(
    folder: str, path: str, earlier: Manifest | None, progress: Progress
) -> tuple[Facts, list[BackupFile], list[Lost]]:
    """Copy a journal into a folder, its file under a name beside the one that it will have.

    Raises:
        Rewritten: begin again.
    """
    place = os.path.join(folder, JOURNAL)
    new = place + NEW
    with suppress(FileNotFoundError):
        os.unlink(new)
    with reading(path) as source, said_of(folder), _damage_said():
        if earlier is not None:
            check_goes_on(source, folder, earlier)
        with _copied_pages(source, new, progress, unit_bytes=source.pragma("page_size")) as target:
            lost = take_parts(target, source.db_filename("main"), place, progress)
            names = {each.file for each in lost}
            if found := problems_of(target, place, reads_parts=False, lost=names):
                raise JournalUnusable(f"{NOT_WHOLE}: {'; '.join(found)}")
            facts = facts_of(target, place)
            parts = [part for part in catalog.parts(target) if part.file not in names] if has_parts(target) else []
    sync(new)
    named = [BackupFile(f"{JOURNAL}-history/{part.file}", part.bytes, part.sha256) for part in parts]
    return facts, [BackupFile(JOURNAL, os.path.getsize(new), digest(new)), *named], lost


def check_backup(folder: str) -> Manifest:
    """Check that the files of a backup are those that were written, and that its journal is whole but for what is lost.

    Raises:
        BackupUnusable: they are not; the message says why.
    """
    manifest = read_manifest(folder)
    for file, path in files_of(folder, manifest):
        check_file(path, file)
    _check_journal(journal_of(folder, manifest), os.path.join(folder, JOURNAL), manifest)
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
    with _removed_on_failure(copy), said_of(os.path.dirname(path)):
        _copy_back(folder, manifest, copy, progress)
        _check_journal(copy, copy, manifest)
        return manifest, _put_in_place(copy, path, force=force, now_utc=now_utc)


def _copy_back(folder: str, manifest: Manifest, copy: str, progress: Progress) -> None:
    """Copy the files of a backup to a journal's place."""
    if manifest.files[1:]:
        os.mkdir(folder_of(copy), FOLDER_MODE)
    done, total = 0, sum(file.bytes for file in manifest.files)
    for file, source in files_of(folder, manifest):
        name = copy if file.name == JOURNAL else os.path.join(folder_of(copy), os.path.basename(file.name))
        copy_checked(source, name, file, behind(done, total, progress))
        done += file.bytes


def copy_journal(source: apsw.Connection, copy: str, progress: Progress) -> Facts:
    """Copy an open journal, as it is in the transaction that reads it, into a new file, and check that.

    The file has all of the log, as if nothing of it were closed, and nothing of where its backups are.

    Args:
        source: the journal.
        copy: the new file.
        progress: called with how many pages are copied.

    Raises:
        JournalUnusable: it is not whole.
        BackupUnusable: the copy cannot be written.
    """
    with said_of(os.path.dirname(copy)), _damage_said():
        with _copied_pages(source, copy, progress) as target:
            bring_back(target, source.db_filename("main"))
            backups.forget(target)
            if found := problems_of(target, copy):
                raise JournalUnusable(f"{NOT_WHOLE}: {'; '.join(found)}")
            facts = facts_of(target, copy)
        sync(copy)
        return facts


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
            copy_journal(source, copy, lambda done, total: None)
        return open(copy, "rb")
    except (OSError, BackupUnusable, JournalUnusable) as error:
        raise JournalUnavailable(f"the journal cannot be copied: {error}") from None
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _copied_pages(
    source: apsw.Connection, copy: str, progress: Progress, *, unit_bytes: int = 1
) -> Iterator[apsw.Connection]:
    """Copy a database as it is in the transaction that reads it, and give the copy, to be changed."""
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE))
    with closing(apsw.Connection(copy, flags=_WRITING)) as target:
        # Within the source's transaction: later commits neither enter the copy nor restart it.
        with target.backup("main", source, "main") as work:
            while not work.done:
                work.step(_STEP_PAGES)
                progress((work.page_count - work.remaining) * unit_bytes, work.page_count * unit_bytes)
        target.pragma("journal_mode", "delete")  # it stands alone, and can be read where nothing can be written
        yield target


@contextmanager
def _damage_said() -> Iterator[None]:
    try:
        yield
    except apsw.CorruptError as error:
        raise JournalUnusable(f"{NOT_WHOLE}: {in_words(error)}") from None


def _check_journal(path: str, place: str, manifest: Manifest) -> None:
    """Check that a file is the journal of the manifest, beside its partitions' place, and leave no other file there."""
    try:
        with closing(alone(path)) as db:
            refuse_others(db, path)
            if found := problems_of(db, place, lost={each.file for each in manifest.lost}):
                raise BackupUnusable(f"the journal in the backup is not whole: {'; '.join(found)}")
            facts = facts_of(db, place)
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
