"""The soak in small: it finds nothing wrong with the server, and does find each promise that is broken on purpose."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from msgspec import Raw

from tests.soak import Fault, Plan, Soak, lost_or_doubled
from twincast.core.model import DataUpdate, Entry

LONGER = (1, 4, 16)
"""A run that proves too little is made anew, so many times as long: a slow machine does less in a second."""
SMALL = Plan(seconds=8, watchers=20, publishers=8, updates_per_s=200, cuts=400, kill_every_s=3)
TINY = Plan(seconds=2, watchers=3, publishers=4, updates_per_s=200, cuts=30, kill_every_s=60)


async def test_the_server_is_not_caught_lying(tmp_path: Path) -> None:
    for times in LONGER:
        plan = replace(SMALL, seconds=times * SMALL.seconds, cuts=times * SMALL.cuts)
        soak = Soak(plan, tmp_path / f"{times}.db")
        assert await soak.run() == []
        resumes = sum(heard.resumes for heard in soak.heard)
        if soak.kills >= 1 and resumes > 100 and all(soak.acknowledged.values()):
            return
    pytest.fail(f"{soak.kills} kills and {resumes} resumes prove little")


@pytest.mark.parametrize("fault", get_args(Fault))
async def test_a_promise_that_is_broken_on_purpose_is_found(tmp_path: Path, fault: Fault) -> None:
    for times in LONGER:
        plan = replace(TINY, fault=fault, seconds=times * TINY.seconds, cuts=times * TINY.cuts)
        wrong = await Soak(plan, tmp_path / f"{times}.db").run()
        if wrong:
            break
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
