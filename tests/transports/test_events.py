"""Event streams and long polls, for clients that do not take what they asked for."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tests.credentials import NOW_UTC
from twincast.access.admission import Admission
from twincast.access.authenticator import Authenticator
from twincast.access.keys import make_key
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.access.request import Caller
from twincast.core.keys import Keyring
from twincast.core.model import DataUpdate, Snapshot
from twincast.core.rights import ANYONE, Rights
from twincast.core.state import State
from twincast.delivery.session import Limits
from twincast.hub.hub import Hub
from twincast.journal.memory import MemoryAccessStore, MemoryJournal
from twincast.testing import eventually_async
from twincast.transports import events
from twincast.transports.events import EventsEndpoint
from twincast.transports.operation import Call
from twincast.transports.parts import PORTABLE, EdgeInUse, Parts, RequestLimits

CALLER = Caller(ANYONE, "127.0.0.1")
LONG_S = 60.0


class StallingClient:
    """A client that takes some events of its response, and no more until it reads on."""

    def __init__(self, takes: int) -> None:
        self.taken: list[MutableMapping[str, Any]] = []
        self._room = asyncio.Semaphore(takes)
        self._is_waited_for = asyncio.Event()

    async def send(self, event: MutableMapping[str, Any]) -> None:
        if self._room.locked():
            self._is_waited_for.set()
        await self._room.acquire()
        self.taken.append(event)

    async def receive(self) -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def stalls(self) -> None:
        await asyncio.wait_for(self._is_waited_for.wait(), LONG_S)

    def read_on(self) -> None:
        for _ in range(1_000):
            self._room.release()

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.taken)


class Place:
    """A hub with an entrance that asks for no login, until it is closed to all who came without one."""

    def __init__(self) -> None:
        self.journal = MemoryJournal(max_bytes=1 << 30)
        self.hub = Hub(self.journal, State(Snapshot(self.journal.lineage.epoch, 0, {})), open_batch_max_bytes=1 << 30)
        self.admission = Admission(OriginPolicy(), Authenticator(), Bounds())

    def endpoint(self, close_timeout_s: float = LONG_S) -> EventsEndpoint:
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
        )
        parts.open(self.hub, MemoryAccessStore(self.journal.trail))
        return EventsEndpoint(parts)

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


def stream(endpoint: EventsEndpoint, client: StallingClient) -> asyncio.Task[None]:
    scope = {"type": "http", "query_string": b"", "method": "GET", "headers": [], "caller": CALLER}
    return asyncio.create_task(endpoint.stream(scope, client.receive, client.send))


async def test_a_client_that_is_cut_off_before_its_stream_begins_is_not_greeted(place: Place) -> None:
    await place.publish(b'"secret"')
    client = StallingClient(0)
    serving = stream(place.endpoint(), client)
    await client.stalls()
    place.cut_all_off()
    assert len(place.admission.leases) == 0
    client.read_on()
    await asyncio.wait_for(serving, LONG_S)
    assert b"secret" not in client.body and b"hello" not in client.body
    assert client.taken[0]["status"] == 200
    assert client.taken[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("takes", [1, 2])  # the head; the head and how long to wait before the next time
async def test_a_client_that_does_not_take_its_end_is_left(place: Place, takes: int) -> None:
    await place.publish(b"1")
    client = StallingClient(takes)
    serving = stream(place.endpoint(0.01), client)
    await client.stalls()
    assert len(place.admission.leases) == 1
    place.cut_all_off()
    assert len(place.admission.leases) == 0
    await asyncio.wait_for(serving, LONG_S)
    assert len(client.taken) == takes


async def test_a_client_that_is_cut_off_may_take_what_waits_for_it(place: Place) -> None:
    await place.publish(b"1")
    client = StallingClient(2)
    serving = stream(place.endpoint(), client)
    await client.stalls()
    place.cut_all_off()
    client.read_on()
    await asyncio.wait_for(serving, LONG_S)
    assert client.body.count(b"data: ") == 1
    assert client.taken[-1]["more_body"] is False


async def test_a_stream_that_goes_on_has_no_deadline(place: Place) -> None:
    client = StallingClient(3)
    serving = stream(place.endpoint(0.01), client)
    await eventually_async(lambda: len(client.taken) == 3, "the client is greeted")
    await place.publish(b"1")
    await client.stalls()
    await asyncio.sleep(0.05)  # several times the deadline
    assert not serving.done()
    client.read_on()
    await eventually_async(lambda: b"data_update" in client.body, "the change comes")
    serving.cancel()
    await asyncio.wait([serving])


async def poll(place: Place, since: int, limit: int = 10_000) -> Any:
    query = f"since={place.hub.state.epoch}:{since}&limit={limit}"
    answer = await place.endpoint().poll(Call(CALLER, query, "", None, b""))
    return msgspec.json.decode(answer.body)


@pytest.mark.parametrize(("size_bytes", "count"), [(200_000, 30), (3_000_000, 3), (1_000, 2_500)])
async def test_a_poll_holds_about_a_mebibyte_and_says_that_there_is_more(
    place: Place, size_bytes: int, count: int
) -> None:
    for _ in range(count):
        await place.publish(b'"%b"' % (b"x" * size_bytes))
    seen: list[int] = []
    more, answers = True, 0
    while more:
        answer = await poll(place, len(seen))
        held_bytes = sum(len(event["value"]) for event in answer["events"])
        assert held_bytes <= events.POLL_MAX_BYTES + 256 * 1024 + size_bytes
        seen += [event["seq"] for event in answer["events"]]
        more, answers = answer["more"], answers + 1
        assert answer["seq"] == seen[-1]
    assert seen == list(range(1, count + 1))
    assert answers <= 1 + count * size_bytes / events.POLL_MAX_BYTES


async def test_a_poll_says_that_there_is_more_behind_its_limit(place: Place) -> None:
    await place.publish(*[b"1"] * 5)
    assert [(len(answer["events"]), answer["more"]) for answer in [await poll(place, n, 2) for n in (0, 2, 3, 4)]] == [
        (2, True),
        (2, True),
        (2, False),
        (1, False),
    ]
