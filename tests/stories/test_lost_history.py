"""A file of the closed log is removed or damaged, while its server runs: it is said, and the rest goes on."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.running import eventually
from twincast.client import Rest, connect
from twincast.errors import HistoryDamaged, Truncated
from twincast.journal.sqlite.health import problems
from twincast.testing import Clock, Server

PARTITION, READINGS = 100, 450
LOST = "000000000101.db"


class Log:
    """A server whose log is closed up to its newest entries, with the reading n at the position n."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock("2026-11-25T10:00:00+00:00")
        self.server = Server(f"sqlite:{path}", clock=self.clock, partition_entries=PARTITION, resume_max_entries=20)
        with Rest(self.server.url) as rest:
            for first in range(1, READINGS + 1, 10):
                rest.publish_all([("meter" if n % 2 else "other", n) for n in range(first, first + 10)])
                self.clock.advance(10)
        eventually(lambda: len(list(self.folder.glob("0*.db"))) == READINGS // PARTITION, "it is closed")
        eventually(lambda: self.oldest_hot() > 300, "what is closed goes off the log")

    @property
    def folder(self) -> Path:
        return Path(f"{self.path}-history")

    def oldest_hot(self) -> int:
        with closing(apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            return int(db.execute("select min(seq) from log").get)

    def damage(self, name: str) -> None:
        """Overwrite the middle of a file, as a disk that fails does."""
        with (self.folder / name).open("r+b") as file:
            file.seek(4_096)
            file.write(b"\xa5" * (self.folder / name).stat().st_size)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "journal.db")
    yield log
    log.server.stop()


async def goes_on(log: Log) -> None:
    """Check that what is live is stored and told as ever."""
    async with connect(log.server.url, ()) as client, client.watch("live", mode="every") as events:
        for number in range(20):
            await client.publish("live", number)
        iterating = aiter(events)
        assert [(await anext(iterating)).value for _ in range(20)] == list(range(20))


def times(log: Log, first: int, last: int) -> Any:
    with Rest(log.server.url) as rest:
        return [
            entry.value
            for entry in rest.history("meter", limit=None, order="asc").entries
            if first <= entry.value <= last
        ]


async def test_a_file_that_is_removed_is_a_hole_that_the_answers_tell(log: Log) -> None:
    with Rest(log.server.url) as rest:
        epoch = rest.status()["epoch"]
        whole = rest.history("meter", limit=None)
        assert whole.reaches_back_to == "2026-11-25T10:00:00.000000+00:00"
        (log.folder / LOST).unlink()
        for _ in range(2):
            holed = rest.history("meter", limit=None)
            assert holed.reaches_back_to == "2026-11-25T10:03:20.000000+00:00", "of position 201"
            assert [entry.value for entry in holed.entries if entry.value > 200] == list(range(READINGS - 1, 200, -2))
            assert not [entry for entry in holed.entries if 100 < entry.value <= 200]
            buckets = rest.history(
                "meter", every="1s", agg="count", from_=holed.reaches_back_to, to="2026-11-25T10:10:00Z"
            )
            assert sum(buckets.series[0]["count"]) == (READINGS - 200) // 2
            assert rest.state_at(f"{epoch}:300").state["meter"].value == 299
            for gone in (150, 50):
                with pytest.raises(Truncated):
                    rest.state_at(f"{epoch}:{gone}")
            await goes_on(log)
            await asyncio.to_thread(log.server.restart)
            epoch = rest.status()["epoch"]
    assert [each for each in problems(str(log.path)) if "lacks the entries from 101 to 200" in each]


async def test_a_file_that_is_damaged_is_said_with_a_code_and_ends_nothing(log: Log) -> None:
    with Rest(log.server.url) as rest:
        await asyncio.to_thread(log.server.stop)
        log.damage(LOST)
        await asyncio.to_thread(log.server.start)
        with pytest.raises(HistoryDamaged, match="damaged"):
            rest.history("meter", limit=None)
        with pytest.raises(HistoryDamaged, match="damaged"):
            rest.history("meter", every="1s", agg="last", from_="2026-11-25T10:01:50Z", to="2026-11-25T10:02:00Z")
        assert len(rest.history("meter", from_="2026-11-25T10:03:20Z", limit=None).entries) == (READINGS - 200) // 2
        assert rest.status()["ok"]
        await goes_on(log)
    assert [each for each in problems(str(log.path)) if LOST in each]
