"""Servers' journals on one log, for the tests of it."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from twincast.journal.stores import Stores, open_stores
from twincast.testing import Nats

_names = itertools.count(1)
OpenStores = Callable[[str], Awaitable[Stores]]


@pytest.fixture
def log_name() -> str:
    """The name of a log that is new."""
    return f"log{next(_names)}"


@pytest.fixture
async def opened(nats: Nats, log_name: str, tmp_path: Path) -> AsyncIterator[OpenStores]:
    """Open what a server of a name has on the log; what is open in the end is closed."""
    stores: list[Stores] = []

    async def open_one(server: str) -> Stores:
        url = nats.url(log_name, copy=str(tmp_path / f"{server}.db"), **{"as": server})
        stores.append(await open_stores(url, memory_max_bytes=0))
        return stores[-1]

    yield open_one
    for each in stores:
        if not each.journal._is_closing:  # type: ignore[attr-defined]
            await each.close()
