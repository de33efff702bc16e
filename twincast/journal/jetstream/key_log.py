"""The changes of the keys in the stream, read and written beside any server, or without one.

What was read decides what may be written, and a change is stored only behind what was read: of two that come at once,
one is looked at again. What became of a change is never guessed: it is found in the stream, or it is not.
"""

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex
from typing import NamedTuple

import msgspec

from twincast.core.audit import AuditRecord
from twincast.errors import JournalUnavailable, JournalUnusable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.key_changes import KeyChange, KeyTable, decode_change
from twincast.journal.jetstream.link import ApiError, Link, Message
from twincast.journal.jetstream.stream import NO_MESSAGE, NOT_FOUND, nanoseconds

CHANGE_S = 10.0
"""How long a change may take: a stream that elects another leader takes some seconds."""
RETRY_S = 0.25
BULK, BULK_MAX_BYTES, BULK_S = 1_000, 4 << 20, 2.0
"""How many changes are asked for at once, of how many bytes together, and how long they may take to come."""
OVERTAKEN = frozenset({10071, 10164})
"""JetStream's numbers: another message of the subject was stored before."""


class Found(NamedTuple):
    """A message, and where it is in the stream."""

    stream_seq: int
    stamp_ns: int
    message: bytes


class Stored(NamedTuple):
    """A change, as it is in the stream."""

    message: bytes
    records: tuple[AuditRecord, ...]


class KeyLog:
    """The keys of a shared log as of the newest change that was read. Lives on one event loop."""

    def __init__(self, link: Link, address: NatsAddress) -> None:
        self.table = KeyTable()
        """The keys."""
        self.records: list[AuditRecord] = []
        """What the audit trail says of all changes, oldest first."""
        self._link, self._address = link, address
        self._time_ns = 0

    async def read(self, until: int | None = None) -> list[Stored]:
        """Take the changes since the last time, and return them.

        Args:
            until: the place in the stream up to which they are taken; None for all of them.

        Raises:
            JournalUnusable: there is no such log, or one of them is none that this version knows.
            JournalUnavailable: NATS does not answer.
        """
        news: list[Stored] = []
        if self.table.version == 0:
            while some := await many_after(self._link, self._address, self.table.version):
                news += [self._take(each) for each in some if until is None or each.stream_seq <= until]
                if until is not None and some[-1].stream_seq > until:
                    return news
        while (found := await self._next()) is not None:  # which asks the leader: others may be behind
            if until is not None and found.stream_seq > until:
                break
            news.append(self._take(found))
        return news

    async def change(self, make: Callable[[KeyTable], KeyChange]) -> AuditRecord:
        """Store a change, and return what the audit trail says of it.

        Args:
            make: makes it for the keys as they are; it is called again if others have changed them meanwhile. What it
                raises ends this, and nothing is stored.

        Raises:
            JournalUnusable: there is no such log, or it cannot be read.
            JournalUnavailable: NATS does not take it; the message says if it is not known whether it did.
        """
        until_s = asyncio.get_running_loop().time() + CHANGE_S
        await self.read()
        while True:
            message = make(self.table).encoded()
            await store_change(self._link, self._address, message, self.table.version, until_s)
            for stored in await self.read():
                if stored.message == message:
                    return stored.records[-1]
            if asyncio.get_running_loop().time() > until_s:
                raise JournalUnavailable("others change the keys all the time; nothing was changed, try again")

    def _take(self, found: Found) -> Stored:
        self._time_ns = max(self._time_ns, found.stamp_ns)
        records = self.table.apply(decode_change(found.message), found.stream_seq, _at_utc(self._time_ns))
        self.records += records
        return Stored(found.message, records)

    async def _next(self) -> Found | None:
        body = {"seq": self.table.version + 1, "next_by_subj": self._address.keys_subject}
        try:
            answer = await self._link.ask(f"STREAM.MSG.GET.{self._address.stream}", body)
        except ApiError as error:
            if error.number == NO_MESSAGE:
                return None
            if error.number == NOT_FOUND:
                raise no_log(self._address) from None
            raise
        message = answer["message"]
        return Found(int(message["seq"]), nanoseconds(message["time"]), base64.b64decode(message.get("data", "")))


async def many_after(link: Link, address: NatsAddress, stream_seq: int) -> list[Found]:
    """Return changes that follow a place, one behind the other, as many as some NATS server gives at once.

    None if there are none, or none are given: they are asked for one by one then.
    """
    found: list[Found] = []
    is_over = asyncio.get_running_loop().create_future()

    async def take(answer: Message) -> None:
        headers = answer.headers or {}
        last = found[-1].stream_seq if found else 0
        if "Status" in headers or int(headers.get("Nats-Last-Sequence", last)) != last:
            if not is_over.done():  # the end, a refusal, or one that was lost before this one
                is_over.set_result(None)
        elif not is_over.done():
            found.append(Found(int(headers["Nats-Sequence"]), nanoseconds(headers["Nats-Time-Stamp"]), answer.data))

    inbox = link.new_inbox()
    body = {"seq": stream_seq + 1, "batch": BULK, "max_bytes": BULK_MAX_BYTES, "next_by_subj": address.keys_subject}
    subscription = await link.subscribe(inbox, take)
    try:
        await link.publish(f"$JS.API.DIRECT.GET.{address.stream}", msgspec.json.encode(body), reply=inbox)
        await asyncio.wait({is_over}, timeout=BULK_S)
    finally:
        is_over.cancel()
        await subscription.unsubscribe()
    return found


async def store_change(link: Link, address: NatsAddress, message: bytes, after: int, until_s: float) -> None:
    """Have the stream store a change behind the last one, unless another came first. Whether it did is to be read.

    Args:
        link: the connection.
        address: the log.
        message: the change.
        after: the place of the last change, for which it was made; 0 for none.
        until_s: the time of the event loop at which this gives up.

    Raises:
        JournalUnavailable: it was not stored; or whether it was is not known, as the message says then.
    """
    headers = {"Nats-Msg-Id": f"keys:{token_hex(8)}", "Nats-Expected-Last-Subject-Sequence": str(after)}
    loop, is_out = asyncio.get_running_loop(), False
    while True:
        try:
            await link.store(address.keys_subject, message, headers=headers)
        except ApiError as error:
            if error.number not in OVERTAKEN:  # else by another one, or by an attempt of ours whose answer was lost
                raise JournalUnavailable(f"NATS does not take a change of the keys: {error.description}") from None
        except JournalUnavailable as problem:
            is_out = is_out or link.is_connected
            if loop.time() + RETRY_S > until_s:
                known = "whether the keys were changed is not known" if is_out else "nothing was changed"
                raise JournalUnavailable(f"{problem}; {known}. `twincast keys list` shows them") from None
            await asyncio.sleep(RETRY_S)
            continue
        return


def no_log(address: NatsAddress) -> JournalUnusable:
    """Return the error for a log that there is none of."""
    return JournalUnusable(
        f"there is no log {address.name!r} at {', '.join(address.servers)}; --journal or TWINCAST_JOURNAL names the"
        " servers'"
    )


def _at_utc(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=ns // 1_000).isoformat(timespec="microseconds")
