"""Servers on one log, as far as they tell each other something beside it: without a log, over a real NATS server."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from tests.access.entrance import Entrance
from tests.running import eventually_async
from twincast.cluster.engine import Engine
from twincast.cluster.membership import Membership, Self, Standing
from twincast.core.checks import Checks
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link


class Apart:
    """One server: its entrance, its sums of the log, and what it says of itself."""

    def __init__(self, link: Link, name: str, settings: str = "same", **bounds: Any) -> None:
        self.link = link
        self.entrance = Entrance(**bounds)
        self.admission = self.entrance.admission
        self.checks = Checks()
        self.standing = Standing(
            epoch="log-1", seq=0, stream_seq=0, stored_stream_seq=0, silent_s=0.0, clients=0, is_ready=True
        )
        own = Self(id=f"id{name}", name=name, version="1", fold=1, since_utc=f"2026-11-27T{name}", settings=settings)
        self.membership = Membership(
            link, "lab", own, lambda: self.standing, admission=self.admission, checks=self.checks
        )
        self.peers = self.membership.peers
        self._running = asyncio.create_task(self.membership.run())

    @property
    def seen(self) -> list[str]:
        """The names of the servers that this one sees."""
        return [member.heartbeat.name for member in self.membership.members()]

    async def end(self) -> None:
        """End as if killed: without a word."""
        self._running.cancel()
        await asyncio.wait([self._running])


@asynccontextmanager
async def apart(engine: Engine, *names: str, **how: Any) -> AsyncIterator[list[Apart]]:
    """Run servers, each with a connection of its own."""
    address = NatsAddress.parse(f"{engine.url}/lab")
    servers = [Apart(await Link.connect(address), name, **how) for name in names]
    try:
        yield servers
    finally:
        for server in servers:
            await server.end()
            await server.link.close()


async def see(servers: Iterable[Apart], *names: str) -> None:
    """Wait until each of some servers sees these, in order, and no others."""
    for server in servers:
        await eventually_async(partial(_sees, server, [*names]), f"{names} are seen")


def _sees(server: Apart, names: list[str]) -> bool:
    return server.seen == names
