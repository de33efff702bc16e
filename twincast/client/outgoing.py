"""What a program sends: kept until the server has it on disk, and sent again after each lost connection."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from twincast.client.failures import error_of
from twincast.client.hold import Hold
from twincast.client.lane import Lane, Update
from twincast.client.limits import Limits
from twincast.client.message import Message, encode
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


class Outgoing:
    """Updates that are not acknowledged yet, in order. Each has an `update_id`, so that the server stores it once.

    They go through the states of Lane. A new connection, and the end of a hold, have all of them sent again, for their
    answers may have been lost. At most IN_FLIGHT_MAX are kept while there is a connection. Besides a barrier, a hold
    keeps unsent updates from being sent (see Hold).

    An update that ends its connection whenever it is sent must not end it for ever. If a close code or an error blames
    a message without naming it, all updates in flight are suspects: on the next connection they are sent one at a time,
    before all others, and the one that ends that connection too is refused.

    Questions go before updates that wait; see Questions.
    """

    def __init__(self, max_bytes: int, lanes: Sequence[Lane] = ()) -> None:
        self._max_bytes = max_bytes
        self._lanes = lanes or (Lane(),)
        """Their numbers are different. In each the oldest that is not answered goes first."""
        self._prefix = secrets.token_hex(6)
        self._next = 1
        self._suspects: set[int] = set()
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
            self._next = number + 1
            self._add(self._lanes[0], number, Update(text.decode(), len(text), value_bytes, is_barrier, future))
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
        while waiting := [update.future for _, update in self._updates() if not update.future.done()]:
            await asyncio.wait(waiting)

    def connected(self, limits: Limits, *, is_ordered: bool, server_utc: str = "") -> None:
        """Begin again on a new connection, with the oldest update that is not acknowledged.

        Args:
            limits: of this server; a waiting update that is beyond them is refused.
            is_ordered: see Hold.
            server_utc: the time, by the server's clock.
        """
        self.is_connected = True
        self._limits = limits
        self._hold.is_ordered = is_ordered
        for number, update in self._updates():
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
            while not self._questions.has_unsent and (lane := self._next_lane()) is not None:
                number = lane.next
                assert number is not None
                await send(lane.take(number))
            if not self._questions.has_unsent:
                self._has_work.clear()
                await self._has_work.wait()

    def answer(self, message: Message) -> bool:
        """Take an `ack` or an `error`; return whether this connection may go on."""
        message_id = message.get("id")
        error = error_of(message["code"], message["message"]) if message["type"] == "error" else None
        if isinstance(error, TooLarge):
            self._is_blamed = True
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
        for number, update in self._updates():
            self._drop(number)
            if not update.future.done():
                update.future.set_exception(error)
                update.future.exception()  # marks it as retrieved: waiting for it is optional
        self._has_room.set()

    async def _wait_for_room(self, size_bytes: int) -> None:
        while self._failed is None and self._is_full(size_bytes):
            if not self.is_connected:
                raise BufferFull(f"there is no connection, and {self._lanes[0].size_bytes} bytes wait for one already")
            self._has_room.clear()
            await self._has_room.wait()
        if self._failed is not None:
            raise self._failed

    def _is_full(self, size_bytes: int) -> bool:
        unanswered = self._lanes[0].unanswered
        if self._lanes[0].size_bytes + size_bytes > self._max_bytes:
            return bool(unanswered)  # an update larger than the whole buffer passes alone
        return self.is_connected and len(unanswered) >= IN_FLIGHT_MAX

    def _updates(self) -> list[tuple[int, Update]]:
        return [item for lane in self._lanes for item in lane.unanswered.items()]

    def _add(self, lane: Lane, number: int, update: Update) -> None:
        lane.add(number, update)
        self._has_work.set()

    def _next_lane(self) -> Lane | None:
        """Return the lane whose turn it is to send; None if nothing may be sent."""
        return next((lane for lane in self._lanes if self._may_send(lane)), None)

    def _may_send(self, lane: Lane) -> bool:
        if self._hold.is_on or (number := lane.next) is None:
            return False
        return not self._suspects or (number in self._suspects and not any(lane.has_flight for lane in self._lanes))

    def _drop(self, number: int) -> Update | None:
        return next((update for lane in self._lanes if (update := lane.remove(number)) is not None), None)

    def _settle(self, number: int, error: TwincastError | None, seq: int = 0) -> None:
        update = self._drop(number)
        if update is None:
            return
        if error is None:
            self._hold.note_success()
        self._has_room.set()
        if update.is_barrier or self._suspects:
            self._suspects.discard(number)
            self._has_work.set()
        if update.future.done():  # its caller gave up
            return
        if error is None:
            update.future.set_result(seq)
        else:
            update.future.set_exception(error)

    def _rewind(self) -> None:
        for lane in self._lanes:
            lane.rewind()
        self._has_work.set()

    def _in_flight(self) -> list[tuple[int, Update]]:
        return [(number, lane.unanswered[number]) for lane in self._lanes for number in lane.in_flight()]

    def _refused_unnamed(self, error: TwincastError) -> bool:
        """Take a refusal that does not name what it refuses; return whether this connection may go on."""
        in_flight = self._in_flight()
        if error.retryable or not in_flight:
            return True
        if isinstance(error, TooLarge):
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

    def _refuse_largest(self, in_flight: list[tuple[int, Update]]) -> None:
        """Refuse the largest: if any was too large, this one was, and would be so on every connection."""
        number, update = max(in_flight, key=lambda item: item[1].size_bytes)
        words = f"a message of {update.size_bytes} bytes is too large for the server, or for a proxy before it"
        self._settle(number, TooLarge(words))

    def _refuse_if_alone(self, in_flight: list[tuple[int, Update]], error: TwincastError) -> bool:
        """Refuse the update in flight, if it was sent alone; else have all sent one at a time on the next connection.

        Returns:
            Whether this connection may go on.
        """
        numbers = {number for number, _ in in_flight}
        if len(numbers) == 1 and numbers <= self._suspects:
            self._settle(in_flight[0][0], error)
            return True
        self._suspects |= numbers
        return False


def refused(error: TwincastError) -> asyncio.Future[int]:
    """Return the answer to an update that is refused before it is sent."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
