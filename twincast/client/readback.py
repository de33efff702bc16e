"""A watch that resumes where an earlier process was: a second connection reads back what that process missed.

The client's connection begins with the newest state, so that `Client.state` is complete at once. The second connection
reads from the position to the head of the log. Then the watch starts on the first one, and the second one continues
until the two meet: up to the seq at which the watch has started. The seqs that it brought are not yielded again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import msgspec
from websockets.exceptions import ConnectionClosed

from twincast.client.address import is_too_long, query_of
from twincast.client.backoff import TIMEOUT_S, Backoff
from twincast.client.event_queue import Mark
from twincast.client.events import Event, Gap, Twin, event_of, reading_of, twins_in
from twincast.client.failures import Retryable, error_of, failure_of_close, failure_of_login, not_twincast
from twincast.client.link import Socket
from twincast.client.message import Message, decode, encode
from twincast.client.watch import NO_SEQS, Watch
from twincast.core.model import KINDS, Position
from twincast.core.subscription import Subscription
from twincast.errors import LOGIN_NEEDED, TwincastError, Unauthenticated

SILENCE_MAX_S = 60.0
"""After so long without a message, although an answer is due, the connection is given up for another attempt."""

logger = logging.getLogger("twincast.client")

OpenLink = Callable[[str], AbstractAsyncContextManager[Socket]]
_HEAD_QUESTION = encode({"type": "subscribe", "id": "head"}).decode()


class ReadBack:
    """Brings one watch what lies behind a position, and then starts it on the client's connection.

    It goes through these steps, and repeats from the position that it has reached if its connection is lost:

    1. The greeting: the server resumes at the position (`begun` is set), or sends its state with what is missing before
       it, or says that the position is of another log (`_is_other`: then there is nothing to read back).
    2. Read to the head: the answer to a question comes behind all that was in the log before it.
    3. Start the watch on the client's connection; its events queue behind what is read back.
    4. Read to the head again: now all that the other connection did not bring is here. The two queues are joined.
    """

    def __init__(
        self,
        watch: Watch,
        since: Position,
        go_live: Callable[[Watch], Awaitable[None]],
        *,
        base: str,
        open_link: OpenLink,
        credential: str,
    ) -> None:
        """Make one; `run` does it.

        Args:
            watch: the watch.
            since: the position.
            go_live: starts the watch on the client's connection.
            base: the server's address, for messages.
            open_link: opens a WebSocket to the address with these parameters.
            credential: "none", "fixed" or "renewed", see Credential.
        """
        self._base = base
        self._open_link = open_link
        self._credential = credential
        self._watch = watch
        self._since = since
        self._position = since
        self._go_live = go_live
        self._is_live = False
        self._is_other = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the server has accepted the subscription: from then on nothing behind the position is missed."""

    def reached(self) -> Mark | None:
        """See Reached. None if the position is of another log."""
        return None if self._is_other else Mark(0, self._position)

    async def run(self) -> None:
        """Read back, and start the watch; reconnect after a lost connection.

        Raises:
            TwincastError: the server refused it; the watch has ended with the error.
        """
        self._watch.begin_reading_back()
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._attempt()
                    return
                except Retryable:
                    await asyncio.sleep(backoff.wait_s())
        except TwincastError as error:
            self._watch.fail(error)
            self._begin(error)

    async def _attempt(self) -> None:
        subscription = self._watch.subscription
        query = query_of(replace(subscription, max_hz=None), self._position)
        if is_too_long(query):
            query = query_of(Subscription(mode=subscription.mode), self._position)
        try:
            async with self._open_link(query) as socket:
                await self._greeted(socket)
                if not self._is_other:
                    await self._read_to_head(socket)
                if not self._is_live:
                    await self._go_live(self._watch)
                    self._is_live = True
                if not self._is_other:
                    await self._read_to_head(socket)
        except ConnectionClosed as lost:
            code, reason = (lost.rcvd.code, lost.rcvd.reason) if lost.rcvd else (None, "")
            raise failure_of_close(code, reason, None, credential=self._credential) from None
        except TimeoutError:
            raise not_twincast(self._base) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("what %s said could not be taken", self._base, exc_info=error)
            raise not_twincast(self._base) from None
        told = NO_SEQS if self._is_other else range(self._since.seq + 1, self._position.seq + 1)
        self._watch.end_reading_back(told)

    async def _greeted(self, socket: Socket) -> None:
        hello, _ = await self._receive(socket)
        if hello["type"] == "auth_required":
            raise failure_of_login(Unauthenticated(LOGIN_NEEDED), credential=self._credential)
        if hello["type"] != "hello":
            raise not_twincast(self._base)
        if hello["resumed"]:
            self._position = Position(hello["epoch"], self._position.seq)
        elif hello["reason"] == "too_old":
            await self._begin_with_state(socket, hello)
        else:
            self._is_other = True
            is_ahead = hello["reason"] == "ahead"
            why = "is ahead of the log" if is_ahead else "is of another log, or of a part that this one does not have"
            logger.warning("the position %s %s at %s: the watch continues from now on", self._since, why, self._base)
            self._watch.add_gap_back(Gap(None, None, "ahead" if is_ahead else "epoch"))
        self._begin(None)

    async def _begin_with_state(self, socket: Socket, hello: Message) -> None:
        before, page = self._position, hello
        twins: dict[str, Twin] = {}
        while True:
            twins |= twins_in(page["data_snapshot"])
            if not page.get("more"):
                break
            page, _ = await self._receive(socket)
        await self._take_state(twins, before, Position(hello["epoch"], hello["seq"]))

    async def _take_state(self, twins: dict[str, Twin], before: Position, after: Position) -> None:
        """Offer what is new in a state, behind what is missing before it."""
        gap = Gap.between(before, after)
        if gap is not None:
            self._watch.add_gap_back(gap)
        for device_id, twin in sorted(twins.items(), key=lambda item: item[1].seq):
            if twin.seq > before.seq:
                await self._offer(reading_of(device_id, twin, after.epoch), 0, Mark(0, before))
        self._position = after

    async def _read_to_head(self, socket: Socket) -> None:
        """Take messages up to the answer to a question, which comes behind all that was in the log before it."""
        await socket.send(_HEAD_QUESTION)
        gap: Message | None = None
        twins: dict[str, Twin] = {}
        while True:
            message, size_bytes = await self._receive(socket)
            kind = message["type"]
            if kind in KINDS:
                event = event_of(message)
                await self._offer(event, size_bytes, Mark(0, self._position))
                self._position = Position(event.epoch, event.seq)
            elif kind == "gap":
                gap, twins = message, {}
            elif kind == "snapshot" and gap is not None:
                twins |= twins_in(message["data_snapshot"])
                if not message.get("more"):
                    await self._take_state(twins, self._position, Position(message["epoch"], gap["to"]))
                    gap = None
            elif kind == "ack":
                self._position = Position(message["epoch"], max(message["seq"], self._position.seq))
                return
            elif kind == "error":
                raise error_of(str(message.get("code")), str(message.get("message")))

    async def _offer(self, event: Event, size_bytes: int, mark: Mark) -> None:
        if self._watch.subscription.selects((event.kind, event.device_id)):
            await self._watch.offer_back(event, size_bytes, mark)

    async def _receive(self, socket: Socket) -> tuple[Message, int]:
        async with asyncio.timeout(TIMEOUT_S if not self.begun.done() else SILENCE_MAX_S):
            text = await socket.recv()
        try:
            return decode(text), len(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise not_twincast(self._base) from None

    def _begin(self, error: TwincastError | None) -> None:
        if self.begun.done():
            return
        if error is None:
            self.begun.set_result(None)
        else:
            self.begun.set_exception(error)
            self.begun.exception()
