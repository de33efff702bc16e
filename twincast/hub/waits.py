"""Calls that wait until the state has a position."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count


class _Wait:
    __slots__ = ("callback", "number", "seq")

    def __init__(self, seq: int, number: int, callback: Callable[[], None]) -> None:
        self.seq = seq
        self.number = number
        self.callback: Callable[[], None] | None = callback  # None once it is forgotten

    def __lt__(self, other: "_Wait") -> bool:
        return (self.seq, self.number) < (other.seq, other.number)


class PositionWaits:
    """Callbacks by the positions that they wait for: those whose position is not reached yet cost a commit nothing."""

    def __init__(self) -> None:
        self._waits: list[_Wait] = []  # a heap
        self._forgotten = 0  # of those in the heap
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waits) - self._forgotten

    def add(self, seq: int, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once `tell` is told of a position, and return what forgets the callback."""
        wait = _Wait(seq, next(self._numbers), callback)
        heappush(self._waits, wait)
        return lambda: self._forget(wait)

    def tell(self, seq: int) -> None:
        """Call those that wait for a position up to this one, the lowest first."""
        reached: list[Callable[[], None]] = []
        while self._waits and self._waits[0].seq <= seq:
            wait = heappop(self._waits)
            if wait.callback is None:
                self._forgotten -= 1
            else:
                reached.append(wait.callback)
                wait.callback = None
        self._shrink()
        for callback in reached:
            callback()

    def _forget(self, wait: _Wait) -> None:
        if wait.callback is None:  # it was called
            return
        wait.callback = None
        self._forgotten += 1
        self._shrink()

    def _shrink(self) -> None:
        if self._forgotten > len(self._waits) // 2:
            self._waits = [wait for wait in self._waits if wait.callback is not None]
            heapify(self._waits)
            self._forgotten = 0
