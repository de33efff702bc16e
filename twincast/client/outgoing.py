"""What a program sends: kept until the server has it on disk, and sent again after each lost connection."""

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from twincast.client.backoff import Backoff
from twincast.client.events import Backlog
from twincast.client.failures import error_of
from twincast.client.link import Message, encode
from twincast.errors import BadMessage, BufferFull, ServerUnreachable, TooLarge, TwincastError

IN_FLIGHT_MAX = 1_024
"""How many updates one connection sends ahead of their acknowledgements: enough to fill the server's commits."""

HOLD_MIN_S = 0.1
"""How long a server that cannot store anything at the moment is left alone at least."""

TOO_LARGE_CODE = TooLarge.close_code
BLAMING_CODES = frozenset({1002, 1003, 1007})
"""Codes by which somebody on the way refuses a message, without saying which."""

Answered = Callable[[TwincastError | None], None]


class Limits(NamedTuple):
    """What a server says that it takes; None where it does not say."""

    message_max_bytes: int | None = None
    value_max_bytes: int | None = None


@dataclass(slots=True)
class _Update:
    text: str
    size_bytes: int
    value_bytes: int
    is_barrier: bool
    future: asyncio.Future[int]


class Outgoing:
    """Updates that are not acknowledged yet, in order. Each has an `update_id`, so that the server stores it once.

    Questions are of one connection; they go before the updates that wait, and are not kept for another one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._prefix = secrets.token_hex(6)
        self._unanswered: dict[int, _Update] = {}
        self._next = self._unsent = 1
        self._barrier = 0  # under way, and nothing may pass it
        self._alone_until = 0  # up to here one is sent at a time, to see which of them ends a connection
        self._is_blamed = False  # whether the server has said itself that something was too large
        self._turn = asyncio.Lock()  # those who wait for room go on in the order in which they came
        self._has_room = asyncio.Event()
        self._has_work = asyncio.Event()
        self._questions: deque[str] = deque()
        self._answers: dict[str, Answered] = {}
        self._ids = itertools.count(1)
        self._backoff = Backoff()
        self._hold: asyncio.TimerHandle | None = None
        self._is_holding = self._is_ordered = False
        self._limits = Limits()
        self._failed: TwincastError | None = None
        self.is_connected = False

    async def put(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """Take an update; the future becomes its seq, or the error that the server answered or would answer.

        Waits while the connection has enough to do.

        Args:
            message: what to send, without its ids.
            value_bytes: how large the value in it is.
            is_barrier: what it does depends on what is stored, so nothing newer is sent before it has its answer. Else
                it could be refused, its answer be lost, and it be done when it is sent again, behind what is newer.

        Raises:
            BufferFull: there is no connection, and as much waits for one as may.
            TwincastError: there will be no connection any more.
        """
        async with self._turn:
            number = self._next
            text = encode({**message, "id": number, "update_id": f"{self._prefix}-{number}"})
            await self._room(len(text))
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            if (error := self._too_large(len(text), value_bytes)) is not None:
                return refused(error)
            self._add(number, text, value_bytes, future, is_barrier=is_barrier)
        return future

    async def begin(self, message: Message, value_bytes: int = 0, *, is_barrier: bool = False) -> asyncio.Future[int]:
        """Take an update; the future is what who sends it waits for. Takes and raises what `put` does."""
        return await self.put(message, value_bytes, is_barrier=is_barrier)

    @property
    def backlog(self) -> Backlog | None:
        """What waits on disk; None if nothing ever does."""
        return None

    def start(self) -> None:
        """Begin with what was left by another process: here nothing is."""

    async def close(self) -> None:
        """Write down what is to be left for another process."""

    @property
    def is_asking(self) -> bool:
        """Whether a question has no answer yet."""
        return bool(self._answers)

    def ask(self, message: Message, answered: Answered) -> None:
        """Send a question on this connection; `answered` is told None, or the refusal, or that the connection ended."""
        message_id = f"ask-{next(self._ids)}"
        self._answers[message_id] = answered
        self._questions.append(encode({**message, "id": message_id}).decode())
        self._has_work.set()

    async def settle(self) -> None:
        """Wait until everything that was put has its answer."""
        while waiting := [update.future for update in self._unanswered.values() if not update.future.done()]:
            await asyncio.wait(waiting)

    def connected(self, limits: Limits, *, is_ordered: bool) -> None:
        """Begin anew on a new connection, with the oldest update that is not acknowledged.

        Args:
            limits: what this server takes; what waits and is larger is refused.
            is_ordered: whether the server, once it could not store an update, stores none until it is told to.
        """
        self.is_connected = True
        self._limits = limits
        self._is_ordered = is_ordered
        for number, update in tuple(self._unanswered.items()):
            if (error := self._too_large(update.size_bytes, update.value_bytes)) is not None:
                self._settle(number, error)
        self._rewind()

    def disconnected(self, code: int | None = None) -> None:
        """Note that the connection ended, by a close code or without one, and find who is to blame for that."""
        if self.is_connected:
            self._blame(code)
        self.is_connected = self._is_blamed = False
        self._end_hold()
        self._questions.clear()
        answers, self._answers = self._answers, {}
        for answered in answers.values():
            answered(ServerUnreachable("the connection was lost"))
        self._has_room.set()

    async def send_all(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what there is and what comes, in order, until cancelled."""
        while True:
            while self._questions:
                await send(self._questions.popleft())
            while self._may_send() and not self._questions:
                number, update = self._unsent, self._unanswered.get(self._unsent)
                self._unsent += 1
                if update is not None:
                    if update.is_barrier:
                        self._barrier = number
                    await send(update.text)
            if not self._questions:
                self._has_work.clear()
                await self._has_work.wait()

    def answer(self, message: Message) -> bool:
        """Take an `ack` or an `error`; return whether this connection may go on."""
        message_id = message.get("id")
        error = error_of(message["code"], message["message"]) if message["type"] == "error" else None
        if message_id is None:
            return error is None or self._refused_somewhere(error)
        if isinstance(message_id, str):
            if (answered := self._answers.pop(message_id, None)) is not None:
                answered(error)
        elif error is not None and message["retryable"]:
            # Nothing of what comes behind it is stored either, until all of it goes again, in order.
            self._pause()
        else:
            self._settle(message_id, error, message.get("seq", 0))
        return True

    def fail(self, error: TwincastError) -> None:
        """Give up on everything."""
        self._failed = error
        self._end_hold()
        for number in tuple(self._unanswered):
            future = self._unanswered.pop(number).future
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody has to wait for it
        self._size_bytes = 0
        self._has_room.set()

    async def _room(self, size_bytes: int) -> None:
        while self._failed is None and self._is_full(size_bytes):
            if not self.is_connected:
                raise BufferFull(f"there is no connection, and {self._size_bytes} bytes wait for one already")
            self._has_room.clear()
            await self._has_room.wait()
        if self._failed is not None:
            raise self._failed

    def _is_full(self, size_bytes: int) -> bool:
        if self._size_bytes + size_bytes > self._max_bytes:
            return bool(self._unanswered)  # one that is larger than all the room goes alone
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

    def _too_large(self, size_bytes: int, value_bytes: int) -> TooLarge | None:
        most, value_most = self._limits
        if value_most is not None and value_bytes > value_most:
            return TooLarge(f"a value takes {value_most} bytes on this server; this one has {value_bytes}")
        if most is not None and size_bytes > most:
            return TooLarge(f"a message takes {most} bytes on this server; this one has {size_bytes}")
        return None

    def _may_send(self) -> bool:
        if self._is_holding or self._unsent >= self._next or self._barrier in self._unanswered:
            return False
        return self._unsent > self._alone_until or next(iter(self._unanswered), self._next) >= self._unsent

    def _settle(self, number: int, error: TwincastError | None, seq: int = 0) -> None:
        update = self._unanswered.pop(number, None)
        if update is None:
            return
        if error is None and not self._is_holding:
            self._backoff.begin_anew()
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

    def _pause(self) -> None:
        if not self._is_holding:
            self._is_holding = True
            pause_s = self._backoff.wait_s() + HOLD_MIN_S
            self._hold = asyncio.get_running_loop().call_later(pause_s, self._restart)

    def _restart(self) -> None:
        if self._is_ordered:
            self.ask({"type": "restart"}, self._restarted)  # its answer comes behind all refusals
        else:
            self._restarted(None)

    def _restarted(self, error: TwincastError | None) -> None:
        if not self.is_connected:
            return
        self._end_hold()
        if error is None:
            self._rewind()
        else:
            self._pause()

    def _end_hold(self) -> None:
        self._is_holding = False
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _rewind(self) -> None:
        self._barrier = 0
        self._unsent = next(iter(self._unanswered), self._next)
        self._has_work.set()

    def _flying(self) -> list[int]:
        return [number for number in self._unanswered if number < self._unsent]

    def _refused_somewhere(self, error: TwincastError) -> bool:
        """Take a refusal that does not say of what; return whether this connection may go on."""
        flying = self._flying()
        if error.retryable or not flying:
            return True
        if isinstance(error, TooLarge):
            self._is_blamed = True
            self._refuse_largest(flying)
            return True
        return self._is_guilty_alone(flying, error)

    def _blame(self, code: int | None) -> None:
        flying = self._flying()
        if not flying:
            return
        if code == TOO_LARGE_CODE and not self._is_blamed:
            self._refuse_largest(flying)
        elif code in BLAMING_CODES:
            said = f"the connection is closed ({code}) whenever this is sent"
            self._is_guilty_alone(flying, BadMessage(said))

    def _refuse_largest(self, flying: list[int]) -> None:
        """Of what is under way the largest is the one that was too large; sent again, it would be so for ever."""
        largest = max(flying, key=lambda number: self._unanswered[number].size_bytes)
        size_bytes = self._unanswered[largest].size_bytes
        self._settle(largest, TooLarge(f"a message of {size_bytes} bytes is too large for somebody on the way"))

    def _is_guilty_alone(self, flying: list[int], error: TwincastError) -> bool:
        """Refuse the one that is under way, if it was sent alone; else have them sent so, on another connection."""
        if len(flying) == 1 and flying[0] <= self._alone_until:
            self._settle(flying[0], error)
            return True
        self._alone_until = flying[-1]
        return False


def refused(error: TwincastError) -> asyncio.Future[int]:
    """Return the answer to an update that is refused before it is sent."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
