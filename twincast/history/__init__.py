"""What is asked of the log's past, how it is read from addresses, and how it is answered; no file, no event loop."""

from collections.abc import Sequence
from typing import Protocol

from twincast.core.model import Entry, Snapshot
from twincast.history.query import BucketsQuery, EntriesPage, EntriesQuery, Names, Series, Told


class History(Protocol):
    """A log, asked by device and time.

    Answers are exact, of what the log still holds. A query holds neither the event loop nor a commit: it is worked on
    in another thread, in steps of about 10 milliseconds at most, between which short queries pass long ones. If a call
    is cancelled, its work ends with the step that is under way.

    All of them raise JournalUnavailable if the disk does not give what is asked for.
    """

    async def entries(self, query: EntriesQuery) -> Told[Sequence[EntriesPage]]:
        """Return a page for each device of a query, in the order of its names; of what is not there, an empty one.

        Raises:
            TooMuch: all pages together would have more than `entries_max`.
        """

    async def buckets(self, query: BucketsQuery) -> Told[Sequence[Series]]:
        """Return a series for each device, and for each path of it, in the order of the query.

        Only buckets that hold something are in it: a number, or any value at the path if `first` or `last` is asked.

        Raises:
            TooMuch: percentiles of more than `percentile_readings_max` numbers.
        """

    async def names(self, names: Names) -> Sequence[str]:
        """Return the devices and targets of which the log still holds an entry, or sums, of the selected, sorted."""

    async def oldest(self) -> Entry | None:
        """Return the oldest entry behind which the log has everything; None if it holds none.

        If a file is lost, there may be older entries, with a hole behind them.
        """

    async def position_at(self, at_us: int, names: Names) -> int:
        """Return the position of the last entry that was stored at a time or before it; 0 before the first one.

        Over the whole log, by its order: a clock that went wrong for a while makes no later time answer earlier.

        Args:
            at_us: the time, in microseconds since 1970.
            names: the devices whose state is wanted there; of these an error says from where on it is known.

        Raises:
            Truncated: the log no longer reaches back to that time; it names the oldest position that `state_at` takes.
        """

    async def state_at(self, seq: int, names: Names) -> Snapshot:
        """Return the twins of the selected devices as of a position that the log has reached.

        Raises:
            Truncated: the log no longer knows the state at this position; it names the oldest at which it does.
        """

    async def close(self) -> None:
        """Release files and threads, before the journal is closed."""
