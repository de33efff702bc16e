"""When a reading was measured: said with a zone on each way of sending, and read again wherever the reading is."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.client.collecting import collecting, got
from twincast import Twincast
from twincast.client import Client, LateReading, Reading, Rest, Twin, connect
from twincast.client.sync import connect as connect_sync
from twincast.errors import BadTime, ValidationFailed
from twincast.testing import Server

pytestmark = pytest.mark.usefixtures("impatient")

OLD, NEW = "2026-11-27T04:16:10.250000+00:00", "2026-11-27T05:00:00.000000+00:00"
NAIVE: list[Any] = [
    datetime(2026, 11, 27, 4, 16),  # what is refused
    "2026-11-27T04:16:10",
    "2026-11-27",
    "yesterday",
    "",
    1_764_216_970,
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
]
Sending = Callable[[Client, Any], Awaitable[Any]]


async def _publish(client: Client, at: Any) -> None:
    await client.publish("lamp", 1, measured_at=at)


async def _submit(client: Client, at: Any) -> None:
    await (await client.submit("lamp", 1, measured_at=at))


async def _publish_many(client: Client, at: Any) -> None:
    await client.publish_many([("lamp", 1, at)])


WAYS: list[Sending] = [_publish, _submit, _publish_many]


@pytest.mark.parametrize("send", WAYS)
@pytest.mark.parametrize(
    "at", [OLD, "2026-11-27 05:16:10.25+01:00", datetime(2026, 11, 27, 4, 16, 10, 250_000, tzinfo=UTC)]
)
async def test_a_time_is_stored_as_the_instant_that_it_is(server: Server, send: Sending, at: Any) -> None:
    async with connect(server.url) as client:
        await send(client, at)
    assert server.log()[0]["measured_at_utc"] == server.state["lamp"].measured_at_utc == OLD


@pytest.mark.parametrize("send", WAYS)
@pytest.mark.parametrize("at", NAIVE)
async def test_a_time_without_a_zone_is_refused_at_once(server: Server, send: Sending, at: Any) -> None:
    async with connect(server.url) as client:
        with pytest.raises(BadTime, match="`measured_at`"):
            await send(client, at)
    assert server.log() == []


async def test_late_readings_reach_a_watch_that_asks_for_them_and_change_no_state(server: Server) -> None:
    async with connect(server.url) as client:
        kinds = ["late", "data_update"]
        async with (
            collecting(client, mode="every", kinds=kinds) as all_of_it,
            collecting(client, mode="every") as usual,
        ):
            await client.publish("lamp", "new", measured_at=NEW)
            await client.publish("lamp", "old", measured_at=OLD)
            await client.publish("lamp", "now")
            first, late, now = await got(all_of_it, 3)
            assert [event.value for event in await got(usual, 2)] == ["new", "now"]
    assert isinstance(first, Reading) and (first.measured_at_utc, first.clock) == (NEW, None)
    assert isinstance(late, LateReading) and not isinstance(late, Reading)
    assert (late.kind, late.value, late.measured_at_utc, late.clock, late.merged) == ("late", "old", OLD, None, 1)
    assert now.kind == "data_update" and now.measured_at_utc is None


async def test_a_clock_that_is_not_believed_is_marked(server: Server) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    async with connect(server.url) as client, collecting(client, mode="every") as events:
        await client.publish("lamp", 1, measured_at=ahead)
        [event] = await got(events, 1)
        assert (event.measured_at_utc, event.clock) == (ahead.isoformat(timespec="microseconds"), "off")
        twin = client.state["lamp"]
        assert (twin.measured_at_utc, twin.clock) == (event.measured_at_utc, "off")
    async with connect(server.url) as another:
        assert another.state["lamp"] == twin, "the same from a snapshot"


async def test_a_watch_begins_with_the_measured_times_of_the_state(server: Server) -> None:
    async with connect(server.url) as client:
        await client.publish("lamp", 1, measured_at=OLD)
        async for event in client.watch(initial=True):
            assert event.measured_at_utc == OLD
            break


def test_rest_says_and_reads_it(server: Server) -> None:
    with Rest(server.url) as rest:
        assert rest.publish("lamp", 1, measured_at=NEW)["measured_at_utc"] == NEW
        assert rest.publish("lamp", 0, measured_at=datetime.fromisoformat(OLD))["type"] == "late"
        rest.publish_all([("door", 1, OLD), ("door", 2), ("door", 3, None)])
        assert dict(rest.twins())["lamp"].measured_at_utc == rest.data()["data"]["lamp"]["measured_at_utc"] == NEW
        for at in NAIVE:
            with pytest.raises(BadTime):
                rest.publish("lamp", 1, measured_at=at)
        with pytest.raises(BadTime, match=r"^reading 2: `measured_at` needs a zone"):
            rest.publish_all([("door", 1), ("door", 1, NAIVE[0])])
    assert [entry.get("measured_at_utc") for entry in server.log()] == [NEW, OLD, OLD, None, None]


def test_the_same_without_asyncio(server: Server) -> None:
    with connect_sync(server.url) as client:
        client.publish("lamp", 1, measured_at=OLD)
        client.publish_many([("lamp", 2, NEW), ("lamp", 3)])
        with pytest.raises(BadTime):
            client.publish("lamp", 1, measured_at=NAIVE[0])
    assert [entry.get("measured_at_utc") for entry in server.log()] == [OLD, NEW, None]


async def test_the_same_inside_an_application() -> None:
    app = Twincast("memory:")
    async with app.running():
        kinds = ["late", "data_update"]
        async with app.watch(mode="every", kinds=kinds) as events:
            await app.publish("lamp", "new", measured_at=datetime.fromisoformat(NEW))
            await app.publish("lamp", "old", measured_at=OLD)
            assert isinstance(app.state["lamp"], Twin) and app.state["lamp"].measured_at_utc == NEW
            for at in NAIVE:
                with pytest.raises(BadTime):
                    await app.publish("lamp", 1, measured_at=at)
            seen = []
            async with asyncio.timeout(10):
                async for event in events:
                    seen.append((event.kind, event.value, event.measured_at_utc))
                    if len(seen) == 2:
                        break
    assert seen == [("data_update", "new", NEW), ("late", "old", OLD)]


@pytest.mark.parametrize("reading", [("lamp",), ("lamp", 1, OLD, 2), "ab"])
async def test_a_reading_of_many_has_two_parts_or_three(server: Server, reading: Any) -> None:
    async with connect(server.url) as client:
        with pytest.raises(ValidationFailed, match="a reading is a device and a value"):
            await client.publish_many([reading])
