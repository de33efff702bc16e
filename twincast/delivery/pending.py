"""Calls that wait until a client has caught up: the changes of its subscription, one behind the other."""

from collections import deque
from collections.abc import Callable

from twincast.errors import TooLarge

PENDING_MAX = 1_000
"""How many changes of its subscription a client may ask for before the first one is made."""


class PendingCalls:
    """Calls in order, bounded in number and in the bytes that they keep."""

    __slots__ = ("_calls", "_max_bytes", "_size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._calls: deque[tuple[Callable[[], None], int]] = deque()
        self._size_bytes = 0
        self._max_bytes = max_bytes

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, call: Callable[[], None], size_bytes: int) -> None:
        """Keep a call behind the others, and the bytes that it needs.

        Raises:
            TooLarge: so many wait already that the client seems not to mind the replies.
        """
        if len(self._calls) >= PENDING_MAX or self._size_bytes + size_bytes > self._max_bytes:
            count = len(self._calls)
            raise TooLarge(
                f"{count} changes of the subscription wait until this client has caught up; read what was sent first"
            )
        self._calls.append((call, size_bytes))
        self._size_bytes += size_bytes

    def add_first(self, call: Callable[[], None]) -> None:
        """Keep a call before the others: it has begun."""
        self._calls.appendleft((call, 0))

    def pop(self) -> Callable[[], None]:
        """Return the first call, which is kept no longer."""
        call, size_bytes = self._calls.popleft()
        self._size_bytes -= size_bytes
        return call
