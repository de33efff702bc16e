"""The copy of another server as the beginning of this one's: checked against the stream before anything is made of it.

What it says of entries is believed as far as the stream cannot say it any more; from its place on, servers compare what
they have made of the log with each heartbeat.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import apsw
from msgspec.structs import replace

from twincast.core.audit import AuditRecord
from twincast.core.keys import Key
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.copied_keys import load
from twincast.journal.jetstream.copy_file import PLACE
from twincast.journal.jetstream.fold import Place
from twincast.journal.jetstream.key_changes import KeyTable
from twincast.journal.jetstream.key_log import KeyLog
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import StreamFacts, begins_at, has_message, required_stream
from twincast.journal.sqlite.failing import in_words
from twincast.journal.sqlite.health import problems_of, refuse_others
from twincast.journal.sqlite.history import catalog
from twincast.journal.sqlite.key_tables import AFTER_ALL, read_audit
from twincast.journal.sqlite.lock import ServerLock
from twincast.journal.sqlite.schema import COPY_OF
from twincast.machine import sync_folder


@contextmanager
def receiving(path: str) -> Iterator[str]:
    """Give the path of a new file that becomes this server's copy if all goes well; nothing is left of it otherwise.

    Raises:
        JournalUnusable: a server runs on the copy, or what is there is none of a shared log.
    """
    path = os.path.realpath(path)
    is_new = not os.path.exists(path)
    lock = ServerLock(path)
    folder = ""
    try:
        _refuse_own(path)
        folder = tempfile.mkdtemp(prefix=f"{os.path.basename(path)}-fetching-", dir=os.path.dirname(path))
        file = os.path.join(folder, "journal.db")
        yield file
        for name in (f"{path}-wal", f"{path}-shm"):
            with suppress(FileNotFoundError):
                os.unlink(name)
        os.rename(file, path)
        sync_folder(os.path.dirname(path))
        is_new = False
    except OSError as error:
        raise JournalUnusable(f"{path} cannot be made: {error.strerror or error}") from None
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                os.unlink(path)  # the lock made it


async def check_fetched(address: NatsAddress, path: str) -> int:
    """Check that a file is a copy of the log, and can go on; return its newest position.

    Raises:
        JournalUnusable: it is not, or the stream no longer has what follows; the message says why.
        JournalUnavailable: NATS does not answer.
    """
    link = await Link.connect(address, purpose="twincast journal fetch")
    try:
        facts = await required_stream(link, address)
        try:
            with closing(apsw.Connection(path)) as db:
                refuse_others(db, path)
                place = _checked(db, address, facts)
                begins = await begins_at(link, address, facts, place)
                if begins is not None:
                    raise JournalUnusable(
                        f"what was fetched ends at message {place.stream_seq}, and the stream begins at {begins} by now"
                    )
                if not await has_message(link, address, facts, place):
                    raise JournalUnusable(
                        "what was fetched is of another log of that name, or has what the stream has lost"
                    )
                await _check_keys(db, link, address, place)
                return int(db.execute("select coalesce(max(seq), 0) from log").get)
        except apsw.Error as error:
            raise JournalUnusable(f"what was fetched is no copy of a log, or torn: {in_words(error)}") from None
    finally:
        await link.close()


def _checked(db: apsw.Connection, address: NatsAddress, facts: StreamFacts) -> Place:
    if catalog.parts(db):
        raise JournalUnusable("what was fetched names files of its log that are not in it")
    if found := problems_of(db, ""):
        raise JournalUnusable(f"what was fetched is not whole: {'; '.join(found)}")
    meta = dict(db.execute("select name, value from meta"))
    if meta.get(COPY_OF) != address.name or meta.get("epoch") != facts.log:
        raise JournalUnusable(f"what was fetched is no copy of the log {address.name!r} as NATS has it")
    try:
        place = Place(*map(int, meta[PLACE].split()))
    except (KeyError, ValueError, TypeError):
        raise JournalUnusable("what was fetched does not say how far in the log it is") from None
    return place


async def _check_keys(db: apsw.Connection, link: Link, address: NatsAddress, place: Place) -> None:
    """Check that the keys, the codes and what the audit trail says of them are those of the stream, which keeps them.

    Raises:
        JournalUnusable: they are not.
    """
    log = KeyLog(link, address)
    await log.read(until=place.stream_seq)
    records = [_timeless(record) for _, record in reversed(read_audit(db, AFTER_ALL, AFTER_ALL)) if record.seq is None]
    if _said(load(db)) != _said(log.table) or records != [_timeless(record) for record in log.records]:
        raise JournalUnusable("what was fetched has other keys than the log: that server is not to be trusted")


def _said(table: KeyTable) -> tuple[int, list[Key], list[object]]:
    """Return what a table says, less the times: those follow from all messages, not from the keys' alone."""
    rows = table.rows()
    keys = [
        replace(key, created_at_utc="", revoked_at_utc=None if key.revoked_at_utc is None else "") for key in rows.keys
    ]
    return rows.version, sorted(keys, key=lambda key: key.id), list(rows.codes)


def _timeless(record: AuditRecord) -> AuditRecord:
    return replace(record, at_utc="")


def _refuse_own(path: str) -> None:
    """Refuse to replace what is not made again from the stream."""
    if os.path.getsize(path) == 0 and not os.path.exists(f"{path}-wal"):
        return
    try:
        with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as db:
            is_copy = db.execute("select count(*) from meta where name = ?", (COPY_OF,)).get
    except apsw.Error:
        is_copy = 0
    if not is_copy:
        raise JournalUnusable(f"{path} is no copy of a shared log, and is not replaced: name another by `?copy=FILE`")
