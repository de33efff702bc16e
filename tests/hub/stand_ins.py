"""A hub over a journal that commits when it is told to, its watchers, and the answers to its senders."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Raw

from twincast.core.batch import Batch, Placed
from twincast.core.model import DataUpdate
from twincast.core.state import State
from twincast.delivery.backlog import Backlog
from twincast.delivery.cast import Cast
from twincast.errors import JournalUnavailable, TooLarge, TwincastError
from twincast.hub.hub import Hub
from twincast.journal.memory import MemoryJournal

TIMEOUT_S = 10


class GatedJournal(MemoryJournal):
    """A journal whose every append waits for its gate, and then succeeds or fails as it was told."""

    def __init__(self) -> None:
        super().__init__(max_bytes=1 << 20)
        self.batches: list[int] = []
        self.waiting = asyncio.Event()
        self._gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def append(self, batch: Batch) -> Placed:
        self.batches.append(len(batch.entries))
        self.waiting.set()
        gate = self._gate
        try:
            await gate
            self.problem = None
        except JournalUnavailable as problem:
            self.problem = problem
            raise
        finally:
            self._gate = asyncio.get_running_loop().create_future()
            self.waiting.clear()
        return await super().append(batch)

    async def open(self, failure: JournalUnavailable | TooLarge | None = None) -> None:
        """Let the next append through, or make it fail; return when it has come."""
        await asyncio.wait_for(self.waiting.wait(), TIMEOUT_S)
        if failure is None:
            self._gate.set_result(None)
        else:
            self._gate.set_exception(failure)
        await asyncio.sleep(0)


class RecordingWatcher:
    """A watcher that keeps what it is offered, and says when."""

    def __init__(self, log: list[str]) -> None:
        self.casts: list[Cast] = []
        self._log = log

    def offer(self, cast: Cast) -> None:
        self.casts.append(cast)
        self._log.append("cast")

    is_behind = False

    def hold(self) -> None:
        raise AssertionError("nothing asks to be held")

    def release(self) -> None:
        raise AssertionError("nothing is held")

    def follow(self, backlog: Backlog) -> bool:
        raise AssertionError("nothing is behind")

    def unfollow(self) -> None:
        raise AssertionError("nothing is behind")

    def check_bound(self, cast: Cast) -> None:
        raise AssertionError("nothing is behind")


class Receipts:
    """The answers to submissions."""

    def __init__(self, log: list[str]) -> None:
        self.answers: list[tuple[TwincastError | None, int]] = []
        self._log = log
        self._changed = asyncio.Event()

    def done(self, error: TwincastError | None, last_seq: int) -> None:
        self.answers.append((error, last_seq))
        self._log.append("answer")
        self._changed.set()

    async def count(self, count: int) -> list[tuple[TwincastError | None, int]]:
        while len(self.answers) < count:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), TIMEOUT_S)
        return self.answers


def update(device_id: str, value: bytes = b"1") -> DataUpdate:
    return DataUpdate(device_id, Raw(value), "", "rest")


@asynccontextmanager
async def running(journal: MemoryJournal, max_bytes: int = 1 << 20) -> AsyncIterator[Hub]:
    hub = Hub(journal, State(await journal.snapshot()), open_batch_max_bytes=max_bytes, now_utc=lambda: "now")
    driver = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        driver.cancel()
        await asyncio.wait([driver])
