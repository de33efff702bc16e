"""Collects what a watch yields."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.running import eventually_async
from twincast.client import Client, Event


@contextlib.asynccontextmanager
async def collecting(client: Client, *devices: str, **how: Any) -> AsyncIterator[list[Event]]:
    """Collect what a watch yields, from the moment at which it is live."""
    events: list[Event] = []

    async def collect() -> None:
        async for event in watch:
            events.append(event)

    async with client.watch(*devices, **how) as watch:
        task = asyncio.create_task(collect())
        yield events
        task.cancel()


async def got(events: list[Event], count: int) -> list[Event]:
    await eventually_async(lambda: len(events) >= count, f"{count} events come")
    return events
