"""NATS's subjects for as long as a hub is open: a connection of their own, and what serves them over it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from twincast.core.peers import NOTHING_SENT
from twincast.errors import TwincastError
from twincast.transports.nats import Link
from twincast.transports.nats.bridge import Bridge
from twincast.transports.parts import Parts

AGAIN_S = 1.0
"""After so long a connection that could not be made is tried again."""

logger = logging.getLogger("twincast.nats")


class OwnLink(Link, Protocol):
    """A connection that is closed here."""

    async def close(self) -> None:
        """Send what waits, and close it."""


class Servers(Protocol):
    """The servers on the log, this one among them."""

    sent_here: Callable[[], int]
    """Returns up to which position this server has sent; the others are told."""

    @property
    def is_first(self) -> bool:
        """Whether this server does what one does for all."""

    @property
    def sent(self) -> int:
        """Up to which position any of them has sent, also one that is gone."""


async def serve(
    parts: Parts, connect: Callable[[], Awaitable[OwnLink]], servers: Servers, *, name: str, key_name: str
) -> None:
    """Serve the subjects of a log, until cancelled; a server that cannot connect tries again.

    Args:
        parts: have the hub and the entrance; the counters are put there.
        connect: makes the connection.
        servers: the servers on the log.
        name: of the log.
        key_name: as which API key all of it acts.
    """
    link = await _connected(connect)
    bridge = Bridge(
        link,
        parts.hub,
        parts.admission,
        name=name,
        key_name=key_name,
        is_first=lambda: servers.is_first,
        sent=lambda: servers.sent,
    )
    parts.nats, servers.sent_here = bridge.counters, lambda: bridge.sent_seq
    try:
        await bridge.run()
    finally:
        parts.nats, servers.sent_here = None, _nothing_sent
        await link.close()


async def _connected(connect: Callable[[], Awaitable[OwnLink]]) -> OwnLink:
    said = ""
    while True:
        try:
            return await connect()
        except TwincastError as error:
            if said != (said := error.message):
                logger.warning("NATS's subjects are not served yet: %s", error)
        await asyncio.sleep(AGAIN_S)


def _nothing_sent() -> int:
    return NOTHING_SENT
