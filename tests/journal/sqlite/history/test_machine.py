"""A journal that lives: written with late and wrong clocks, closed, trimmed, bounded, erased from, opened; and asked.

Between any two of these, each query and state is compared with a look at every entry of a plain list, by tests/history/
brute, which shares nothing with the product; so does the judge of lateness here.
"""

import asyncio
import math
import os
import re
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from msgspec import UNSET, Raw

from tests.fakes import batch_of
from tests.history import brute
from tests.journal.sqlite.history.logs import SMALL
from tests.running import eventually_async
from twincast.core.lateness import horizon_in
from twincast.core.model import Control, DataUpdate, Deleted, Entry, Erased, Late
from twincast.core.pattern import pattern_set
from twincast.core.state import State
from twincast.errors import Truncated
from twincast.history.pointer import Pointer
from twincast.history.query import AGGREGATES, BucketsQuery, EntriesQuery, Names
from twincast.history.times import text_of
from twincast.journal.retention import Retention
from twincast.journal.sqlite import erasures, trim
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history import apart
from twincast.journal.sqlite.history.history import SqliteHistory
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.journal import SqliteJournal

T = TypeVar("T")
SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
START_US = 1_793_404_800 * SECOND  # the night before clocks in Berlin go back
DEVICES = ("a", "lab/b", "ü")
VALUES = (
    *("1", "2.5", "-3", "0", "1e2", '"7"', "true", "null", '{"n":1}', '{"n":2.5,"m":{"0":7}}', '{"n":"3"}', "[4,5]"),
)
PATHS = tuple(map(Pointer, ("", "/n", "/m/0", "/1", "/nowhere")))
KEEP_US, KEEP_ENTRIES, PARTITION = 2 * DAY, 6, 8
STEPS_US = (0, 1, SECOND, 61 * SECOND, HOUR, 7 * HOUR, DAY, -5 * SECOND, -2 * HOUR)
"""How a server's clock goes on: it stands, runs, jumps, and is set back."""
AHEAD_US = (
    None,
    None,
    0,
    -1,
    -SECOND,
    -3 * HOUR,
    -DAY,
    -100 * 365 * DAY,
    59 * SECOND,
    60 * SECOND,
    60 * SECOND + 1,
    DAY,
)
"""How far ahead a device says that it measured: later than a minute is not believed."""
ADDED = {"sum", "avg", "p50", "p95"}
"""Doubles that are added in another order."""
READINGS = frozenset({"data_update", "late"})


class Judge:
    """Decides what is late, as docs/api.md says it."""

    def __init__(self) -> None:
        self._counts_us: dict[str, int] = {}  # the newest time of each device that counts
        self.living: set[str] = set()

    def reading(self, name: str, value: str, stored_us: int, ahead_us: int | None) -> Entry:
        stored, raw = text_of(stored_us), Raw(value.encode())
        if ahead_us is None:
            self._becomes_twin(name, stored_us)
            return DataUpdate(name, raw, stored, "rest")
        measured = text_of(stored_us + ahead_us)
        if ahead_us > 60 * SECOND:
            self._becomes_twin(name, stored_us)
            return DataUpdate(name, raw, stored, "rest", measured_at_utc=measured, clock="off")
        if stored_us + ahead_us < self._counts_us.get(name, -(1 << 62)):
            return Late(name, raw, stored, "rest", measured)
        self._becomes_twin(name, stored_us + ahead_us)
        return DataUpdate(name, raw, stored, "rest", measured_at_utc=measured)

    def deleted(self, name: str, stored_us: int) -> Entry:
        self._counts_us[name] = stored_us
        self.living.discard(name)
        return Deleted(name, text_of(stored_us), "rest")

    def _becomes_twin(self, name: str, at_us: int) -> None:
        self._counts_us[name] = at_us
        self.living.add(name)


class LivingJournal(RuleBasedStateMachine):
    """See above. What is stored and what is asked has the same names."""

    loses: int | None = None
    """For the control: the seq of an entry that the list of the test has otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        for module, sizes in SMALL.items():
            self._undo.enter_context(patch.multiple(module, **sizes))
        self._undo.enter_context(patch.object(apart, "made_apart", apart.made_here))
        self._undo.enter_context(patch.object(trim, "SLICE_ENTRIES", 3))
        self._undo.enter_context(patch.object(erasures, "SLICE_ENTRIES", 7))
        folder = self._undo.enter_context(TemporaryDirectory())
        self._runner = self._undo.enter_context(asyncio.Runner())
        self._path = os.path.join(folder, "journal.db")
        self._judge = Judge()
        self._now_us = self._latest_us = START_US
        self.log: list[Entry] = []
        self.oldest_since = 0
        self.closed = 0

    @initialize(keeps_all=st.booleans())
    def opens(self, keeps_all: bool) -> None:
        self._retention = Retention(
            keep_s=None if keeps_all else KEEP_US / SECOND, keep_entries=KEEP_ENTRIES, partition_entries=PARTITION
        )
        self._runner.run(self._open())

    async def _open(self) -> None:
        self._journal = await SqliteJournal.open(
            self._path, retention=self._retention, now_utc=lambda: text_of(self._now_us)
        )
        self._history = await SqliteHistory.open(self._path, self._journal)
        self._state = State(await self._journal.snapshot())  # what a hub keeps
        for entry in await self._journal.read(self._state.seq, 1_000):
            self._state.apply(entry)
        await self._settled()

    async def _close(self) -> None:
        await self._history.close()
        await self._journal.close()

    def teardown(self) -> None:
        try:
            if hasattr(self, "_history"):
                self._runner.run(self._close())
                assert problems(self._path) == []
        finally:
            self._undo.close()

    @property
    def head(self) -> int:
        return len(self.log)

    @property
    def kept(self) -> list[Entry]:
        """What the log still holds."""
        return self.log[self.oldest_since :]

    @property
    def _telling_entries(self) -> list[Entry]:
        """What it still holds, without the places of what is erased."""
        return [entry for entry in self.kept if not isinstance(entry, Erased)]

    # What happens to the log.

    @rule(step_us=st.sampled_from(STEPS_US))
    def time_goes_on(self, step_us: int) -> None:
        self._now_us += step_us
        self._latest_us = max(self._latest_us, self._now_us)

    @rule(
        readings=st.lists(
            st.tuples(st.sampled_from(DEVICES), st.sampled_from(VALUES), st.sampled_from(AHEAD_US)),
            min_size=1,
            max_size=9,
        )
    )
    def publish(self, readings: list[tuple[str, str, int | None]]) -> None:
        judged = [self._judge.reading(name, value, self._now_us, ahead) for name, value, ahead in readings]
        given = [
            DataUpdate(
                name, Raw(value.encode()), text_of(self._now_us), "rest", measured_at_utc=_claim(self._now_us, ahead)
            )
            for name, value, ahead in readings
        ]
        self._append(given, judged)

    @rule(name=st.sampled_from((*DEVICES, "only told")))
    def command(self, name: str) -> None:
        entries: list[Entry] = [Control(name, "turn", Raw(b'{"n":1}'), text_of(self._now_us), "rest") for _ in range(2)]
        self._append(entries[:1], entries[1:])

    @precondition(lambda self: self._judge.living)
    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self._judge.living)))
        self._append([Deleted(name, text_of(self._now_us), "rest")], [self._judge.deleted(name, self._now_us)])

    @precondition(lambda self: self._telling)
    @rule(data=st.data())
    def delete_history(self, data: Any) -> None:
        """What is to go is in no answer from then on, however long it takes to be gone."""
        name = data.draw(st.sampled_from(sorted(self._telling)))
        judged = self._judge.deleted(name, self._now_us)
        self._append([Deleted(name, text_of(self._now_us), "rest", scope="history")], [judged])
        for index, entry in enumerate(self.log[:-1]):
            if entry.subject == name:
                self.log[index] = Erased(entry.timestamp_utc, seq=entry.seq)

    @rule()
    def erases(self) -> None:
        self._runner.run(self._journal.erased())

    @property
    def _telling(self) -> set[str]:
        """Whatever the log tells something of."""
        return {entry.subject for entry in self.kept if not isinstance(entry, Erased)}

    def _append(self, given: Sequence[Entry], judged: Sequence[Entry]) -> None:
        batch = batch_of(given)
        batch.horizon = horizon_in(self._state.twins, self._state.deletions)
        placed = self._runner.run(self._journal.append(batch))
        for entry in self._runner.run(self._journal.read(self.head, 1_000)):
            self._state.apply(entry)
        assert placed.seqs == range(self.head + 1, self.head + 1 + len(judged))
        for seq, entry in zip(placed.seqs, judged, strict=True):
            entry.seq = seq
            self.log.append(entry)

    @rule()
    def closes(self) -> None:
        self._runner.run(self._settled())
        self.closed = len(self._journal._file.partitions.parts)

    @rule()
    def trims_and_drops(self) -> None:
        self._runner.run(self._trimmed())

    async def _trimmed(self) -> None:
        self._journal._upkeep.trimming.closed()
        await self._settled()

    @rule(loses_slices=st.booleans())
    def opens_anew(self, loses_slices: bool) -> None:
        self._runner.run(self._close())
        if loses_slices:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder_of(self._path), "open.db"))
        self._runner.run(self._open())

    async def _settled(self) -> None:
        await self._journal.closed()
        await eventually_async(lambda: not self._journal._upkeep.trimming._is_busy, "it is trimmed")
        before, self.oldest_since = self.oldest_since, self._journal.oldest_since
        assert before <= self.oldest_since <= max(0, self.head - KEEP_ENTRIES)
        for entry in self.log[before : self.oldest_since]:
            if isinstance(entry, Erased):  # it has another time now
                continue
            stored_us = brute.micros(entry.timestamp_utc)
            assert stored_us < self._latest_us - KEEP_US or stored_us > self._now_us, "it is not old enough"

    # What is asked, and what is true at any time.

    @invariant()
    def the_log_is_the_list(self) -> None:
        if hasattr(self, "_history"):
            self.oldest_since = self._journal.oldest_since
            found = self._runner.run(self._journal.read(self.oldest_since, 1_000))
            assert [_plain(entry) for entry in found] == [_plain(entry) for entry in self.kept]

    @rule(data=st.data())
    def ask_for_entries(self, data: Any) -> None:
        from_us, to_us = sorted((self._moment(data), self._moment(data)))
        query = EntriesQuery(
            tuple(data.draw(st.lists(st.sampled_from((*DEVICES, "nobody")), min_size=1, max_size=3, unique=True))),
            data.draw(st.sampled_from([READINGS, frozenset({"late"}), READINGS | {"control", "deleted"}])),
            data.draw(st.sampled_from([from_us, -(1 << 60)])),
            data.draw(st.sampled_from([to_us, 1 << 60])),
            data.draw(st.sampled_from([0, self.head // 2])),
            data.draw(st.sampled_from([self.head, self.head // 2])),
            by_stored=data.draw(st.booleans()),
            paths=tuple(data.draw(st.lists(st.sampled_from(PATHS), max_size=2, unique=True))),
            is_descending=data.draw(st.booleans()),
            limit=data.draw(st.sampled_from([1, 3, 1_000])),
        )
        found = self._ask(self._history.entries(query)).found
        answered = [(page.device_id, [entry.seq for entry in page.entries], page.has_more) for page in found]
        assert answered == brute.pages(self.kept, query)
        for page in found:
            assert [_plain(entry) for entry in page.entries] == [
                _plain(self.log[entry.seq - 1]) for entry in page.entries
            ]

    @rule(data=st.data())
    def ask_for_buckets(self, data: Any) -> None:
        width = data.draw(st.sampled_from([500_000, 7 * SECOND, 60 * SECOND, HOUR, 6 * HOUR, DAY]))
        start = self._moment(data)
        start -= start % width
        query = BucketsQuery(
            tuple(data.draw(st.lists(st.sampled_from(DEVICES), min_size=1, max_size=2, unique=True))),
            tuple(data.draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=2, unique=True))),
            range(start, start + width * data.draw(st.integers(1, 30)) + 1, width),
            tuple(data.draw(st.lists(st.sampled_from(AGGREGATES), min_size=1, max_size=5, unique=True))),
            data.draw(st.sampled_from([self.head, self.head // 2])),
            by_stored=data.draw(st.booleans()),
        )
        found = self._ask(self._history.buckets(query)).found
        expected = brute.series(self.kept, query)
        assert [(each.device_id, each.path.text, list(each.starts_us)) for each in found] == [
            each[:3] for each in expected
        ]
        for series, (*_, columns) in zip(found, expected, strict=True):
            for name, one, other in zip(query.aggregates, series.columns, columns, strict=True):
                cells = [_cell(each) for each in one]
                assert _are_close(cells, other) if name in ADDED else cells == other, (name, cells, other)

    @rule(data=st.data())
    def ask_for_the_state(self, data: Any) -> None:
        seq = data.draw(st.sampled_from([self.head, self.oldest_since]) | st.integers(0, self.head))
        asked = Names(pattern_set(frozenset(data.draw(st.sampled_from([["*"], ["a"], ["lab/*", "ü"]])))), _ALL)
        truth = {name: twin for name, twin in brute.state(self.log, seq).items() if asked.has(name)}
        try:
            snapshot = self._ask(self._history.state_at(seq, asked))
        except Truncated as error:
            assert self.oldest_since, "everything is there"
            assert seq < self.head, "the newest state is always known"
            oldest = _named(error)
            assert seq < oldest <= self.head
            assert self._ask(self._history.state_at(oldest, asked)).seq == oldest
            return
        assert seq >= self.oldest_since or not truth
        assert {name: (bytes(twin.value), twin.seq) for name, twin in snapshot.twins.items()} == truth

    @rule(data=st.data())
    def ask_for_a_position(self, data: Any) -> None:
        at_us = self._moment(data)
        try:
            found = self._ask(self._history.position_at(at_us, _EVERYBODY))
        except Truncated as error:
            assert self.oldest_since
            assert brute.position(self._telling_entries, at_us) == 0
            assert self._ask(self._history.state_at(_named(error), _EVERYBODY)).seq >= self.oldest_since
        else:
            truth = brute.position(self._telling_entries, at_us)
            assert found == truth or not any(truth < each.seq <= found for each in self._telling_entries)
            assert found >= truth

    @rule(patterns=st.sampled_from([["*"], ["a", "only*"]]))
    def ask_for_names_and_the_oldest(self, patterns: list[str]) -> None:
        asked = Names(pattern_set(frozenset(patterns)), _ALL)
        found = self._ask(self._history.names(asked))
        assert list(found) == sorted(filter(asked.has, self._telling))
        oldest = self._ask(self._history.oldest())
        assert (None if oldest is None else oldest.seq) == (self.kept[0].seq if self.kept else None)
        query = EntriesQuery((), frozenset(), 0, 0, 0, 0)
        told = self._ask(self._history.entries(query))
        assert told == ([], oldest.timestamp_utc if oldest else None)

    def _ask(self, answer: Coroutine[Any, Any, T]) -> T:
        """Ask; where all is kept, beside what closes and trims, which no answer may show."""

        async def ask() -> T:
            if self._retention.is_bounded:
                await self._settled()
            return await answer

        return self._runner.run(ask())

    def _moment(self, data: Any) -> int:
        """Draw a time near one that an entry has, or near now."""
        near = [self._now_us, START_US, *(brute.moment(entry, by_stored=False)[0] for entry in self.log[-40:])]
        offset = data.draw(st.sampled_from([0, 1, -1, SECOND, HOUR, -HOUR, -3 * DAY, 3 * DAY]))
        moment: int = data.draw(st.sampled_from(near)) + offset
        return moment


_ALL = pattern_set(frozenset(["*"]))
_EVERYBODY = Names(_ALL, _ALL)


def _named(error: Truncated) -> int:
    """Return the position that an error names as the oldest one."""
    found = re.search(r"known back to position (\d+)", error.message)
    assert found, error.message
    return int(found[1])


def _claim(stored_us: int, ahead_us: int | None) -> Any:
    return UNSET if ahead_us is None else text_of(stored_us + ahead_us)


def _plain(entry: Entry) -> tuple[Any, ...]:
    if isinstance(entry, Erased):
        return entry.seq, entry.kind
    claim = getattr(entry, "measured_at_utc", UNSET)
    return (
        *(entry.seq, entry.kind, entry.subject, bytes(entry.payload), entry.timestamp_utc, entry.source),
        None if claim is UNSET else claim,
        getattr(entry, "clock", UNSET) == "off",
    )


def _cell(cell: Any) -> Any:
    return brute.plain(brute.at_path(bytes(cell), "")[1]) if isinstance(cell, bytes | Raw) else cell


def _are_close(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    return len(found) == len(expected) and all(
        one is other is None or (None not in (one, other) and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9))
        for one, other in zip(found, expected, strict=True)
    )


LivingJournal.TestCase.settings = settings(max_examples=15, stateful_step_count=40)
TestLivingJournal = LivingJournal.TestCase
