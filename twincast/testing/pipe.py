"""One connection through a network that misbehaves: two ways, each with its own bad luck."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from twincast.testing.client_frames import ClientFrames

Direction = Literal["up", "down"]
CHUNK_BYTES = 64 * 1024
DELAYED_MAX_CHUNKS = 64  # with a delay so much is under way at most, as on a long line; then the sender has to wait
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Stamped(Protocol):
    def __call__(self, chunk: bytes, /) -> bytes: ...


def _flowing() -> dict[Direction, asyncio.Event]:
    flowing: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
    for event in flowing.values():
        event.set()
    return flowing


@dataclass
class Weather:
    """What the network does to all its connections at the moment."""

    delay_s: float = 0.0
    to_repeat: int = 0
    """How many of the next messages to say twice."""
    repeats: int = 0
    """How many messages were said twice until now."""
    flowing: dict[Direction, asyncio.Event] = field(default_factory=_flowing)


class Luck:
    """Where one connection breaks and which of its messages are said twice; the same seed, the same luck."""

    def __init__(self, seed: str, *, cut_every_bytes: int, repeat_every: int) -> None:
        """Draw the numbers; 0 for what is not to happen."""
        self._messages = random.Random(f"{seed}/messages")
        self._repeat_every = repeat_every
        self.bytes_until_cut: dict[Direction, float] = {"up": float("inf"), "down": float("inf")}
        if cut_every_bytes:
            for direction in self.bytes_until_cut:
                drawn = random.Random(f"{seed}/{direction}").expovariate(1 / cut_every_bytes)
                self.bytes_until_cut[direction] = int(drawn)

    def says_twice(self) -> bool:
        """Return whether the next message is said twice."""
        return bool(self._repeat_every) and self._messages.randrange(self._repeat_every) == 0


class Pipe:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(
        self, client: Streams, server: Streams, weather: Weather, luck: Luck, on_cut: Callable[[], None]
    ) -> None:
        """Join two connections; `on_cut` is called when this one breaks, by itself or by `cut`."""
        self._ends: dict[Direction, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {
            "up": (client[0], server[1]),
            "down": (server[0], client[1]),
        }
        self._weather = weather
        self._luck = luck
        self._on_cut = on_cut
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames = ClientFrames()

    def cut(self, *, reset: bool = False) -> None:
        """Break both connections at once; with `reset`, by an RST, else by a FIN."""
        if self._broken.done():
            return
        for _, writer in self._ends.values():
            if reset:
                # Closing with no time to linger sends an RST.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._broken.set_exception(ConnectionAbortedError("cut"))
        self._on_cut()

    async def run(self) -> None:
        """Pass everything on until both sides have ended, one is lost, or the connection is cut."""
        # One side is gone, so the other one goes too.
        with contextlib.suppress(OSError):
            await self._run()
        for _, writer in self._ends.values():
            writer.transport.abort()

    async def _run(self) -> None:
        ways = asyncio.gather(self._pass_all("up", self._with_repeats), self._pass_all("down", bytes))
        try:
            await asyncio.wait({ways, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ways.cancel()
