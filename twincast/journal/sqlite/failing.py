"""What SQLite raises, as our own errors and in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from twincast.errors import JournalUnavailable


@contextmanager
def unavailable_if_failing(path: str = "") -> Iterator[None]:
    """Raise what SQLite raises as JournalUnavailable, with the reason in words, and the file if one is given."""
    try:
        yield
    except apsw.Error as error:
        file = f"{path}: " if path else ""
        raise JournalUnavailable(f"the journal cannot use its disk: {file}{in_words(error)}") from error


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
