"""Where watches start: behind the position that an earlier process reached, if one was given; now, otherwise."""

import asyncio
from collections.abc import Awaitable, Callable

from twincast.client.event_queue import Mark
from twincast.client.incoming import Incoming
from twincast.client.progress import Progress
from twincast.client.readback import ReadBack
from twincast.client.subscriptions import Subscriptions
from twincast.client.watch import Watch
from twincast.core.model import Position

STARTING_S = 10.0
"""A watch that starts within so long after the first one is part of the program's start, and resumes as that did."""

MakeReadBack = Callable[[Watch, Position, Callable[[Watch], Awaitable[None]]], ReadBack]


class Resumption:
    """The Feeder of a client's watches.

    Without a position it has one state: a watch starts on the connection. With one there are three:

    - *before the start*: no watch was started yet.
    - *starting*, for STARTING_S from the first watch on: each watch reads back what lies behind the position.
    - *started*: a new watch begins now, for the program was there all along.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        incoming: Incoming,
        progress: Progress,
        make: MakeReadBack,
        since: Position | None,
    ) -> None:
        """Start watches behind `since`; now, if that is None."""
        self._subscriptions = subscriptions
        self._incoming = incoming
        self._progress = progress
        self._make = make
        self._since = since
        self.is_kept: asyncio.Event | None = None
        """With a cursor file: set once it has a position. Before that no watch counts as live."""
        self._until_s: float | None = None
        self._tasks: dict[Watch, asyncio.Task[None]] = {}
        self._begun: set[Watch] = set()

    @property
    def starting_s(self) -> float:
        """For how long from now on a new watch reads back."""
        if self._until_s is None:
            return 0.0
        return max(0.0, self._until_s - asyncio.get_running_loop().time())

    async def start(self, watch: Watch) -> None:
        """See Feeder."""
        try:
            if self._since is not None and (self._until_s is None or self.starting_s > 0):
                await self._read_back(watch, self._since)
            else:
                self._progress.begin(watch, lambda: self._incoming.mark)
                await self._subscriptions.start(watch)
            self._begun.add(watch)
            if self.is_kept is not None:
                await self.is_kept.wait()
        except BaseException:
            self.end(watch)
            raise

    def end(self, watch: Watch) -> None:
        """See Feeder."""
        task = self._tasks.pop(watch, None)
        if task is not None:
            task.cancel()
        self._progress.end(watch, has_begun=watch in self._begun)
        self._begun.discard(watch)
        self._subscriptions.end(watch)

    def done(self, watch: Watch, mark: Mark) -> None:
        """See Feeder."""
        self._progress.done(mark)

    async def close(self) -> None:
        """Stop reading back."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _read_back(self, watch: Watch, since: Position) -> None:
        if self._until_s is None:
            self._until_s = asyncio.get_running_loop().time() + STARTING_S
        back = self._make(watch, since, self._subscriptions.start)
        task = asyncio.create_task(back.run(), name="client reads back")
        self._tasks[watch] = task

        def reached() -> Mark | None:
            marks = [back.reached(), self._incoming.mark if task.done() else None]
            return max((mark for mark in marks if mark is not None), key=lambda mark: mark.order, default=None)

        self._progress.begin(watch, reached)
        task.add_done_callback(lambda _: self._progress.changed.set())
        await asyncio.shield(back.begun)
