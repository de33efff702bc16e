"""The keys of a journal, for what changes them beside its servers: in its file, or of a log that servers share."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from twincast.cluster.engine import running_in
from twincast.core.audit import AuditRecord
from twincast.errors import JournalUnusable
from twincast.journal import stores
from twincast.journal.jetstream.address import TOKEN, NatsAddress
from twincast.journal.local import LocalLog
from twincast.journal.sqlite.access_file import AccessFile
from twincast.journal.sqlite.lock import serves_the_file
from twincast.journal.url import file_of, keys_file_of, local_log_of, shared_log_of
from twincast.machine import quoted

if TYPE_CHECKING:
    from twincast.journal.jetstream.access_log import AccessLog

NOTICE_S = 0.3
"""A server looks at its keys ten times a second. After this time a change is in force."""


class KeyStore:
    """Where a journal's keys are."""

    def __init__(self, journal: str) -> None:
        """Look at a journal's URL; nothing is opened.

        Raises:
            JournalUnusable: it names a shared log, and is none.
        """
        self.journal = journal
        self._shared, self._local = shared_log_of(journal), local_log_of(journal) or _beginning(journal)

    @contextmanager
    def open(
        self, *, make: bool = False, is_urgent: bool = False, has_codes: bool = False
    ) -> "Iterator[AccessFile | AccessLog]":
        """Open the keys to be changed; see AccessFile.

        Raises:
            JournalUnusable: they are not there, or are none; the message says why.
            JournalUnavailable: NATS does not answer.
            ModuleNotFoundError: servers share the log, and what that takes is not installed.
        """
        if self._shared is None and self._local is None:
            with AccessFile(self._path, make=make, is_urgent=is_urgent, has_codes=has_codes) as file:
                yield file
            return
        from twincast.journal.jetstream.access_log import AccessLog  # noqa: PLC0415  # comes with an extra

        with self._reached(make=make) as address, AccessLog(address, make=make) as log:
            yield log

    def has_keys(self) -> bool:
        """Whether there is a key, or ever was. Where no event loop runs.

        Raises:
            JournalUnusable: they cannot be read.
            JournalUnavailable: NATS does not answer.
        """
        if self._local is None:
            return stores.has_keys(self.journal)
        if not self._local.is_there:  # the file of one server, if there is any, is to be moved there first
            return stores.has_keys(f"sqlite:{self._local.path}")
        from twincast.journal.jetstream import access_log  # noqa: PLC0415  # comes with an extra

        with self._reached(make=False) as address:
            return access_log.has_keys(address)

    @property
    def copy(self) -> str | None:
        """The file of this machine's copy of a shared log, if there is one here."""
        path = self._shared.copy if self._shared is not None else None
        if self._local is not None:
            path = self._local.copy("worker-1")
        return path if path is not None and os.path.exists(path) else None

    def audit(self, limit: int) -> tuple[list[AuditRecord], bool]:
        """Return the newest records of the audit trail, newest first, and whether commands are among them.

        Those of a shared log are in the copy of a server that runs on this machine. Where none does, the changes of the
        keys are read from the log: to find the commands, all of it would have to be read.

        Raises as `open`.
        """
        if self.copy is not None and serves_the_file(os.path.realpath(self.copy)):
            with AccessFile(self.copy) as file:
                return file.audit(limit), True
        with self.open() as access:
            return access.audit(limit), not self.is_shared

    @property
    def is_shared(self) -> bool:
        """Whether servers share the log, so that its file is a copy of it, or there is none."""
        return self._shared is not None or self._local is not None

    @property
    def file(self) -> str | None:
        """The path beside which the servers of this machine keep what belongs to the journal; None if there is none."""
        return self._local.path if self._local is not None else file_of(self.journal)

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self._shared is not None:
            return f"{','.join(self._shared.servers)}/{self._shared.name}"
        return os.path.abspath(self._path) if self._local is None else self._local.path

    @property
    def is_served(self) -> bool | None:
        """Whether a server runs on it; None if that cannot be seen from here."""
        if self._shared is not None:
            return None
        if self._local is None:
            return serves_the_file(os.path.realpath(self._path))
        return running_in(Path(self._local.engine_folder)) is not None

    @property
    def force(self) -> str:
        """Whether a change is in force already, in words."""
        if self.is_served is None:
            return f"It is in force on every server of {self.place} within a second."
        if self.is_served:
            return f"A server runs on {self.place}, so it is in force."
        return (
            f"No server runs on {self.place} now; `twincast serve --journal {quoted(self.journal)}` asks for a login."
        )

    @cached_property
    def _path(self) -> str:
        return keys_file_of(self.journal)

    @contextmanager
    def _reached(self, *, make: bool) -> Iterator[NatsAddress]:
        if self._local is None:
            assert self._shared is not None
            yield self._shared
            return
        if not make and not self._local.is_there:
            raise JournalUnusable(
                f"no workers have a log at {self._local.path}; `twincast serve --workers 2` makes one"
            )
        from twincast.cluster.local import reached  # noqa: PLC0415  # most journals have none

        with reached(self._local) as engine, with_token(engine.token):
            yield NatsAddress.parse(self._local.url(engine.url, "command"))


def _beginning(journal: str) -> LocalLog | None:
    """Return the log of workers that start for the first time, and have not made it yet."""
    path = file_of(journal)
    if path is None or path == ":memory:" or os.path.exists(path):
        return None
    log = LocalLog.beside(path)
    return log if running_in(Path(log.engine_folder)) is not None else None


@contextmanager
def with_token(token: str | None) -> Iterator[None]:
    """Have connections to NATS give a token."""
    before = os.environ.get(TOKEN)
    os.environ[TOKEN] = token or ""
    try:
        yield
    finally:
        del os.environ[TOKEN]
        if before is not None:
            os.environ[TOKEN] = before


def wait_until_noticed() -> None:
    """Wait until a server that runs has seen a change."""
    time.sleep(NOTICE_S)
