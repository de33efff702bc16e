"""Moves a log from one kind of journal to another: which way by the two URLs, with this machine's NATS if need be."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twincast import extras
from twincast.cluster.engine import running_in
from twincast.cluster.key_store import with_token
from twincast.cluster.local import reached
from twincast.core.audit import Actor
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.address import SCHEMES, NatsAddress
from twincast.journal.local import SCHEME, LocalLog
from twincast.journal.sqlite.source import JournalSource
from twincast.journal.url import JournalUrl

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much: entries of the log; pages of the file, where that is copied."""
_WAYS = (
    "a log is moved from sqlite:PATH to nats://HOST:PORT/NAME or workers:PATH, and from one of these, or from the file"
    " of a server's copy, to sqlite:PATH"
)


def move(source: str, target: str, actor: Actor, progress: Progress) -> str:
    """Move a log, whole; return what was done, in a sentence. Where no event loop runs.

    Args:
        source: the URL of a journal, or the file of a copy. It stays as it is, but for the mark that it was moved.
        target: the URL of a journal that is not there yet.
        actor: who does it, for the audit trail.
        progress: is told how far it is.

    Raises:
        JournalUnusable: it cannot be moved there; the message says why. The source can be served as before.
        TooLarge: NATS takes no message as large as one of the entries.
        JournalUnavailable: NATS does not answer. The move can be begun again.
        ExtraMissing: a shared log takes packages that are not installed.
    """
    with extras.needed("a shared log", "cluster"):
        from twincast.journal.jetstream import move_in, move_out  # noqa: PLC0415  # comes with an extra

    if _is_shared(target):
        path = _file(source)
        # The journal is held first: no supervisor starts on it, nor is one running there.
        with JournalSource(path, _place(target)) as journal, _reached(target, make=True) as address:
            count = asyncio.run(move_in.move_in(journal, address, actor, progress))
        return (
            f"{_place(target)} has the log of {path} now, {count:,} entries, and {path} says so to a server that is"
            " started on it. Cursors of clients are of another log: each begins with the whole state, once"
        )
    path = _file(target)
    if _is_shared(source):
        with _reached(source, make=False) as address:
            newest = asyncio.run(move_out.move_out(address, path, progress))
    else:
        newest = move_out.move_copy_out(_file(source), path, progress)
    return (
        f"{path} is a journal of its own now, with the log of {source} up to entry {newest:,}. {source} is as it was:"
        " end its servers for good, or two logs go on. Cursors of clients are of another log: each begins with the"
        " whole state, once"
    )


def _is_shared(url: str) -> bool:
    return url.partition(":")[0] in {*SCHEMES, SCHEME}


def _file(url: str) -> str:
    """Return the file of a journal, named by its URL or its path."""
    kind = url.partition(":")[0]
    path = url if kind not in {"sqlite", "memory"} and "://" not in url else JournalUrl.parse(url).path
    if path in {"", ":memory:"}:
        raise JournalUnusable(f"{_WAYS}; not from or to {url[:80]!r}")
    return path


def _place(url: str) -> str:
    """Return a shared log's URL as everybody may see it, without what is this machine's."""
    kind, _, path = url.partition(":")
    if kind == SCHEME:
        return f"{SCHEME}:{LocalLog.beside(path).path}"
    address = NatsAddress.parse(url)
    return f"{kind}://{','.join(server.partition('://')[2] for server in address.servers)}/{address.name}"


@contextmanager
def _reached(url: str, *, make: bool) -> Iterator[NatsAddress]:
    kind, _, path = url.partition(":")
    if kind != SCHEME:
        yield NatsAddress.parse(url)
        return
    log = LocalLog.beside(path)
    if not path or not (make or log.is_there):
        raise JournalUnusable(f"no workers have a log at {log.path}")
    if running_in(Path(log.engine_folder)) is not None:
        raise JournalUnusable(f"workers run on {log.path}; end them before their log is moved")
    os.makedirs(log.folder, 0o700, exist_ok=True)
    with reached(log) as engine, with_token(engine.token):
        yield NatsAddress.parse(log.url(engine.url, "move"))
