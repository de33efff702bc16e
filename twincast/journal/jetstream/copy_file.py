"""A server's copy of a shared log: today's file of a journal, and how far in the stream it is, in one transaction.

It follows behind, in larger transactions than the log's commits, and is not synced: after a power cut it is behind,
never torn, and goes on from there. It may be deleted at any time; it is then made anew from the stream.
"""

import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET, Raw

from twincast.core.erasure import Erasure
from twincast.core.idempotency import IdempotencyRecord
from twincast.core.lateness import time_that_counts
from twincast.core.lineage import Generation
from twincast.core.model import DataUpdate, Entry
from twincast.core.producers import ProducerMark
from twincast.core.times import comparable
from twincast.errors import JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.columns import Readings
from twincast.journal.jetstream.commit import Carried
from twincast.journal.jetstream.copied_keys import load, store_change
from twincast.journal.jetstream.fold import FIRST, WRITERS_MAX, Beginning, Folded, Place, Writer
from twincast.journal.jetstream.key_changes import KeyChange, KeyTable
from twincast.journal.jetstream.link import Link
from twincast.journal.jetstream.stream import StreamFacts, begins_at, fork_if_cut
from twincast.journal.retention import KEEP_ALL, Retention
from twincast.journal.sqlite import checkpoint, generations
from twincast.journal.sqlite.entries import Insertion, insertion_of_readings, insertion_of_rows
from twincast.journal.sqlite.erasures import newest_in_stream
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.lock import JournalInUse
from twincast.journal.sqlite.schema import COPY_OF
from twincast.journal.sqlite.worker import Worker

logger = logging.getLogger("twincast.journal")

PLACE = "stream_place"
"""In the table `meta`, how far in the stream the copy is."""
VERSION = "stream_version"
"""There, the newest version of the rules that the stream has come to; without it, the first one."""
CATCHING_UP_CHECKPOINT_ENTRIES = 200_000
"""How many entries one slice folds into the checkpoint while nobody waits for it: a device that reports often costs a
slice as much as one that reports seldom."""
CATCHING_UP_CACHE_KIB = 48 * 1024
"""Enough memory for the log of such a slice, if values are small: else it is read back from the disk."""
CATCHING_UP_WAL_PAGES = 16_384
"""The -wal goes into the file, and that to the disk, each 64 MiB: each 4, as is usual, waits too often."""
RUN_MIN = 64
"""From so many readings of one message on, they are added by a statement of their own, which is cheaper for each."""

_WRITER = "create table writer (by text primary key, n integer not null, stream_seq integer not null) without rowid"


class Step(NamedTuple):
    """What one message of the stream brings to the copy."""

    folded: Folded
    change: KeyChange | None = None
    """Of the keys, and `at_utc` its time."""
    at_utc: str = ""

    @property
    def entries(self) -> int:
        """How many entries it brings."""
        return 0 if self.folded.committed is None else len(self.folded.committed.entries)


class CopyOfAnotherLog(JournalUnusable):
    """The file is the copy of another log of that name: of one that was deleted since, or put back."""

    def __init__(self, path: str, name: str, log: str) -> None:
        self.log = log
        """Of the copy."""
        super().__init__(f"{path} is the copy of a log {name!r} that is no more")


class NotACopy(JournalUnusable):
    """The file holds something that must not be lost: a journal of its own, or another log's copy."""


class CopyFile(SqliteFile):
    """The open copy, locked against a second server. All methods must be called in one thread."""

    _notes_deletions = False
    """See SqliteFile. The fold says which deletions are remembered; they are stored with its steps."""

    def __init__(self, path: str, name: str, log: str, first: Generation, *, retention: Retention = KEEP_ALL) -> None:
        """Open or create.

        Args:
            path: the file.
            name: of the shared log, for people.
            log: of the shared log: which one it is.
            first: its first generation.
            retention: what of the log is kept here.

        Raises:
            CopyOfAnotherLog: see there.
            JournalUnusable: the message says why.
        """
        self._name, self._log, self._first = name, log, first
        self._generations: list[Generation] = []
        self.place = FIRST
        """How far in the stream it is."""
        self._usual: dict[str, Any] = {}  # pragmas, while it catches up
        self.version = 1
        """The newest version of the rules that the stream has come to, as far as this copy knows."""
        try:
            super().__init__(path, retention=retention, synchronous="normal")
        except (JournalInUse, CopyOfAnotherLog, NotACopy):
            raise
        except JournalUnusable as error:
            raise JournalUnusable(
                f"{error}; as it was to be this server's copy of the log {name!r}, it may be removed, and is made anew"
            ) from None
        self.seq = max(self.seq, self.checkpoint_seq)  # of a log that was moved here trimmed, and is not here yet

    @property
    def generation(self) -> Generation:
        """The generation of the log that ran, as far as this copy knows."""
        return self._generations[-1]

    def beginning(self) -> Beginning:
        """Return what a fold goes on with. Raises JournalUnavailable if the disk does not give it."""
        writers: list[Any] = self._db.execute("select by, n, stream_seq from writer order by stream_seq").fetchall()
        return Beginning(
            self.epoch,
            self._generations,
            self.seq,
            self.place,
            [Writer(*row) for row in writers],
            self.idempotency_keys(),
            self.marks(),
            self._newest(),
            self._deletions(),
            self.version,
        )

    def _newest(self) -> Iterator[tuple[str, str]]:
        for device_id, at_utc, claim in self._db.execute("select device_id, updated_at_utc, measured_at_utc from twin"):
            yield device_id, time_that_counts(claim, at_utc)

    def _deletions(self) -> Iterator[tuple[str, str]]:
        for device_id, at_utc in self._db.execute("select device_id, deleted_at_utc from deletion order by seq"):
            yield device_id, comparable(at_utc)

    def erased_in_stream(self) -> int:
        """Return up to which message the stream is to go, for what was deleted of histories; 0 if nothing was.

        Raises:
            JournalUnavailable: the disk does not say it.
        """
        with unavailable_if_failing():
            return newest_in_stream(self._db)

    def key_table(self) -> KeyTable:
        """Return the keys as of the place of the copy."""
        return load(self._db)

    @property
    def _checkpoint_entries(self) -> int:
        return CATCHING_UP_CHECKPOINT_ENTRIES if self._usual else super()._checkpoint_entries

    def begin_catching_up(self) -> None:
        """Take in what was written long ago, while no commit waits for this thread: in larger bites."""
        self._usual = {name: self._db.pragma(name) for name in ("cache_size", "wal_autocheckpoint")}
        self._db.pragma("cache_size", -CATCHING_UP_CACHE_KIB)
        self._db.pragma("wal_autocheckpoint", CATCHING_UP_WAL_PAGES)

    def end_catching_up(self) -> None:
        """Be up to date, with a checkpoint and a -wal of the usual size, before anybody waits.

        Raises:
            JournalUnavailable: the disk failed; nothing is lost.
        """
        self.checkpoint()
        for name, value in self._usual.items():
            self._db.pragma(name, value)
        self._usual = {}
        self._db.pragma("shrink_memory")
        self.settle()

    def store(self, steps: Sequence[Step]) -> None:
        """Store what messages of the stream, one behind the other, have brought, but those that are stored already.

        A call that is cancelled while its thread is at work is stored, and comes again when the journal is closed.

        Raises:
            JournalUnavailable: nothing of it was stored.
        """
        steps = [step for step in steps if step.folded.place.stream_seq > self.place.stream_seq]
        if not steps:
            return
        committed = [step.folded.committed for step in steps if step.folded.committed is not None]
        erasing: list[Erasure] = []
        with self._transactions.begin(sync_s=self.sync_s):
            pieces = _in_pieces([stretch.entries for stretch in committed])
            for each in pieces:
                self._db.execute(*each)
            since = max(self._carry(step.folded.carried) for step in steps)
            for step in steps:
                if step.folded.committed is not None:
                    self._attach(step.folded.committed, step.folded.origins)
                if step.folded.deleted:
                    self._store_deletions(
                        (each.device_id, each.timestamp_utc, each.seq) for each in step.folded.deleted
                    )
                    erasing += self._note_erasures(step.folded.deleted, step.folded.place.stream_seq)
                if step.change is not None:
                    store_change(self._db, step.change, step.folded.place.stream_seq, step.at_utc)
                if step.folded.generation is not None:
                    generations.store(self._db, step.folded.generation)
            self._store_writers([step.folded.writer for step in steps if step.folded.writer is not None])
            place = steps[-1].folded.place
            self._db.execute("update meta set value = ? where name = ?", (_text_of(place), PLACE))
            version = max(step.folded.version for step in steps)
            if version > self.version:
                self._db.execute("replace into meta values (?, ?)", (VERSION, str(version)))
        self.place, self.version = place, max(version, self.version)
        self.has_erasures |= bool(erasing)
        if since:
            self.seq = self._checkpoint_seq = since
        if committed:
            self.seq = committed[-1].entries[-1].seq
            self.appended_bytes += sum(each.text_chars for each in pieces)

    def _carry(self, carried: Carried | None) -> int:
        """Store what a moved log has brought; return behind which position it goes on, 0 if it does not say."""
        if carried is None:
            return 0
        claims = dict(carried.claims)
        self._db.executemany(
            "replace into checkpoint (device_id, value, updated_at_utc, source, seq, measured_at_utc)"
            " values (?, ?, ?, ?, ?, ?)",
            ((*_twin_row(twin), claims.get(twin[0])) for twin in carried.twins),
        )
        self._store_deletions(carried.deletions)
        if carried.since:
            checkpoint.move_to(self._db, carried.since)
        marks = [
            ProducerMark(identity, producer, line, seq, int(missing, 16))
            for identity, producer, line, seq, missing in carried.marks
        ]
        self._attach_all([IdempotencyRecord(*key) for key in carried.keys], marks, ())
        return carried.since

    def _store_deletions(self, deletions: Iterable[tuple[str, str, int]]) -> None:
        self._db.executemany("replace into deletion values (?, ?, ?)", deletions)
        checkpoint.keep_deletions(self._db)

    def _store_writers(self, writers: Sequence[Writer]) -> None:
        newest = {writer.by: writer for writer in writers}
        self._db.executemany("replace into writer values (?, ?, ?)", newest.values())
        self._db.execute(
            "delete from writer where by not in (select by from writer order by stream_seq desc limit ?)",
            (WRITERS_MAX,),
        )

    def _new_name(self) -> str:
        return self._log

    def _check_owner(self, meta: Mapping[str, str]) -> None:
        shared = meta.get(COPY_OF)
        if shared is None and self._is_new(meta):
            with self._db:
                self._db.execute(_WRITER)
                self._db.execute(
                    "insert into meta values (?, ?), (?, ?)", (COPY_OF, self._name, PLACE, _text_of(FIRST))
                )
            return
        if shared is None:
            raise NotACopy(
                f"{self.path} is a journal of its own, not a copy of the shared log {self._name!r}: name another file"
                f" by `?copy=FILE`, or have the log hold it by `twincast journal move`"
            )
        if shared != self._name:
            raise NotACopy(
                f"{self.path} is the copy of another shared log, {shared!r}: name another file by `?copy=FILE`"
            )
        self.place = Place(*map(int, meta[PLACE].split()))
        self.version = int(meta.get(VERSION, "1"))
        if meta["epoch"] != self._log:
            raise CopyOfAnotherLog(self.path, self._name, meta["epoch"])

    def _is_new(self, meta: Mapping[str, str]) -> bool:
        return meta["epoch"] == self._log and not generations.has_any(self._db)

    def _begin_generation(self) -> list[Generation]:
        """Return the generations of the shared log as far as this copy knows them; a start here begins none."""
        if not generations.has_any(self._db):
            with self._db:
                generations.store(self._db, self._first)
        self._generations = generations.read(self._db)
        return self._generations


async def open_copy(
    link: Link, address: NatsAddress, facts: StreamFacts, worker: Worker, retention: Retention
) -> CopyFile:
    """Open the file of this server's copy; one of a log that is no more is moved aside, and made anew.

    Args:
        link: the connection.
        address: the log, and where the copy lies.
        facts: what NATS says of the stream.
        worker: in whose thread the file is used.
        retention: what of the log is kept.

    Raises:
        JournalUnusable: the file cannot serve, or the stream no longer has what follows it.
        JournalUnavailable: NATS does not answer.
    """

    def open_file() -> CopyFile:
        def once() -> CopyFile:
            return CopyFile(address.copy, address.name, facts.log, facts.generation, retention=retention)

        try:
            return once()
        except CopyOfAnotherLog as error:
            logger.warning("%s; it is kept as %s, and a new copy is made", error, _move_aside(address.copy, error.log))
            return once()

    file = await worker.do(open_file)
    try:
        generation = file.generation
        if await fork_if_cut(link, address, facts, file.place, generation):
            logger.warning("the log %r has lost its end, which the copy %s has", address.name, address.copy)
            await worker.do(file.close)
            logger.warning("that copy is kept as %s", _move_aside(address.copy, f"{facts.log}-{generation.name}"))
            file = await worker.do(open_file)
        file.version = max(file.version, facts.version)
        begins = await begins_at(link, address, facts, file.place)
        if begins is not None:
            raise JournalUnusable(
                f"the stream of the log {address.name!r} begins at message {begins}, and this server's copy"
                f" ends at {file.place.stream_seq}: `twincast journal fetch` brings the copy of another server"
            )
    except BaseException:
        await worker.do(file.close)
        raise
    return file


def _move_aside(path: str, log: str) -> str:
    """Move the file of a copy out of the way; return where it is now."""
    aside = f"{path}.{log}"
    if os.path.exists(aside):
        aside = f"{aside}.{secrets.token_hex(2)}"
    os.rename(path, aside)
    if os.path.isdir(folder_of(path)):
        os.rename(folder_of(path), folder_of(aside))
    return aside


def _twin_row(twin: tuple[str, Raw, str, str, int]) -> tuple[object, ...]:
    device_id, value, at_utc, source, seq = twin
    return device_id, bytes(value).decode(), at_utc, source, seq


def _text_of(place: Place) -> str:
    return " ".join(map(str, place))


def _in_pieces(stretches: Sequence[Sequence[Entry]]) -> list[Insertion]:
    """Return how entries are added: each large run of readings by itself, what lies between two of those together."""
    pieces: list[Insertion] = []
    others: list[Entry] = []
    for entries in stretches:
        piece = _of_one_run(entries) if len(entries) >= RUN_MIN else None
        if piece is None:
            others += entries
            continue
        if others:
            pieces.append(insertion_of_rows(others))
            others = []
        pieces.append(piece)
    if others:
        pieces.append(insertion_of_rows(others))
    return pieces


def _of_one_run(entries: Sequence[Entry]) -> Insertion | None:
    """Return how readings of one time and source are added; None if these are not all that."""
    if isinstance(entries, Readings) and (columns := entries.columns) is not None:
        pairs: Iterable[tuple[str, Raw]] = zip(columns.subjects, columns.payloads, strict=True)
        return insertion_of_readings(columns.given.seq, pairs, columns.given.at_utc, columns.source)
    source, at_utc = entries[0].source, entries[0].timestamp_utc
    pairs = [
        (entry.device_id, entry.value)
        for entry in entries
        if isinstance(entry, DataUpdate)
        and entry.source == source
        and entry.timestamp_utc == at_utc
        and entry.measured_at_utc is UNSET
    ]
    if len(pairs) < len(entries):
        return None
    return insertion_of_readings(entries[0].seq, pairs, at_utc, source)
