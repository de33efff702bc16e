"""A watch that goes on where another process was: what it missed is read back, on a connection of its own.

The hub's connection begins with the newest state, so that `state` is whole. What lies between a position and that is
brought by a second connection, up to the head of the log; then the watch begins on the first one, and the second one
goes on until both have met. Seqs that it has told are not told again.
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
from twincast.client.events import Change, Gap, Twin
from twincast.client.failures import Retried, error_of, odd, of_close, of_login
from twincast.client.link import Message, Socket, decode, encode
from twincast.client.watch import NOTHING, Watch
from twincast.core.model import Position
from twincast.core.subscription import Subscription
from twincast.errors import LOGIN_NEEDED, TwincastError, Unauthenticated

SILENCE_MAX_S = 60.0
"""A server that brings nothing for so long, though it was asked, is left for another attempt."""

logger = logging.getLogger("twincast.client")

OpenLink = Callable[[str], AbstractAsyncContextManager[Socket]]
_QUESTION = encode({"type": "subscribe", "id": "head"}).decode()


class ReadBack:
    """Brings one watch what lies behind a position, and then has it begin."""

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
            watch: what to bring it to.
            since: the position.
            go_live: begins the watch on the hub's connection.
            base: the server's address, for people.
            open_link: opens a connection to an address with parameters.
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
        """Done once the server has taken the subscription: nothing behind the position is missed from then on."""

    def reached(self) -> Mark | None:
        """See Reached. None if the position is of another log."""
        return None if self._is_other else Mark(0, self._position)

    async def run(self) -> None:
        """Read back, and let the watch go on live; come back after a lost connection.

        Raises:
            TwincastError: the server does not want this; the watch has ended with it.
        """
        self._watch.begin_reading_back()
        backoff = Backoff()
        try:
            while True:
                try:
                    await self._attempt()
                    return
                except Retried:
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
            raise of_close(code, reason, None, credential=self._credential) from None
        except TimeoutError:
            raise odd(self._base) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            logger.warning("what %s said could not be taken", self._base, exc_info=error)
            raise odd(self._base) from None
        told = NOTHING if self._is_other else range(self._since.seq + 1, self._position.seq + 1)
        self._watch.end_reading_back(told)

    async def _greeted(self, socket: Socket) -> None:
        hello, _ = await self._receive(socket)
        if hello["type"] == "auth_required":
            raise of_login(Unauthenticated(LOGIN_NEEDED), credential=self._credential)
        if hello["type"] != "hello":
            raise odd(self._base)
        if hello["resumed"]:
            self._position = Position(hello["epoch"], self._position.seq)
        elif hello["reason"] == "too_old":
            await self._begin_with_state(socket, hello)
        else:
            self._is_other = True
            is_ahead = hello["reason"] == "ahead"
            why = "is ahead of the log" if is_ahead else "is of another log, or of a past that it does not share"
            logger.warning("the position %s %s at %s: this goes on from now on", self._since, why, self._base)
            self._watch.miss_back(Gap(None, None, "ahead" if is_ahead else "epoch"))
        self._begin(None)

    async def _begin_with_state(self, socket: Socket, hello: Message) -> None:
        before, page = self._position, hello
        twins: dict[str, Twin] = {}
        while True:
            twins |= {device_id: Twin(**twin) for device_id, twin in page["data_snapshot"].items()}
            if not page.get("more"):
                break
            page, _ = await self._receive(socket)
        await self._take_state(twins, before, Position(hello["epoch"], hello["seq"]))

    async def _take_state(self, twins: dict[str, Twin], before: Position, after: Position) -> None:
        """Tell what is new in a state, and what is missing before it."""
        gap = Gap.between(before, after)
        if gap is not None:
            self._watch.miss_back(gap)
        for device_id, twin in sorted(twins.items(), key=lambda item: item[1].seq):
            if twin.seq > before.seq:
                await self._offer(Change.to_twin(device_id, twin, after.epoch), 0, Mark(0, before))
        self._position = after

    async def _read_to_head(self, socket: Socket) -> None:
        """Take what comes up to the server's answer to a question, which comes behind all that was there before it."""
        await socket.send(_QUESTION)
        gap: Message | None = None
        twins: dict[str, Twin] = {}
        while True:
            message, size_bytes = await self._receive(socket)
            kind = message["type"]
            if kind in {"data_update", "control", "deleted"}:
                change = Change.of(message)
                await self._offer(change, size_bytes, Mark(0, self._position))
                self._position = Position(change.epoch, change.seq)
            elif kind == "gap":
                gap, twins = message, {}
            elif kind == "snapshot" and gap is not None:
                twins |= {device_id: Twin(**twin) for device_id, twin in message["data_snapshot"].items()}
                if not message.get("more"):
                    await self._take_state(twins, self._position, Position(message["epoch"], gap["to"]))
                    gap = None
            elif kind == "ack":
                self._position = Position(message["epoch"], max(message["seq"], self._position.seq))
                return
            elif kind == "error":
                raise error_of(str(message.get("code")), str(message.get("message")))

    async def _offer(self, change: Change, size_bytes: int, mark: Mark) -> None:
        if self._watch.subscription.selects((change.kind, change.device_id)):
            await self._watch.offer_back(change, size_bytes, mark)

    async def _receive(self, socket: Socket) -> tuple[Message, int]:
        async with asyncio.timeout(TIMEOUT_S if not self.begun.done() else SILENCE_MAX_S):
            text = await socket.recv()
        try:
            return decode(text), len(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise odd(self._base) from None

    def _begin(self, error: TwincastError | None) -> None:
        if self.begun.done():
            return
        if error is None:
            self.begun.set_result(None)
        else:
            self.begun.set_exception(error)
            self.begun.exception()
