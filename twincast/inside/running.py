"""Runs a twincast within another program: one task, which opens all parts and closes them again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from twincast.app import App
from twincast.errors import Stopping
from twincast.hub.hub import Hub

ASKING_MAX = 8
"""How many questions about the past are answered at a time; the others wait. Each holds its answer in memory."""


class Running:
    """An application's lifespan, in a task of its own: the task that enters it need not be the one that leaves it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._task: asyncio.Task[None] | None = None
        self._leave = asyncio.Event()
        self._is_ending = False
        self.asking = asyncio.Semaphore(ASKING_MAX)
        """Bounds how many questions about the past are answered at a time."""
        self._ends: dict[Callable[[Stopping], object], asyncio.Task[Any]] = {}

    @property
    def hub(self) -> Hub:
        """The hub, on its own event loop.

        Raises:
            NotStarted: it does not run, or no longer.
            NotReady: its log is another one now, and is being opened.
            Stopping: it is about to end.
            RuntimeError: this is another event loop's thread.
        """
        hub = self.app.parts.hub
        if self._is_ending:
            raise Stopping("this twincast is ending")
        if asyncio.get_running_loop() is not self.app.life.loop:
            raise RuntimeError(
                "a twincast belongs to the event loop that it was started on; from a thread of the application's,"
                " `anyio.from_thread.run(twin.publish, …)` calls it there"
            )
        return hub

    def keep(self, task: asyncio.Task[Any], end: Callable[[Stopping], object]) -> None:
        """End a task with this twincast: `end` is called first, unless the task is over by then."""
        self._ends[end] = task
        task.add_done_callback(lambda _: self._ends.pop(end, None))

    @asynccontextmanager
    async def context(self) -> AsyncIterator[None]:
        """Run until the context is left."""
        if self._task is not None:
            raise RuntimeError("this twincast is running already; a second one takes a second Twincast, and a journal")
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leave, self._is_ending, self.asking = asyncio.Event(), False, asyncio.Semaphore(ASKING_MAX)
        self._task = asyncio.create_task(self._run(started), name="twincast")
        try:
            try:
                await started
            except BaseException:
                self._task.cancel()
                raise
            yield
        finally:
            self._leave.set()
            task, self._task = self._task, None
            await _over(task)

    async def _run(self, started: asyncio.Future[None]) -> None:
        try:
            async with self.app.router.lifespan_context(self.app):
                started.set_result(None)
                await self._leave.wait()
                self._is_ending = True
                if self.app.parts.is_running:
                    await self.app.parts.hub.stop()
                await self._end_all()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _end_all(self) -> None:
        ends = dict(self._ends)
        for end in ends:
            end(Stopping("this twincast has ended"))
        if ends:
            await asyncio.wait(ends.values())


async def _over(task: asyncio.Task[None]) -> None:
    """Return once a task is over, even if this is cancelled: a journal that is half closed opens for no process."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            if cancelled is not None:
                task.cancel()  # a second cancellation ends it at once
            cancelled = error
    if cancelled is not None:
        raise cancelled
    if not task.cancelled():
        task.result()
