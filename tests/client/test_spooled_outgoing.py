"""A device that boots while the server is down: it goes on, and what it accepts is stored, once and in order."""

import asyncio
import contextlib
import itertools
import json
import logging
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests import warm
from tests.client.test_spool_file import VERSION_1
from tests.conftest import JournalUrl
from tests.running import ROOT, ServerProcess, eventually, eventually_async, free_port
from twincast.client import Client, Event, Link, Rest, connect
from twincast.client import sync as without_asyncio
from twincast.client.failures import Retryable
from twincast.client.limits import Limits
from twincast.client.message import encode
from twincast.client.outgoing import IN_FLIGHT_MAX
from twincast.client.spool_file import SpoolFile
from twincast.client.spool_line import Row
from twincast.client.spooled_outgoing import SpooledOutgoing
from twincast.core.producers import WINDOW_LINES
from twincast.core.times import stored_form
from twincast.errors import (
    BadTime,
    BufferFull,
    NotFound,
    NotPermitted,
    ServerUnreachable,
    SpoolFull,
    SpoolUnusable,
    StateFull,
    TooLarge,
    TwincastError,
    Unauthenticated,
    ValidationFailed,
)
from twincast.testing import Proxy, Server

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def server(durable_kind: str, journal_url: JournalUrl) -> Iterator[Server]:
    """A server that is down at first, at an address that is its own."""
    with Server(journal_url(durable_kind)) as server:
        server.stop()
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


PAGE = (ROOT / "docs" / "client.md").read_text()


async def up(server: Server) -> None:
    await asyncio.to_thread(server.start)


def values(server: Server, device_id: str = "lamp") -> list[Any]:
    return [entry["value"] for entry in server.log() if entry.get("device_id") == device_id and "value" in entry]


async def stored(server: Server, expected: list[Any]) -> None:
    await eventually_async(lambda: len(values(server)) >= len(expected), "all is stored")
    assert values(server) == expected


@contextlib.asynccontextmanager
async def device(server: Server, spool: Path, **how: Any) -> AsyncIterator[Client]:
    async with connect(server.url, devices=(), spool=spool, **how) as client:
        yield client


# Entering without a server.


async def test_a_program_that_does_not_wait_goes_on_and_is_heard_when_the_server_comes(server: Server) -> None:
    async with connect(server.url, devices=(), wait=False) as client:
        assert not client.is_connected
        sent = [asyncio.create_task(client.publish("lamp", number)) for number in range(3)]
        obeyed: list[Event] = []
        client.on_command("fan", obeyed.append)
        await up(server)
        assert await asyncio.gather(*sent) == [1, 2, 3]
        await client.listening()
        await client.control("fan", "on")
        await eventually_async(lambda: obeyed, "the command is heard")


def test_the_same_without_asyncio(server: Server, spool: Path) -> None:
    obeyed: list[Event] = []
    with without_asyncio.connect(server.url, spool=spool) as client:
        assert client.publish("lamp", 1) == 0
        assert client.publish_many([("lamp", 2), ("lamp", 3)]) == [0, 0]
        assert client.control("fan", "on") == 0
        assert client.backlog is not None and client.backlog.lines == 4
        client.on_command("fan", obeyed.append, wait=False)

        @client.on_command("fan", wait=False)
        def obey(event: Event) -> None:
            obeyed.append(event)

        server.start()
        client.settle()
        assert (client.backlog.lines, values(server)) == (0, [1, 2, 3])
        eventually(lambda: client.control("fan", "off") or len(obeyed) >= 2, "both hear commands, once they are live")


async def test_without_a_spool_what_waits_is_bounded_as_while_a_connection_is_lost(server: Server) -> None:
    async with connect(server.url, devices=(), wait=False, buffer_max_bytes=300) as client:
        sending = [asyncio.create_task(client.publish("lamp", "x" * 100)) for _ in range(5)]
        await asyncio.wait(sending, return_when=asyncio.FIRST_EXCEPTION)
        assert any(isinstance(task.exception(), BufferFull) for task in sending if task.done())
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)


@pytest.mark.parametrize("with_spool", [False, True])
async def test_a_no_that_comes_later_is_raised_by_what_is_called_next_and_told_of_the_link(
    server: Server, spool: Path, with_spool: bool
) -> None:
    server.add_key("somebody", publish=["*"])
    links: list[Link] = []
    how: dict[str, Any] = {"spool": spool} if with_spool else {"wait": False}
    async with connect(server.url, devices=(), token="twc_0_wrong", on_link=links.append, **how) as client:
        first = await client.submit("lamp", 1)
        await up(server)
        with pytest.raises(Unauthenticated):
            await first
        with pytest.raises(Unauthenticated):
            await client.publish("lamp", 2)
        with pytest.raises(Unauthenticated):
            await client.on_command("fan", print)
        await client.settle()
        await eventually_async(lambda: links[-1].phase == "refused", "the link says so")
        assert links[-1].reason and {link.phase for link in links[:-1]} <= {"waiting"}
    if with_spool:
        with closing(SpoolFile(spool)) as file:
            assert file.lines == 1, "what was accepted before stays, for a program with a credential"


async def test_a_program_with_the_least_memory_sends_one_by_one(server: Server, spool: Path) -> None:
    async with device(server, spool, buffer_max_bytes=0) as client:
        await client.publish_many([("lamp", number) for number in range(5)])
        await up(server)
        await client.settle()
        assert values(server) == list(range(5))


async def test_with_a_spool_a_program_may_wait_all_the_same(server: Server, spool: Path) -> None:
    with pytest.raises(ServerUnreachable):
        async with device(server, spool, wait=True, timeout_s=0):
            pytest.fail("there is no server")
    SpoolFile(spool).close()


# Accepted is on disk.


async def test_what_is_accepted_while_the_server_is_away_is_stored_in_order_when_it_comes(
    server: Server, spool: Path
) -> None:
    async with device(server, spool) as client:
        assert [await client.publish("lamp", number) for number in range(3)] == [0, 0, 0]
        receipt = await client.submit("lamp", 3)
        assert await client.publish_many([("lamp", number) for number in range(4, 8)]) == [0] * 4
        backlog = client.backlog
        assert backlog is not None and (backlog.lines, backlog.refused) == (8, 0) and backlog.size_bytes > 8 * 64
        await up(server)
        assert await receipt == 4
        await client.settle()
        assert client.backlog == (0, 0, 0)
        assert values(server) == list(range(8))


async def test_the_next_process_sends_what_is_left_first_and_then_what_is_new(server: Server, spool: Path) -> None:
    for start in range(3):
        async with device(server, spool) as client:
            await client.publish_many([("lamp", 10 * start + number) for number in range(3)])
            assert client.backlog is not None and client.backlog.lines == 3 * (start + 1)
    async with device(server, spool) as client:
        await up(server)
        await client.publish("lamp", "new")
        await client.settle()
        await stored(server, [0, 1, 2, 10, 11, 12, 20, 21, 22, "new"])
    with closing(SpoolFile(spool)) as file:
        assert (file.lines, file.last_line) == (0, 10)


async def test_a_backlog_is_in_memory_only_as_far_as_it_is_sent_ahead(server: Server, spool: Path) -> None:
    count = 3 * IN_FLIGHT_MAX
    async with device(server, spool) as client:
        await client.publish_many([("lamp", number) for number in range(count)])
        assert not any(lane.unanswered for lane in client._outgoing._lanes)
    async with device(server, spool, buffer_max_bytes=10_000) as client:
        last = await client.submit("lamp", count)
        await up(server)
        while client.backlog and client.backlog.lines:
            assert sum(lane.size_bytes for lane in client._outgoing._lanes) < 21_000
            await asyncio.sleep(0.001)
        assert await last == 1, "the present goes first"
    assert values(server) == [count, *range(count)]


# The present goes first, and the backlog is history.


def of_kinds(server: Server) -> dict[str, list[Any]]:
    return {
        kind: [entry["value"] for entry in server.log() if entry["type"] == kind] for kind in ("data_update", "late")
    }


def make_backlog(spool: Path, count: int, devices: int = 1, first: int = 1) -> None:
    """Fill a spool as a program does that never had a connection, but faster."""
    at = datetime.now(UTC) - timedelta(hours=1)
    with closing(SpoolFile(spool)) as file:
        rows = [
            Row(
                line,
                encode(
                    {"type": "telemetry", "device_id": f"lamp{line % devices or ''}", "value": line - 1 + first}
                ).decode(),
                1,
                stored_form(at + timedelta(milliseconds=line)),
            )
            for line in range(1, count + 1)
        ]
        file.write([(row, None) for row in rows], [])


async def test_the_newest_reading_is_the_twin_at_once_while_a_backlog_follows_behind(
    tmp_path: Path, spool: Path
) -> None:
    count, live = 100_000, 30
    make_backlog(spool, count)
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        async with device(server, spool) as client:
            await eventually_async(lambda: "lamp" in server.state, "it is there")
            assert (server.state["lamp"].value, server.state["lamp"].seq) == (count, 1), "the newest that waited"
            for number in range(count + 1, count + live):
                seq = await (await client.submit("lamp", number))
                assert server.state["lamp"].value == number
            assert client.backlog is not None and client.backlog.lines > count // 2, "the backlog has not gone before"
            assert seq > live, "and it was not held up"
        found = of_kinds(server)
    assert found["data_update"] == list(range(count, count + live))
    assert found["late"] == list(range(1, len(found["late"]) + 1)), "in order, none twice and none left out"
    with closing(SpoolFile(spool)) as file:
        assert file.backlog.first <= len(found["late"]) + 1 and file.backlog.last == count - 1, "the others are here"


async def test_a_backlog_is_stored_once_and_in_order_beside_live_readings(server: Server, spool: Path) -> None:
    make_backlog(spool, 4_000)
    await up(server)
    async with device(server, spool) as client:
        number = 4_000
        while client.backlog and client.backlog.lines:
            number += 1
            await (await client.submit("lamp", number))
    present, late = of_kinds(server).values()
    assert (sorted(present + late), sorted(present)) == (list(range(1, number + 1)), present)
    assert late == sorted(late) and len(late) >= 3_999


async def test_few_readings_that_waited_are_the_present_in_order(server: Server, spool: Path) -> None:
    async with device(server, spool) as client:
        await client.publish_many([("lamp", number) for number in range(IN_FLIGHT_MAX)])
        await up(server)
        await client.settle()
    assert of_kinds(server) == {"data_update": list(range(IN_FLIGHT_MAX)), "late": []}


async def test_a_burst_while_there_is_a_connection_is_the_present_in_order(server: Server, spool: Path) -> None:
    await up(server)
    count = 5 * IN_FLIGHT_MAX
    async with device(server, spool, wait=True) as client:
        await client.publish("lamp", 0)
        await client.publish_many([("lamp", number) for number in range(1, count)])
        await client.settle()
    assert of_kinds(server) == {"data_update": list(range(count)), "late": []}


async def test_the_newest_of_each_device_is_the_present(server: Server, spool: Path) -> None:
    make_backlog(spool, 2_000, devices=7)
    await up(server)
    async with device(server, spool) as client:
        await client.settle()
    assert sorted(of_kinds(server)["data_update"]) == list(range(1_994, 2_001))
    assert len(of_kinds(server)["late"]) == 1_993


async def test_a_reading_says_when_it_was_handed_over_or_measured(server: Server, spool: Path) -> None:
    measured = datetime(2026, 11, 27, 4, 16, tzinfo=UTC)
    async with device(server, spool) as client:
        before = datetime.now(UTC)
        await client.publish("lamp", 1)
        after = datetime.now(UTC)
        await client.publish("lamp", 2, measured_at=measured)
        with pytest.raises(BadTime):
            await client.publish("lamp", 3, measured_at="now")
    async with device(server, spool) as client:
        await up(server)
        await client.settle()
    handed_over, given = (datetime.fromisoformat(entry["measured_at_utc"]) for entry in server.log())
    assert before <= handed_over <= after and given == measured
    assert of_kinds(server) == {"data_update": [1], "late": [2]}


async def test_a_device_whose_clock_is_wrong_says_the_time_of_the_server(
    server: Server, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InThePast(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(1_000, tz)

    await up(server)
    with Rest(server.url) as rest:
        await asyncio.to_thread(rest.publish, "lamp", "of another program")
    monkeypatch.setattr("twincast.client.stamp.datetime", InThePast)
    async with device(server, spool, wait=True) as client:
        await client.publish("lamp", 1)
        await client.settle()
    assert server.state["lamp"].value == 1, "it does not freeze"


async def test_a_deletion_is_behind_all_that_waited_and_takes_nothing_away_that_came_later(
    server: Server, spool: Path
) -> None:
    make_backlog(spool, 3_000, devices=2)
    async with device(server, spool) as client:
        await client.delete("lamp")
        await client.publish("lamp", "after")
        await client.control("lamp", "on")
        await up(server)
        await eventually_async(lambda: "lamp1" in server.state, "the other device is there")
        await client.publish("lamp", "later")
        await client.publish("lamp1", "live")
        assert server.state["lamp1"].value == 2_999
        await client.settle()
        assert client.backlog == (0, 0, 0)
    assert (server.state["lamp"].value, server.state["lamp1"].value) == ("later", "live")
    entries = [entry for entry in server.log() if entry.get("device_id", "lamp") == "lamp"]
    assert [entry["type"] for entry in entries[-4:]] == ["deleted", "data_update", "control", "data_update"]


async def test_what_could_not_be_sent_live_is_sent_behind_what_is_newer(
    server: Server, spool: Path, tmp_path: Path
) -> None:
    """The network dies silently: nobody knows of it while a fast program goes on."""
    await up(server)
    with Proxy(server.port) as network:
        async with connect(network.url, devices=(), spool=spool, wait=True) as client:
            await client.publish("lamp", 0)
            await client.settle()
            network.stall("up")
            count = 3 * IN_FLIGHT_MAX
            await client.publish_many([("lamp", number) for number in range(1, count)])
            network.cut()
            network.flow()
            await client.settle()
    found = of_kinds(server)
    assert sorted(found["data_update"] + found["late"]) == list(range(count))
    assert found["data_update"][-1] == count - 1 and found["late"] == sorted(found["late"])
    assert len(found["late"]) > IN_FLIGHT_MAX // 2


async def test_a_spool_of_an_older_version_is_sent_under_its_name_and_live_readings_beside_it(
    server: Server, spool: Path
) -> None:
    with closing(sqlite3.connect(spool)) as db, db:
        db.executescript(VERSION_1)
        for line in range(1, 3_000):
            message = encode({"type": "telemetry", "device_id": "lamp", "value": line}).decode()
            row = (line, message, 1, f"2026-11-26T00:00:00.{line:06}+00:00", None)
            db.execute("insert into line values (?, ?, ?, ?, ?)", row)
    async with device(server, spool) as client:
        await client.publish("lamp", "live")
        await up(server)
        await client.settle()
    assert of_kinds(server) == {"data_update": ["live"], "late": list(range(1, 3_000))}
    assert server.log()[0]["value"] == "live"


def test_no_more_is_sent_ahead_than_the_server_remembers_one_by_one() -> None:
    assert IN_FLIGHT_MAX <= WINDOW_LINES


async def test_a_server_that_knows_no_lines_is_tried_again_and_gets_none(spool: Path) -> None:
    with closing(SpoolFile(spool)) as file:
        spooling = SpooledOutgoing(file, 1 << 20, 1 << 20)
        with pytest.raises(Retryable, match="knows no numbered lines"):
            spooling.connected(Limits(), is_ordered=False)
        assert not spooling.is_connected
        await spooling.close()


async def test_readings_commands_and_deletions_keep_their_order_and_a_refusal_holds_back_nothing(
    server: Server, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with device(server, spool) as client:
        await client.publish("lamp", 1)
        assert await client.delete("lamp") == 0
        gone = await client._outgoing.put({"type": "delete", "device_id": "lamp"}, is_barrier=True)
        await client.control("lamp", "on", {"a": 1})
        await client.publish("lamp", 2)
        with caplog.at_level(logging.WARNING, "twincast.client"):
            await up(server)
            with pytest.raises(NotFound):
                await gone
            await client.settle()
        assert (
            "line 3 of the spool was refused, and is kept in its table of refusals: there is no device 'lamp'"
            in caplog.text
        )
        assert client.backlog == (0, 0, 1)
        assert [entry["type"] for entry in server.log()] == ["data_update", "deleted", "control", "data_update"]
    with closing(sqlite3.connect(spool)) as db:
        [(line, code, message)] = db.execute("select line, code, message from refused")
    assert (line, code, json.loads(message)) == (3, "not_found", {"type": "delete", "device_id": "lamp"})


@pytest.mark.parametrize("kind", [NotPermitted, TooLarge, StateFull])
async def test_what_the_server_will_never_store_is_kept_aside_whatever_its_reason(
    tmp_path: Path, spool: Path, kind: type[TwincastError]
) -> None:
    how: dict[str, Any] = {"devices_max": 1} if kind is StateFull else {}
    with Server(f"sqlite:{tmp_path / 'journal.db'}", **how) as server:
        token = server.add_key("it", publish=["lamp"]) if kind is NotPermitted else None
        server.stop()
        async with device(server, spool, token=token) as client:
            await client.publish("lamp", 1)
            wrong = await client.submit("door", "x" * 70_000 if kind is TooLarge else 1)
            await client.publish("lamp", 2)
            await up(server)
            with pytest.raises(kind):
                await wrong
            await client.settle()
            assert (values(server), client.backlog) == ([1, 2], (0, 0, 1))


async def test_a_full_spool_says_so_and_goes_on_when_there_is_room(server: Server, spool: Path) -> None:
    async with device(server, spool, spool_max_bytes=64 * 1024) as client:
        accepted = 0
        with pytest.raises(SpoolFull, match=r"`spool_max_bytes` allows more") as refused:
            while True:
                await client.publish("lamp", f"{accepted}{'x' * 10_000}")
                accepted += 1
        assert isinstance(refused.value, BufferFull) and accepted == 6
        await up(server)
        await client.settle()
        await client.publish("lamp", "after")
        await client.settle()
        assert [value[:1] for value in values(server)] == [*map(str, range(6)), "a"]


async def test_a_failing_disk_is_said_and_nothing_else_is_lost(server: Server, spool: Path) -> None:
    async with device(server, spool) as client:
        await client.publish("lamp", 1)
        file = client._outgoing._file  # type: ignore[attr-defined]
        file._db.execute("pragma max_page_count = 1")
        with pytest.raises(SpoolFull, match="is full"):
            await client.publish("lamp", "x" * 60_000)
        with pytest.raises(SpoolFull):
            await (await client.submit("lamp", "x" * 60_000))
        file._db.execute("pragma max_page_count = 1000000")
        await client.publish("lamp", 2)
        await up(server)
        await client.settle()
        assert (values(server), client.backlog) == ([1, 2], (0, 0, 0))


async def test_a_spool_that_could_hold_nothing_is_refused(server: Server, spool: Path) -> None:
    with pytest.raises(ValidationFailed, match="`spool_max_bytes` must be at least 65536, one message; not 1000"):
        async with device(server, spool, spool_max_bytes=1_000):
            pytest.fail("it would hold nothing")
    SpoolFile(spool).close()


async def test_a_second_program_and_a_torn_file_are_refused(server: Server, spool: Path) -> None:
    async with device(server, spool):
        with pytest.raises(SpoolUnusable, match="in use by another program"):
            async with device(server, spool):
                pytest.fail("two have one file")
    spool.write_text("torn")  # noqa: ASYNC240  # nothing else runs
    with pytest.raises(SpoolUnusable, match="move it away"):
        async with device(server, spool):
            pytest.fail("the file is no spool")
    assert spool.read_text() == "torn"  # noqa: ASYNC240


async def test_what_was_refused_by_mistake_is_sent_again_as_the_page_says(tmp_path: Path, spool: Path) -> None:
    [sql] = re.findall(r'sqlite3 outbox.db \\\n *"(insert .*?)"', PAGE, re.DOTALL)
    with Server(f"sqlite:{tmp_path / 'journal.db'}") as server:
        narrow, wide = server.add_key("narrow", publish=["door"]), server.add_key("wide", publish=["*"])
        async with device(server, spool, token=narrow) as client:
            await client.publish_many([("lamp", number) for number in range(4)])
            await client.settle()
            assert client.backlog == (0, 0, 4)
        with closing(sqlite3.connect(spool)) as db, db:
            db.executescript(sql)
        async with device(server, spool, token=wide) as client:
            await client.settle()
            assert client.backlog == (0, 0, 0)
        assert values(server) == [0, 1, 2, 3]


@pytest.mark.parametrize("news", [0, 3, 20])
async def test_a_file_that_was_set_back_is_noticed_and_keeps_what_is_new_in_it(
    server: Server, spool: Path, news: int
) -> None:
    async with device(server, spool) as client:
        await client.publish("lamp", "in the copy")
    shutil.copy(spool, spool.with_name("copy.db"))
    await up(server)
    async with device(server, spool) as client:
        await client.publish_many([("lamp", number) for number in range(5)])
        await client.settle()
    shutil.copy(spool.with_name("copy.db"), spool)
    await asyncio.to_thread(server.stop)
    async with device(server, spool) as client:
        await client.publish_many([("lamp", f"new {number}") for number in range(news)])
        last = await client.submit("lamp", "newest")
        await up(server)
        with pytest.raises(SpoolUnusable, match=r"has line 6 of this spool already, .* set back or copied"):
            await last
        with pytest.raises(SpoolUnusable):
            await client.publish("lamp", "newer")
    with closing(sqlite3.connect(spool)) as db, db:
        db.execute("update meta set value = lower(hex(randomblob(16))) where name = 'producer'")  # as the page says
    async with device(server, spool) as client:
        await client.settle()
    new = [*(f"new {number}" for number in range(news)), "newest"]
    found = values(server)
    assert found[:6] == ["in the copy", 0, 1, 2, 3, 4]
    assert found[-len(new) :] == new, "all of it, though what came behind line 6 may be there twice"


@pytest.mark.parametrize("durable_kind", ["sqlite"], indirect=True)  # a shared log's copy is not what is restored
async def test_a_restored_older_journal_takes_what_is_left_and_nothing_for_stored(
    server: Server, spool: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    await up(server)
    async with device(server, spool) as client:
        await client.publish_many([("lamp", 1), ("lamp", 2)])
        await client.settle()
        await asyncio.to_thread(server.stop)
        shutil.copy(journal, tmp_path / "backup.db")
        await up(server)
        await client.publish("lamp", "lost")
        await client.settle()
        await asyncio.to_thread(server.stop)
        await client.publish("lamp", 3)
        shutil.copy(tmp_path / "backup.db", journal)
        await up(server)
        await client.settle()
        assert values(server) == [1, 2, 3]


# Killed, on either side, at any point.

DEVICE = """
import asyncio, sys
from twincast.client import connect

async def main(url, spool, first):
    async with connect(url, devices=(), spool=spool, wait_max_s=0.2) as client:
        for number in range(int(first), int(first) + 1_000_000):
            await client.publish("lamp", number)
            print(number, flush=True)
            await asyncio.sleep(0.001)

asyncio.run(main(*sys.argv[1:]))
"""


class Device:
    """A program that publishes 0, 1, 2, … by a spool, and says of each when it was accepted."""

    def __init__(self, url: str, spool: Path) -> None:
        self._url, self._spool = url, spool
        self.accepted: list[int] = []

    def start(self) -> None:
        first = str(self.accepted[-1] + 2 if self.accepted else 0)  # the one behind the last may be in the file
        self._process = warm.Popen(
            [sys.executable, "-c", DEVICE, self._url, str(self._spool), first],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def accept(self, count: int) -> None:
        assert self._process.stdout is not None
        for line in itertools.islice(self._process.stdout, count):
            self.accepted.append(int(line))

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        assert self._process.stdout is not None
        self.accepted += [int(line) for line in self._process.stdout if line.endswith("\n")]
        self._process.wait()
        self._process.stdout.close()


def in_log(journal: Path, kind: str = "%") -> list[int]:
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        found = db.execute("select value from log where type like ? order by seq", (kind,))
        return [int(row[0]) for row in found]


def until_more_is_stored(journal: Path) -> None:
    count = len(in_log(journal))
    eventually(lambda: len(in_log(journal)) > count, "more is stored")


@pytest.mark.parametrize("backlog", [0, 3 * IN_FLIGHT_MAX])
def test_whoever_is_killed_each_accepted_reading_is_stored_once_and_in_order(tmp_path: Path, backlog: int) -> None:
    """Device and server, each alone and both; the server amid commits whose answers never come."""
    journal, port = tmp_path / "journal.db", free_port()
    make_backlog(tmp_path / "outbox.db", backlog, first=-backlog)
    with Proxy(port) as network:
        device = Device(network.url, tmp_path / "outbox.db")
        device.start()
        device.accept(30)  # while there is no server
        device.kill()
        device.start()
        server = ServerProcess(f"sqlite:{journal}", port=port).ready()
        for turn in ("server", "device", "both"):
            until_more_is_stored(journal)
            network.stall("down")
            device.accept(30)
            until_more_is_stored(journal)  # and its answers are lost
            if turn != "device":
                server.kill()
            if turn != "server":
                device.kill()
                device.start()
                device.accept(10)
            network.cut()
            network.flow()
            if turn != "device":
                server = ServerProcess(f"sqlite:{journal}", port=port).ready()
        device.accept(10)
        device.kill()
        with without_asyncio.connect(network.url, devices=(), spool=tmp_path / "outbox.db", wait_max_s=0.2) as client:
            client.settle()
            assert client.backlog == (0, 0, 0)
        server.stop()
    present, late = in_log(journal, "data_update"), in_log(journal, "late")
    assert present == sorted(set(present)) and late == sorted(set(late)), "once, and in order"
    found, accepted = {*present, *late}, {*range(-backlog, 0), *device.accepted}
    assert len(found) == len(present) + len(late) and accepted <= found, "all of it"
    assert len(found - accepted) <= 5, "besides what was accepted in the moment of a kill"
    assert not backlog or len(late) > backlog // 2
