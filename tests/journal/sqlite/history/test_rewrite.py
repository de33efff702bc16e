"""A partition is written anew without a device: of that nothing is left in the file, and all else is what it was."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.journal.sqlite.history.making import (
    at,
    closed,
    command,
    deletion,
    late,
    log_of,
    reading,
    rows,
    write,
)
from twincast.core.model import Entry
from twincast.journal.sqlite.history.closer import Closed, Rewriting, close_in_words, write_anew
from twincast.journal.sqlite.history.files import digest
from twincast.journal.sqlite.history.rewrite import EVERYTHING, rewrite

MARK = "dubious-marker"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def made_of(entries: list[Entry], journal: Path, first: int = 1) -> Path:
    write(journal, entries)
    if first == 1:
        return closed(journal, 1, len(entries))[0]
    return closed(journal, first, len(entries), closed(journal, 1, first - 1)[0])[0]


def anew(partition: Path, without: dict[str, int], *, keeps_places: bool = True) -> Path:
    new = partition.parent / "anew.db"
    assert rewrite(str(partition), str(new), without, keeps_places=keeps_places) is not None
    assert not Path(f"{new}-scratch").exists()
    return new


MANY = [
    *(reading("a", str(n), n) for n in range(1, 40)),
    *(reading(f"{MARK}/device", f'{{"{MARK}":{n},"text":"{MARK}"}}', 40 + n) for n in range(60)),
    reading("b", '{"x":1}', 100, measured=at(99)),
    reading(f"{MARK}/device", "1", 101, measured="2026-11-24T00:00:00.000000+00:00"),
    late(f"{MARK}/device", f'"{MARK}"', 102, at(0, day=1)),
    command(f"{MARK}/device", 103),
    deletion(f"{MARK}/device", 104),
    reading("b", '{"x":2}', 105, measured="2026-11-24T00:00:00.000000+00:00"),
]


def test_nothing_of_the_device_is_in_the_bytes_of_the_new_file_and_all_else_is_as_it_was(journal: Path) -> None:
    partition = made_of(MANY, journal)
    assert MARK.encode() in partition.read_bytes()
    new = anew(partition, {f"{MARK}/device": EVERYTHING})
    assert MARK.encode() not in new.read_bytes()
    kept = [row for row in log_of(partition) if row[2] != f"{MARK}/device"]
    assert [row for row in log_of(new) if row[1] != "erased"] == kept
    of_others = "device in (select id from device where name in ('a', 'b'))"
    for table, which in ("rollup", of_others), ("claimed", "seq = 105"), ("about", "true"), ("source", "true"):
        sql = f"select * from {table} where {which}"
        assert rows(new, sql) == rows(partition, sql) != []
    assert rows(new, "pragma integrity_check") == [("ok",)]


def test_every_position_keeps_its_place_which_says_neither_what_was_there_nor_when(journal: Path) -> None:
    partition = made_of(MANY, journal)
    new = anew(partition, {f"{MARK}/device": EVERYTHING})
    assert [row[0] for row in log_of(new)] == [*range(1, len(MANY) + 1)]
    places = [row for row in log_of(new) if row[1] == "erased"]
    assert len(places) == 64
    assert {row[1:5] for row in places} == {("erased", "", "null", None)}
    assert [row[5] for row in places] == [at(39)] * 60 + [at(100)] * 4
    assert rows(new, "select * from tick") == [
        (1, *rows(new, "select min(t), max(t) from (select coalesce(stored_us, at_us) as t from entry)")[0])
    ]


def test_places_at_the_beginning_have_the_time_of_what_follows(journal: Path) -> None:
    partition = made_of([reading("gone", "1", 1), reading("gone", "2", 2), reading("a", "3", 3)], journal)
    new = anew(partition, {"gone": EVERYTHING})
    assert [(row[1], row[5]) for row in log_of(new)] == [
        ("erased", at(3)),
        ("erased", at(3)),
        ("data_update", at(3)),
    ]


def test_of_a_partition_that_was_all_the_device_s_places_are_left(journal: Path) -> None:
    partition = made_of([reading("gone", "1", 3_601), reading("gone", "2", 3_602)], journal)
    new = anew(partition, {"gone": EVERYTHING})
    assert [(row[1], row[5]) for row in log_of(new)] == [("erased", at(3_600))] * 2
    empty = partition.parent / "empty.db"
    built = rewrite(str(partition), str(empty), {"gone": EVERYTHING}, keeps_places=False)
    assert built is not None and built.entries == 0
    assert log_of(empty) == []


def test_what_follows_a_position_stays_with_its_rollups(journal: Path) -> None:
    entries = [*(reading("d", str(n), n) for n in range(100)), *(reading("a", str(n), 200 + n) for n in range(100))]
    partition = made_of(entries, journal)
    new = anew(partition, {"d": 40})
    assert [row for row in log_of(new) if row[1] != "erased"] == log_of(partition, 41)
    whole = made_of(entries[40:], journal.parent / "beside.db")
    sums = "select name, width_s, start_s, n, sum, min, max from rollup join device on device = id order by 1, 2, 3"
    assert rows(new, sums) == rows(whole, sums)


def test_a_twin_from_before_the_partition_goes_if_it_is_of_an_erased_position(journal: Path) -> None:
    entries = [
        reading("gone", f'"{MARK}"', 1, measured="2026-11-24T00:00:00.000000+00:00"),
        reading("a", "1", 2),
        reading("a", "2", 3),
    ]
    partition = made_of(entries, journal, first=3)
    assert MARK.encode() in partition.read_bytes()
    new = anew(partition, {"gone": EVERYTHING})
    data = new.read_bytes()
    assert MARK.encode() not in data and b"gone" not in data
    assert log_of(new) == log_of(partition)
    assert rows(new, "select device_id, value from twin_before") == [("a", "1")]


def test_holes_are_left_where_no_places_are_asked_for(journal: Path) -> None:
    partition = made_of(MANY, journal)
    new = anew(partition, {f"{MARK}/device": EVERYTHING}, keeps_places=False)
    assert log_of(new) == [row for row in log_of(partition) if row[2] != f"{MARK}/device"]
    assert MARK.encode() not in new.read_bytes()


def test_a_second_time_leaves_further_places(journal: Path) -> None:
    partition = made_of([reading("a", "1", 1), reading("b", "2", 2), reading("z", "3", 3)], journal)
    once = anew(partition, {"b": EVERYTHING}).rename(partition.parent / "once.db")
    twice = anew(once, {"z": EVERYTHING})
    assert [(row[1], row[5]) for row in log_of(twice)] == [("data_update", at(1)), ("erased", at(1)), ("erased", at(1))]
    assert rows(twice, "select name from device where name != ''") == [("a",)]


def test_nothing_is_made_of_a_partition_without_the_device(journal: Path) -> None:
    partition = made_of([reading("a", "1", 1), reading("d", "2", 2)], journal)
    new = partition.parent / "anew.db"
    assert rewrite(str(partition), str(new), {"other": EVERYTHING, "d": 1}) is None
    assert not new.exists()
    job = Rewriting(str(partition), str(new), [("other", EVERYTHING)], keeps_places=True, share=1)
    assert close_in_words(job) == Closed(0, 0, 0, 0, 0, 0, "", 0.0)


def test_a_job_says_what_the_catalog_needs(journal: Path) -> None:
    partition = made_of(MANY, journal)
    new = partition.parent / "anew.db"
    made = write_anew(Rewriting(str(partition), str(new), [(f"{MARK}/device", EVERYTHING)], keeps_places=True, share=1))
    assert (made.entries, made.bytes, made.sha256) == (len(MANY), new.stat().st_size, digest(str(new)))
    gone = Rewriting(str(partition.parent / "none.db"), str(new), [("a", 1)], keeps_places=True, share=1)
    assert "cannot be opened" in close_in_words(gone).problem
    assert not new.exists()


def test_what_has_sums_alone_loses_those_of_the_device(journal: Path) -> None:
    entries = [reading(name, str(n), n) for n in range(100) for name in ("gone", "a")]
    partition = made_of(entries, journal)
    with closing(apsw.Connection(str(partition))) as db:
        db.execute("delete from entry; delete from tick")
    new = anew(partition, {"gone": EVERYTHING})
    sums = "select name, width_s, start_s, n, sum from rollup join device on device = id order by 1, 2, 3"
    assert rows(new, sums) == [row for row in rows(partition, sums) if row[0] == "a"] != []
    assert b"gone" not in new.read_bytes()
    assert rewrite(str(new), str(partition.parent / "again.db"), {"gone": EVERYTHING}) is None
