"""Many watches and patterns on one connection."""

import pytest

from tests.client.collecting import collecting, got
from twincast.client import connect
from twincast.errors import (
    ValidationFailed,
)
from twincast.testing import Server

pytestmark = pytest.mark.usefixtures("impatient")


async def test_so_many_patterns_that_no_address_holds_them_are_followed_all_the_same(server: Server) -> None:
    names = [f"device/with/a/long/name/{number}" for number in range(200)]
    async with connect(server.url, devices=names) as client, collecting(client, "x") as events:
        await client.publish_many([(names[150], 1), ("x", 2), ("other", 3)])
        await got(events, 1)
        assert [event.value for event in events] == [2]
        assert list(client.state) == [names[150]]


async def test_more_patterns_than_a_subscription_takes_are_refused_to_their_watch_alone(server: Server) -> None:
    nearly_all = [f"device/{number}" for number in range(900)]
    async with connect(server.url, devices=()) as client, client.watch(*nearly_all, mode="every"):
        with pytest.raises(ValidationFailed, match="1000 patterns"):
            await client.watch(*(f"other/{number}" for number in range(200))).__aenter__()
        async with collecting(client, "lamp") as events:
            await client.publish("lamp", 1)
            await got(events, 1)
