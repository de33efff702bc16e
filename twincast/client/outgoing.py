"""What a program sends: kept until the server has it on disk, and sent again after each lost connection."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twincast.client.link import Message, encode, error_of, wait_s
from twincast.errors import BufferFull, TwincastError

IN_FLIGHT_MAX = 1_024
"""How many updates one connection sends ahead of their acknowledgements: enough to fill the server's commits."""

HOLD_MIN_S = 0.1
"""How long a server that cannot store anything at the moment is left alone at least."""


@dataclass(slots=True)
class _Update:
    text: str
    future: asyncio.Future[int]


class Outgoing:
    """Updates that are not acknowledged yet, in order. Each has an `update_id`, so that the server stores it once."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._prefix = secrets.token_hex(6)
        self._unanswered: dict[int, _Update] = {}
        self._next = self._unsent = 1
        self._turn = asyncio.Lock()  # those who wait for room go on in the order in which they came
        self._has_room = asyncio.Event()
        self._has_work = asyncio.Event()
        self._questions: deque[str] = deque()
        self._refusals = 0
        self._hold_s = 0.0
        self.is_connected = False

    async def put(self, message: Message) -> asyncio.Future[int]:
        """Take an update; the future becomes its seq, or the error that the server answered.

        Waits while the connection has enough to do.

        Raises:
            BufferFull: there is no connection, and as much waits for one as may.
        """
        async with self._turn:
            number = self._next
            text = encode({**message, "id": number, "update_id": f"{self._prefix}-{number}"}).decode()
            await self._room(len(text))
            self._next += 1
            future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._unanswered[number] = _Update(text, future)
            self._size_bytes += len(text)
            self._has_work.set()
        return future

    def ask(self, text: str) -> None:
        """Send a question on this connection, before the updates that wait. It is not kept for another one."""
        self._questions.append(text)
        self._has_work.set()

    async def settle(self) -> None:
        """Wait until everything that was put has its answer."""
        while waiting := [update.future for update in self._unanswered.values() if not update.future.done()]:
            await asyncio.wait(waiting)

    def connected(self) -> None:
        """Begin anew on a new connection, with the oldest update that is not acknowledged."""
        self.is_connected = True
        self._hold_s = 0.0
        self._rewind()

    def disconnected(self) -> None:
        """Note that there is no connection."""
        self.is_connected = False
        self._questions.clear()
        self._has_room.set()

    async def send_all(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what there is and what comes, in order, until cancelled."""
        while True:
            while self._questions:
                await send(self._questions.popleft())
            while self._unsent < self._next and not self._hold_s and not self._questions:
                update = self._unanswered.get(self._unsent)
                self._unsent += 1
                if update is not None:
                    await send(update.text)
            if self._questions:
                continue
            if self._hold_s:
                await asyncio.sleep(self._hold_s)
                self._hold_s = 0.0
                self._rewind()
            else:
                self._has_work.clear()
                await self._has_work.wait()

    def answer(self, message: Message) -> None:
        """Take an `ack` or an `error` that answers an update."""
        if message["type"] == "error" and message["retryable"]:
            # All that is not acknowledged goes again after a while, in order; the server knows what it has.
            self._refusals += 1
            self._hold_s = wait_s(self._refusals) + HOLD_MIN_S
            self._has_work.set()
            return
        update = self._unanswered.pop(message["id"], None)
        if update is None:
            return
        self._refusals = 0
        self._size_bytes -= len(update.text)
        self._has_room.set()
        if update.future.done():  # its caller gave up
            return
        if message["type"] == "ack":
            update.future.set_result(message["seq"])
        else:
            update.future.set_exception(error_of(message["code"], message["message"]))

    def fail(self, error: TwincastError) -> None:
        """Give up on everything."""
        for update in self._unanswered.values():
            if not update.future.done():
                update.future.set_exception(error)
                update.future.exception()  # nobody has to wait for it
        self._unanswered.clear()

    async def _room(self, size_bytes: int) -> None:
        while self._is_full(size_bytes):
            if not self.is_connected:
                raise BufferFull(f"there is no connection, and {self._size_bytes} bytes wait for one already")
            self._has_room.clear()
            await self._has_room.wait()

    def _is_full(self, size_bytes: int) -> bool:
        if self._size_bytes + size_bytes > self._max_bytes:
            return bool(self._unanswered)  # one that is larger than all the room is the server's to refuse
        return self.is_connected and len(self._unanswered) >= IN_FLIGHT_MAX

    def _rewind(self) -> None:
        self._unsent = next(iter(self._unanswered), self._next)
        self._has_work.set()
