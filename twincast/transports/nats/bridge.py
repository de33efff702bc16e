"""The server that acts for all on NATS's subjects: one of those on a log takes what comes, and sends what goes out."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from twincast.access.admission import Admission
from twincast.access.request import Caller
from twincast.core.peers import NOTHING_SENT
from twincast.core.rights import Principal
from twincast.errors import JournalUnavailable, TwincastError
from twincast.hub.hub import Hub
from twincast.transports.nats import Counters, Link, Subscription
from twincast.transports.nats.incoming import ADDRESS, Incoming
from twincast.transports.nats.outgoing import Outgoing
from twincast.transports.nats.outlet import Outlet

QUEUE = "twincast"
"""The queue group of all servers on a log: of two that both take themselves for the first, one gets each message."""
LOOK_S = 0.1
"""How often it is asked which server is the first, and whether the key is good: both change with the time, too."""
DRAIN_S = 2.0
"""How long a server that is no longer the first waits for what NATS has sent it already."""

logger = logging.getLogger("twincast.nats")


class Bridge:
    """Serves the subjects of one log while this server is the first of those that live. `run` drives it.

    | | is first | key is good | NATS is there |
    |---|---|---|---|
    | takes what comes in | yes | or refuses it with the problem | yes |
    | sends what goes out | yes | and may read | yes |
    """

    def __init__(
        self,
        link: Link,
        hub: Hub,
        admission: Admission,
        *,
        name: str,
        key_name: str,
        is_first: Callable[[], bool],
        sent: Callable[[], int],
        look_s: float = LOOK_S,
    ) -> None:
        """Serve nothing yet.

        Args:
            link: a connection of its own.
            hub: what is followed, and where what comes in is submitted.
            admission: knows the key.
            name: of the log, which stands in all subjects.
            key_name: as which API key all of it acts.
            is_first: whether this server acts for all.
            sent: returns the newest `sent_seq` that any server has told of, also one that is gone.
            look_s: how often these are asked.
        """
        self._link = link
        self._hub = hub
        self._admission = admission
        self._prefix = f"twincast.{name}"
        self._key_name = key_name
        self._is_first = is_first
        self._sent = sent
        self._look_s = look_s
        self._refused = ""  # why nothing goes out, as it was last said
        self.counters = Counters()
        """What is counted."""
        self._outlet = Outlet(link)
        self._incoming = Incoming(hub, admission, self._outlet, key_name, self.counters)
        self._outgoing = Outgoing(hub, link, self._outlet, self._prefix, self.counters)

    @property
    def sent_seq(self) -> int:
        """Up to which position NATS has everything for certain: where the next server is to go on; or NOTHING_SENT."""
        return self._outgoing.seq

    async def run(self) -> None:
        """Serve, until cancelled; then end in order: what NATS has sent already is submitted."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outlet.run(), name="nats confirms")
            group.create_task(self._take_in(), name="nats in")
            group.create_task(self._send_out(), name="nats out")

    @property
    def _acts(self) -> bool:
        return self._link.is_connected and self._is_first()

    async def _take_in(self) -> None:
        while True:
            await self._until(lambda: self._acts)
            try:
                async with self._subscribed():
                    await self._until(lambda: not self._is_first())  # a connection that comes back subscribes by itself
            except JournalUnavailable as error:
                logger.warning("nothing is taken from NATS for now: %s", error)
                await asyncio.sleep(self._look_s)

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[None]:
        subscriptions: list[Subscription] = []
        try:
            for word, take in (("publish", self._incoming.take_reading), ("command", self._incoming.take_command)):
                prefix = f"{self._prefix}.{word}"
                subscriptions.append(await self._link.subscribe(f"{prefix}.>", partial(take, prefix), queue=QUEUE))
            logger.info("this server takes what comes by NATS on %s", self._prefix)
            yield
        finally:
            for subscription in subscriptions:
                await _drain(subscription)

    async def _send_out(self) -> None:
        while True:
            await self._until(lambda: self._acts and self._hub.state.seq >= self._since())
            try:
                await self._send_as(self._admission.authenticator.of_key(self._key_name))
                self._refused = ""
            except TwincastError as error:
                if not isinstance(error, JournalUnavailable):
                    self._outgoing.owe_nothing()
                if self._refused != error.message:
                    self._refused = error.message
                    logger.warning("nothing goes out to NATS: %s", error)
                await asyncio.sleep(self._look_s)

    async def _send_as(self, principal: Principal) -> None:
        """Send what a key may read, for as long as this server is the first.

        Raises:
            TwincastError: the key is not good, or may read nothing; or see `Outgoing.run`.
        """
        principal.require_at_all("read")
        lease = self._admission.admit(Caller(principal, ADDRESS), self._outgoing.cut_off)
        running = asyncio.create_task(self._outgoing.run(principal.readable, self._since()), name="nats sends")
        ending = asyncio.create_task(self._until(lambda: not self._acts), name="nats looks")
        both = (running, ending)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lease.release()
            for task in both:
                task.cancel()
            outcome, _ = await asyncio.gather(*both, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    def _since(self) -> int:
        """Return behind which position to go on: what any server has sent; the newest one if none has."""
        known = max(self._outgoing.seq, self._sent())
        return self._hub.state.seq if known == NOTHING_SENT else known

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  # nothing tells of it: see LOOK_S
            await asyncio.sleep(self._look_s)


async def _drain(subscription: Subscription) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await subscription.drain()
    except Exception as error:  # of the connection, which ends all subscriptions when it is gone
        logger.info("a subscription of NATS did not end in order: %r", error)
