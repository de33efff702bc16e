"""Rollups of devices that are much of the open end: they grow with it, and say what its entries say."""

from pathlib import Path

import pytest
from msgspec import Raw

from tests.journal.sqlite.history.logs import EPOCH, OpenLog
from twincast.core.model import DataUpdate, Entry
from twincast.history.times import text_of
from twincast.journal.sqlite.history import slices
from twincast.journal.sqlite.history.dense import Rolled, rolled
from twincast.journal.sqlite.history.slices import SOON, Slices

OF_WIDTH = """
select d.name, p.pointer, sum(n), sum(sum), min(min), max(max)
from open.rollup r join open.device d on d.id = r.device join open.path p on p.id = r.path
where width_s = ? and until_seq <= ? group by 1, 2 order by 1, 2
"""


def entries(count: int) -> list[Entry]:
    """Return three of four readings of a busy device, numbers and objects, and one of many others."""
    made: list[Entry] = []
    for seq in range(1, count + 1):
        name, value = ("busy", b"%d") if seq % 4 else (f"d{seq}", b"%d")
        text = b'{"rpm":%d}' % seq if seq % 4 == 1 else value % seq
        made.append(DataUpdate(name, Raw(text), text_of(seq * 100_000), "rest", seq, EPOCH))
    return made


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slices:
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 400)
    monkeypatch.setattr(slices, "BLOCK_ENTRIES", 100)
    log = OpenLog(tmp_path)
    log.write(entries(1_000))
    return Slices(log.path)


def test_a_busy_device_has_rollups_up_to_the_last_block_and_others_have_none(made: Slices) -> None:
    while made.go_on(0, 1_000):
        pass
    busy = made.db.execute("select id from open.device where name = 'busy'").get
    assert rolled(made.db, busy, 1_000) == [Rolled(1, 400, 10), Rolled(2, 800, 10), Rolled(3, 1_000, 10)]
    for width in (10, 60, 600, 3_600):
        found = made.db.execute(OF_WIDTH, (width, 1_000)).fetchall()
        numbers = {
            "": [seq for seq in range(1, 1_001) if seq % 4 in {2, 3}],
            "/rpm": [seq for seq in range(1, 1_001) if seq % 4 == 1],
        }
        assert found == [
            ("busy", pointer, len(each), float(sum(each)), each[0], each[-1]) for pointer, each in numbers.items()
        ]
    made.close()


def test_what_a_query_began_with_stays_as_it_was_while_a_slice_grows(made: Slices) -> None:
    while made.go_on(0, 200):
        pass
    busy = made.db.execute("select id from open.device where name = 'busy'").get
    before = made.db.execute(OF_WIDTH, (60, 200)).fetchall()
    while made.go_on(0, 1_000):
        pass
    assert before and made.db.execute(OF_WIDTH, (60, 200)).fetchall() == before
    assert rolled(made.db, busy, 299) == [Rolled(1, 200, 10)]
    made.close()


def test_rollups_go_with_their_slice(made: Slices) -> None:
    while made.go_on(0, 1_000):
        pass
    while made.go_on(400, 1_000):
        pass
    assert made.db.execute("select min(slice) from open.rollup").get == 2
    assert made.db.execute("select min(slice) from open.piece").get == 2
    made.close()


def of_forty(folder: Path, count: int) -> OpenLog:
    """Write readings of forty devices in turns, one a second."""
    log = OpenLog(folder)
    log.write(
        DataUpdate(f"d{seq % 40:02}", Raw(b"%d" % seq), text_of(seq * 1_000_000), "rest", seq, EPOCH)
        for seq in range(1, count + 1)
    )
    return log


def test_some_dozens_of_devices_have_rollups_of_each_slice_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 4_000)
    log = of_forty(tmp_path, 10_000)
    made = Slices(log.path)
    while made.go_on(0, 10_000):
        pass
    devices = dict(made.db.execute("select name, id from open.device"))
    for each in devices.values():
        assert rolled(made.db, each, 10_000) == [Rolled(1, 4_000, 3_600), Rolled(2, 8_000, 3_600)]
    found = made.db.execute(OF_WIDTH, (3_600, 10_000)).fetchall()
    of_each = {name: [seq for seq in range(1, 8_001) if seq % 40 == int(name[1:])] for name in devices}
    assert found == [
        (name, "", len(seqs), float(sum(seqs)), seqs[0], seqs[-1]) for name, seqs in sorted(of_each.items())
    ]
    made.close()


@pytest.mark.parametrize(("per_s", "rest"), [(0, SOON), (1_990, SOON), (2_000, 8 * SOON)])
def test_such_rollups_take_an_eighth_of_the_processor_that_the_index_takes_while_much_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_s: int, rest: float
) -> None:
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 4_000)
    monkeypatch.setattr(slices, "RATE_S", 0.1)
    now_s = 0.0
    made = Slices(of_forty(tmp_path, 8_200).path, clock_s=lambda: now_s)
    of_index = set()
    while made.reach(0) < 8_000:
        of_index.add(made.go_on(0, 8_000))
    now_s, head = 0.1, 8_000 + round(0.1 * per_s)
    of_rollups = set()
    while more := made.go_on(0, head):
        of_rollups.add(more)
    assert (of_index, of_rollups) == ({SOON}, {SOON, rest})  # what is begun is the index's
    made.close()


def test_a_slice_that_goes_while_it_is_summed_up_leaves_no_rollups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICE_ENTRIES", 4_000)
    log = of_forty(tmp_path, 8_000)
    for steps in range(1, 400, 7):
        made = Slices(log.path)
        while made.reach(0) < 8_000:
            made.go_on(0, 8_000)
        for _ in range(steps):
            made.go_on(0, 8_000)
        while made.go_on(4_000, 8_000):
            pass
        assert {each for (each,) in made.db.execute("select distinct slice from open.rollup")} == {2}
        assert made.db.execute("select count(*) from open.piece").get == 40
        made.close()
