"""The log of an SQLite journal, read on a connection of its own: what is read back delays no commit."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import apsw

from twincast.core.batch import Committed
from twincast.core.erasure import without_erased
from twincast.core.model import Entry, Erased, Late
from twincast.journal.sqlite import idempotency as sqlite_idempotency
from twincast.journal.sqlite import producers as sqlite_producers
from twincast.journal.sqlite.entries import LOG_COLUMNS, entry_of
from twincast.journal.sqlite.erasures import erasures_of
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.history.closed_log import ClosedLog
from twincast.journal.tail import up_to_bytes

_READ = f"select {LOG_COLUMNS} from log where seq > ? order by seq limit ?"


class LogReader:
    """A read-only connection to an open journal. Only one thread at a time may call its methods."""

    def __init__(self, path: str, epoch: str, *, vfs: str | None = None) -> None:
        """Open beside the SqliteFile, which must stay open for as long as this is used.

        Args:
            path: the file.
            epoch: the epoch that entries get: the one of the run that reads them.
            vfs: another SQLite file layer than the system's.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        self.epoch = epoch
        """What entries get."""
        with unavailable_if_failing():
            self._db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
            self._db.set_busy_timeout(1_000)
        self._closed = ClosedLog(self._db, path, vfs=vfs)

    def read(self, since: int, limit: int, max_bytes: int | None = None) -> list[Entry]:
        """Return up to `limit` entries after `since`; see Journal.read.

        Raises:
            Truncated: the log begins later, or has a hole behind `since`.
            JournalUnavailable: the disk does not give them.
        """
        # Closed, for an unfinished statement keeps its view of the file, and no checkpoint passes a view.
        with unavailable_if_failing(), closing(self._db.execute(_READ, (since, limit))) as rows:
            entries = _entries(rows, self.epoch, max_bytes)
        return self._without_erased(self._read_on(entries, since, limit, max_bytes))

    def forget(self) -> None:
        """Let go of files that are no longer part of the log.

        Raises:
            JournalUnavailable: the disk does not give its catalog.
        """
        self._closed.forget()

    def _without_erased(self, entries: list[Entry]) -> list[Entry]:
        """Leave out what is to be erased, and is perhaps still there: after the reading, so that nothing is missed."""
        with unavailable_if_failing():
            erasures = erasures_of(self._db)
        return list(without_erased(entries, erasures)) if erasures else entries

    def _read_on(self, entries: list[Entry], since: int, limit: int, max_bytes: int | None) -> list[Entry]:
        """Return what follows a position, of which the journal itself has some entries."""
        # One statement sees one moment of the log, so its first entry tells whether any before it was trimmed. What was
        # closed before is in the catalog then.
        if not entries or entries[0].seq == since + 1:
            return entries
        until = entries[0].seq - 1
        closed = self._closed.read(since, until, limit, max_bytes=max_bytes, epoch=self.epoch)
        if closed[-1].seq == until:
            closed += entries[: limit - len(closed)]
        return list(up_to_bytes(closed, max_bytes))

    def read_committed(self, since: int, limit: int, max_bytes: int | None = None) -> Committed:
        """Return what `read` does, at least one entry, and what was stored beside them. Raises what `read` raises."""
        entries = self.read(since, limit, max_bytes)
        with unavailable_if_failing():
            until = entries[-1].seq
            keys = tuple(sqlite_idempotency.read_between(self._db, since, until))
            marks = tuple(sqlite_producers.read_between(self._db, since, until))
        has_late = any(isinstance(entry, Late | Erased) for entry in entries)
        return Committed(tuple(entries), keys, marks, has_late=has_late)

    def close(self) -> None:
        """Release the file. Raises JournalUnavailable if the disk fails meanwhile."""
        with unavailable_if_failing():
            self._closed.close()
            self._db.close(True)


def _entries(rows: Iterable[tuple[Any, ...]], epoch: str, max_bytes: int | None) -> list[Entry]:
    entries = []
    size_bytes = 0
    for row in rows:  # row by row, for a value may be as large as a request
        entry = entry_of(row, epoch)
        entries.append(entry)
        size_bytes += len(entry.payload)
        if max_bytes is not None and size_bytes >= max_bytes:
            break
    return entries
