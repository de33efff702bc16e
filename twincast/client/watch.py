"""What a program watches: changes, one after another, for as long as it iterates over them."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from twincast.client.event_queue import Mark, Waiting
from twincast.client.events import Change, Gap
from twincast.core.subscription import Subscription
from twincast.errors import TwincastError

NOTHING = range(0)


class Feeder(Protocol):
    """Who fills a watch."""

    async def start(self, watch: "Watch") -> None:
        """Begin to offer it what it selects. If this raises, or is cancelled, it is offered nothing."""

    def end(self, watch: "Watch") -> None:
        """Offer it nothing more."""

    def done(self, watch: "Watch", mark: Mark) -> None:
        """Note that the program is done with a change of it."""


class Watch:
    """Changes that a subscription selects, for as long as they are iterated over. Made by `Hub.watch`.

    A watch begins with its iteration, or with `async with`, whichever comes first, and ends with the last of these that
    is left. One that has ended may begin again, with what comes then.
    """

    def __init__(self, feeder: Feeder, subscription: Subscription, *, initial: bool) -> None:
        self.subscription = subscription
        self.initial = initial
        self._feeder = feeder
        self._starting = asyncio.Lock()
        self._users = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._back: Waiting | None = None  # what was read back and is not taken yet
        self._is_reading_back = False  # what comes meanwhile waits behind it
        self._live = Waiting(self.subscription.mode)
        self._told = NOTHING
        self._changed = asyncio.Event()
        self._in_hand: dict[object, Mark] = {}
        self._left: list[Mark] = []  # of loops that were left with a change in hand
        self._is_started = False
        self._error: TwincastError | None = None

    @property
    def undone(self) -> Mark | None:
        """Where a client must go on to be told again of all that this program has not done; None if that is nothing."""
        marks = [*self._in_hand.values(), *self._left, *self._live.marks(), *(self._back.marks() if self._back else ())]
        return min(marks, key=lambda mark: mark.order, default=None)

    async def room(self) -> None:
        """Wait until more may be offered: in mode `every` nothing can be merged, so what waits is bounded."""
        if self.subscription.mode == "every":
            await self._live.room(lambda: self._is_started)

    async def taken(self) -> None:
        """Wait until nearly all that was offered is taken: for a feeder that merges what it has itself."""
        await self._live.few(lambda: self._is_started and self._error is None)

    def offer(self, change: Change, size_bytes: int = 0, mark: Mark | None = None) -> None:
        """Take a change that is selected; `mark` is where a client must go on to be told of it again."""
        if change.seq in self._told:
            return
        self._live.put(change, size_bytes, mark)
        self._changed.set()

    def miss(self, gap: Gap) -> None:
        """Note what may be missing before the next change."""
        if gap.from_seq is None:
            self._told = NOTHING  # the seqs of another log
        self._live.miss(gap)

    def begin_reading_back(self) -> None:
        """Have what is offered wait for what is read back."""
        self._back = Waiting(self.subscription.mode)
        self._is_reading_back = True

    async def offer_back(self, change: Change, size_bytes: int, mark: Mark) -> None:
        """Take a change that is read back, once there is room for it."""
        if self._back is not None:
            await self._back.room(lambda: self._is_started)
            self._back.put(change, size_bytes, mark)
            self._changed.set()

    def miss_back(self, gap: Gap) -> None:
        """Note what is missing in what is read back."""
        if self._back is not None:
            self._back.miss(gap)

    def end_reading_back(self, told: range) -> None:
        """Go on with what is offered, less the seqs that were told already."""
        if self._back is not None:
            self._told = told
            self._live.follow(self._back, told)
            self._is_reading_back = False
            self._changed.set()

    def fail(self, error: TwincastError) -> None:
        """End the iteration with an error, once what waits was taken."""
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
        if kind is None:  # the program has come to the end of what it does with them
            self._in_hand.clear()
            self._left.clear()
        self._leave()

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes in the order of seq.

        Raises:
            TwincastError: the server refused the subscription, or the hub was closed.
        """
        interval_s = 1 / self.subscription.max_hz if self.subscription.max_hz else 0.0
        clock_s = asyncio.get_running_loop().time
        async with self:
            self._left.clear()  # the program goes on behind what it left
            loop = object()
            while True:
                due_s = clock_s() + interval_s
                while (waiting := self._next()) is not None:
                    change, mark = waiting.take()
                    if mark is None:
                        yield change
                        continue
                    self._in_hand[loop] = mark
                    try:
                        yield change
                    except BaseException:  # it was left, and the program may not be done with its change
                        if self._in_hand.pop(loop, None) is not None:
                            self._left.append(mark)
                        raise
                    self._in_hand.pop(loop, None)
                    self._feeder.done(self, mark)
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(max(0.0, due_s - clock_s()))  # what comes in the meantime merges

    async def _start(self) -> None:
        self._begin_anew()
        self._is_started = True
        try:
            await self._feeder.start(self)
        except BaseException:
            self._is_started = False
            raise

    def _next(self) -> Waiting | None:
        """Return what the next change is to be taken from; None if there is none."""
        if self._back:
            return self._back
        return self._live if self._live and not self._is_reading_back else None

    def _wake(self) -> None:
        self._changed.set()
        for waiting in (self._live, self._back):
            if waiting is not None:
                waiting.wake()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users and self._is_started:
            self._is_started = False
            self._wake()
            self._feeder.end(self)
