"""Queries of a journal's history, in steps: of partitions, of slices over the open end, and of the log behind them."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from typing import NamedTuple, Protocol, TypeVar

import apsw

from twincast.core.erasure import Erasures
from twincast.core.lineage import Lineage
from twincast.core.model import Entry, Snapshot
from twincast.errors import HistoryDamaged, JournalUnavailable, Truncated
from twincast.history.query import BucketsQuery, EntriesPage, EntriesQuery, Names, Series, Told
from twincast.history.times import text_of
from twincast.journal.sqlite.entries import LOG_COLUMNS, entry_of
from twincast.journal.sqlite.erasures import erasures_of
from twincast.journal.sqlite.failing import unavailable_if_failing
from twincast.journal.sqlite.history import catalog, pages, states
from twincast.journal.sqlite.history.buckets import Buckets
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.files import FROM_A_BACKUP, present
from twincast.journal.sqlite.history.layout import MARK_KINDS
from twincast.journal.sqlite.history.names import firsts_behind, firsts_in, names_behind, names_in, names_summed
from twincast.journal.sqlite.history.open_end import OpenEnd, prepare
from twincast.journal.sqlite.history.pages import Source
from twincast.journal.sqlite.history.partition import Partitions
from twincast.journal.sqlite.history.percentiles import Percentiles
from twincast.journal.sqlite.history.positions import position_in, position_in_open_end
from twincast.journal.sqlite.history.series import SeriesOfOne, is_of_sums
from twincast.journal.sqlite.history.slices import Slice, Slices
from twincast.journal.sqlite.history.sorted_run import SortedRun
from twincast.journal.sqlite.history.states import OpenState
from twincast.journal.sqlite.history.turns import Steps

logger = logging.getLogger("twincast.journal")

T = TypeVar("T")
TRIES = 3
"""So often a query is begun, as the log goes on being closed."""


class Cut(NamedTuple):
    """What the log consists of, as of one moment."""

    parts: Sequence[Part]
    """What is closed, oldest first."""
    summaries: Sequence[Part]
    """What is left of older partitions, by hour and day."""
    since: int
    """The position behind which the log is not closed."""
    head: int
    """Its newest entry."""
    erasures: Erasures
    """Up to where entries are to be erased, by device."""


class Facts(Protocol):
    """What a journal says of its log."""

    @property
    def lineage(self) -> Lineage:
        """See Journal.lineage."""

    @property
    def oldest_since(self) -> int:
        """See Journal.oldest_since."""


class Queries:
    """What a history answers, with its files open. All methods must be called in one thread.

    Steps end where other queries may have their turn, some milliseconds apart.
    """

    def __init__(
        self, path: str, facts: Facts, *, note_gone: Callable[[Sequence[Part]], None] = lambda gone: None
    ) -> None:
        """Open files beside a journal.

        Args:
            path: its file.
            facts: what it says of its log, at each moment.
            note_gone: is told of partitions whose files are not there.

        Raises:
            JournalUnavailable: the disk does not give it.
        """
        self._path = os.path.realpath(path)
        self._facts = facts
        self._note_gone = note_gone
        with unavailable_if_failing():
            self._slices = Slices(self._path)
            prepare(self._slices)
        self._partitions = Partitions(self._path)
        self._numbers = count(1)
        self._damaged: set[str] = set()

    def close(self) -> None:
        """Release the files."""
        self._partitions.close()
        with unavailable_if_failing():
            self._slices.close()

    def forget(self) -> Steps[None]:
        """Let go of what was read: of files that are no longer part of the log, and of all that is indexed.

        Queries that are under way begin again.

        Raises:
            JournalUnavailable: a disk does not give or take it.
        """
        with unavailable_if_failing():
            self._cut()
            yield
            self._slices.empty()

    def go_on(self, *, is_busy: bool) -> float:
        """Do a block of what makes queries fast: index the open end. Return what `Slices.go_on` returns.

        Args:
            is_busy: whether a query is under way.

        Raises:
            JournalUnavailable: a disk does not give or take it.
        """
        with unavailable_if_failing():
            cut = self._cut()
            return self._slices.go_on(cut.since, cut.head, may_forget=not is_busy)

    def steady(self, query: Callable[[], Steps[T]]) -> Steps[T]:
        """Work on a query, and once more if what it read from was closed, trimmed or dropped meanwhile.

        Raises:
            JournalUnavailable: a disk does not give it.
            HistoryDamaged: a partition is not what was written.
        """
        with unavailable_if_failing():
            try:
                return (yield from self._steady(query))
            except (apsw.Error, JournalUnavailable) as error:
                path = yield from self._partitions.damaged()
                if path is None:
                    raise
                if path not in self._damaged:  # each is said once
                    self._damaged.add(path)
                    logger.error("%s is damaged, so what asks for its entries is refused: %s", path, FROM_A_BACKUP)
                name = os.path.basename(path)
                raise HistoryDamaged(f"the file {name} of the log's history is damaged: {FROM_A_BACKUP}") from error

    def _steady(self, query: Callable[[], Steps[T]]) -> Steps[T]:
        """Work on a query, and once more if what it read from was closed, trimmed, dropped or erased meanwhile."""
        before, emptied = self._cut(), self._slices.times_emptied
        for _ in range(TRIES - 1):
            try:
                answer = yield from query()
            except Exception as error:
                is_of_files = isinstance(error, JournalUnavailable | apsw.Error) and self._cut().parts != before.parts
                if not is_of_files and emptied == self._slices.times_emptied:
                    raise
            else:
                if emptied == self._slices.times_emptied and self._still_has(before):
                    return answer
            before, emptied = self._cut(), self._slices.times_emptied
        return (yield from query())

    def _still_has(self, cut: Cut) -> bool:
        """Whether the log has what it had, and nothing else of it is to be erased: rows that go are written over."""
        db = self._slices.db
        oldest = db.execute("select min(seq) from hot.log").get
        return (oldest is None or oldest <= cut.since + 1) and erasures_of(db, "hot") == cut.erasures

    def _cut(self, until: int | None = None) -> Cut:
        """Return what the log consists of, up to a position if one is given."""
        db = self._slices.db
        parts = catalog.parts(db, "hot")
        self._partitions.keep_only(parts)
        oldest, head = db.execute("select (select min(seq) from hot.log), (select max(seq) from hot.log)").get
        closed = max((part.last_seq for part in parts), default=0)
        since = max(closed, closed if oldest is None else oldest - 1)
        head = max(since, head or 0)
        there = present(self._path, parts)
        if len(there) < len(parts):
            self._note_gone([part for part in parts if part not in there])
        log, summaries = catalog.of_log(there), catalog.summaries(there)
        # Behind the rest: whatever is erased, and still there, is known by then.
        return Cut(log, summaries, since, head if until is None else min(head, until), erasures_of(db, "hot"))

    def entries(self, query: EntriesQuery) -> Steps[Told[Sequence[EntriesPage]]]:
        """See History.entries."""
        cut, found = self._cut(query.until_seq), list[EntriesPage]()
        reaches_back_to = self._reaches_back_to(cut)
        with self._open_end(query.devices, max(cut.since, query.after_seq), cut) as end:
            yield from end.scan()
            for device in query.devices:
                sources = self._sources(cut, end, device, query)
                found.append((yield from pages.page(query, device, sources, self._facts.lineage.epoch)))
                pages.total_within(query, found)
        return Told(found, reaches_back_to)

    def _sources(self, cut: Cut, end: OpenEnd, device: str, query: EntriesQuery) -> list[Source]:
        """Return where a device may have entries that are asked for."""
        if only_marks := query.kinds <= MARK_KINDS:
            runs = end.marks(device)
        else:
            runs = end.runs(device, query.limit + 1, newest_first=query.is_descending)
        sources = [Source(run.stored_us if query.by_stored else run.times_us, partial(_same, run)) for run in runs]
        for part in cut.parts:
            if part.first_seq <= cut.head and part.last_seq > query.after_seq:
                times_us = (part.stored_min_us, part.stored_max_us) if query.by_stored else (part.min_us, part.max_us)
                sources.append(Source(times_us, partial(self._run_in, part, device, cut, only_marks=only_marks)))
        return [each for each in sources if each.times_us[0] < query.to_us and each.times_us[1] >= query.from_us]

    def _run_in(self, part: Part, device: str, cut: Cut, *, only_marks: bool = False) -> SortedRun | None:
        since = max(0, cut.erasures.get(device, 0) - 1)
        if since >= part.last_seq:
            return None
        partition = self._partitions.get(part)
        number = partition.device(device)
        return None if number is None else partition.run(number, cut.head, since, only_marks=only_marks)

    def buckets(self, query: BucketsQuery) -> Steps[Told[Sequence[Series]]]:
        """See History.buckets."""
        cut, number, found = self._cut(query.until_seq), next(self._numbers), list[Series]()
        summed_us = _summed_since(cut, query)
        reaches_back_to = self._reaches_back_to(cut) if summed_us is None else text_of(summed_us)
        buckets = Buckets(query.edges, number)
        numbers = Percentiles(query.percentile_readings_max)
        with self._open_end(query.devices, cut.since, cut) as end:
            yield from end.scan()
            for device in query.devices:
                for path in query.paths:
                    series = SeriesOfOne(query, device, path, buckets, numbers)
                    for run in self._summed(cut, device, query):
                        yield from series.add_summed(run)
                    for run in self._runs(cut, device, query):
                        yield from series.add(run)
                    for run in (yield from end.sums(device, partial(_is_within, query))):
                        yield from series.add(run)
                    found.append((yield from series.result()))
        return Told(found, reaches_back_to)

    def _runs(self, cut: Cut, device: str, query: BucketsQuery) -> Iterator[SortedRun]:
        """Yield the entries of a device in one partition after the other."""
        from_us, to_us = query.edges[0], query.edges[-1]
        for part in cut.parts:
            first_us, last_us = (
                (part.stored_min_us, part.stored_max_us) if query.by_stored else (part.min_us, part.max_us)
            )
            if part.first_seq <= cut.head and first_us < to_us and last_us >= from_us:
                run = self._run_in(part, device, cut)
                if run is not None:
                    yield run

    def _summed(self, cut: Cut, device: str, query: BucketsQuery) -> Iterator[SortedRun]:
        """Yield the sums of a device from what is left of one partition after the other, if the query can use them."""
        for part in cut.summaries if is_of_sums(query) and device not in cut.erasures else ():
            if part.last_seq <= cut.head and part.min_us < query.edges[-1] and part.max_us >= query.edges[0]:
                run = self._run_in(part, device, cut)
                if run is not None:
                    yield run

    def names(self, names: Names) -> Steps[list[str]]:
        """See History.names."""
        cut = self._cut()
        found: set[str] = set()
        for part in cut.parts:
            yield from names_in(self._partitions.get(part), found, names.has)
        for part in cut.summaries:
            yield from names_summed(self._partitions.get(part), found, names.has)
        yield from names_behind(self._slices, (cut.since, cut.head), found, names.has)
        return sorted(found - {""})  # places of erased entries have no name

    def oldest(self) -> Steps[Entry | None]:
        """See History.oldest."""
        yield
        return self._oldest(self._cut())

    def _oldest(self, cut: Cut) -> Entry | None:
        db, table, first = self._slices.db, "hot.log", _reach(cut) + 1
        if (part := next((part for part in cut.parts if part.first_seq == first), None)) is not None:
            db, table = self._partitions.get(part).db, "log"
        row = db.execute(f"select {LOG_COLUMNS} from {table} where seq = ?", (first,)).fetchone()
        return None if row is None else entry_of(row, self._facts.lineage.epoch)

    def _reaches_back_to(self, cut: Cut) -> str | None:
        oldest = self._oldest(cut)
        return None if oldest is None else oldest.timestamp_utc

    def position_at(self, stored_us: int, names: Names) -> Steps[int]:
        """See History.position_at."""
        cut = self._cut()
        found = yield from position_in_open_end(stored_us, self._slices, cut.since, cut.head)
        found = found or position_in(_whole(cut), self._partitions, stored_us)
        if not found and _reach(cut):
            oldest = yield from self._oldest_known(cut, self._reach_of_states(cut), names)
            raise Truncated(f"the state is known back to position {oldest}, which is later than that")
        return found

    def state_at(self, seq: int, names: Names) -> Steps[Snapshot]:
        """See History.state_at."""
        cut = self._cut()
        reach = self._reach_of_states(cut)
        known, unknown = yield from self._known_at(cut, max(seq, reach), names)
        if seq < reach or unknown:
            oldest = yield from self._known_since(cut, max(seq, reach), unknown)
            raise Truncated(f"the state is known back to position {oldest}, not to {seq}")
        erasures = cut.erasures
        twins = {name: twin for name, twin in known.items() if twin is not None and twin.seq >= erasures.get(name, 0)}
        return Snapshot(self._facts.lineage.epoch, seq, twins)

    def _reach_of_states(self, cut: Cut) -> int:
        """Return the position before which no state is told."""
        return max(_reach(cut), self._facts.oldest_since)

    def _known_at(self, cut: Cut, seq: int, names: Names) -> Steps[tuple[states.Known, set[str]]]:
        """Return the twins as of a position that the log reaches back to, and the devices of which nothing tells it."""
        known: states.Known = {}
        if seq > cut.since:
            yield from self._state_of_open_end(cut, seq, names, known)
        whole = _whole(cut)
        if whole:
            part = next((part for part in reversed(whole) if part.first_seq <= seq), whole[0])
            partition = self._partitions.get(part)
            yield from states.twins_of(partition, min(seq, part.last_seq), known, names.has)
            if partition.knows_all_before:
                return known, set()
        elif cut.since:
            states.add_unchanged(self._slices.db, cut.since, known, names.has)
        else:
            return known, set()
        return known, (yield from self._unknown(cut, seq, names, known))

    def _state_of_open_end(self, cut: Cut, seq: int, names: Names, known: states.Known) -> Steps[None]:
        with closing(OpenState(self._slices, next(self._numbers))) as state:
            yield from state.changed(cut.since, seq)
            pairs = yield from state.found(names.has)
            yield from state.read(pairs, known)

    def _unknown(self, cut: Cut, seq: int, names: Names, known: states.Known) -> Steps[set[str]]:
        """Return the devices that have an entry behind a position, and of which their twin at it is not known.

        Of others, the twins from before the oldest entry have not changed. For what has, there is no record of that.
        """
        found: set[str] = set()
        for part in cut.parts:
            if part.last_seq > seq:
                yield from names_in(self._partitions.get(part), found, names.has, of_twins=True)
        behind = max(cut.since, seq), cut.head
        yield from names_behind(self._slices, behind, found, names.has, of_twins=True)
        return found - known.keys()

    def _oldest_known(self, cut: Cut, reach: int, names: Names) -> Steps[int]:
        """Return the first position, from one on that the log reaches back to, at which all twins are known."""
        _, unknown = yield from self._known_at(cut, reach, names)
        return (yield from self._known_since(cut, reach, unknown))

    def _known_since(self, cut: Cut, seq: int, unknown: set[str]) -> Steps[int]:
        """Return the position from which on also the twins are known that are not known at another one before it."""
        missing = set(unknown)
        for part in _whole(cut):
            if part.last_seq > seq:
                span = max(seq + 1, part.first_seq), part.last_seq
                seq = max(seq, (yield from firsts_in(self._partitions.get(part), span, missing)))
        return max(seq, (yield from firsts_behind(self._slices, (max(seq, cut.since), cut.head), missing)))

    @contextmanager
    def _open_end(self, devices: Sequence[str], since: int, cut: Cut) -> Iterator[OpenEnd]:
        end = OpenEnd(self._slices, next(self._numbers), devices, since, cut.head, erasures=cut.erasures)
        try:
            yield end
        finally:
            end.forget()


def _is_within(query: BucketsQuery, each: Slice) -> bool:
    """Whether a slice may have readings that are in one of the buckets."""
    low, high = (each.min_stored_us, each.max_stored_us) if query.by_stored else (each.min_us, each.max_us)
    return low < query.edges[-1] and high >= query.edges[0]


def _same(run: SortedRun) -> SortedRun:
    return run


def _summed_since(cut: Cut, query: BucketsQuery) -> int | None:
    """Return when the first entry was stored of which only sums are left, if they are in the answer to a query.

    In microseconds since 1970; None if there are none, or the query asks for what they do not say.
    """
    if not is_of_sums(query):
        return None
    since = _reach(cut)
    since_us: int | None = None
    for part in reversed(cut.summaries):
        if part.last_seq > cut.head or part.last_seq < since:  # behind a hole, something is lacking
            break
        since, since_us = min(since, part.first_seq - 1), part.stored_min_us
    return since_us


def _whole(cut: Cut) -> Sequence[Part]:
    """Return the partitions without a hole in them, or behind them."""
    reach = _reach(cut)
    return [part for part in cut.parts if part.first_seq > reach]


def _reach(cut: Cut) -> int:
    """Return the position behind which the log has every entry."""
    return catalog.reaches_back_to(cut.parts, cut.since)
