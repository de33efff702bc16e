"""A network between a client and a server that cuts, delays, stalls and repeats, when and as the test says."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from twincast.testing.pipe import DIRECTIONS, Direction, FaultPlan, Faults, Pipe

T = TypeVar("T")


class Proxy:
    """A TCP proxy on a free port, in a thread. "up" is from the client to the server. Use it as a context.

    Random faults come from the seed and the number of the connection: the same traffic breaks at the same byte.
    """

    def __init__(self, port: int, *, seed: int = 0, cut_every_bytes: int = 0, repeat_every: int = 0) -> None:
        """Listen in front of a server on `port` of this machine; for the random faults see `misbehave`."""
        self.cuts = 0
        """How many connections were broken so far."""
        self.to_port = port
        """Where new connections go on this machine; may be changed."""
        self._seed = seed
        self._accepted = 0
        self._is_refusing = False
        self._faults = Faults()
        self._pipes: set[Pipe] = set()
        self.misbehave(cut_every_bytes=cut_every_bytes, repeat_every=repeat_every)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="twincast proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._in_loop(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """The address to give to the client."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where the WebSocket is, seen through this network."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def repeats(self) -> int:
        """How many messages were sent twice so far."""
        return self._faults.repeats

    def cut(self, *, reset: bool = False) -> None:
        """Break every connection without a closing handshake: by a FIN, as a killed program does, or by an RST."""

        def cut() -> None:
            for pipe in list(self._pipes):
                pipe.cut(reset=reset)

        self._call(cut)

    def refuse(self, refusing: bool = True) -> None:
        """Break new connections at once, until `refuse(False)`."""
        self._is_refusing = refusing

    def delay(self, seconds: float) -> None:
        """Delay everything by so many seconds, in both directions, in order; 0 ends it."""
        self._faults.delay_s = seconds

    def stall(self, *directions: Direction) -> None:
        """Pass nothing on in these directions, or in both, until `flow`. What arrives waits, as in full buffers."""
        for direction in directions or DIRECTIONS:
            self._call(self._faults.flowing[direction].clear)

    def flow(self) -> None:
        """Pass on what waited and what arrives."""
        for flowing in self._faults.flowing.values():
            self._call(flowing.set)

    def repeat(self, messages: int = 1) -> None:
        """Send the clients' next text messages to the server twice."""

        def add() -> None:
            self._faults.to_repeat += messages

        self._call(add)

    def misbehave(self, *, cut_every_bytes: int = 0, repeat_every: int = 0) -> None:
        """Inject random faults into every connection that is opened from now on.

        Args:
            cut_every_bytes: break it after a random number of bytes in either direction, with that mean, also within a
                message; 0 for never.
            repeat_every: send one in so many text messages of the client twice; 0 for none.
        """
        self._random_faults = {"cut_every_bytes": cut_every_bytes, "repeat_every": repeat_every}

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
        plan = FaultPlan(f"{self._seed}/{self._accepted}", **self._random_faults)
        if self._is_refusing:
            writer.transport.abort()
            return
        try:
            to_server = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()
            return
        pipe = Pipe((reader, writer), to_server, self._faults, plan, self._count_cut)
        self._pipes.add(pipe)
        try:
            await pipe.ended()
        finally:
            self._pipes.discard(pipe)

    def _count_cut(self) -> None:
        self.cuts += 1

    async def _close(self) -> None:
        self._server.close()
        own = asyncio.current_task()
        while tasks := [task for task in asyncio.all_tasks() if task is not own]:
            for pipe in list(self._pipes):
                pipe.close()
            await asyncio.wait(tasks, timeout=0.05)  # a connection may have been accepted just now

    def _call(self, call: Callable[[], object]) -> None:
        async def work() -> None:
            call()

        self._in_loop(work())

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
