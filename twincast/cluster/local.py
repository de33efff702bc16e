"""The log that the workers of one machine share, opened: by the supervisor that serves it, or for one command."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from twincast.cluster.engine import Engine, FolderInUse, program_path, running_in
from twincast.errors import JournalUnusable
from twincast.journal.local import SCHEME, LocalLog
from twincast.journal.sqlite.access_file import has_keys
from twincast.journal.sqlite.health import reading
from twincast.journal.sqlite.path_lock import NameLock
from twincast.journal.sqlite.schema import MOVED_TO
from twincast.machine import OWNER_ALONE, quoted

try:
    import fcntl
except ImportError:  # Windows, for which there is no NATS server either
    fcntl = None  # type: ignore[assignment]

LEFT_S = 15.0
"""How long what a killed supervisor has left may take to end, or a command that has the log."""
_PAUSE_S = 0.05


class Held(NamedTuple):
    """The log as its supervisor has it."""

    engine: Engine
    """Its NATS server, which runs; whoever holds the log starts it again when it ends."""
    lock: int
    """A descriptor for each worker to inherit: the log is locked until the last of them has ended."""


@contextmanager
def held(log: LocalLog, *, is_moved: bool = False) -> Iterator[Held]:
    """Take the log for this process alone, and run its NATS server while the context lasts.

    Args:
        log: which.
        is_moved: whether the journal of a single server may have something in it: one is moved to the other.

    Raises:
        ExtraMissing: the NATS server is not installed.
        JournalUnusable: a server has the log, or the journal; the journal is one of a single server, with something in
            it; or the folder cannot be used.
    """
    program_path()  # without it nothing is begun
    with ExitStack() as undo:
        with ExitStack() as refused:
            name = _taken(log)
            refused.callback(name.discard)
            if not is_moved:
                refuse_other_history(log)
            if not os.path.exists(log.folder):
                refused.callback(_remove_empty, log)
            refused.callback(os.close, lock := _locked(log))
            engine = Engine(Path(log.engine_folder))
            refused.callback(engine.stop)
            _start(engine)
            refused.pop_all()
        undo.callback(name.release)
        undo.callback(os.close, lock)
        undo.callback(engine.stop)
        yield Held(engine, lock)


@contextmanager
def reached(log: LocalLog) -> Iterator[Engine]:
    """Yield the log's NATS server: the one of a supervisor that runs, or one of this context's own.

    Raises:
        ExtraMissing: the NATS server is not installed.
        JournalUnusable: it cannot be reached or started.
    """
    engine = running_in(Path(log.engine_folder))
    if engine is not None:
        yield engine
        return
    engine = Engine(Path(log.engine_folder))
    _start(engine)
    try:
        yield engine
    finally:
        engine.stop()


def refuse_other_history(log: LocalLog) -> None:
    """Refuse to begin a log where a journal of a single server has something in it: that would be a second history.

    Raises:
        JournalUnusable: it has; the message says what to do.
    """
    if not os.path.exists(log.path):
        return
    with reading(log.path) as db:
        newest = db.execute("select ifnull(max(seq), 0) from log").get
        moved_to = db.execute("select value from meta where name = ?", (MOVED_TO,)).get
    if moved_to == f"{SCHEME}:{log.path}" and log.is_there:
        return
    if not newest and not has_keys(log.path):
        return
    if log.is_there:
        raise JournalUnusable(
            f"there are two journals: the file {log.path}, of one server, and {log.folder}, of several workers. Move"
            " away the one that is not to be served"
        )
    raise JournalUnusable(
        f"{log.path} is the journal of one server, with {newest:,} entries and its keys. Several workers share a log"
        " beside it; this line moves everything there:\n"
        f"  twincast journal move {quoted(f'sqlite:{log.path}')} {quoted(f'{SCHEME}:{log.path}')}"
    )


def _remove_empty(log: LocalLog) -> None:
    """Remove the log's folder, unless NATS has left something in it: a message that refuses the start names its log."""
    with suppress(OSError):
        os.unlink(log.lock)
        os.rmdir(log.folder)


def _taken(log: LocalLog) -> NameLock:
    try:
        return NameLock(log.path)
    except BlockingIOError:
        raise JournalUnusable(f"the journal {log.path} is in use by another server") from None
    except OSError as error:
        raise JournalUnusable(f"the journal {log.path} cannot be opened: {error.strerror}") from None


def _locked(log: LocalLog) -> int:
    """Return the lock of the workers. Those of a supervisor that was killed end by themselves; that takes a moment."""
    try:
        os.makedirs(log.folder, 0o700, exist_ok=True)
        lock = os.open(log.lock, os.O_RDWR | os.O_CREAT, OWNER_ALONE)
    except OSError as error:
        raise JournalUnusable(f"workers cannot keep their log in {log.folder}: {error.strerror}") from None
    until_s = time.monotonic() + LEFT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() > until_s:
                os.close(lock)
                raise JournalUnusable(
                    f"workers of an earlier start still run on {log.path}; end them: they hold {log.lock} open"
                ) from None
        time.sleep(_PAUSE_S)


def _start(engine: Engine) -> None:
    """Start a NATS server. The one of a command, or of a supervisor that was killed, ends by itself."""
    until_s = time.monotonic() + LEFT_S
    while True:
        try:
            engine.start()
            return
        except FolderInUse:
            if time.monotonic() > until_s:
                raise
        time.sleep(_PAUSE_S)
