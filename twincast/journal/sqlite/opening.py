"""What a file must be to be opened as a journal, and the words for what it is not."""

import apsw

from twincast.errors import JournalUnusable
from twincast.journal.sqlite import schema
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.lock import why_not_usable
from twincast.journal.sqlite.schema import APPLICATION_ID, SCHEMA_VERSION


def prepare(db: apsw.Connection, path: str, *, synchronous: str, new_name: str) -> dict[str, str]:
    """Make a journal of an empty file, or bring one of an older version to the schema of today.

    Args:
        db: the connection, which alone may append from now on.
        path: the file, for the message.
        synchronous: SQLite's pragma, for the connection.
        new_name: what the log is called if it begins here.

    Returns:
        What the journal says of itself: its table `meta`.

    Raises:
        JournalUnusable: it is something else, of a newer version, or cannot be written.
        apsw.Error: see `why_unusable`.
    """
    if db.readonly("main"):
        raise JournalUnusable(f"the journal {path} is read-only; the server must be able to write it")
    kind, version = db.pragma("application_id"), db.pragma("user_version")
    if kind != APPLICATION_ID and db.execute("select count(*) from sqlite_schema").get:
        raise JournalUnusable(f"{path} is an SQLite database, but not a twincast journal")
    if version > SCHEMA_VERSION:
        raise JournalUnusable(
            f"the journal {path} is of version {version}, written by a newer twincast; "
            f"this one reads version {SCHEMA_VERSION}"
        )
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", synchronous)
    if kind != APPLICATION_ID:
        schema.create(db, new_name)
    elif version < SCHEMA_VERSION:
        schema.upgrade(db, version)
    return dict(db.execute("select name, value from meta"))


def why_unusable(path: str, error: apsw.Error) -> str:
    """Return why a file cannot be opened as a journal, for the person who started the server."""
    if isinstance(error, apsw.NotADBError):
        return f"{path} is not a journal: the file is something else"
    if isinstance(error, apsw.CantOpenError | apsw.PermissionsError) and (why := why_not_usable(path)):
        return f"the journal {path} cannot be opened: {why}"
    if isinstance(error, apsw.ReadOnlyError):
        return f"the journal {path} is read-only; the server must be able to write it"
    if isinstance(error, apsw.FullError):
        return f"the disk of the journal {path} is full"
    return f"the journal {path} cannot be opened: {in_words(error)}"
