"""The URL of a journal, `sqlite:PATH`, `memory:` or that of a shared log: the one place where it is taken apart."""

from typing import Literal, NamedTuple

from twincast.errors import JournalUnusable
from twincast.journal.jetstream.address import SCHEMES, NatsAddress
from twincast.journal.local import SCHEME, LocalLog

Kind = Literal["memory", "sqlite", "nats"]
_EXAMPLE = "sqlite:twincast.db"


class JournalUrl(NamedTuple):
    """A journal's URL, checked."""

    kind: Kind
    path: str
    """The file of a journal on disk; empty for every other one."""

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
        if kind in SCHEMES:
            NatsAddress.parse(url)
            return cls("nats", "")
        raise JournalUnusable(
            f"a journal is `sqlite:PATH`, `memory:` or `nats://HOST:PORT/NAME`; this begins with {kind[:20]!r}"
            f"{_hint(url)}"
        )


def _hint(url: str) -> str:
    """Return what to write instead of the path of a file; nothing for what is none."""
    is_path = url.startswith(("/", "./", "../", "~")) or (":" not in url and "." in url)
    return f"; for that file write sqlite:{url[:80]}" if is_path else ""


def catches_up(url: str) -> bool:
    """Whether a log is shared over a network: a server first reads what the others have written, and may wait for it.

    All others are open at once, or never.
    """
    return url.partition("://")[0] in SCHEMES


def local_log_of(url: str) -> LocalLog | None:
    """Return the log that workers of this machine share, if the URL means one; None if it means anything else.

    `workers:PATH` always does, and `sqlite:PATH` once workers have begun one there: what was written is found again,
    however many processes served it.
    """
    kind, _, path = url.partition(":")
    if kind == SCHEME and path:
        return LocalLog.beside(path)
    if kind == "sqlite" and path not in {"", ":memory:"}:
        log = LocalLog.beside(path)
        return log if log.is_there else None
    return None


def shared_log_of(url: str) -> NatsAddress | None:
    """Return the log of several servers that a URL names; None for a journal of one.

    Raises:
        JournalUnusable: it is meant to name one, and does not.
    """
    return NatsAddress.parse(url) if url.partition(":")[0] in SCHEMES else None


def file_of(url: str) -> str | None:
    """Return the path of a journal on disk, which workers have theirs beside; None for every other URL."""
    kind, _, path = url.partition(":")
    if kind == SCHEME and path:
        return path
    try:
        return JournalUrl.parse(url).path or None
    except JournalUnusable:
        return None


def required_file_of(url: str) -> str:
    """Return the file of a journal on disk, for what is done to that file.

    Raises:
        JournalUnusable: the URL names no file, or one beside which workers keep their log.
    """
    local = local_log_of(url)
    if local is not None:
        raise JournalUnusable(
            f"the log of {local.path} is shared by workers, in {local.folder}. Each has a copy of it that is a file,"
            f" such as sqlite:{local.copy('worker-1')}"
        )
    path = file_of(url)
    if path is None:
        raise JournalUnusable(f"this needs a journal on disk, such as {_EXAMPLE}; {url[:80]!r} has no file{_hint(url)}")
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
