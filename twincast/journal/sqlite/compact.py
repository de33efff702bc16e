"""Makes a journal smaller on which no server runs: small neighbouring partitions become one, and free pages go.

Each partition is written beside those whose place it takes, and is on the disk before the catalog names it; SQLite
makes the file itself anew in one transaction. So whatever ends this, power or a full disk, the log is what it was.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

import apsw

from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.retention import CLOSING_BYTES, KEEP_BYTES_PARTS, PARTITION_ENTRIES
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.health import refuse_others
from twincast.journal.sqlite.history import catalog, files
from twincast.journal.sqlite.history.build import build
from twincast.journal.sqlite.history.catalog import CLOSED, Part, has_parts
from twincast.journal.sqlite.history.files import path_of
from twincast.journal.sqlite.history.span import copy_parts
from twincast.journal.sqlite.lock import ServerLock, serves_the_file
from twincast.journal.sqlite.wal import open_with_its_wal, refuse_lonely_wal
from twincast.machine import free_bytes

MERGED_MAX = 8
"""So many partitions become one, at most."""
LEFT_MIN = KEEP_BYTES_PARTS
"""So many are left at least, so that what is kept no longer still goes in small parts."""
STEPS_OF_ROW = 5
"""SQLite's steps for each row that a VACUUM copies, for the progress alone."""
_STEPS = 20_000
_BUSY_TIMEOUT_MS = 10_000

Progress = Callable[[str, int, int], None]
"""Called with what is done, how many entries of it, and of how many."""


class Compacted(NamedTuple):
    """What a journal takes of the disk, with its partitions, before and after."""

    bytes_before: int
    bytes_after: int
    parts_before: int
    parts_after: int
    problems: Sequence[str]
    """What is wrong with partitions, in words: each stays as it is, and is not merged."""


def compact(path: str, *, now_utc: str, progress: Progress, vfs: str | None = None) -> Compacted:
    """Merge small neighbouring partitions of a journal, and make its file as small as what is in it.

    All partitions are read first. Those that are gone or were changed are named, and stay as they are.

    Args:
        path: its file, which no server may have open. Nobody else can write it meanwhile.
        now_utc: the time.
        progress: see Progress.
        vfs: another SQLite file layer than the system's.

    Raises:
        JournalUnusable: there is no such journal, a server runs on it, it is not whole, or the disk is full. What was
            merged stays so; all else is as it was.
    """
    path = os.path.realpath(path)
    if not os.path.isfile(path):
        raise JournalUnusable(f"there is no journal at {path}; --journal or TWINCAST_JOURNAL names the server's")
    refuse_lonely_wal(path)
    with _locked(path), _said(path), closing(open_with_its_wal(path, vfs=vfs)) as db:
        db.set_busy_timeout(_BUSY_TIMEOUT_MS)
        refuse_others(db, path)
        db.pragma("synchronous", "full")
        before = catalog.parts(db) if has_parts(db) else []
        bytes_before = _size(path, before)
        found = {part: files.problem_of(path_of(path, part), part) for part in before}
        _merge(db, path, [part for part in before if found[part] is None], now_utc, progress)
        _vacuum(db, path, progress)
        after = catalog.parts(db) if has_parts(db) else []
        files.remove_unnamed(path, after)
        problems = [problem for problem in found.values() if problem is not None]
        return Compacted(bytes_before, _size(path, after), len(before), len(after), problems)


def groups(parts: Sequence[Part]) -> Iterator[Sequence[Part]]:
    """Yield the neighbours that become one partition each: small ones, so that enough are left."""
    most = min(PARTITION_ENTRIES, sum(part.entries for part in parts) // LEFT_MIN)
    group: list[Part] = []
    for part in parts:
        fits = len(group) < MERGED_MAX and sum(each.entries for each in group) + part.entries <= most
        follows = group and group[-1].last_seq + 1 == part.first_seq
        if group and not (fits and follows and part.kind == CLOSED):
            if len(group) > 1:
                yield group
            group = []
        if part.kind == CLOSED:
            group = [*group, part]
    if len(group) > 1:
        yield group


def _merge(db: apsw.Connection, path: str, parts: Sequence[Part], now_utc: str, progress: Progress) -> None:
    found = list(groups(parts))
    total, done = sum(part.entries for group in found for part in group), 0
    for group in found:
        merged = _merged(db, path, group, now_utc)
        db.execute("begin immediate")
        try:
            catalog.replace(db, merged)
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
        files.unlink(path, group)
        done += merged.entries
        progress("merging partitions", done, total)


def _merged(db: apsw.Connection, path: str, group: Sequence[Part], now_utc: str) -> Part:
    """Write one partition of several. It is on the disk, under its name, when this returns."""
    first, last = group[0].first_seq, group[-1].last_seq
    _check_room(path, CLOSING_BYTES * (last - first + 1))
    for part in group:
        file = path_of(path, part)
        if not os.path.isfile(file) or files.digest(file) != part.sha256:
            raise JournalUnusable(f"the partition {file} is gone or was changed: see `twincast journal check`")
    new = files.new_file(path, first)
    copy = f"{new}-copy"
    try:
        spans = [(part.first_seq, part.last_seq) for part in group]
        has_all_twins = copy_parts([path_of(path, part) for part in group], copy, spans)
        log = str(db.execute("select value from meta where name = 'epoch'").get)
        built = build(copy, new, first, last, log=log, has_all_twins=has_all_twins)
        files.sync(new)
        size_bytes, sha256 = os.path.getsize(new), files.digest(new)
        name = files.settle_as(new, files.name_beside(path, first))
    finally:
        files.remove_unfinished(new)
    times = built.min_us, built.max_us, built.stored_min_us, built.stored_max_us
    return Part(first, last, name, *times, built.entries, size_bytes, sha256, CLOSED, now_utc)


def _vacuum(db: apsw.Connection, path: str, progress: Progress) -> None:
    """Have SQLite make the file anew, without its free pages."""
    page_bytes = int(db.pragma("page_size"))
    used_bytes = (int(db.pragma("page_count")) - int(db.pragma("freelist_count"))) * page_bytes
    _check_room(path, 2 * used_bytes)  # the new content, in a temporary file; and again in the -wal
    rows = db.execute("select count(*) from log").get + db.execute("select count(*) from checkpoint").get
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += _STEPS
        progress("removing free pages", min(rows, steps // STEPS_OF_ROW), rows)
        return False

    folder = os.path.dirname(path).replace("'", "''")
    db.execute(f"pragma temp_store_directory = '{folder}'")  # the system's own may have no room
    db.set_progress_handler(step, _STEPS)
    try:
        db.execute("vacuum")
        progress("removing free pages", rows, rows)
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        db.set_progress_handler(None)
        db.execute("pragma temp_store_directory = ''")


def _check_room(path: str, needed_bytes: int) -> None:
    free = free_bytes(path)
    if free < needed_bytes:
        raise JournalUnusable(
            f"the disk of {path} has {free:,} bytes free, and {needed_bytes:,} are needed for a while: nothing is lost,"
            " and no more is done"
        )


def _size(path: str, parts: Sequence[Part]) -> int:
    size_bytes = sum(part.bytes for part in parts)
    for name in path, f"{path}-wal":  # behind a kill all of the log may be in the -wal
        with suppress(OSError):
            size_bytes += os.path.getsize(name)
    return size_bytes


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep servers off, and refuse where one runs."""
    try:
        lock = ServerLock(path)
    except JournalUnusable as error:
        said = f"a server runs on {path}" if serves_the_file(path) else error.message
        raise JournalUnusable(f"{said}. A journal is compacted while no server runs on it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _said(path: str) -> Iterator[None]:
    """Say in words what keeps a journal from being compacted."""
    try:
        yield
    except apsw.NotADBError:
        raise JournalUnusable(f"{path} is not a journal: the file is something else") from None
    except apsw.FullError:
        raise JournalUnusable(f"the disk of {path} is full: nothing is lost, and no more is done") from None
    except apsw.Error as error:
        raise JournalUnusable(f"the journal {path} cannot be compacted: {in_words(error)}") from None
    except JournalUnavailable as error:
        raise JournalUnusable(f"the journal {path} cannot be compacted: {error.message}") from None
    except OSError as error:
        raise JournalUnusable(f"{error.filename or path} cannot be written: {error.strerror}") from None
