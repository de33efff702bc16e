"""The power of all NATS nodes is cut at once: with `sync_interval: always` whatever was acknowledged is there after."""

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from msgspec import Raw

from tests.fakes import batch_of
from tests.journal.jetstream.power_cut import FailingPower, failing_power
from twincast.core.model import DataUpdate
from twincast.errors import JournalUnavailable
from twincast.journal.stores import Stores, open_stores
from twincast.testing import Nats

BEFORE_THE_CUT = 60
"""So many commits are acknowledged before the power fails, at least."""


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingPower]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with failing_power(folder) as power:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))  # where the nodes store
        yield power


async def entries_lost(power: FailingPower, tmp_path: Path, nodes: Literal[1, 3], sync: str) -> int:
    """Cut the power once, amid commits; return how many acknowledged entries are missing, having checked the rest."""
    with Nats(nodes, sync=sync) as nats:
        stores = await _opened(nats.url("lab", copy=str(tmp_path / "before.db")))
        acknowledged = 0
        is_far = asyncio.Event()

        async def write() -> None:
            nonlocal acknowledged
            for number in count(1):
                await stores.journal.append(batch_of([DataUpdate(f"d{number}", Raw(b"1"), "", "rest")]))
                acknowledged = number
                if number == BEFORE_THE_CUT:
                    is_far.set()

        writing = asyncio.create_task(write())
        await is_far.wait()
        for engine in nats.engines:
            engine.send_signal(signal.SIGKILL)
        for i in range(nodes):
            nats.kill(i)
        power.cut()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await stores.close()

        for i in range(nodes):
            await asyncio.to_thread(nats.start, i)
        await asyncio.to_thread(nats.wait_until_ready)
        again = await _opened(nats.url("lab", copy=str(tmp_path / "after.db")))
        try:
            log = await again.journal.read(0, 1_000_000)
        finally:
            await again.close()
    assert [(entry.seq, entry.subject) for entry in log] == [(n, f"d{n}") for n in range(1, len(log) + 1)]
    return max(0, acknowledged - len(log))


async def _opened(url: str) -> Stores:
    """Open a log whose nodes have just begun: they elect a leader first."""
    while True:
        try:
            return await open_stores(url, memory_max_bytes=0)
        except JournalUnavailable:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("nodes", [1, 3])
async def test_a_power_cut_loses_nothing_that_was_acknowledged(
    power: FailingPower, tmp_path: Path, nodes: Literal[1, 3]
) -> None:
    assert await entries_lost(power, tmp_path, nodes, "always") == 0


@pytest.mark.parametrize("nodes", [1, 3])
async def test_with_the_usual_sync_interval_a_power_cut_does_lose_something(
    power: FailingPower, tmp_path: Path, nodes: Literal[1, 3]
) -> None:
    """The control: NATS syncs every two minutes if it is not told otherwise."""
    assert await entries_lost(power, tmp_path, nodes, "2m") > 0
