"""How SQLite does what a query says: by seeks. A plan that scans takes seconds where a seek takes microseconds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw

from tests.journal.sqlite.history.logs import EPOCH, OpenLog, drive
from twincast.core.model import Control, DataUpdate, Deleted, Entry
from twincast.core.pattern import pattern_set
from twincast.history.pointer import Pointer
from twincast.history.query import AGGREGATES, READINGS, BucketsQuery, EntriesQuery, Names
from twincast.history.times import text_of
from twincast.journal.sqlite.history import open_end, slices
from twincast.journal.sqlite.history.queries import Queries

SECOND = 1_000_000
ALL = Names(pattern_set(frozenset("*")), pattern_set(frozenset("*")))
LARGE = r"(entry|log|run|r|rollup|piece)"
"""The tables that grow with the log, by their names in statements."""


class Plans:
    """The plans of all selections that connections make while this listens."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self.is_listening = False

    def listen(self, db: apsw.Connection) -> None:
        def traced(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            if self.is_listening and not sql.startswith(("explain", "begin", "commit", "savepoint", "release")):
                self.is_listening = False
                if sql not in self.found and re.search(r"\b(select|delete)\b", sql):
                    rows = db.execute(f"explain query plan {sql}", bindings).fetchall()
                    self.found[sql] = [str(row[3]) for row in rows]
                self.is_listening = True
            return True

        db.exec_trace = traced


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plans]:
    plans = Plans()
    apsw.connection_hooks.append(plans.listen)
    yield plans
    apsw.connection_hooks.remove(plans.listen)


def entries(count: int) -> list[Entry]:
    made: list[Entry] = []
    for seq in range(1, count + 1):
        name, stored = f"d{seq % 3}", text_of(seq * SECOND)
        if seq % 50 == 0:
            made.append(Deleted(name, stored, "rest", seq, EPOCH))
        elif seq % 51 == 0:
            made.append(Control(name, "go", Raw(b"{}"), stored, "rest", seq, EPOCH))
        else:
            value = Raw(b'{"n":%d}' % seq if seq % 2 else b"%d" % seq)
            made.append(DataUpdate(name, value, stored, "rest", seq, EPOCH))
    return made


@pytest.fixture
def queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plans: Plans) -> Iterator[Queries]:
    """Two partitions, full slices, one that grows, and a tail."""
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 200)
    monkeypatch.setattr(slices, "BLOCK_ENTRIES", 50)
    monkeypatch.setattr(open_end, "FEW_ENTRIES", 100)
    log = OpenLog(tmp_path)
    log.write(entries(2_020))
    log.close_up_to(600)
    log.close_up_to(1_200)
    log.trim_up_to(1_000)
    queries = Queries(log.path, log)
    while queries.go_on(is_busy=False):
        pass
    plans.is_listening = True
    yield queries
    plans.is_listening = False
    queries.close()


def check(plans: Plans) -> None:
    """Check that no plan scans what grows with the log, or sorts all of it for the first of it."""
    assert plans.found
    for sql, plan in plans.found.items():
        for step in plan:
            assert not re.match(rf"SCAN {LARGE}\b", step), (step, sql)
            assert not re.match(rf"SEARCH {LARGE} .*AUTOMATIC", step), (step, sql)
            if re.match(r"SEARCH (entry|run)\b", step):
                assert re.search(r"\((device=\?|slice=\?|seq[=>])", step), (step, sql)
        if "limit :limit" in sql or "limit 1" in sql:
            large = [step for step in plan if re.match(r"SEARCH (entry|run)\b", step)]
            is_short = any("SCAN each VIRTUAL TABLE" in step for step in plan)  # of as many slices as fill a page
            if large and not is_short and "row_number" not in sql and "group by" not in sql:
                assert "USE TEMP B-TREE FOR ORDER BY" not in plan, (plan, sql)


@pytest.mark.parametrize("by_stored", [False, True])
@pytest.mark.parametrize("is_descending", [False, True])
def test_pages_seek(plans: Plans, queries: Queries, by_stored: bool, is_descending: bool) -> None:
    for devices in ("d0",), ("d1", "d2"):
        query = EntriesQuery(
            devices, frozenset(READINGS), 0, 3_000 * SECOND, 0, 2_020, by_stored=by_stored, is_descending=is_descending
        )
        assert all(page.entries for page in drive(queries.entries(query)).found)
        marks = query._replace(kinds=frozenset(("control", "deleted")), paths=(Pointer("/n"),))
        assert any(page.entries for page in drive(queries.entries(marks)).found)
    check(plans)
    of_marks = {step for plan in plans.found.values() for step in plan if " INDEX marks " in step}
    assert {step.split()[1] for step in of_marks} == {"entry", "run"}


@pytest.mark.parametrize("edges", [range(0, 3_000 * SECOND, 60 * SECOND), range(0, 3_000 * SECOND, 43 * SECOND)])
@pytest.mark.parametrize("is_even", [True, False])
def test_buckets_seek(plans: Plans, queries: Queries, edges: range, is_even: bool) -> None:
    paths = tuple(map(Pointer, ("", "/n")))
    query = BucketsQuery(("d0", "d1"), paths, edges if is_even else list(edges), AGGREGATES, 2_020)
    assert all(series.starts_us for series in drive(queries.buckets(query)).found)
    check(plans)


def test_states_positions_and_names_seek(plans: Plans, queries: Queries) -> None:
    for seq in 0, 599, 900, 1_500, 2_020:
        drive(queries.state_at(seq, ALL))
        drive(queries.position_at(seq * SECOND, ALL))
    drive(queries.names(ALL))
    drive(queries.oldest())
    check(plans)
