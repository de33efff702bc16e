"""One who sends the servers' commits again, as a network that repeats would, without what NATS knows copies by."""

import asyncio
import random

from tests.cluster_soak.machines import LOG
from twincast.errors import JournalUnavailable
from twincast.journal.jetstream.address import NatsAddress
from twincast.journal.jetstream.link import Link, Message
from twincast.testing import Nats

COPIED = "Soak-Copied"
LATE_MAX_S = 0.05


class Copier:
    """Copies a share of all commits, each once, some of them late."""

    def __init__(self, nats: Nats, share: float, seed: str) -> None:
        self._address = NatsAddress.parse(nats.url(LOG))
        self._share = share
        self._random = random.Random(seed)
        self.copies = 0
        """How many were sent."""

    async def run(self) -> None:
        """Copy, until cancelled."""
        link = await Link.connect(self._address)

        async def copy(message: Message) -> None:
            if COPIED in (message.headers or {}) or self._random.random() >= self._share:
                return
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.uniform(0, LATE_MAX_S))
            try:
                await link.publish(self._address.log_subject, message.data, headers={COPIED: "1"})
            except JournalUnavailable:
                return
            self.copies += 1

        try:
            await link.subscribe(self._address.log_subject, copy)
            await asyncio.Event().wait()
        finally:
            await link.close()
