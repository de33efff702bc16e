"""Moves a shared log to a journal of one server: the file of a copy, made anew or one that is there, under a new name.

The log itself, and the copy, stay as they are.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager

import apsw

from twincast.core.opening import Opening
from twincast.errors import BackupUnusable, JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.copy_file import PLACE, VERSION
from twincast.journal.jetstream.journal import JetStreamJournal
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.move_in import Progress, refuse_served
from twincast.journal.jetstream.stream import required_stream
from twincast.journal.sqlite.backup import copy_journal
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.health import problems_of, reading
from twincast.journal.sqlite.lock import serves_the_file
from twincast.journal.sqlite.schema import COPY_OF
from twincast.machine import sync_folder

TELL_S = 0.2


async def move_out(address: NatsAddress, target: str, progress: Progress) -> int:
    """Make a journal of one server of a shared log, as it is at this moment; return its newest position.

    Args:
        address: the log; its servers must have ended.
        target: the file of the journal.
        progress: is told of entries.

    Raises:
        JournalUnusable: the target is there already, servers run, or the log cannot be read; the message says why.
        JournalUnavailable: NATS does not answer.
    """
    with _made(target) as file:
        link = await Link.connect(address, purpose="twincast journal move")
        try:
            await required_stream(link, address)
            await refuse_served(link, address)
        finally:
            await link.close()
        opening = Opening()
        telling = asyncio.create_task(_tell(opening, progress))
        try:
            journal = await JetStreamJournal.open(address._replace(copy=file), opening=opening)
            await journal.close()
        finally:
            telling.cancel()
        return _become_own(file)


def move_copy_out(copy: str, target: str, progress: Progress) -> int:
    """Make a journal of one server of a server's copy; return its newest position.

    Args:
        copy: the file of the copy; its server must have ended.
        target: the file of the journal.
        progress: is told of pages of the file.

    Raises:
        JournalUnusable: the target is there already, or the copy cannot be used; the message says why.
    """
    if serves_the_file(os.path.realpath(copy)):
        raise JournalUnusable(f"a server runs on {copy}; end it before its log is moved")
    with _made(target) as file:
        with reading(copy) as source:
            if source.execute("select count(*) from meta where name = ?", (COPY_OF,)).get == 0:
                raise JournalUnusable(
                    f"{copy} is a journal of one server already; `twincast journal backup` and `restore` copy one"
                )
            try:
                copy_journal(source, file, progress)
            except BackupUnusable as error:
                raise JournalUnusable(error.message) from None
        return _become_own(file)


async def _tell(opening: Opening, progress: Progress) -> None:
    while True:
        if opening.of_seq is not None:
            progress(opening.at_seq or 0, opening.of_seq)
        await asyncio.sleep(TELL_S)


def _become_own(path: str) -> int:
    """Take from a copy what makes it one: it gets a name of its own, and no position of the shared log counts here."""
    with closing(apsw.Connection(path)) as db:
        with db:
            db.execute("drop table writer")
            db.execute("delete from generation")
            db.execute("delete from meta where name in (?, ?, ?)", (COPY_OF, PLACE, VERSION))
            db.execute("update meta set value = ? where name = 'epoch'", (secrets.token_hex(4),))
        db.pragma("journal_mode", "delete")  # it stands alone
        if found := problems_of(db, path):
            raise JournalUnusable(f"the log is not whole: {'; '.join(found)}")
        newest = db.execute("select coalesce(max(seq), 0) from log").get
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return int(newest)


@contextmanager
def _made(target: str) -> Iterator[str]:
    """Give the path of a file that becomes the target if all goes well; nothing is left of it otherwise.

    Raises:
        JournalUnusable: there is something, or it cannot be made.
    """
    target = os.path.realpath(target)
    _refuse_there(target)
    try:
        folder = tempfile.mkdtemp(prefix=f"{os.path.basename(target)}-moving-", dir=os.path.dirname(target))
    except OSError as error:
        raise JournalUnusable(f"{target} cannot be made: {error.strerror}") from None
    try:
        file = os.path.join(folder, "journal.db")
        yield file
        _refuse_there(target)
        os.rename(file, target)
        sync_folder(os.path.dirname(target))
    except apsw.Error as error:
        raise JournalUnusable(f"{target} cannot be made: {in_words(error)}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_there(target: str) -> None:
    for name in (target, f"{target}-wal"):
        if os.path.lexists(name):
            raise JournalUnusable(f"{name} is there already; a log is moved to a new file")
