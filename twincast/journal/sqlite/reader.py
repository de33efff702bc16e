"""The log of an SQLite journal, read on a connection of its own: what is read back delays no commit."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import apsw

from twincast.core.batch import Committed
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.model import Entry
from twincast.errors import JournalUnavailable, Truncated
from twincast.journal.sqlite import producers as sqlite_producers
from twincast.journal.sqlite.entries import LOG_COLUMNS, entry_of

_READ = f"select {LOG_COLUMNS} from log where seq > ? order by seq limit ?"

# Those whose last entry is between two positions. The entries of one key are neighbours, so no other key is among
# them: at most one key begins up to the first position and ends after it.
_READ_KEYS = """
select key, first_seq, last_seq, digest from receipt
where first_seq >= coalesce((select max(first_seq) from receipt where first_seq <= ?1), 0)
  and first_seq <= ?2 and last_seq > ?1 and last_seq <= ?2
order by first_seq
"""


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
        self._epoch = epoch
        with unavailable_if_failing():
            self._db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
            self._db.set_busy_timeout(1_000)

    def read(self, since: int, limit: int, max_bytes: int | None = None) -> list[Entry]:
        """Return up to `limit` entries after `since`; see Journal.read.

        Raises:
            Truncated: the log begins later.
            JournalUnavailable: the disk does not give them.
        """
        # Closed, for an unfinished statement keeps its view of the file, and no checkpoint passes a view.
        with unavailable_if_failing(), closing(self._db.execute(_READ, (since, limit))) as rows:
            entries = _entries(rows, self._epoch, max_bytes)
        # One statement sees one moment of the log, so its first entry tells whether any before it was trimmed.
        if entries and entries[0].seq != since + 1:
            raise Truncated(f"this journal reaches back to {entries[0].seq - 1}, not to {since}")
        return entries

    def read_committed(self, since: int, limit: int, max_bytes: int | None = None) -> Committed:
        """Return what `read` does, at least one entry, and what was stored beside them. Raises what `read` raises."""
        entries = self.read(since, limit, max_bytes)
        with unavailable_if_failing():
            until = entries[-1].seq
            keys = [IdempotencyRecord(*row) for row in self._db.execute(_READ_KEYS, (since, until))]
            return Committed(entries, keys, sqlite_producers.read_between(self._db, since, until))

    def close(self) -> None:
        """Release the file. Raises JournalUnavailable if the disk fails meanwhile."""
        with unavailable_if_failing():
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


@contextmanager
def unavailable_if_failing() -> Iterator[None]:
    """Raise what SQLite raises as JournalUnavailable, with the reason in words."""
    try:
        yield
    except apsw.Error as error:
        raise JournalUnavailable(f"the journal cannot use its disk: {in_words(error)}") from error


_WORDS: dict[type[Exception], str] = {
    apsw.IOError: "it does not read or write",
    apsw.FullError: "it is full",
    apsw.BusyError: "another program keeps the file for itself",
    apsw.LockedError: "another program keeps the file for itself",
    apsw.CorruptError: "the file is damaged",
    apsw.NotADBError: "the file is something else",
    apsw.CantOpenError: "the file cannot be opened",
    apsw.ReadOnlyError: "the file is read-only",
    apsw.PermissionsError: "the file may not be used",
    apsw.NoMemError: "the machine has no memory left",
}


def in_words(error: apsw.Error | OSError) -> str:
    """Return what is wrong with a file, in our own words; the name of what SQLite raised, if there are none."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return _WORDS.get(type(error), f"SQLite says {type(error).__name__}")
