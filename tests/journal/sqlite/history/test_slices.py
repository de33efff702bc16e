"""The index of the open end: what it covers, what it forgets, and that a file that cannot be is done without."""

from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.journal.sqlite.history.logs import EPOCH, OpenLog
from twincast.core.model import DataUpdate, Entry
from twincast.history.times import text_of
from twincast.journal.sqlite.history import slices
from twincast.journal.sqlite.history.files import OPEN_END
from twincast.journal.sqlite.history.layout import folder_of
from twincast.journal.sqlite.history.slices import SOON, Slices


def entries(first: int, last: int) -> list[Entry]:
    return [
        DataUpdate("ab"[seq % 2], Raw(b"%d" % seq), text_of(seq * 1_000_000), "rest", seq, EPOCH)
        for seq in range(first, last + 1)
    ]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenLog:
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 100)
    monkeypatch.setattr(slices, "BLOCK_ENTRIES", 30)
    log = OpenLog(tmp_path)
    log.write(entries(1, 1_000))
    return log


def test_slices_grow_block_by_block_until_all_but_a_few_entries_have_one(log: OpenLog) -> None:
    made = Slices(log.path)
    assert made.reach(0) == 0
    while made.go_on(0, 1_000):
        pass
    assert made.reach(0) == 990
    found = made.between(0, 1_000)
    assert [each.first_seq for each in found] == [1, *(each.last_seq + 1 for each in found[:-1])]
    assert all(each.last_seq - each.first_seq + 1 >= 100 for each in found[:-1])
    assert (found[0].min_us, found[-1].max_us) == (1_000_000, 990_000_000)
    assert made.db.execute("select count(*), count(distinct seq) from open.run").get == (990, 990)
    made.close()


def test_what_is_closed_is_forgotten_but_not_while_a_query_is_at_work(log: OpenLog) -> None:
    made = Slices(log.path)
    while made.go_on(0, 1_000):
        pass
    last = made.between(0, 1_000)[0].last_seq
    made.go_on(last, 1_000, may_forget=False)
    assert made.db.execute("select min(seq) from open.run").get == 1
    assert made.go_on(last, 1_000)
    assert made.db.execute("select min(seq) from open.run").get == last + 1
    assert made.reach(last) == 990
    assert made.between(0, 1_000)[0].first_seq == last + 1
    made.close()


def test_there_is_no_file_before_the_first_slice_and_none_after_the_end(log: OpenLog) -> None:
    file = Path(folder_of(log.path), OPEN_END)
    made = Slices(log.path)
    assert not made.go_on(0, 10)
    assert not file.exists()
    made.go_on(0, 1_000)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    made.close()
    assert not file.exists()


def test_what_another_run_has_left_is_not_read(log: OpenLog) -> None:
    file = Path(folder_of(log.path), OPEN_END)
    file.parent.mkdir()
    file.write_bytes(b"something else")
    made = Slices(log.path)
    while made.go_on(0, 1_000):
        pass
    assert made.reach(0) == 990
    made.close()


def test_slices_stay_in_memory_where_the_folder_takes_no_file(log: OpenLog) -> None:
    Path(folder_of(log.path)).write_text("not a folder")
    made = Slices(log.path)
    while made.go_on(0, 1_000):
        pass
    assert made.reach(0) == 990
    made.close()


def test_rollups_that_fail_half_way_are_made_anew(log: OpenLog) -> None:
    made = Slices(log.path)
    statements = 0

    def fail_the_third(operation: int, table: str | None, *_rest: str | None) -> int:
        nonlocal statements
        if operation == apsw.SQLITE_INSERT and table in {"sums", "rollup"}:
            statements += 1
            if statements == 3:
                return apsw.SQLITE_DENY
        return apsw.SQLITE_OK

    made.db.set_authorizer(fail_the_third)
    failed = 0
    has_more = SOON
    while has_more:
        try:
            has_more = made.go_on(0, 1_000)
        except apsw.AuthError:
            failed += 1
    assert failed == 1
    first = made.between(0, 1)[0]
    numbers = range(first.first_seq, first.last_seq + 1)
    sums = made.db.execute("select width_s, sum(n) from open.rollup where slice = 1 group by width_s order by width_s")
    assert sums.fetchall() == [(width, len(numbers)) for width in (60, 600, 3_600)]
    made.close()
