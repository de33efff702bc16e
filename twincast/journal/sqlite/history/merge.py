"""Brings closed partitions back into a journal that is to have all of its log in one file: one that goes elsewhere."""

import apsw

from twincast.journal.sqlite.entries import LOG_COLUMNS
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.history.files import found, path_of
from twincast.journal.sqlite.history.layout import address_of

_ROWS = f"insert into main.log select {LOG_COLUMNS} from closed.log where seq > ? and seq < ? order by seq"


def bring_back(db: apsw.Connection, journal: str) -> None:
    """Insert what closed partitions have from before the log of a copied journal, whose catalog is empty then.

    Args:
        db: the copy, opened so that it takes URIs; nobody else uses it. After a failure it is useless.
        journal: what was copied: beside it are the files.

    Raises:
        apsw.Error: a disk does not give or take it.
    """
    if not catalog.has_parts(db) or not catalog.parts(db):
        return
    parts = found(db, journal)
    oldest = db.execute("select min(seq) from log").get
    since = catalog.reaches_back_to(parts, oldest - 1)
    for part in parts:
        if part.first_seq <= since or part.first_seq >= oldest:
            continue
        db.execute("attach ? as closed", (address_of(path_of(journal, part)),))
        db.execute(_ROWS, (since, oldest))
        db.execute("detach closed")
        since = part.last_seq
    db.execute("delete from part")
