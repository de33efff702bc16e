"""One thread for queries, in turns: the query that has taken the least time so far goes on, block by block."""

import asyncio
import heapq
import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from twincast.errors import Stopping

logger = logging.getLogger("twincast.journal")

T = TypeVar("T")
Steps = Generator[None, None, T]
"""What is done in blocks of some milliseconds, each up to a `yield`; it returns the result."""
PATIENCE = 8
"""Each so many blocks, the query that came first has a turn, however long it is: short ones cannot starve it."""


class _Job(Generic[T]):
    def __init__(self, number: int, steps: Steps[T]) -> None:
        self.number, self.steps = number, steps
        self.spent_s = 0.0
        self.future: Future[T] = Future()

    def __lt__(self, other: "_Job[Any]") -> bool:
        return (self.spent_s, self.number) < (other.spent_s, other.number)


class Turns:
    """A thread that works on several things in turns. Short ones go before long ones, idle work behind all.

    SQLite's calls block, and its connections belong to one thread. So that a query of some seconds keeps no other one
    waiting, each is cut into blocks, and after each block the one goes on that has taken the least time.
    """

    def __init__(self, name: str) -> None:
        """Make the thread, which starts with the first call of `do`, and ends with `close`."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._changed = threading.Condition()
        self._jobs: list[_Job[Any]] = []
        self._count = 0
        self._is_closed = False
        self._idle: Callable[[bool], float] = lambda is_busy: 0.0
        self._may_idle = False
        self._rests_until_s = 0.0

    async def do(self, steps: Steps[T]) -> T:
        """Work on something until it is done, and return what it returns.

        If cancelled, it ends after the block that has begun: nobody waits for it any more.

        Raises:
            Stopping: `close` was called before it was done.
        """
        job = _Job(self._count, steps)
        self._count += 1
        with self._changed:
            if self._is_closed:
                raise Stopping("the server is shutting down")
            heapq.heappush(self._jobs, job)
            self._start()
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    def when_idle(self, work: Callable[[bool], float]) -> None:
        """Say what is done while nothing else is, and now and then between.

        Args:
            work: does a block of it, and returns for how many times as long as that took the thread rests before the
                next one, so that live delivery has room; 0 if there is no more. It is told whether something else is
                under way.
        """
        self._idle = work

    def wake(self) -> None:
        """Take note that there may be idle work again. From any thread."""
        with self._changed:
            self._may_idle = True
            if not self._is_closed:
                self._start()
            self._changed.notify()

    async def close(self, last: Callable[[], object] = lambda: None) -> None:
        """End what is under way after its block, make a last call in the thread, and end it.

        Raises what that call raises.
        """
        done: Future[None] = Future()
        with self._changed:
            self._last, self._closing = last, done
            self._is_closed = True
            self._start()
            self._changed.notify()
        await asyncio.wrap_future(done)

    def _start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        blocks = 0
        while True:
            with self._changed:
                while not (self._jobs or self._is_closed or (self._may_idle and self._rested())):
                    self._changed.wait(self._rest_s() if self._may_idle else None)
                if self._is_closed:
                    break
                blocks += 1
                is_busy = bool(self._jobs)
                is_aside = blocks % PATIENCE == 0
                job = None
                if is_busy and not (self._may_idle and blocks % (2 * PATIENCE) == 0):
                    job = self._take(is_oldest=is_aside)
                else:
                    self._may_idle = False
            if job is None:
                self._idle_on(is_busy)
            elif self._goes_on(job):
                with self._changed:
                    heapq.heappush(self._jobs, job)
        self._end()

    def _rest_s(self) -> float:
        return max(0.0, self._rests_until_s - time.monotonic())

    def _rested(self) -> bool:
        return self._rest_s() == 0.0

    def _idle_on(self, is_busy: bool) -> None:
        began_s = time.monotonic()
        try:
            rests = self._idle(is_busy)
        except Exception as error:  # queries are right without it, and slower
            logger.warning("what makes queries fast is not done: %s", error)
            return
        ended_s = time.monotonic()
        self._rests_until_s = ended_s + rests * (ended_s - began_s)
        if rests:
            self.wake()

    def _take(self, *, is_oldest: bool) -> _Job[Any]:
        if not is_oldest:
            return heapq.heappop(self._jobs)
        job = min(self._jobs, key=lambda each: each.number)
        self._jobs.remove(job)
        heapq.heapify(self._jobs)
        return job

    def _goes_on(self, job: _Job[Any]) -> bool:
        """Do a block; return whether there is more."""
        if job.future.cancelled():
            job.steps.close()
            return False
        began_s = time.monotonic()
        try:
            next(job.steps)
        except StopIteration as end:
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(end.value)
            return False
        except BaseException as error:  # whoever asked learns of it; the thread goes on with what others asked
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
            return False
        job.spent_s += time.monotonic() - began_s
        return True

    def _end(self) -> None:
        for job in self._jobs:
            job.steps.close()
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(Stopping("the server is shutting down"))
        try:
            self._last()
        except BaseException as error:
            self._closing.set_exception(error)
        else:
            self._closing.set_result(None)
