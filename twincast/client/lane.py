"""Updates that are sent one behind the other, and are kept until each has its answer."""

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class Update:
    """What is sent, and the future that its sender waits for."""

    text: str
    size_bytes: int
    value_bytes: int
    is_barrier: bool
    future: asyncio.Future[int]


class Lane:
    """Updates that are not answered yet, in order; their numbers rise, not always by one.

    - *unsent*: it waits in `_unsent`.
    - *in flight*: it was sent, and has no answer. `rewind` makes it unsent again.
    - *settled*: it was answered and removed.

    While a *barrier*, such as a deletion, is in flight, nothing behind it is sent.
    """

    def __init__(self) -> None:
        self.unanswered: dict[int, Update] = {}
        self.size_bytes = 0
        self.last_sent = 0
        """The highest number that was ever sent."""
        self._unsent: deque[int] = deque()
        self._barrier = 0

    @property
    def next(self) -> int | None:
        """The number of the update that may be sent now; None if there is none."""
        return None if self._barrier in self.unanswered else self._first_unsent()

    @property
    def has_flight(self) -> bool:
        """Whether an update is in flight."""
        return bool(self.unanswered) and next(iter(self.unanswered)) != self._first_unsent()

    def in_flight(self) -> list[int]:
        """Return the numbers of the updates in flight."""
        unsent = self._first_unsent()
        return [number for number in self.unanswered if unsent is None or number < unsent]

    def add(self, number: int, update: Update) -> None:
        """Take an update behind all others."""
        self.unanswered[number] = update
        self.size_bytes += update.size_bytes
        self._unsent.append(number)

    def take(self, number: int) -> str:
        """Return the text of the update that `next` named, which is in flight from now on."""
        self._unsent.popleft()
        self.last_sent = max(self.last_sent, number)
        update = self.unanswered[number]
        if update.is_barrier:
            self._barrier = number
        return update.text

    def remove(self, number: int) -> Update | None:
        """Remove an update that is settled; None if it was settled before."""
        update = self.unanswered.pop(number, None)
        if update is not None:
            self.size_bytes -= update.size_bytes
        return update

    def rewind(self) -> None:
        """Have everything sent again, from the oldest on."""
        self._barrier = 0
        self._unsent = deque(self.unanswered)

    def _first_unsent(self) -> int | None:
        while self._unsent and self._unsent[0] not in self.unanswered:
            self._unsent.popleft()
        return self._unsent[0] if self._unsent else None
