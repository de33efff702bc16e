"""Reads a stream behind a place: every message, in order, each once, whatever happens to NATS or the connection.

A pull consumer that lives in memory, one request at a time: several at once can exceed what a NATS server lets wait for
a client, and it then ends the connection. Whatever is not as expected (a gap, a heartbeat that is ahead of what came, a
second of silence, any status but the known ones) ends the consumer, and another one begins behind the last message.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from secrets import token_hex

from twincast.errors import JournalUnavailable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link, Message

logger = logging.getLogger("twincast.nats")

PULL_MESSAGES, PULL_MAX_BYTES = 500, 16 << 20
SILENT_S = 1.0
"""After so long without a heartbeat the consumer is given up."""
HEARTBEAT_NS = 300_000_000
PULL_EXPIRES_NS = 30 * 10**9
AGAIN_S = 0.1
INACTIVE_NS = 30 * 10**9
_ENDS = ("Batch Completed", "Message Size Exceeds MaxBytes")
"""What a request that is used up is answered with."""


class StreamReader:
    """One reader of one stream. Lives on one event loop; `run` reads until it is cancelled."""

    def __init__(
        self,
        link: Link,
        address: NatsAddress,
        take: Callable[[int, int, str, bytes, str | None], Awaitable[None]],
        check: Callable[[], Awaitable[None]],
        place: Callable[[], int],
    ) -> None:
        """Read later.

        Args:
            link: the connection.
            address: which stream.
            take: takes a message: its place in the stream, its stamp in nanoseconds, its subject, its data and its
                `Nats-Msg-Id`. What it raises ends the reading.
            check: raises if the stream is not the one that was read so far; called before each new consumer.
            place: returns the place of the message that was taken last.
        """
        self._link = link
        self._address = address
        self._take = take
        self._check = check
        self._place = place
        self._failure: asyncio.Future[None]
        self._left = 0
        self._heard = asyncio.Event()
        self._is_taking = False  # what comes meanwhile waits
        self._inbox = ""
        self._consumer = ""
        self._reconnected = asyncio.Event()
        self.is_reading = False
        """Whether a consumer is at work: what there is, is here within its latency."""

    async def run(self) -> None:
        """Read, until cancelled. Raises what `take` and `check` raise, but JournalUnavailable."""
        self._link.on_connection.append(self._connection_changed)
        is_told = False
        try:
            while True:
                try:
                    await self._check()
                    await self._consume()
                except JournalUnavailable as error:
                    if not is_told:
                        logger.info("the log is read anew behind %d: %s", self._place(), error)
                    is_told = not self.is_reading
                finally:
                    self.is_reading = False
                await self._pause()
        finally:
            self._link.on_connection.remove(self._connection_changed)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await self._reconnected.wait()
        self._reconnected.clear()

    def _connection_changed(self, is_connected: bool) -> None:
        if is_connected:
            self._reconnected.set()
        self._fail(JournalUnavailable("the connection was lost"))  # its requests do not come back with it

    def _fail(self, error: BaseException) -> None:
        if hasattr(self, "_failure") and not self._failure.done():
            self._failure.set_exception(error)

    async def _consume(self) -> None:
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        self._inbox, self._consumer, self._left = self._link.new_inbox(), token_hex(8), 0
        self._is_taking = False
        subscription = await self._link.subscribe(self._inbox, self._came)
        stream = self._address.stream
        try:
            config = {
                "name": self._consumer,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self._place() + 1,
                "ack_policy": "none",
                "mem_storage": True,
                "num_replicas": 1,
                "inactive_threshold": INACTIVE_NS,
            }
            body = {"stream_name": stream, "config": config}
            await self._link.ask(f"CONSUMER.CREATE.{stream}.{self._consumer}", body)
            await self._pull()
            while True:
                self._heard.clear()
                done, _ = await asyncio.wait({self._failure}, timeout=SILENT_S)
                if done:
                    self._failure.result()
                if not self._heard.is_set() and not self._is_taking:
                    raise JournalUnavailable("the stream is silent")
        finally:
            self._failure.cancel()
            await self._link.unsubscribe(subscription)
            with contextlib.suppress(JournalUnavailable):
                await self._link.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{self._consumer}", b"")

    async def _pull(self) -> None:
        request = b'{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}' % (
            PULL_MESSAGES,
            PULL_MAX_BYTES,
            PULL_EXPIRES_NS,
            HEARTBEAT_NS,
        )
        self._left = PULL_MESSAGES
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._address.stream}.{self._consumer}"
        await self._link.publish(subject, request, reply=self._inbox)

    async def _came(self, message: Message) -> None:
        if self._failure.done():
            return
        self._heard.set()
        try:
            if message.reply.startswith("$JS.ACK."):
                await self._message(message)
            else:
                await self._status(message.headers or {})
        except BaseException as error:
            self._fail(error)
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _message(self, message: Message) -> None:
        # $JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQ.CONSUMER_SEQ.STAMP.PENDING, with a domain and account before them
        *_, seq, _, stamp_ns, _ = message.reply.split(".")
        if int(seq) != self._place() + 1:
            raise JournalUnavailable(f"the stream goes on at {seq}, not at {self._place() + 1}")
        message_id = None if message.headers is None else message.headers.get("Nats-Msg-Id")
        self._is_taking = True
        await self._take(int(seq), int(stamp_ns), message.subject, message.data, message_id)
        self._is_taking = False
        self.is_reading = True
        self._left -= 1
        if self._left == 0:
            await self._pull()

    async def _status(self, headers: dict[str, str]) -> None:
        status, why = headers.get("Status"), headers.get("Description")
        if status == "100":
            if int(headers.get("Nats-Last-Stream", 0)) > self._place():
                raise JournalUnavailable("a message was lost on its way")
            self.is_reading = True
        elif status in {"404", "408"} or why in _ENDS:
            await self._pull()
        else:
            raise JournalUnavailable(f"the consumer has ended: {status} {why}")
