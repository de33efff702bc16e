"""One WebSocket connection."""

import asyncio

import pytest

from twincast.client import connect
from twincast.testing import Proxy

pytestmark = pytest.mark.usefixtures("impatient")


async def test_leaving_over_a_dead_network_takes_a_moment(proxy: Proxy) -> None:
    async def lease() -> None:
        async with connect(proxy.url, close_timeout_s=0.05) as client:
            await client.publish("lamp", 1)
            proxy.stall()

    await asyncio.wait_for(lease(), 8)  # the library alone waits for ten seconds
