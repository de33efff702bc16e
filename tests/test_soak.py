"""The soak in small: it finds nothing wrong with the server, and does find each promise that is broken on purpose."""

from pathlib import Path
from typing import get_args

import pytest
from msgspec import Raw

from tests.soak import Fault, Plan, Soak, lost_or_doubled
from twincast.core.model import DataUpdate, Entry

SMALL = Plan(seconds=8, watchers=20, publishers=8, updates_per_s=200, cuts=400, kill_every_s=3)
TINY = Plan(seconds=2, watchers=3, publishers=4, updates_per_s=200, cuts=30, kill_every_s=60)


async def test_the_server_is_not_caught_lying(tmp_path: Path) -> None:
    soak = Soak(SMALL, tmp_path / "journal.db")
    assert await soak.run() == []
    assert soak.kills >= 1
    assert sum(heard.resumes for heard in soak.heard) > 100
    assert all(soak.acknowledged.values())


@pytest.mark.parametrize("fault", get_args(Fault))
async def test_a_promise_that_is_broken_on_purpose_is_found(tmp_path: Path, fault: Fault) -> None:
    plan = Plan(**{**vars(TINY), "fault": fault})
    wrong = await Soak(plan, tmp_path / "journal.db").run()
    expected = {
        "drop": "never came",
        "duplicate": "twice or out of order",
        "reorder": "twice or out of order",
        "alter": "is not the log's",
    }[fault]
    assert any(expected in text for text in wrong)
    assert all(text.startswith("watcher 0") for text in wrong)


def numbered(*numbers: int) -> list[Entry]:
    return [
        DataUpdate("lamp", Raw(b'{"by":"p","n":%d}' % number), "now", "websocket", seq, "e")
        for seq, number in enumerate(numbers, 1)
    ]


@pytest.mark.parametrize(
    ("stored", "sent", "acknowledged", "is_well"),
    [
        ((0, 1, 2), 3, 3, True),
        ((0, 1, 2), 4, 2, True),
        ((0, 1), 3, 3, False),
        ((0, 1, 1), 3, 2, False),
        ((0, 2, 1), 3, 3, False),
        ((0, 2), 3, 2, False),
        ((0, 1, 2), 2, 2, False),
    ],
)
def test_what_publishers_sent_is_in_the_log_once_and_in_order(
    stored: tuple[int, ...], sent: int, acknowledged: int, is_well: bool
) -> None:
    assert (lost_or_doubled({"p": sent}, {"p": acknowledged}, numbered(*stored)) == []) is is_well
