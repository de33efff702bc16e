"""The closed partitions of an open journal: how one becomes part of the log, makes room for another, or is dropped."""

import logging
from collections.abc import Callable, Iterable, Sequence

import apsw

from twincast.errors import JournalUnavailable
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.files import path_of, present, remove_open_end, remove_unnamed
from twincast.journal.sqlite.transactions import Transactions
from twincast.journal.sqlite.trim import LogTrim

logger = logging.getLogger("twincast.journal")


class Partitions:
    """Those that the catalog names. All methods but `note_gone` must be called in the journal's thread."""

    def __init__(
        self,
        db: apsw.Connection,
        path: str,
        *,
        transactions: Transactions,
        trim: LogTrim,
        check_files: Callable[[], None],
    ) -> None:
        """See which there are, and remove what a crash has left beside them.

        Args:
            db: the journal's connection.
            path: its file.
            transactions: how it is changed.
            trim: takes off the audit trail what is said of entries that are dropped.
            check_files: raises JournalUnavailable if what is written would not be found again.

        Raises:
            apsw.Error: the disk does not give the catalog.
        """
        self._db, self._path = db, path
        self._transactions, self._trim, self._check_files = transactions, trim, check_files
        self._gone: set[Part] = set()
        self.parts: Sequence[Part] = ()
        """Those of the log whose files are there, oldest first."""
        self.summaries: Sequence[Part] = ()
        """What is left of older ones, by hour and day."""
        named = self._look()
        remove_unnamed(path, named)
        remove_open_end(path)

    @property
    def closed_seq(self) -> int:
        """Up to where the log is closed; 0 if it is not."""
        # What is left of a partition counts too: the log may still have its entries, which are not closed again.
        return max((part.last_seq for part in (*self.parts[-1:], *self.summaries[-1:])), default=0)

    def add(self, part: Part) -> None:
        """Make a closed partition part of the log; its file is on the disk, under its name.

        Raises:
            JournalUnavailable: it is none; the log has its entries as before.
        """
        self._check_files()
        with self._transactions.synced():
            catalog.add(self._db, part)
        self._look()

    def replace(self, old: Part, new: Part) -> bool:
        """Put a partition in the place of one, whose file may go then; its own is on the disk, under its name.

        Returns:
            False if the old one is no longer part of the log: the new one is not, then.

        Raises:
            JournalUnavailable: the log is as it was.
        """
        self._check_files()
        with self._transactions.synced():
            is_there = old in catalog.parts(self._db)
            if is_there:
                catalog.add(self._db, new)
        self._look()
        self._trim.keep_only(self.parts)
        return is_there

    def drop(self, parts: Sequence[Part], left: Sequence[Part] = ()) -> Sequence[Part]:
        """Take the oldest partitions out of the log, and what the audit trail says of them.

        Args:
            parts: the partitions; or what is left of some.
            left: what is left of them, if anything; the files are on the disk, under their names.

        Returns:
            Those whose files may go. One that was replaced meanwhile stays, and what is left of it is not taken.

        Raises:
            JournalUnavailable: the log is as it was.
        """
        with self._transactions.synced():
            gone = [part for part in catalog.parts(self._db) if part in parts]
            firsts = {part.first_seq for part in gone}
            catalog.remove(self._db, gone)
            for part in left:
                if part.first_seq in firsts:
                    catalog.add(self._db, part)
            of_log = catalog.of_log(gone)
            took = self._trim.take_audit(of_log[-1].last_seq) if of_log else None
        if took is not None:
            self._trim.took(took)
        self._look()
        return gone

    def check(self, since: int, until: int) -> None:
        """Check that they have what is between two positions, where the log is about to lose its own copy of it.

        What is older than the oldest of them has been dropped. Within a transaction.

        Raises:
            JournalUnavailable: the file of one is gone.
        """
        named = self._look()
        needed = [part for part in catalog.of_log(named) if part.last_seq > since and part.first_seq <= until]
        if not set(needed) <= set(self.parts):
            raise JournalUnavailable(
                "a file of the log's closed partitions is gone, so the log keeps what it has of it"
            )

    def note_gone(self, gone: Iterable[Part]) -> None:
        """Take note, from any thread, of partitions whose files a reader has not found.

        Those that were dropped or replaced meanwhile are none: they leave the catalog before their files go.
        """
        self._say_gone({*self.parts, *self.summaries}.intersection(gone))

    def _look(self) -> Sequence[Part]:
        """See which files are there of those that the catalog names; return all that it names."""
        named = catalog.parts(self._db)
        there = present(self._path, named)
        self.parts, self.summaries = catalog.of_log(there), catalog.summaries(there)
        gone = set(named).difference(there)
        self._say_gone(gone)
        self._gone = gone
        return named

    def _say_gone(self, gone: set[Part]) -> None:
        for part in sorted(gone - self._gone):  # each is said once, when it is noticed
            self._gone.add(part)
            logger.error(
                "the file %s of the log's history is gone: entries %d to %d are missing, and readers are told so",
                *(path_of(self._path, part), part.first_seq, part.last_seq),
            )
