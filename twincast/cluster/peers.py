"""Heartbeats over NATS: this server tells the others of itself each second, and knows which of them live.

They are core NATS messages on `twincast.NAME.server.ID`, which nobody stores. A server that was not known is answered
at once, so that a new one knows the others within moments. While there is no connection nobody is heard, and this
server is the first of no list.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from twincast.core.peers import (
    FORGET_S,
    HEARTBEAT_MAX_BYTES,
    HEARTBEAT_S,
    Heartbeat,
    LiveList,
    decode_heartbeat,
    encode_heartbeat,
)
from twincast.errors import JournalUnavailable
from twincast.journal.jetstream.link import Link, Message, Take

logger = logging.getLogger("twincast.cluster")

SETTLE_S = 1.0
"""How long a server listens before it takes itself for the first: the others answer it within that time."""
SUBSCRIBE_AGAIN_S = 1.0
_MARGIN_BYTES = 1024


@asynccontextmanager
async def subscribed(link: Link, subject: str, take: Take) -> AsyncIterator[None]:
    """Have messages taken while the context lasts; nats-py subscribes again by itself when a connection comes back."""
    while True:
        try:
            subscription = await link.subscribe(subject, take)
            break
        except JournalUnavailable as error:
            logger.warning("other servers cannot be heard on %s: %s", subject, error)
            await asyncio.sleep(SUBSCRIBE_AGAIN_S)
    try:
        yield
    finally:
        if link.is_connected:
            await subscription.unsubscribe()


class Peers:
    """The servers on one log, as this one hears them. Lives on one event loop; `run` drives it."""

    def __init__(
        self,
        link: Link,
        log_name: str,
        own_id: str,
        tell: Callable[[], Heartbeat],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it; `run` starts it.

        Args:
            link: the connection; its owner closes it.
            log_name: of the shared log.
            own_id: of this run of this server.
            tell: returns what this server says of itself. Called once for each heartbeat.
            clock_s: a monotonic clock.
        """
        self.live = LiveList(own_id)
        self.own_id = own_id
        self.on_heard: list[Callable[[Heartbeat], None]] = []
        """Each is called with every heartbeat of another server."""
        self.on_gone: list[Callable[[str], None]] = []
        """Each is called with the id of a server that is heard no longer."""
        self._link = link
        self._subject = f"twincast.{log_name}.server"
        self._tell = tell
        self._clock_s = clock_s
        self._known: set[str] = set()
        self._settled_s = clock_s() + SETTLE_S
        self._told_s = clock_s()
        self._is_due = asyncio.Event()
        self._is_leaving = False

    @property
    def now_s(self) -> float:
        """The time by the clock of the list."""
        return self._clock_s()

    @property
    def is_first(self) -> bool:
        """Whether this server does what one server does for all. Nobody is sure of it while NATS cannot be reached."""
        now_s = self._clock_s()
        return self._link.is_connected and now_s >= self._settled_s and self.live.first(now_s) == self.own_id

    async def run(self) -> None:
        """Tell and listen, until cancelled."""
        async with subscribed(self._link, f"{self._subject}.*", self._take):
            self._link.on_connection.append(self._connection_changed)
            try:
                while True:
                    self._look()
                    await self._beat()
                    await self._due()
            finally:
                self._link.on_connection.remove(self._connection_changed)

    async def leave(self) -> None:
        """Tell the others that this server is about to stop: it is first of no list any more, and nobody counts it."""
        self._is_leaving = True
        await self._beat()

    async def _beat(self) -> None:
        own = self._tell()
        now_s = self._clock_s()
        if now_s - self._told_s >= FORGET_S:  # stopped, or without a connection: the others have dealt anew meanwhile
            self._settled_s = now_s + SETTLE_S
        self.live.learn(own, now_s)
        max_bytes = min(HEARTBEAT_MAX_BYTES, self._link.max_payload_bytes - _MARGIN_BYTES)
        try:
            await self._link.publish(f"{self._subject}.{self.own_id}", encode_heartbeat(own, max_bytes))
            self._told_s = now_s
        except JournalUnavailable as error:
            logger.debug("the other servers are not told: %s", error)

    async def _take(self, message: Message) -> None:
        heartbeat = decode_heartbeat(message.data)
        if heartbeat is None or message.subject != f"{self._subject}.{heartbeat.id}":
            logger.warning("what came on %s is no heartbeat of a twincast server", message.subject)
            return
        if heartbeat.id == self.own_id:
            return
        if self.live.learn(heartbeat, self._clock_s()) and not heartbeat.leaving:
            logger.info("server %s (%s) is there", heartbeat.name or heartbeat.id, heartbeat.id)
            self._is_due.set()
        self._known.add(heartbeat.id)
        for hear in self.on_heard:
            hear(heartbeat)

    async def _due(self) -> None:
        self._is_due.clear()
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._is_due.wait()
        except TimeoutError:
            return

    def _look(self) -> None:
        now_s = self._clock_s()
        for server_id in [each for each in self._known if not self.live.has(each, now_s)]:
            self._known.discard(server_id)
            logger.info("server %s is heard no longer", server_id)
            for forget in self.on_gone:
                forget(server_id)

    def _connection_changed(self, is_connected: bool) -> None:
        if is_connected:
            self._is_due.set()
