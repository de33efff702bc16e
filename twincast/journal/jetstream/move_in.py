"""Moves the journal of one server to a shared log: its entries with their positions and times, keys, codes, the trail.

The stream is marked while it is not whole, so that no server opens it. Every message names the one that it must follow:
two moves at once end each other, and nothing is mixed.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from secrets import token_hex
from typing import TypeVar

from msgspec import Raw

from twincast.core.audit import Actor
from twincast.core.lineage import Generation
from twincast.core.peers import HEARTBEAT_S, decode_heartbeat
from twincast.errors import JournalUnavailable, JournalUnusable, TooLarge
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.commit import (
    Carried,
    Commit,
    commit_of_carried,
    commit_of_moved,
    decode_commit,
    encode_commit,
)
from twincast.journal.jetstream.fold import Beginning, Fold, nanoseconds_of
from twincast.journal.jetstream.key_changes import CarriedCode, CarriedKeys, KeyChange
from twincast.journal.jetstream.link import ApiError, Link, Message
from twincast.journal.jetstream.reader import StreamReader
from twincast.journal.jetstream.stream import CLOCKS_APART_MAX_S, begin_move, end_move, stream_facts
from twincast.journal.sqlite.source import JournalSource, Stretch
from twincast.wire.messages import encode

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with how many entries are done, and of how many."""

SEND_S, SEND_AGAIN_S = 30.0, 0.5
"""How long one message is tried: a stream that elects another leader takes some seconds."""
LISTEN_S = 2 * HEARTBEAT_S + 0.2
PART_BYTES = 256 << 10
"""About so much of what a log has beside entries goes into one message."""
PAYLOAD_ASIDE_BYTES = 1024
"""How much of NATS's largest message is for its headers."""


async def move_in(source: JournalSource, address: NatsAddress, actor: Actor, progress: Progress) -> int:
    """Move a journal to a shared log of which there is nothing yet; return how many entries it has.

    Args:
        source: the journal.
        address: the log.
        actor: who does it, for the audit trail.
        progress: is told of entries.

    Raises:
        JournalUnusable: there is such a log, a server runs on it, or the journal cannot be moved as it is.
        TooLarge: NATS takes no message as large as one of the entries.
        JournalUnavailable: NATS does not answer. What was begun is begun anew by another move.
    """
    _refuse_future(source)
    link = await Link.connect(address, purpose="twincast journal move")
    try:
        await refuse_served(link, address)
        await begin_move(link, address)
        sender = _Sender(link, address)
        await _send_all(source, sender, actor, progress)
        await _read_back(link, address, sender)
        source.note_moved()
        await end_move(link, address)
    finally:
        await link.close()
    return source.newest - source.since


async def refuse_served(link: Link, address: NatsAddress) -> None:
    """Refuse a log on which servers run.

    Raises:
        JournalUnusable: one was heard; the message has its name.
    """
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def take(message: Message) -> None:
        heartbeat = decode_heartbeat(message.data)
        if heartbeat is not None and not heartbeat.leaving and not heard.done():
            heard.set_result(heartbeat.name or heartbeat.id)

    subscription = await link.subscribe(f"twincast.{address.name}.server.*", take)
    try:
        await asyncio.wait({heard}, timeout=LISTEN_S)
    finally:
        await link.unsubscribe(subscription)
    if heard.done():
        raise JournalUnusable(f"the server {heard.result()} runs on the log {address.name!r}; end all of its servers")
    heard.cancel()


class _Sender:
    """Sends messages one behind the other to a stream that nobody else writes to."""

    def __init__(self, link: Link, address: NatsAddress) -> None:
        self._link, self._address = link, address
        self.by = token_hex(8)
        self.stream_seq = 0
        """How many messages are stored."""
        self.seq = 0
        """Up to where the log is stored."""
        self.crc = 0
        """What a fold of these messages has; see Place."""

    async def carry(self, carried: Carried) -> None:
        """Send what the log has beside entries."""
        await self._commit(commit_of_carried(carried, self.by, self.stream_seq + 1))

    async def _commit(self, commit: Commit) -> None:
        data = encode_commit(commit)
        self._check(data)
        await self._store(self._address.log_subject, data)
        self.seq += commit.count
        if commit.carried is not None:
            self.seq = commit.carried.since or self.seq
        self.crc = zlib.crc32(b"%d" % self.seq, self.crc)

    async def change(self, change: KeyChange) -> None:
        """Send a change of the keys."""
        data = change.encoded()
        self._check(data)
        await self._store(self._address.keys_subject, data)

    async def stretch(self, stretch: Stretch) -> None:
        """Send entries, in as many commits as it takes."""
        commit = commit_of_moved(*stretch, self.by, self.stream_seq + 1)
        if len(stretch.entries) > 1 and len(encode_commit(commit)) > self._max_bytes:
            middle = stretch.entries[len(stretch.entries) // 2].seq
            for is_in in (lambda each: each.seq < middle, lambda each: each.seq >= middle):
                await self.stretch(Stretch([*filter(is_in, stretch.entries)], [*filter(is_in, stretch.origins)]))
            return
        await self._commit(commit)

    @property
    def _max_bytes(self) -> int:
        return self._link.max_payload_bytes - PAYLOAD_ASIDE_BYTES

    def _check(self, data: bytes) -> None:
        if len(data) > self._max_bytes:
            raise TooLarge(
                f"NATS takes messages of up to {self._link.max_payload_bytes} bytes, by its max_payload; this journal"
                f" needs one of {len(data)}: raise max_payload"
            )

    async def _store(self, subject: str, data: bytes) -> None:
        headers = {
            "Nats-Msg-Id": f"{self.by}:{self.stream_seq + 1}",
            "Nats-Expected-Last-Sequence": str(self.stream_seq),
        }
        until_s = asyncio.get_running_loop().time() + SEND_S
        while True:
            try:
                self.stream_seq = await self._link.store(subject, data, headers=headers)
                break
            except ApiError as error:
                raise JournalUnavailable(
                    f"NATS does not take the journal: {error.description} ({error.number}); begin the move again"
                ) from None
            except JournalUnavailable:
                if asyncio.get_running_loop().time() > until_s:
                    raise
                await asyncio.sleep(SEND_AGAIN_S)
        self.crc = zlib.crc32(data, self.crc)


async def _send_all(source: JournalSource, sender: _Sender, actor: Actor, progress: Progress) -> None:
    total = source.newest - source.since
    progress(0, total)
    for before in _before(source):
        await sender.carry(before)
    keys, codes = source.keys(), [CarriedCode(*code) for code in source.codes()]
    for some_keys in in_parts(keys):
        await sender.change(_carrying(CarriedKeys(keys=some_keys)))
    for some_codes in in_parts(codes):
        await sender.change(_carrying(CarriedKeys(codes=some_codes)))
    for each in source.log():
        if isinstance(each, Stretch):
            await sender.stretch(each)
            progress(each.entries[-1].seq - source.since, total)
        else:
            for records in in_parts(each):
                await sender.change(_carrying(CarriedKeys(records=records)))
    for behind in _behind(source):
        await sender.carry(behind)
    detail = f"{total} entries, {len(keys)} keys, {len(codes)} codes of the journal of one server"
    await sender.change(KeyChange(*actor, "move", "", detail))


def _before(source: JournalSource) -> Iterator[Carried]:
    """Return what a trimmed log needs before its first entry."""
    if not source.since:
        return
    twins = [(device_id, Raw(value.encode()), *rest) for device_id, value, *rest in source.twins()]
    for some in in_parts(twins) or [[]]:
        yield Carried(
            source.since,
            twins=[twin[:5] for twin in some],  # type: ignore[misc]  # tuples of these very types
            claims=[(twin[0], claim) for twin in some if (claim := twin[5]) is not None],  # type: ignore[misc]
        )
    for deletions in in_parts(source.deletions()):
        yield Carried(source.since, deletions=deletions)


def _behind(source: JournalSource) -> Iterator[Carried]:
    """Return what is known of the entries: which keys stand for some, and up to where producers have come."""
    known = source.idempotency_keys()
    for keys in in_parts([(each.key, each.first_seq, each.last_seq, each.digest) for each in known]):
        yield Carried(keys=keys)
    for marks in in_parts([(*mark[:4], f"{mark.missing:x}") for mark in source.marks()]):
        yield Carried(marks=marks)


def _carrying(carried: CarriedKeys) -> KeyChange:
    return KeyChange("", "", "", "", "", carried=carried)


def in_parts(items: Iterable[T]) -> list[list[T]]:
    """Return items in lists of about `PART_BYTES` as JSON, each of at least one."""
    parts: list[list[T]] = []
    size_bytes = PART_BYTES
    for item in items:
        if size_bytes >= PART_BYTES:
            parts.append([])
            size_bytes = 0
        parts[-1].append(item)
        size_bytes += len(encode(item))
    return parts


async def _read_back(link: Link, address: NatsAddress, sender: _Sender) -> None:
    """Read what was stored, and check that it is what was sent: a server makes of it what this one would.

    Raises:
        JournalUnusable: it is not.
        JournalUnavailable: NATS does not give it.
    """
    fold, is_done = Fold(Beginning("", [Generation("", 0)])), asyncio.Event()

    async def take(stream_seq: int, stamp_ns: int, subject: str, data: bytes, message_id: str | None) -> None:
        if subject == address.keys_subject:
            fold.pass_by(stream_seq, stamp_ns, data)
        else:
            fold.take(stream_seq, stamp_ns, data, decode_commit(data))
        if stream_seq >= sender.stream_seq:
            is_done.set()

    async def check() -> None:
        await stream_facts(link, address, is_moving=True)

    reader = StreamReader(link, address, take, check, lambda: fold.place.stream_seq)
    reading = asyncio.create_task(reader.run(), name="read back")
    done = asyncio.create_task(is_done.wait())
    try:
        await asyncio.wait({reading, done}, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
    finally:
        for task in (reading, done):
            task.cancel()
        await asyncio.gather(reading, done, return_exceptions=True)
    facts = await stream_facts(link, address, is_moving=True)
    if (facts.last_seq, fold.seq, fold.place.crc) != (sender.stream_seq, sender.seq, sender.crc):
        raise JournalUnusable(
            f"the log {address.name!r} does not hold what was moved to it: another program writes there. Nothing was"
            " changed here; begin the move again"
        )


def _refuse_future(source: JournalSource) -> None:
    """Refuse entries that are of the future: time never goes back, so all later ones would be of that time."""
    if source.latest is None:
        return
    seq, at_utc = source.latest
    try:
        ahead_s = nanoseconds_of(at_utc) / 1e9 - datetime.now(UTC).timestamp()
    except (ValueError, TypeError):
        raise JournalUnusable(f"the time of entry {seq} is none: {at_utc[:40]!r}") from None
    if ahead_s > CLOCKS_APART_MAX_S:
        raise JournalUnusable(
            f"entry {seq} is of {at_utc}, {ahead_s:,.0f} seconds ahead of this machine's clock: set that by NTP, or"
            " move the journal then. Times of a shared log never go back, and all later entries would be of that time"
        )
