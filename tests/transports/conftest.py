"""A hub with an entrance, for the endpoints of this room."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import Raw

from tests.credentials import NOW_UTC
from tests.fakes import LONG_S
from twincast.access.admission import Admission
from twincast.access.authenticator import Authenticator
from twincast.access.keys import make_key
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.core.keys import Keyring
from twincast.core.model import DataUpdate, Snapshot
from twincast.core.rights import Rights
from twincast.core.state import State
from twincast.delivery.session import Limits
from twincast.hub.hub import Hub
from twincast.journal.memory import MemoryAccessStore, MemoryJournal
from twincast.transports.parts import PORTABLE, EdgeInUse, Parts, RequestLimits


class Place:
    """A hub with an entrance that needs no login, until `cut_all_off` adds a key."""

    def __init__(self, journal_max_bytes: int = 1 << 30) -> None:
        self.journal = MemoryJournal(max_bytes=journal_max_bytes)
        self.hub = Hub(self.journal, State(Snapshot(self.journal.lineage.epoch, 0, {})), open_batch_max_bytes=1 << 30)
        self.admission = Admission(OriginPolicy(), Authenticator(), Bounds())

    def parts(self, close_timeout_s: float = LONG_S) -> Parts:
        parts = Parts(
            admission=self.admission,
            limits=Limits(
                message_max_bytes=1 << 16,
                outbox_max_bytes=1 << 20,
                handshake_timeout_s=5.0,
                ping_interval_s=20.0,
                pong_timeout_s=10.0,
                close_timeout_s=close_timeout_s,
            ),
            request_limits=RequestLimits(body_max_bytes=1 << 20, updates_max=10_000),
            edge=EdgeInUse(PORTABLE),
            version="0",
            journal="memory:",
        )
        parts.open(self.hub, MemoryAccessStore(self.journal.trail))
        return parts

    async def publish(self, *values: bytes) -> None:
        entries = [DataUpdate("lamp", Raw(value), "", "rest") for value in values]
        stored = asyncio.Event()
        self.hub.submit_all(entries, 1, lambda _error, _seq: stored.set())
        await asyncio.wait_for(stored.wait(), LONG_S)

    def cut_all_off(self) -> None:
        key, _ = make_key("a", Rights.of({"read": ["*"]}), now_utc=NOW_UTC, rate_per_s=None, expires_s=None)
        self.admission.learn(Keyring(1, (key,)))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    driving = asyncio.create_task(place.hub.run())
    yield place
    driving.cancel()
    await asyncio.wait([driving])
