"""What of a spool is in memory: the lines of one producer that a connection sends ahead of their answers."""

from twincast.client.lane import Lane
from twincast.client.outgoing import IN_FLIGHT_MAX
from twincast.client.spool_line import Lines, Row


class Window(Lane):
    """The lines of one producer that are in memory; those behind them are in the file alone."""

    def __init__(self, producer: str, lines: Lines, *, is_live: bool, max_bytes: int) -> None:
        """Begin empty.

        Args:
            producer: the name of the producer.
            lines: its lines in the file.
            is_live: whether they are the live ones.
            max_bytes: how much may be in memory.
        """
        super().__init__()
        self.producer = producer
        self.is_live = is_live
        self.rows: dict[int, Row] = {}
        self.unread = lines.number
        self.read_until = max(0, lines.first - 1)
        self.sent_before = lines.last
        """Up to here an earlier process or connection may have sent a line."""
        self._max_bytes = max_bytes

    @property
    def max_lines(self) -> int:
        """How many lines fit: the backlog gets half, so that live lines wait for less of it."""
        return IN_FLIGHT_MAX if self.is_live else max(1, IN_FLIGHT_MAX // 2)

    @property
    def room_bytes(self) -> int:
        """How many bytes fit in."""
        return self._max_bytes - self.size_bytes

    @property
    def has_room(self) -> bool:
        """Whether another line fits in; into an empty one any line does."""
        return not self.rows or (len(self.rows) < self.max_lines and self.room_bytes > 0)

    @property
    def is_half_empty(self) -> bool:
        """Whether it is time to read on: not for each line."""
        return len(self.rows) <= self.max_lines // 2 and self.size_bytes <= self._max_bytes // 2

    def reaches(self, line: int) -> bool:
        """Whether the server will still know of the oldest line here, once this one is stored, if it was."""
        return line - next(iter(self.rows), line) < IN_FLIGHT_MAX

    def rewind(self) -> None:
        """See Lane."""
        self.sent_before = max(self.sent_before, self.last_sent)
        super().rewind()
