"""One connection through a network with faults: two directions, each with faults of its own."""

import asyncio
import random
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from twincast.testing.client_frames import ClientFrames

Direction = Literal["up", "down"]
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
CHUNK_BYTES = 64 * 1024
DELAYED_MAX_CHUNKS = 64  # how much a delayed direction holds; then its sender has to wait
_CUT_AT_ONCE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""SO_LINGER's `struct linger`: linger for no time."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _flowing() -> dict[Direction, asyncio.Event]:
    flowing = {direction: asyncio.Event() for direction in DIRECTIONS}
    for event in flowing.values():
        event.set()
    return flowing


@dataclass
class Faults:
    """What the network does to all its connections at the moment."""

    delay_s: float = 0.0
    to_repeat: int = 0
    """How many of the next messages will be sent twice."""
    repeats: int = 0
    """How many were sent twice so far."""
    flowing: dict[Direction, asyncio.Event] = field(default_factory=_flowing)


class FaultPlan:
    """Where one connection breaks, and which of its messages are sent twice; the same seed gives the same plan."""

    def __init__(self, seed: str, *, cut_every_bytes: int = 0, repeat_every: int = 0) -> None:
        """Draw the faults from a seed; 0 for none of a kind."""
        self._messages = random.Random(f"{seed}/messages")
        self._repeat_every = repeat_every
        self.bytes_until_cut = {direction: float("inf") for direction in DIRECTIONS}
        if cut_every_bytes:
            for direction in DIRECTIONS:
                self.bytes_until_cut[direction] = random.Random(f"{seed}/{direction}").expovariate(1 / cut_every_bytes)

    def repeats_next(self) -> bool:
        """Draw for the next message."""
        return bool(self._repeat_every) and self._messages.randrange(self._repeat_every) == 0


class Pipe:
    """A client's connection, joined to the one to the server that is opened for it."""

    def __init__(
        self, client: Streams, server: Streams, faults: Faults, plan: FaultPlan, on_cut: Callable[[], None]
    ) -> None:
        """Begin to pass bytes on; `on_cut` is called once, when the pipe breaks, by its plan or by `cut`."""
        self._writers = (client[1], server[1])
        self._faults = faults
        self._plan = plan
        self._on_cut = on_cut
        self._frames = ClientFrames()
        self._ways = (
            self._way("up", (client[0], server[1]), self._received),
            self._way("down", (server[0], client[1]), bytes),
        )
        self._passing = asyncio.create_task(self._pass(), name="pipe")
        self._is_cut = False

    async def ended(self) -> None:
        """Wait until both sides have ended, one is lost, or the pipe is cut."""
        await asyncio.wait([self._passing])
        self._abort()
        if not self._passing.cancelled():
            self._passing.result()

    def cut(self, *, reset: bool = False) -> None:
        """Break both connections at once: by a FIN, or by an RST."""
        if self._is_cut or self._passing.done():
            return
        self._is_cut = True
        for writer in self._writers if reset else ():
            # A close without time to linger sends an RST.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CUT_AT_ONCE)
        self.close()
        self._on_cut()

    def close(self) -> None:
        """End both connections; this does not count as a fault."""
        self._abort()
        self._passing.cancel()

    def _way(self, direction: Direction, streams: Streams, received: Callable[[bytes], bytes]) -> "_Way":
        return _Way(
            streams,
            self._faults,
            flowing=self._faults.flowing[direction],
            bytes_until_cut=self._plan.bytes_until_cut[direction],
            received=received,
            cut=self.cut,
        )

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _pass(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for way in self._ways:
                    group.create_task(way.read(), name="read")
                    group.create_task(way.write(), name="write")
        except* OSError:
            pass  # one side is gone, so the other one is ended too

    def _received(self, chunk: bytes) -> bytes:
        """Return what the server gets of a client's chunk; at the end, the rest that was held back."""
        if not chunk:
            return self._frames.rest()
        return b"".join(part * self._times(is_message) for part, is_message in self._frames.split(chunk))

    def _times(self, is_message: bool) -> int:
        if not is_message:
            return 1
        is_twice = self._plan.repeats_next()  # drawn for each message, so that `to_repeat` does not shift the plan
        if self._faults.to_repeat:
            self._faults.to_repeat -= 1
        elif not is_twice:
            return 1
        self._faults.repeats += 1
        return 2


class _Way:
    """One direction of a pipe. One task reads and one writes, so that a delay applies to all bytes at the same time."""

    def __init__(
        self,
        streams: Streams,
        faults: Faults,
        *,
        flowing: asyncio.Event,
        bytes_until_cut: float,
        received: Callable[[bytes], bytes],
        cut: Callable[[], None],
    ) -> None:
        self._reader, self._writer = streams
        self._faults = faults
        self._flowing = flowing
        self._bytes_left = bytes_until_cut
        self._received = received
        self._cut = cut
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(DELAYED_MAX_CHUNKS)

    async def read(self) -> None:
        """Read from one side until its end, and note when each chunk is due."""
        chunk = b"any"
        while chunk:
            await self._flowing.wait()
            if not self._faults.delay_s:
                await self._under_way.join()  # hold nothing that the other side has no room for
            chunk = await self._reader.read(CHUNK_BYTES)
            due_s = asyncio.get_running_loop().time() + self._faults.delay_s
            if part := self._received(chunk):
                await self._under_way.put((due_s, part))
        await self._under_way.put((0.0, b""))

    async def write(self) -> None:
        """Write each chunk to the other side when it is due, until the end, or the byte at which the plan breaks it."""
        while True:
            due_s, part = await self._under_way.get()
            wait_s = due_s - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            await self._flowing.wait()
            if not part:
                self._writer.write_eof()
                return
            self._writer.write(part[: int(min(self._bytes_left, len(part)))])
            await self._writer.drain()
            self._bytes_left -= len(part)
            if self._bytes_left <= 0:
                self._cut()
            self._under_way.task_done()
