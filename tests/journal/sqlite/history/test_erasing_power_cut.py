"""The power is cut while a history is erased: the next start erases it, and of the others nothing is lost."""

import itertools
import os
import random
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.journal.sqlite.history.disk import HistoryDisk
from tests.journal.sqlite.history.test_erasing import (
    EVERYTHING,
    GONE,
    MARK,
    bytes_of,
    erase,
    fill,
    holding,
    opened,
    told,
)
from tests.journal.sqlite.history.test_power_cut import left_of
from tests.journal.sqlite.power_cut import FailingPower, PowerCut, failing_power
from tests.running import eventually_async
from twincast.core.model import Erased
from twincast.errors import HistoryDamaged, JournalUnavailable, JournalUnusable
from twincast.history.pointer import Pointer
from twincast.history.query import BucketsQuery, Names, Series
from twincast.journal.sqlite import erasures
from twincast.journal.sqlite import journal as sqlite_journal
from twincast.journal.sqlite.file import SqliteFile
from twincast.journal.sqlite.health import problems
from twincast.journal.sqlite.history import apart, dense, erasing, files, slices
from twincast.journal.sqlite.history.files import OPEN_END
from twincast.journal.sqlite.history.history import SqliteHistory
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.times import time_us
from twincast.journal.sqlite.journal import SqliteJournal

CUTS = int(os.environ.get("TWINCAST_TEST_CUTS", "15"))
CONTROL_CUTS = 30
CLOSED, NEWEST = 260, 280
UNLIMITED = 1 << 40
OTHERS = ("d1", "d2")


class Known(NamedTuple):
    """What a journal says of the devices that stay, whichever run says it."""

    log: list[tuple[int, str, bytes, str]]
    twins: dict[str, tuple[int, bytes, str]]
    sums: Sequence[Series]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several slices of everything, made in this process."""
    monkeypatch.setattr(apart, "made_apart", apart.made_here)
    for module in "slices", "history":
        monkeypatch.setattr(f"twincast.journal.sqlite.history.{module}.BLOCK_ENTRIES", 5)
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 20)
    monkeypatch.setattr(dense, "CONDENSES", 2)  # so that it has sums of the device, with the names of its values
    monkeypatch.setattr(erasures, "SLICE_ENTRIES", 7)
    monkeypatch.setattr(erasures, "ZEROS_PAGES", 3)


@pytest.fixture
async def filled(tmp_path: Path) -> Path:
    """A journal with partitions, sums of others, and a log, which all have something of what is to go."""
    path = tmp_path / "filled" / "journal.db"
    path.parent.mkdir()
    async with opened(path) as (journal, _):
        await fill(journal, 1, CLOSED)
    with closing(SqliteFile(str(path))) as file:
        for part in file.partitions.parts[:2]:
            files.unlink(str(path), file.partitions.drop([part], [left_of(str(path), part)]))
    assert len(holding(path)) == 6, "two sums, three partitions and the journal have it"
    return path


async def known(journal: SqliteJournal, history: SqliteHistory) -> Known:
    """Return what a journal says of the devices that stay."""
    log = [each for each in await journal.read(journal.oldest_since, 10_000) if each.seq <= NEWEST]
    twins = (await history.state_at(NEWEST, Names(EVERYTHING, EVERYTHING))).twins
    first_us = time_us("2026-11-23T00:00:00+00:00")
    hours = range(first_us, first_us + 2 * 3_600_000_000, 3_600_000_000)
    sums, _ = await history.buckets(
        BucketsQuery(OTHERS, (Pointer("/x"),), hours, ("count", "sum", "min", "max"), NEWEST)
    )
    return Known(
        [(each.seq, each.subject, bytes(each.payload), each.timestamp_utc) for each in log if each.seq % 3],
        {name: (twin.seq, bytes(twin.value), twin.updated_at_utc) for name, twin in twins.items() if name in OTHERS},
        sums,
    )


class Cut(NamedTuple):
    """What is found after a power cut."""

    path: Path
    """The journal."""
    seq: int | None
    """Of the deletion, if it was acknowledged."""
    calls: int
    """How many calls had power."""


async def cut(
    filled: Path, folder: Path, calls: int, monkeypatch: pytest.MonkeyPatch, *, seed: int = 0, syncs: bool = True
) -> Cut:
    """Erase in a copy of a journal, and cut the power after so many calls; or behind the last one, if they suffice."""
    before, after = (folder / when / "journal.db" for when in ("before", "after"))
    shutil.copytree(filled.parent, before.parent)
    after.parent.mkdir()
    with failing_power(seed, UNLIMITED) as power, monkeypatch.context() as patch:
        disk = HistoryDisk(folder_of(str(before)), power, random.Random(seed))
        power.know(before)
        disk.know()
        disk.put_in(patch, syncs=syncs)
        patch.setattr(sqlite_journal, "SqliteFile", partial(SqliteFile, vfs=power.vfs))
        async with opened(before) as (journal, _):
            await fill(journal, CLOSED + 1, NEWEST)
            index = os.path.join(folder_of(str(before)), OPEN_END)
            await eventually_async(lambda: MARK.encode() in bytes_of(before).get(index, b""), "the index has it")
            assert {index, f"{before}-wal"} < {*holding(before)}
            power.cut_after(calls)
            seq = await _erase_until_the_cut(journal, power)
            had_power = calls - max(power.calls_left, 0)
            power.restore(after.parent)
            disk.restore(folder_of(str(after)))
            power.cut_after(UNLIMITED)  # so that what was cut can be closed
    return Cut(after, seq, had_power)


async def _erase_until_the_cut(journal: SqliteJournal, power: FailingPower) -> int | None:
    seq = None
    with suppress(JournalUnavailable, PowerCut):
        seq = await erase(journal)
    await eventually_async(lambda: power.calls_left < 0 or journal._upkeep.erasing._task is None, "power or work ends")
    return seq


async def damage(found: Cut, before: Known) -> list[str]:
    """Start on what is found; return what is wrong once the history is erased."""
    wrong: list[str] = []
    try:
        async with opened(found.path) as (journal, history):
            erasing = journal._upkeep.erasing
            newest = (await journal.read(journal.oldest_since, 10_000))[-1].seq
            if newest == NEWEST and found.seq is None:  # nobody was told that it is deleted
                if len(await told(history, GONE)) != NEWEST // 3 - journal.oldest_since // 3:
                    wrong.append("something of it is gone without a deletion")
                newest = await erase(journal)
            await eventually_async(lambda: erasing._task is None or bool(erasing.problem), "it is erased, or cannot be")
            if newest != NEWEST + 1:
                wrong.append(f"the log ends with {newest}")
            log = await journal.read(journal.oldest_since, 10_000)
            if [each.seq for each in log if not isinstance(each, Erased)] != [
                *(seq for seq in range(journal.oldest_since + 1, NEWEST + 1) if seq % 3),
                NEWEST + 1,
            ]:
                wrong.append("the log is not what is left of it")
            if await known(journal, history) != before:
                wrong.append("the others are not what they were")
            if [each.seq for each in await told(history, GONE)] != [NEWEST + 1]:
                wrong.append("something of it is told")
            if left := holding(found.path):
                wrong.append(f"it is in {left}")
    except (JournalUnavailable, JournalUnusable, HistoryDamaged) as error:
        return [f"it cannot be read: {error}"]
    return wrong + problems(str(found.path)) + _unnamed(found.path)


def _unnamed(path: Path) -> list[str]:
    with closing(SqliteFile(str(path))) as file:
        named = sorted(part.file for part in (*file.partitions.parts, *file.partitions.summaries))
    names = sorted(os.listdir(folder_of(str(path))))
    return [] if names == named else [f"there are {names}, and the catalog has {named}"]


@pytest.fixture
async def before(filled: Path, tmp_path: Path) -> Known:
    """What the journal says of the others before anything is erased."""
    path = tmp_path / "whole" / "journal.db"
    shutil.copytree(filled.parent, path.parent)
    async with opened(path) as (journal, history):
        await fill(journal, CLOSED + 1, NEWEST)
        return await known(journal, history)


async def test_it_is_erased_after_the_next_start_and_of_the_others_nothing_is_lost(
    filled: Path, before: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await cut(filled, tmp_path / "uncut", UNLIMITED, monkeypatch)
    assert await damage(whole, before) == []
    moments = random.Random(1).sample(range(whole.calls + 1), whole.calls + 1)
    for seed, calls in zip(range(CUTS), itertools.cycle(moments), strict=False):
        folder = tmp_path / str(seed)
        found = await cut(filled, folder, calls, monkeypatch, seed=seed)
        assert await damage(found, before) == [], f"after {calls} of {whole.calls} calls, with seed {seed}"
        shutil.rmtree(folder)


async def damaged(filled: Path, before: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **how: Any) -> bool:
    """Return whether something is wrong after any of some cuts, each at another moment."""
    whole = await cut(filled, tmp_path / "uncut", UNLIMITED, monkeypatch)
    for calls in range(0, whole.calls, max(1, whole.calls // CONTROL_CUTS)):
        if await damage(await cut(filled, tmp_path / str(calls), calls, monkeypatch, **how), before):
            return True
    return False


async def test_if_a_new_partition_were_named_before_it_is_synced_something_would_be_lost(
    filled: Path, before: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first control."""
    assert await damaged(filled, before, tmp_path, monkeypatch, syncs=False)


async def test_if_it_were_noted_as_erased_before_it_is_some_would_be_left(
    filled: Path, before: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second control."""
    carry_out = erasing.Erasing._carry_out

    async def note_first(self: Any, pending: Any) -> None:
        note = partial(erasures.note_erased, erasures=pending, now_utc=self._now_utc())
        await self._worker.do(partial(self._file.change, note, is_synced=True))
        await carry_out(self, pending)

    monkeypatch.setattr(erasing.Erasing, "_carry_out", note_first)
    assert await damaged(filled, before, tmp_path, monkeypatch)
