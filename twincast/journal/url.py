"""The URL of a journal, `sqlite:PATH` or `memory:`: the one place where it is taken apart."""

from typing import Literal, NamedTuple

from twincast.errors import JournalUnusable

Kind = Literal["memory", "sqlite"]
_EXAMPLE = "sqlite:twincast.db"


class JournalUrl(NamedTuple):
    """A journal's URL, checked."""

    kind: Kind
    path: str
    """The file of a journal on disk; empty for one in memory."""

    @classmethod
    def parse(cls, url: str) -> "JournalUrl":
        """Read a URL.

        Raises:
            JournalUnusable: it names no kind of journal, or not where.
        """
        kind, _, path = url.partition(":")
        if kind == "memory" and not path:
            return cls("memory", "")
        if kind == "sqlite" and path:
            return cls("sqlite", path)
        raise JournalUnusable(f"a journal is `sqlite:PATH` or `memory:`; this begins with {kind[:20]!r}")


def file_of(url: str) -> str | None:
    """Return the file of a journal on disk; None for every other URL."""
    try:
        return JournalUrl.parse(url).path or None
    except JournalUnusable:
        return None


def required_file_of(url: str) -> str:
    """Return the file of a journal on disk, for what is done to that file.

    Raises:
        JournalUnusable: the URL names no file.
    """
    path = file_of(url)
    if path is None:
        raise JournalUnusable(f"this needs a journal on disk, such as {_EXAMPLE}; {url[:80]!r} has no file")
    return path


def keys_file_of(url: str) -> str:
    """Return the file of a journal that keeps keys.

    Raises:
        JournalUnusable: it keeps none.
    """
    path = file_of(url)
    if path is None or path == ":memory:":
        kind = url.partition(":")[0]
        raise JournalUnusable(
            f"keys live in a journal on disk, such as {_EXAMPLE}; one that begins with {kind[:20]!r} keeps none"
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise JournalUnusable(f"the path of a journal is text in UTF-8; {path!r} is not") from None
    return path
