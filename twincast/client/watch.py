"""A watch: events that a program iterates over, one after another."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from twincast.client.event_queue import EventQueue, Mark
from twincast.client.events import Event, Gap
from twincast.core.subscription import Subscription
from twincast.errors import TwincastError

NO_SEQS = range(0)


class Feeder(Protocol):
    """What fills a watch."""

    async def start(self, watch: "Watch") -> None:
        """Start to offer the watch what it selects. If this raises, or is cancelled, the watch is offered nothing."""

    def end(self, watch: "Watch") -> None:
        """Stop offering."""

    def done(self, watch: "Watch", mark: Mark) -> None:
        """Note that the program has finished with one event of the watch."""


class Watch:
    """The events that a subscription selects. Made by `Client.watch`, and iterated over with `async for`.

    Two states, *idle* and *started*:

    - idle -> started: the first iteration begins, or `async with` is entered. The feeder starts; the queues are new.
    - started -> idle: the last iteration and the last context have ended. The feeder ends, and what is in the queues is
      dropped. An idle watch may be started again; it yields what comes from then on.

    While it is started it has two queues. `_live` takes the events of the connection. If the watch resumes behind a
    position, `_back` takes what is read back, and `_live` is not drained until `end_reading_back` has joined the two:
    only then does an event of `_live` come behind all earlier ones.
    """

    def __init__(self, feeder: Feeder, subscription: Subscription, *, initial: bool) -> None:
        self.subscription = subscription
        self.initial = initial
        self._feeder = feeder
        self._starting = asyncio.Lock()
        self._users = 0  # iterations and contexts
        self._reset()

    def _reset(self) -> None:
        self._back: EventQueue | None = None
        self._is_reading_back = False
        self._read_back_to = -1  # the seq of the newest event that was read back
        self._live = EventQueue(self.subscription.mode)
        self._seqs_read_back = NO_SEQS
        self._changed = asyncio.Event()
        self._in_hand: dict[object, Mark] = {}  # of each iteration, the event that its program works on
        self._left: list[Mark] = []  # the same, of iterations that were left
        self._is_started = False
        self._error: TwincastError | None = None

    @property
    def undone(self) -> Mark | None:
        """Where a client must resume to receive again what this program has not finished; None if that is nothing.

        While events are read back, both queues may have the same one. It counts in `_back`, which is taken from.
        """
        live = self._live.marks(self._read_back_to if self._is_reading_back else -1)
        marks = [*self._in_hand.values(), *self._left, *live, *(self._back.marks() if self._back else ())]
        return min(marks, key=lambda mark: mark.order, default=None)

    async def wait_for_room(self) -> None:
        """Wait until more may be offered. In mode `every` nothing is merged, so the queue is bounded."""
        if self.subscription.mode == "every":
            await self._live.wait_for_room(lambda: self._is_started)

    async def wait_until_nearly_taken(self) -> None:
        """Wait until nearly all that was offered is taken: for a feeder that merges events itself."""
        await self._live.wait_until_nearly_empty(lambda: self._is_started and self._error is None)

    def offer(self, event: Event, size_bytes: int = 0, mark: Mark | None = None) -> None:
        """Queue an event that is selected; a client that resumes behind `mark` receives it again."""
        if event.seq in self._seqs_read_back:
            return
        self._live.put(event, size_bytes, mark)
        self._changed.set()

    def add_gap(self, gap: Gap) -> None:
        """Note what may be missing before the next event."""
        if gap.from_seq is None:
            self._seqs_read_back = NO_SEQS  # they are of another log
        self._live.add_gap(gap)

    def begin_reading_back(self) -> None:
        """Queue what is offered behind what is going to be read back."""
        self._back = EventQueue(self.subscription.mode)
        self._is_reading_back = True

    async def offer_back(self, event: Event, size_bytes: int, mark: Mark) -> None:
        """Queue an event that was read back, once there is room for it."""
        if self._back is not None:
            await self._back.wait_for_room(lambda: self._is_started)
            self._back.put(event, size_bytes, mark)
            self._read_back_to = event.seq
            self._changed.set()

    def add_gap_back(self, gap: Gap) -> None:
        """Note what is missing in what is read back."""
        if self._back is not None:
            self._back.add_gap(gap)

    def end_reading_back(self, seqs: range) -> None:
        """Continue with what is offered, without the seqs that were read back."""
        if self._back is not None:
            self._seqs_read_back = seqs
            self._live.follow(self._back, seqs)
            self._is_reading_back = False
            self._changed.set()

    def fail(self, error: TwincastError) -> None:
        """End every iteration with an error, behind the events that are queued."""
        self._error = error
        self._wake()

    async def __aenter__(self) -> Self:
        self._users += 1
        try:
            async with self._starting:
                if not self._is_started:
                    await self._start()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is None:  # without an error the program has finished with the events that it took
            self._in_hand.clear()
            self._left.clear()
        self._leave()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events in the order of seq.

        Raises:
            TwincastError: the server refused the subscription, or the client was closed.
        """
        interval_s = 1 / self.subscription.max_hz if self.subscription.max_hz else 0.0
        clock_s = asyncio.get_running_loop().time
        async with self:
            self._left.clear()  # the program continues behind the event that it left
            iteration = object()
            while True:
                due_s = clock_s() + interval_s
                while (queue := self._next_queue()) is not None:
                    event, mark = queue.take()
                    if mark is None:
                        yield event
                        continue
                    self._in_hand[iteration] = mark
                    try:
                        yield event
                    except BaseException:  # the iteration was left, and its program may not have finished the event
                        if self._in_hand.pop(iteration, None) is not None:
                            self._left.append(mark)
                        raise
                    self._in_hand.pop(iteration, None)
                    self._feeder.done(self, mark)
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(max(0.0, due_s - clock_s()))  # events that arrive meanwhile are merged

    async def _start(self) -> None:
        self._reset()
        self._is_started = True
        try:
            await self._feeder.start(self)
        except BaseException:
            self._is_started = False
            raise

    def _next_queue(self) -> EventQueue | None:
        """Return the queue that has the next event; None if there is none yet."""
        if self._back:
            return self._back
        return self._live if self._live and not self._is_reading_back else None

    def _wake(self) -> None:
        self._changed.set()
        for queue in (self._live, self._back):
            if queue is not None:
                queue.wake()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users and self._is_started:
            self._is_started = False
            self._wake()
            self._feeder.end(self)
