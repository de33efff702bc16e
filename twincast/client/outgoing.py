"""What a program sends: kept until the server has it on disk, and sent again after each lost connection."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from twincast.client.failures import error_of
from twincast.client.hold import Hold
from twincast.client.limits import Limits
from twincast.client.link import Message, encode
from twincast.client.questions import OnAnswer, Questions
from twincast.errors import BadMessage, BufferFull, TooLarge, TwincastError

IN_FLIGHT_MAX = 1_024
"""How many updates one connection sends ahead of their acknowledgements: enough to fill the server's commits."""

TOO_LARGE_CODE = TooLarge.close_code
BLAMING_CODES = frozenset({1002, 1003, 1007})
"""Close codes by which a server or a proxy refuses a message, without saying which one."""


class Backlog(NamedTuple):
    """What waits in a spool for the server, and how many refused lines the spool keeps."""

    lines: int
    size_bytes: int
    refused: int


@dataclass(slots=True)
class _Update:
    text: str
    size_bytes: int
    value_bytes: int
    is_barrier: bool
    future: asyncio.Future[int]


class Outgoing:
    """Updates that are not acknowledged yet, in order. Each has an `update_id`, so that the server stores it once.

    An update goes through these states:

    - *unsent*: its number is `_unsent` or higher.
    - *in flight*: it was sent, and has no answer. A new connection, and the end of a hold, make it unsent again
      (`_rewind`), for its answer may have been lost. At most IN_FLIGHT_MAX are kept while there is a connection.
    - *settled*: acknowledged or refused for good; its future is done, and it is forgotten.

    Two things keep unsent updates from being sent: a hold (see Hold), and a *barrier*, such as a deletion, in flight.
    An update that ends its connection whenever it is sent must not end it for ever. If a close code or an error blames
    a message without naming it, all updates in flight are suspects: on the next connection they are sent one at a time
    (up to `_alone_until`), and the one that ends that connection too is refused.

    Questions go before updates that wait; see Questions.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._prefix = secrets.token_hex(6)
        self._unanswered: dict[int, _Update] = {}
        self._next = self._unsent = 1
        self._barrier = 0  # in flight, and nothing may pass it
        self._alone_until = 0
        self._is_blamed = False  # the server has named what was too large on this connection
        self._turn = asyncio.Lock()  # callers that wait for room continue in the order in which they came
        self._has_room = asyncio.Event()
        self._has_work = asyncio.Event()
        self._questions = Questions()
        self._hold = Hold(self.ask, self._rewind)
        self._limits = Limits()
        self._failed: TwincastError | None = None
        self.is_connected = False

    async def put(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """Take an update; the future becomes its seq, or the error that the server answered or would answer.

        Waits while IN_FLIGHT_MAX updates are in flight.

        Args:
            message: what to send, without its ids.
            value_bytes: the size of the value in it.
            is_barrier: its effect depends on what is stored, so nothing newer is sent before it is answered. Otherwise
                it could be refused, the answer be lost, and it be stored when it is sent again, behind what is newer.

        Raises:
            BufferFull: there is no connection, and `max_bytes` wait for one.
            TwincastError: there will be no connection any more.
        """
        async with self._turn:
            number = self._next
            text = encode({**message, "id": number, "update_id": f"{self._prefix}-{number}"})
            await self._wait_for_room(len(text))
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            if (error := self._limits.refusal(len(text), value_bytes)) is not None:
                return refused(error)
            self._add(number, text, value_bytes, future, is_barrier=is_barrier)
        return future

    async def begin(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """Take an update; the future is what its sender waits for. Takes and raises what `put` does."""
        return await self.put(message, value_bytes, is_barrier=is_barrier)

    @property
    def backlog(self) -> Backlog | None:
        """What waits on disk; None if nothing ever does."""
        return None

    def start(self) -> None:
        """Begin with what an earlier process left: nothing, without a spool."""

    async def close(self) -> None:
        """Write what the next process is to find: nothing, without a spool."""

    @property
    def is_asking(self) -> bool:
        """Whether a question has no answer yet."""
        return self._questions.has_unanswered

    def ask(self, message: Message, on_answer: OnAnswer) -> None:
        """Send a question on this connection."""
        self._questions.add(message, on_answer)
        self._has_work.set()

    async def settle(self) -> None:
        """Wait until everything that was put is answered."""
        while waiting := [update.future for update in self._unanswered.values() if not update.future.done()]:
            await asyncio.wait(waiting)

    def connected(self, limits: Limits, *, is_ordered: bool) -> None:
        """Begin again on a new connection, with the oldest update that is not acknowledged.

        Args:
            limits: of this server; a waiting update that is beyond them is refused.
            is_ordered: see Hold.
        """
        self.is_connected = True
        self._limits = limits
        self._hold.is_ordered = is_ordered
        for number, update in tuple(self._unanswered.items()):
            if (error := limits.refusal(update.size_bytes, update.value_bytes)) is not None:
                self._settle(number, error)
        self._rewind()

    def disconnected(self, code: int | None = None) -> None:
        """Note that the connection ended, by a close code or without one, and which updates may be the reason."""
        if self.is_connected:
            self._blame(code)
        self.is_connected = self._is_blamed = False
        self._hold.end()
        self._questions.end()
        self._has_room.set()

    async def send_all(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what waits and what comes, in order, until cancelled."""
        while True:
            while self._questions.has_unsent:
                await send(self._questions.take_unsent())
            while self._may_send() and not self._questions.has_unsent:
                number, update = self._unsent, self._unanswered.get(self._unsent)
                self._unsent += 1
                if update is not None:
                    if update.is_barrier:
                        self._barrier = number
                    await send(update.text)
            if not self._questions.has_unsent:
                self._has_work.clear()
                await self._has_work.wait()

    def answer(self, message: Message) -> bool:
        """Take an `ack` or an `error`; return whether this connection may go on."""
        message_id = message.get("id")
        error = error_of(message["code"], message["message"]) if message["type"] == "error" else None
        if message_id is None:
            return error is None or self._refused_unnamed(error)
        if isinstance(message_id, str):
            self._questions.answer(message_id, error)
        elif error is not None and message["retryable"]:
            self._hold.begin()  # the server stores nothing behind it until all of it is sent again, in order
        else:
            self._settle(message_id, error, message.get("seq", 0))
        return True

    def fail(self, error: TwincastError) -> None:
        """Fail everything that waits, and what comes later."""
        self._failed = error
        self._hold.end()
        for number in tuple(self._unanswered):
            future = self._unanswered.pop(number).future
            if not future.done():
                future.set_exception(error)
                future.exception()  # marks it as retrieved: waiting for it is optional
        self._size_bytes = 0
        self._has_room.set()

    async def _wait_for_room(self, size_bytes: int) -> None:
        while self._failed is None and self._is_full(size_bytes):
            if not self.is_connected:
                raise BufferFull(f"there is no connection, and {self._size_bytes} bytes wait for one already")
            self._has_room.clear()
            await self._has_room.wait()
        if self._failed is not None:
            raise self._failed

    def _is_full(self, size_bytes: int) -> bool:
        if self._size_bytes + size_bytes > self._max_bytes:
            return bool(self._unanswered)  # an update larger than the whole buffer passes alone
        return self.is_connected and len(self._unanswered) >= IN_FLIGHT_MAX

    def _add(
        self, number: int, text: bytes, value_bytes: int, future: asyncio.Future[int], *, is_barrier: bool
    ) -> None:
        """Have an update sent; numbers rise, not always by one."""
        if not self._unanswered:
            self._unsent = number
        self._unanswered[number] = _Update(text.decode(), len(text), value_bytes, is_barrier, future)
        self._next = number + 1
        self._size_bytes += len(text)
        self._has_work.set()

    def _may_send(self) -> bool:
        if self._hold.is_on or self._unsent >= self._next or self._barrier in self._unanswered:
            return False
        return self._unsent > self._alone_until or next(iter(self._unanswered), self._next) >= self._unsent

    def _settle(self, number: int, error: TwincastError | None, seq: int = 0) -> None:
        update = self._unanswered.pop(number, None)
        if update is None:
            return
        if error is None:
            self._hold.note_success()
        self._size_bytes -= update.size_bytes
        self._has_room.set()
        if number <= self._alone_until or number == self._barrier:
            self._has_work.set()
        if update.future.done():  # its caller gave up
            return
        if error is None:
            update.future.set_result(seq)
        else:
            update.future.set_exception(error)

    def _rewind(self) -> None:
        self._barrier = 0
        self._unsent = next(iter(self._unanswered), self._next)
        self._has_work.set()

    def _in_flight(self) -> list[int]:
        return [number for number in self._unanswered if number < self._unsent]

    def _refused_unnamed(self, error: TwincastError) -> bool:
        """Take a refusal that does not name what it refuses; return whether this connection may go on."""
        in_flight = self._in_flight()
        if error.retryable or not in_flight:
            return True
        if isinstance(error, TooLarge):
            self._is_blamed = True
            self._refuse_largest(in_flight)
            return True
        return self._refuse_if_alone(in_flight, error)

    def _blame(self, code: int | None) -> None:
        in_flight = self._in_flight()
        if not in_flight:
            return
        if code == TOO_LARGE_CODE and not self._is_blamed:
            self._refuse_largest(in_flight)
        elif code in BLAMING_CODES:
            self._refuse_if_alone(in_flight, BadMessage(f"the connection is closed ({code}) whenever this is sent"))

    def _refuse_largest(self, in_flight: list[int]) -> None:
        """Refuse the largest: if any was too large, this one was, and would be so on every connection."""
        largest = max(in_flight, key=lambda number: self._unanswered[number].size_bytes)
        size_bytes = self._unanswered[largest].size_bytes
        self._settle(
            largest, TooLarge(f"a message of {size_bytes} bytes is too large for the server, or for a proxy before it")
        )

    def _refuse_if_alone(self, in_flight: list[int], error: TwincastError) -> bool:
        """Refuse the update in flight, if it was sent alone; else have all sent one at a time on the next connection.

        Returns:
            Whether this connection may go on.
        """
        if len(in_flight) == 1 and in_flight[0] <= self._alone_until:
            self._settle(in_flight[0], error)
            return True
        self._alone_until = in_flight[-1]
        return False


def refused(error: TwincastError) -> asyncio.Future[int]:
    """Return the answer to an update that is refused before it is sent."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
