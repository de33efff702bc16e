"""Shared logs that open, fail and become others when a test says so, and whole servers on them, without NATS."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.running import DEADLINE_S, eventually
from twincast import lifespan
from twincast.app import App, create_app
from twincast.core.batch import Batch, Committed, Placed
from twincast.core.opening import Opening
from twincast.errors import LogReplaced, TwincastError
from twincast.journal.memory import MemoryAccessStore, MemoryJournal
from twincast.journal.stores import Stores
from twincast.server.process import Server as ServerProcess
from twincast.server.process import configured, listen
from twincast.settings import Settings

URL = "memory:"
REPLACED = "the stream was deleted and made anew"


class ReplaceableLog(MemoryJournal):
    """A log that becomes another one when it is told to, and takes nothing while it is held."""

    def __init__(self) -> None:
        super().__init__(max_bytes=1 << 20)
        self.is_replaced = asyncio.Event()
        self.is_closed = False
        self.held: asyncio.Event | None = None

    async def append(self, batch: Batch) -> Placed:
        if self.held is not None:
            await self.held.wait()
        return await super().append(batch)

    async def follow(self, since: int) -> AsyncIterator[Committed]:
        replaced = asyncio.ensure_future(self.is_replaced.wait())
        entries = super().follow(since)
        try:
            while True:
                coming = asyncio.ensure_future(anext(entries))
                await asyncio.wait({coming, replaced}, return_when=asyncio.FIRST_COMPLETED)
                if replaced.done():
                    coming.cancel()
                    raise LogReplaced(REPLACED)
                yield coming.result()
        finally:
            replaced.cancel()

    async def close(self) -> None:
        self.is_closed = True


class SharedLogs:
    """Opens logs as a test tells it to; each opening waits for its word: "go", or the error that it raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifespan, "catches_up", lambda _: True)
        monkeypatch.setattr(lifespan, "open_stores", self.open_stores)
        monkeypatch.setattr(lifespan, "OPEN_AGAIN_S", 0.01)
        monkeypatch.setattr(lifespan, "TELL_S", 0.01)
        self.openings: list[Opening] = []
        self.logs: list[ReplaceableLog] = []
        self.words: list[TwincastError | str] = []
        self.cancelled = 0

    async def open_stores(self, url: str, *, opening: Opening, **_: Any) -> Stores:
        self.openings.append(opening)
        number = len(self.openings)
        try:
            while len(self.words) < number:  # noqa: ASYNC110  # said by another thread
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        word = self.words[number - 1]
        if isinstance(word, TwincastError):
            raise word
        log = ReplaceableLog()
        self.logs.append(log)
        return Stores(log, MemoryAccessStore(log.trail), log.history)


class ThreadedServer:
    """A whole server in a thread, which has perhaps no log yet."""

    def __init__(self, edge: str) -> None:
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.app: App = create_app(Settings(journal=URL), edge=edge)
        picows: type | None = None
        if edge == "picows":
            from twincast.server.websocket import PicowsEdge  # noqa: PLC0415  # absent where no wheel fits

            picows = PicowsEdge
        self.server = ServerProcess(configured(self.app, picows), self.app)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        eventually(lambda: self.server.started or not self.thread.is_alive(), "it listens")

    def _run(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.listener]))

    def in_loop(self, call: Callable[[], object]) -> None:
        loop = self.app.life.loop
        assert loop is not None
        loop.call_soon_threadsafe(call)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.in_loop(self.app.parts.end_responses)
        self.server.should_exit = True
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
