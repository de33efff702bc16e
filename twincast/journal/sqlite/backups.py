"""Which backups of a journal were made, and where: a record in its table `meta`, the newest of each place.

What is deleted from the journal later is still in a backup from before. The record is a help to find those, and no
more: who moves or removes a backup is not seen, and a copy of the file by other means is not in it.
"""

import os
from contextlib import closing
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from twincast.core.times import comparable
from twincast.journal.sqlite.erasures import ERASED_AT
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.lock import serves_the_file
from twincast.journal.sqlite.wal import open_with_its_wal

BACKUPS = "backups"
"""In the table `meta`, the record: a JSON array of what `Backup` has, oldest first."""
PLACES_MAX = 1_000
"""So many places are remembered, those of the newest backups."""
_BUSY_TIMEOUT_MS = 10_000
_WRITE = "insert or replace into meta values (?, ?)"


class Backup(Struct):
    """A backup that was made."""

    place: str
    """Its folder, with links resolved."""
    host: str
    """On which machine that is."""
    seq: int
    """Its newest entry."""
    at_utc: str


def note(path: str, made: Backup) -> None:
    """Remember a backup of a journal, in place of an earlier one there. A server may run on it.

    Raises:
        JournalUnavailable: the journal cannot be written.
        JournalUnusable: it cannot be opened.
    """
    path = os.path.realpath(path)
    with unavailable_if_failing():
        # Without a server, SQLite brings a -wal that a crash has left into the file; only one of its own.
        db = (
            apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
            if serves_the_file(path)
            else open_with_its_wal(path)
        )
        with closing(db):
            db.set_busy_timeout(_BUSY_TIMEOUT_MS)
            db.execute("begin immediate")
            others = [each for each in noted(db) if (each.host, each.place) != (made.host, made.place)]
            db.execute(_WRITE, (BACKUPS, msgspec.json.encode([*others, made][-PLACES_MAX:]).decode()))
            db.execute("commit")


def noted(db: apsw.Connection) -> list[Backup]:
    """Return the newest backup at each place, oldest first; what somebody else wrote there counts as none.

    Raises:
        apsw.Error: the disk does not give it.
    """
    text: Any = db.execute("select value from meta where name = ?", (BACKUPS,)).get
    try:
        return [] if text is None else msgspec.json.decode(text, type=list[Backup])
    except msgspec.MsgspecError:
        return []


def with_erased(db: apsw.Connection) -> list[Backup]:
    """Return those backups that may have something of histories that were deleted since they were made.

    Raises:
        apsw.Error: the disk does not give it.
    """
    if not db.execute("select count(*) from sqlite_schema where type = 'table' and name = 'erasure'").get:
        return []  # of a version before there were such deletions
    made = noted(db)
    if db.execute("select exists (select 1 from erasure where not is_erased)").get:
        return made
    erased_at_utc = db.execute("select value from meta where name = ?", (ERASED_AT,)).get
    return [each for each in made if erased_at_utc and comparable(each.at_utc) < comparable(str(erased_at_utc))]


def forget(db: apsw.Connection) -> None:
    """Remove the record from a copy that another server gets: where this one's backups are is nothing to it."""
    db.execute("delete from meta where name = ?", (BACKUPS,))
