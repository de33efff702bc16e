"""The readings of one message, as the columns that they came in.

To make an object of each entry is a third of what it takes to catch up, and a server that catches up has nobody who
looks at them: the copy stores columns.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

from msgspec import Raw
from msgspec.structs import replace

from twincast.core.batch import Committed
from twincast.core.model import DataUpdate, Entry, Source


class Given(NamedTuple):
    """What entries get where they are folded."""

    seq: int
    """Of the first one."""
    epoch: str
    at_utc: str


class Columns(NamedTuple):
    """Readings of one time that came by one way."""

    source: Source
    subjects: Sequence[str]
    payloads: Sequence[Raw]
    given: Given

    def entry(self, index: int) -> Entry:
        """Make one of the entries. Its value is copied, for one that stays would keep the whole message in memory."""
        seq, epoch, at_utc = self.given
        return DataUpdate(self.subjects[index], self.payloads[index].copy(), at_utc, self.source, seq + index, epoch)

    def entries(self) -> tuple[Entry, ...]:
        """Make all of the entries, as `entry` does."""
        make, source, (seq, epoch, at_utc) = DataUpdate, self.source, self.given
        return tuple(
            [
                make(subject, payload.copy(), at_utc, source, at, epoch)
                for at, (subject, payload) in enumerate(zip(self.subjects, self.payloads, strict=True), seq)
            ]
        )


class Readings(Sequence[Entry]):
    """A sequence of readings whose entries are made when more than one of them is asked for, all at once and for good.

    One thread may ask for `columns` while another asks for entries.
    """

    __slots__ = ("_columns", "_count", "_entries")

    def __init__(self, columns: Columns) -> None:
        self._count = len(columns.subjects)
        self._columns: Columns | None = columns
        self._entries: tuple[Entry, ...] | None = None

    @property
    def columns(self) -> Columns | None:
        """The columns; None once the entries are made: what was done to those is not seen here."""
        return self._columns

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...
    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        columns = self._columns
        if columns is None or isinstance(index, slice):
            return self._made()[index]
        if not -self._count <= index < self._count:
            raise IndexError(index)
        return columns.entry(index % self._count)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._made())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made() == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # entries can be changed

    def __repr__(self) -> str:
        return f"Readings({self._made()!r})"

    def _made(self) -> tuple[Entry, ...]:
        columns = self._columns  # looked at once: the other thread may make them meanwhile
        if columns is not None:
            self._entries = columns.entries()
            self._columns = None
        assert self._entries is not None
        return self._entries


def with_entries(committed: Committed) -> Committed:
    """Return a stretch of the log whose entries are made, for those who look at each."""
    entries = committed.entries
    return replace(committed, entries=tuple(entries)) if isinstance(entries, Readings) else committed
