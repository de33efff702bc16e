"""Which lines of a spool pass its backlog, and which keep their place behind it.

A reading passes: it has its time, so what the server stores of older ones afterwards is late, and is not the present.
What has no such time keeps its order:

1. A deletion waits for the whole backlog.
2. A reading waits for the deletions of its device that were handed over before it. It is sent without its time then: it
   would be before the time at which the server stores the deletion, and so be late, and not make the device anew. Later
   readings of the device wait for it in turn, without their times.
3. Commands and deletions keep their order among one another.
4. While a deletion, or such a reading, goes among the live lines, the backlog, which is newer than it, waits for its
   answer.
"""

from collections import Counter
from collections.abc import Iterable

from twincast.client.spool_line import Lines, Row


class _Waiting:
    """What waits in one part of a spool."""

    def __init__(self, lines: int = 0, size_bytes: int = 0) -> None:
        self.lines = lines
        self.size_bytes = size_bytes
        self.in_order = 0
        """How many commands and deletions."""
        self.held: Counter[str] = Counter()
        """Devices whose later readings wait, each with the number of lines that they wait for."""

    def add(self, row: Row, count: int) -> None:
        self.lines += count
        self.size_bytes += count * row.size_bytes
        self.note(row, count)

    def note(self, row: Row, count: int) -> None:
        if row.has_time:
            return
        self.in_order += count * (not row.is_reading)
        if row.holds_device:
            self.held[row.device] += count
            if not self.held[row.device]:
                del self.held[row.device]

    def take_all(self, other: "_Waiting") -> None:
        self.lines += other.lines
        self.size_bytes += other.size_bytes
        self.in_order += other.in_order
        self.held += other.held


class Precedence:
    """Counts the lines of each part of a spool, and says to which part a new one goes. See Lines for the parts."""

    def __init__(
        self, live: Lines, backlog: Lines, undecided: Lines, without_time: Iterable[tuple[Row, bool | None]]
    ) -> None:
        """Begin with what is in the file.

        Args:
            live: how many lines are live.
            backlog: how many lines are in the backlog.
            undecided: how many lines are undecided.
            without_time: the commands, deletions and readings without a time among them, each with its part.
        """
        parts: dict[bool | None, Lines] = {True: live, False: backlog, None: undecided}
        self._parts = {part: _Waiting(lines.number, lines.size_bytes) for part, lines in parts.items()}
        for row, part in without_time:
            self._parts[part].note(row, 1)

    @property
    def live(self) -> int:
        """How many lines are live."""
        return self._parts[True].lines

    @property
    def undecided(self) -> int:
        """How many lines are undecided."""
        return self._parts[None].lines

    @property
    def undecided_bytes(self) -> int:
        """What these lines cost."""
        return self._parts[None].size_bytes

    @property
    def holds_backlog(self) -> bool:
        """Whether the backlog waits for an answer to a live line."""
        return bool(self._parts[True].held)

    @property
    def may_all_be_live(self) -> bool:
        """Whether all undecided lines may pass the backlog."""
        backlog, undecided = self._parts[False], self._parts[None]
        return not backlog.lines or not (backlog.in_order or backlog.held or undecided.in_order or undecided.held)

    @property
    def held(self) -> frozenset[str]:
        """The devices of which no reading may pass the backlog."""
        return frozenset(self._parts[False].held) | frozenset(self._parts[None].held)

    def timed(self, row: Row) -> Row:
        """Return a new line as it is to be sent: without its time, if it waits for a line of its device."""
        if not row.is_reading or row.measured_at_utc is not None:
            return row
        is_held = any(row.device in part.held for part in self._parts.values())
        return row._replace(measured_at_utc="") if is_held else row

    def place(self, row: Row, *, is_live: bool) -> bool | None:
        """Count a new line, and return whether it is live; None for undecided, while none is live."""
        part = self._passes(row) if is_live else None
        self._parts[part].add(row, 1)
        return part

    def remove(self, row: Row, part: bool | None) -> None:
        """Forget a line that is gone."""
        self._parts[part].add(row, -1)

    def decide_all_live(self) -> None:
        """Note that all undecided lines are live."""
        self._parts[True].take_all(self._parts[None])
        self._parts[None] = _Waiting()

    def decide_backlog(self, live: Lines) -> None:
        """Note that of the undecided lines these readings are live, and all others in the backlog."""
        readings = _Waiting(live.number, live.size_bytes)
        self._parts[True].take_all(readings)
        self._parts[None].lines -= readings.lines
        self._parts[None].size_bytes -= readings.size_bytes
        self._parts[False].take_all(self._parts[None])
        self._parts[None] = _Waiting()

    def take_back(self, lines: Lines, without_time: Iterable[Row]) -> None:
        """Note that live lines are undecided again; `without_time` are among them."""
        taken = _Waiting(lines.number, lines.size_bytes)
        self._parts[True].lines -= taken.lines
        self._parts[True].size_bytes -= taken.size_bytes
        for row in without_time:
            taken.note(row, 1)
            self._parts[True].note(row, -1)
        self._parts[None].take_all(taken)

    def _passes(self, row: Row) -> bool:
        backlog = self._parts[False]
        if not backlog.lines:
            return True
        if row.is_reading:
            return row.device not in backlog.held
        return not row.is_deletion and not backlog.in_order
