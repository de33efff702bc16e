"""A closing takes its share of a core, and no more."""

import apsw
import pytest

from twincast.journal.sqlite.history.paced import BURST_S, REST_MAX_S, Share, run


class Core:
    """A core whose time is spent by hand."""

    def __init__(self) -> None:
        self.worked_s = 0.0
        self.rests: list[float] = []


@pytest.mark.parametrize(("share", "rest_s"), [(0.5, BURST_S), (0.2, BURST_S * 4), (0.001, REST_MAX_S)])
def test_after_a_burst_it_rests_for_as_long_as_its_share_asks(share: float, rest_s: float) -> None:
    core = Core()
    paced = Share(share, cpu_s=lambda: core.worked_s, sleep=core.rests.append)
    core.worked_s = BURST_S / 2
    assert paced.rest() is False
    assert core.rests == []
    core.worked_s = BURST_S
    assert paced.rest() is False
    assert core.rests == [pytest.approx(rest_s)]
    paced.rest()
    assert len(core.rests) == 1


@pytest.mark.parametrize("least_s", [0.0, 0.0156, 0.3])
def test_what_a_system_rests_too_long_is_taken_off_what_follows(least_s: float) -> None:
    core, now_s = Core(), 0.0

    def sleep(rest_s: float) -> None:
        nonlocal now_s
        now_s += max(rest_s, least_s)

    paced = Share(0.4, cpu_s=lambda: core.worked_s, sleep=sleep, clock_s=lambda: now_s)
    for _ in range(10_000):
        core.worked_s += BURST_S
        paced.rest()
    assert core.worked_s / (core.worked_s + now_s) == pytest.approx(0.4, rel=0.1)


def test_a_statement_rests_within_and_one_with_the_whole_core_does_not() -> None:
    core = Core()

    def worked() -> float:
        core.worked_s += BURST_S
        return core.worked_s

    endless = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 50000) select count(*) from n"
    for share, rests in [(1.0, False), (0.5, True)]:
        with apsw.Connection(":memory:") as db:
            Share(share, cpu_s=worked, sleep=core.rests.append).pace(db)
            run(db, endless)
        assert bool(core.rests) is rests


def test_statements_behind_one_that_returns_a_row_are_executed() -> None:
    db = apsw.Connection(":memory:")
    run(db, "pragma cache_size = -100; select 1; create table t (x); insert into t values (1)")
    assert db.execute("select count(*) from t").get == 1
