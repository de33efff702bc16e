"""The closed part of the log, read by position: from one partition after the other, as if it were still in the log."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import apsw

from twincast.core.model import Entry
from twincast.errors import JournalUnavailable, Truncated
from twincast.journal.sqlite.entries import LOG_COLUMNS, entry_of
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.catalog import CLOSED
from twincast.journal.sqlite.history.files import OpenPartitions, path_of, present

_READ = f"select {LOG_COLUMNS} from log where seq > ? and seq <= ? order by seq limit ?"


class ClosedLog:
    """The partitions of a journal, by its catalog. Only one thread at a time may call its methods."""

    def __init__(self, db: apsw.Connection, journal: str, *, vfs: str | None = None) -> None:
        """Read beside a journal.

        Args:
            db: a connection to it, which is asked for its catalog.
            journal: its file.
            vfs: another SQLite file layer than the system's.
        """
        self._db = db
        self._journal = journal
        self._open = OpenPartitions(journal, vfs=vfs)

    def read(self, since: int, until: int, limit: int, *, max_bytes: int | None, epoch: str) -> list[Entry]:
        """Return up to `limit` entries after `since`, at least one.

        Args:
            since: the position.
            until: up to where the log is closed at least; not behind it.
            limit: how many entries at most.
            max_bytes: stop after the entry that reaches this many bytes of values; None for no limit.
            epoch: what entries get.

        Raises:
            Truncated: the entry after `since` is in no partition whose file is there.
            JournalUnavailable: the disk does not give it.
        """
        entries: list[Entry] = []
        size_bytes = 0
        while since < until and len(entries) < limit:
            with unavailable_if_failing():
                part = catalog.holding(self._db, since + 1)
            if part is None or not present(self._journal, [part]):
                if entries:
                    break
                raise self._truncated(since, until)
            with unavailable_if_failing(path_of(self._journal, part)):
                rows = self._open.get(part).execute(_READ, (since, min(until, part.last_seq), limit - len(entries)))
                with closing(rows):
                    for entry in _entries(rows, epoch):
                        entries.append(entry)
                        size_bytes += len(entry.payload)
                        if max_bytes is not None and size_bytes >= max_bytes:
                            return entries
            if not entries or entries[-1].seq == since:
                raise JournalUnavailable(f"{path_of(self._journal, part)} does not have what it should")
            since = entries[-1].seq
        return entries

    def forget(self) -> None:
        """Let go of files that are no longer part of the log.

        Raises:
            JournalUnavailable: the disk does not give its catalog.
        """
        with unavailable_if_failing():
            self._open.keep_only(catalog.parts(self._db))

    def close(self) -> None:
        """Release the files."""
        self._open.close()

    def _truncated(self, since: int, until: int) -> Truncated:
        with unavailable_if_failing():
            parts = catalog.parts(self._db)
        self._open.keep_only(parts)
        following = (part.first_seq - 1 for part in present(self._journal, parts) if part.kind == CLOSED)
        begins = min((first for first in following if since < first < until), default=until)
        return Truncated(f"this journal reaches back to {begins}, not to {since}")


def _entries(rows: Iterable[tuple[Any, ...]], epoch: str) -> Iterable[Entry]:
    return (entry_of(row, epoch) for row in rows)
