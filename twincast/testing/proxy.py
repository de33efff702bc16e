"""A network between a client and a server that cuts, delays, stalls and says things twice, when and as it is told."""

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")
Direction = Literal["up", "down"]
CHUNK_BYTES = 64 * 1024


class Proxy:
    """A TCP proxy on a free port, in a thread of its own. "up" is from the client to the server. Use it as a context.

    With `cut_every_bytes`, connections break by themselves, after a random number of bytes that went down, with that
    mean. The numbers come from the seed and the count of connections, so the same traffic breaks at the same byte.
    """

    def __init__(self, port: int, *, seed: int = 0, cut_every_bytes: int = 0) -> None:
        """Listen in front of a server on `port` of this machine."""
        self.cuts = 0
        """How many connections were broken until now."""
        self._to_port = port
        self._seed = seed
        self._cut_every_bytes = cut_every_bytes
        self._accepted = 0
        self._is_refusing = False
        self._delay_s = 0.0
        self._to_repeat = 0
        self._pipes: set[_Pipe] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        for flowing in self._flowing.values():
            flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="twincast proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._in_loop(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """The address to give to the client."""
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, as a lost network does: no goodbye."""
        self._call(self._cut)

    def refuse(self, refusing: bool = True) -> None:
        """Break new connections at once, until `refuse(False)`."""
        self._is_refusing = refusing

    def delay(self, seconds: float) -> None:
        """Pass everything on so much later, in both directions; 0 ends it."""
        self._delay_s = seconds

    def stall(self, *directions: Direction) -> None:
        """Pass nothing on any more, in these directions or both, until `flow`. What comes waits, as in full buffers."""
        for direction in directions or ("up", "down"):
            self._call(self._flowing[direction].clear)

    def flow(self) -> None:
        """Pass on again what waited and what comes."""
        for flowing in self._flowing.values():
            self._call(flowing.set)

    def repeat(self, messages: int = 1) -> None:
        """Say the client's next messages to the server twice."""
        self._to_repeat += messages

    def close(self) -> None:
        """End all connections and the thread."""
        self._in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        if self._is_refusing:
            writer.transport.abort()
            return
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        pipe = _Pipe((reader, writer), to_server)
        self._pipes.add(pipe)
        try:
            await asyncio.gather(self._pass_up(pipe), self._pass_down(pipe, self._bytes_until_cut()))
        except OSError:
            pass  # one side is gone, so the other one goes too
        finally:
            pipe.abort()
            self._pipes.discard(pipe)

    def _bytes_until_cut(self) -> float:
        if not self._cut_every_bytes:
            return float("inf")
        return random.Random(f"{self._seed}/{self._accepted}").expovariate(1 / self._cut_every_bytes)

    async def _pass_up(self, pipe: "_Pipe") -> None:
        frames = _Frames()
        while chunk := await pipe.from_client.read(CHUNK_BYTES):
            for part, is_message in frames.split(chunk):
                await self._pass(pipe.to_server, part, "up")
                if is_message and self._to_repeat:
                    self._to_repeat -= 1
                    await self._pass(pipe.to_server, part, "up")
        pipe.to_server.write_eof()

    async def _pass_down(self, pipe: "_Pipe", bytes_left: float) -> None:
        while chunk := await pipe.from_server.read(CHUNK_BYTES):
            await self._pass(pipe.to_client, chunk[: int(min(bytes_left, len(chunk)))], "down")
            bytes_left -= len(chunk)
            if bytes_left <= 0:
                self.cuts += 1
                pipe.abort()
                return
        pipe.to_client.write_eof()

    async def _pass(self, writer: asyncio.StreamWriter, part: bytes, direction: Direction) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await self._flowing[direction].wait()
        writer.write(part)
        await writer.drain()

    def _cut(self) -> None:
        self.cuts += len(self._pipes)
        for pipe in self._pipes:
            pipe.abort()

    async def _close(self) -> None:
        self._server.close()
        for flowing in self._flowing.values():
            flowing.set()
        own = asyncio.current_task()
        while tasks := [task for task in asyncio.all_tasks() if task is not own]:
            for pipe in self._pipes:
                pipe.abort()
            await asyncio.wait(tasks, timeout=0.05)  # a connection may have been accepted just now

    def _call(self, call: Callable[[], object]) -> None:
        async def work() -> None:
            call()

        self._in_loop(work())

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Pipe:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.from_client, self.to_client = client
        self.from_server, self.to_server = server

    def abort(self) -> None:
        self.to_client.transport.abort()
        self.to_server.transport.abort()


class _Frames:
    """Cuts what a client sends at the ends of its WebSocket frames (RFC 6455, 5.2), once it has upgraded."""

    def __init__(self) -> None:
        self._waiting = b""
        self._is_upgraded = False

    def split(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """Return what is complete, and whether each part is a whole text message."""
        self._waiting += chunk
        parts: list[tuple[bytes, bool]] = []
        if not self._is_upgraded:
            head, end, rest = self._waiting.partition(b"\r\n\r\n")
            if not end or b"upgrade: websocket" not in head.lower():
                whole, self._waiting = self._waiting, b""
                return [(whole, False)]
            self._is_upgraded = True
            self._waiting = rest
            parts.append((head + end, False))
        while size := self._frame_bytes():
            frame, self._waiting = self._waiting[:size], self._waiting[size:]
            parts.append((frame, frame[0] == 0x81))  # FIN and text
        return parts

    def _frame_bytes(self) -> int:
        """Return the size of the frame that comes first; 0 if it is not complete."""
        data = self._waiting
        if len(data) < 2:
            return 0
        length, head = data[1] & 0x7F, 2
        if length == 126:
            length, head = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(data[2:10], "big"), 10
        size = head + (4 if data[1] & 0x80 else 0) + length
        return size if len(data) >= max(size, head) else 0
