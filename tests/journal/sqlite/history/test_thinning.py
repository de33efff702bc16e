"""The history of some devices is kept for a shorter time: closed partitions are written anew without them."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.sqlite.history.making import damaged, put_back, rows
from tests.journal.sqlite.history.open_journals import MINUTE_US, START_US, Clock, names_in, opened, until
from twincast.core.model import Control, DataUpdate, Entry
from twincast.core.pattern import pattern_set
from twincast.errors import SettingUnusable, Truncated
from twincast.history.pointer import Pointer
from twincast.history.query import BucketsQuery, EntriesQuery, Names
from twincast.journal.retention import Retention
from twincast.journal.sqlite.health import facts, problems
from twincast.journal.sqlite.history import apart, thinning
from twincast.journal.sqlite.history.catalog import Part
from twincast.journal.sqlite.history.closer import Closed, Job, Rewriting
from twincast.journal.sqlite.history.history import SqliteHistory
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.journal import SqliteJournal

KEPT = Retention(keep_entries=5, partition_entries=10, keep_for=(("lab/kept", 1e9), ("lab/*", 3_600.0)))
EVERYTHING = pattern_set(frozenset(["*"]))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch, made_here: None) -> None:
    """Look often for what is to be thinned, and thin it in this process."""
    monkeypatch.setattr(thinning, "LOOK_S", 0.02)


def entry(n: int, clock: Clock) -> Entry:
    if n % 10 == 4:
        return Control("lab/a", "turn", Raw(b"{}"), clock(), "rest")
    return DataUpdate(("lab/a", "hall", "lab/kept")[n % 3], Raw(b"%d" % n), clock(), "rest")


async def append(journal: SqliteJournal, clock: Clock, first: int, count: int) -> None:
    for n in range(first, first + count):
        clock.at_us += MINUTE_US
        await journal.append(batch_of([entry(n, clock)]))
    await journal.closed()


def kinds(path: str) -> Sequence[tuple[str, str]]:
    return [(str(file), str(kind)) for file, kind in rows(Path(path), "select file, kind from part order by first_seq")]


def devices(path: str, file: str) -> set[str]:
    return {str(name) for (name,) in rows(Path(folder_of(path), file), "select distinct device_id from log")}


async def test_old_partitions_lose_the_devices_that_are_kept_for_less_and_nothing_else(
    tmp_path: Path, clock: Clock
) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 1, 48)
        assert {kind for _, kind in kinds(path)} == {"closed"}
        clock.at_us += 35 * MINUTE_US  # the first two are older than an hour then
        await append(journal, clock, 49, 1)
        await until(lambda: [kind for _, kind in kinds(path)] == ["thinned", "thinned", "closed", "closed"])
        files = [file for file, _ in kinds(path)]
        assert files == ["000000000001-1.db", "000000000011-1.db", "000000000021.db", "000000000031.db"]
        await until(lambda: names_in(path) == sorted(files))
        assert [devices(path, file) for file in files[:3]] == [{"hall", "lab/kept"}] * 2 + [
            {"hall", "lab/a", "lab/kept"}
        ]
        kept = [entry(n, clock).subject for n in range(1, 21)]
        found = rows(Path(folder_of(path), files[0]), "select seq from log order by seq")
        assert [seq for (seq,) in found] == [n for n in range(1, 11) if kept[n - 1] != "lab/a"]
        await until(lambda: journal.oldest_since == 20)
        with pytest.raises(Truncated, match="reaches back to 20"):
            await journal.read(3, 10)
        assert len(await journal.read(20, 100)) == 29
    assert problems(path) == []
    assert facts(path).oldest_seq == 21


async def test_history_reads_what_is_left_and_states_and_positions_do_not(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 1, 48)
        history = await SqliteHistory.open(path, journal)
        clock.at_us += 35 * MINUTE_US
        await append(journal, clock, 49, 1)
        await until(lambda: journal.oldest_since == 20)
        asked = EntriesQuery(("hall", "lab/a"), frozenset(("data_update",)), 0, 1 << 60, 0, 49)
        (hall, lab), _ = await history.entries(asked)
        assert [each.seq for each in hall.entries] == [n for n in range(49, 0, -1) if n % 3 == 1 and n % 10 != 4]
        assert min(each.seq for each in lab.entries) == 21
        edges = range(START_US // 3_600_000_000 * 3_600_000_000, START_US + 4 * 3_600_000_000, 3_600_000_000)
        [counted], _ = await history.buckets(BucketsQuery(("hall",), (Pointer(""),), edges, ("count",), 49))
        assert sum(cell for cell in counted.columns[0] if isinstance(cell, int)) == len(hall.entries)
        oldest = await history.oldest()
        assert oldest is not None and oldest.seq == 21  # from where on nothing is lacking
        everything = Names(EVERYTHING, EVERYTHING)
        with pytest.raises(Truncated, match="known back to position 20, not to 19"):
            await history.state_at(19, everything)
        assert len((await history.state_at(20, everything)).twins) == 3
        with pytest.raises(Truncated, match="known back to position 20, which is later"):
            await history.position_at(START_US + 5 * MINUTE_US, everything)
        assert await history.position_at(START_US + 25 * MINUTE_US, everything) == 25
        await history.close()


async def test_a_partition_of_which_nothing_is_left_keeps_its_place(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    kept = KEPT._replace(keep_for=(("*", 3_600.0),))
    async with opened(path, kept, clock) as journal:
        await append(journal, clock, 1, 48)
        history = await SqliteHistory.open(path, journal)
        clock.at_us += 60 * MINUTE_US
        await append(journal, clock, 49, 1)
        await until(lambda: [kind for _, kind in kinds(path)] == ["thinned"] * 3 + ["closed"])
        await until(lambda: journal.oldest_since == 30)
        oldest = await history.oldest()
        assert oldest is not None and oldest.seq == 31
        asked = EntriesQuery(("hall",), frozenset(("data_update",)), 0, 1 << 60, 0, 49)
        assert (await history.entries(asked)).found[0].entries[-1].seq == 31
        await history.close()
    assert problems(path) == []


async def test_a_longer_time_comes_later(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    kept = KEPT._replace(keep_for=(("hall", 7_200.0), ("lab/a", 3_600.0)))
    async with opened(path, kept, clock) as journal:
        await append(journal, clock, 1, 48)
        clock.at_us += 35 * MINUTE_US
        await append(journal, clock, 49, 1)
        await until(lambda: kinds(path)[0] == ("000000000001-1.db", "thinned"))
        assert devices(path, "000000000001-1.db") == {"hall", "lab/kept"}
        clock.at_us += 60 * MINUTE_US
        await until(lambda: kinds(path)[0] == ("000000000001-2.db", "thinned"))
        assert devices(path, "000000000001-2.db") == {"lab/kept"}
    assert problems(path) == []


async def test_what_is_left_of_partitions_is_thinned_too(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    kept = KEPT._replace(keep_s=1_500.0, keep_rollups_s=1e9, keep_for=(("lab/kept", 7_200.0), ("lab/*", 3_600.0)))

    def summed() -> set[str]:
        left = next(file for file, kind in kinds(path) if kind == "rollup")
        sql = "select distinct name from rollup join device on device.id = rollup.device"
        return {str(name) for (name,) in rows(Path(folder_of(path), left), sql)}

    async with opened(path, kept, clock) as journal:
        await append(journal, clock, 1, 48)
        await until(lambda: [kind for _, kind in kinds(path)][:1] == ["rollup"])
        assert summed() == {"hall", "lab/a", "lab/kept"}
        history = await SqliteHistory.open(path, journal)
        clock.at_us += 60 * MINUTE_US
        await until(lambda: summed() == {"hall", "lab/kept"})
        clock.at_us += 60 * MINUTE_US
        await until(lambda: summed() == {"hall"})
        await until(lambda: names_in(path) == sorted(file for file, _ in kinds(path)))
        edges = (START_US // 3_600_000_000 * 3_600_000_000, START_US + 86_400_000_000)
        [counted], _ = await history.buckets(BucketsQuery(("hall",), (Pointer(""),), edges, ("count",), 48))
        of_hall = [n for n in range(1, 49) if n % 10 != 4 and entry(n, clock).subject == "hall"]
        assert [cell for cell in counted.columns[0] if cell] == [len(of_hall)]
        await history.close()
    assert problems(path) == []


async def test_what_is_failing_is_said_and_tried_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fails = str(tmp_path / "journal.db"), [True]

    async def failing(job: Job | Rewriting) -> Closed:
        if isinstance(job, Rewriting) and fails[0]:
            return Closed(0, 0, 0, 0, 0, 0, "", 0.0, "the disk is full")
        return await apart.made_here(job)

    monkeypatch.setattr(apart, "made_apart", failing)
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 1, 48)
        clock.at_us += 35 * MINUTE_US
        await append(journal, clock, 49, 1)
        await until(lambda: "000000000001.db: the disk is full" in (journal.space().problem or ""))
        assert {kind for _, kind in kinds(path)} == {"closed"}
        fails[0] = False
        await until(lambda: [kind for _, kind in kinds(path)][:2] == ["thinned", "thinned"])
        await until(lambda: journal.space().problem is None)


async def test_a_damaged_partition_keeps_none_of_the_others_from_it(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 1, 48)
    file = Path(folder_of(path), "000000000001.db")
    content = damaged(file)
    async with opened(path, KEPT, clock) as journal:
        clock.at_us += 35 * MINUTE_US
        await append(journal, clock, 49, 1)
        await until(lambda: f"{file} is damaged: put the file" in (journal.space().problem or ""))
        await until(lambda: [kind for _, kind in kinds(path)][:2] == ["closed", "thinned"])
        put_back(file, content)
        await until(lambda: [kind for _, kind in kinds(path)][:2] == ["thinned", "thinned"])
        await until(lambda: journal.space().problem is None)
    assert problems(path) == []


async def test_a_partition_that_is_written_anew_while_it_waits_is_thinned_as_it_is_then(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "journal.db")
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 1, 48)
        clock.at_us += 5 * MINUTE_US
        async with journal._upkeep.thinning._making:
            clock.at_us += 30 * MINUTE_US
            await asyncio.sleep(0.2)  # by now it waits
            [part] = [part for part in journal._file.partitions.parts if part.first_seq == 1]
            anew = part._replace(file="000000000001-1.db")
            os.rename(Path(folder_of(path), part.file), Path(folder_of(path), anew.file))
            await journal._worker.do(journal._file.partitions.replace, part, anew)
        await until(lambda: kinds(path)[0] == ("000000000001-2.db", "thinned"))
    assert "longer than it is to be" not in caplog.text
    assert problems(path) == []


async def test_what_was_written_anew_in_vain_leaves_no_file(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vain, rewritten = str(tmp_path / "journal.db"), set[str](), apart.rewritten

    async def meanwhile_dropped(path: str, part: Part, *what: Any, **how: Any) -> tuple[Closed, str]:
        made, name = await rewritten(path, part, *what, **how)
        if not vain:
            vain.add(name)
            await journal._worker.do(journal._file.partitions.drop, [part])
        return made, name

    monkeypatch.setattr(apart, "rewritten", meanwhile_dropped)
    async with opened(path, KEPT, clock) as journal:
        await append(journal, clock, 1, 48)
        clock.at_us += 35 * MINUTE_US
        await append(journal, clock, 49, 1)
        await until(lambda: ("000000000011-1.db", "thinned") in kinds(path))
        assert vain == {"000000000001-1.db"}
        await until(lambda: vain.isdisjoint(names_in(path)))


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(SettingUnusable, match="--keep-for: a pattern must have 1 to 256 characters"):
        KEPT._replace(keep_for=(("x" * 300, 1.0),)).check()
    KEPT.check()
