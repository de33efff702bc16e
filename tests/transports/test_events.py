"""Event streams, for clients that do not take what they asked for."""

import asyncio

import pytest

from tests.fakes import LONG_S, StallingClient
from tests.running import eventually_async
from tests.transports.conftest import Place
from twincast.access.request import Caller
from twincast.core.rights import ANYONE
from twincast.transports.events import EventStreams

CALLER = Caller(ANYONE, "127.0.0.1")


def stream(endpoint: EventStreams, client: StallingClient) -> asyncio.Task[None]:
    scope = {"type": "http", "query_string": b"", "method": "GET", "headers": [], "caller": CALLER}
    return asyncio.create_task(endpoint.stream(scope, client.receive, client.send))


async def test_a_client_that_is_cut_off_before_its_stream_begins_is_not_greeted(place: Place) -> None:
    await place.publish(b'"secret"')
    client = StallingClient(0)
    serving = stream(EventStreams(place.parts()), client)
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
    serving = stream(EventStreams(place.parts(0.01)), client)
    await client.stalls()
    assert len(place.admission.leases) == 1
    place.cut_all_off()
    assert len(place.admission.leases) == 0
    await asyncio.wait_for(serving, LONG_S)
    assert len(client.taken) == takes


async def test_a_client_that_is_cut_off_may_take_what_waits_for_it(place: Place) -> None:
    await place.publish(b"1")
    client = StallingClient(2)
    serving = stream(EventStreams(place.parts()), client)
    await client.stalls()
    place.cut_all_off()
    client.read_on()
    await asyncio.wait_for(serving, LONG_S)
    assert client.body.count(b"data: ") == 1
    assert client.taken[-1]["more_body"] is False


async def test_a_stream_that_goes_on_has_no_deadline(place: Place) -> None:
    client = StallingClient(3)
    serving = stream(EventStreams(place.parts(0.01)), client)
    await eventually_async(lambda: len(client.taken) == 3, "the client is greeted")
    await place.publish(b"1")
    await client.stalls()
    await asyncio.sleep(0.05)  # several times the deadline
    assert not serving.done()
    client.read_on()
    await eventually_async(lambda: b"data_update" in client.body, "the change comes")
    serving.cancel()
    await asyncio.wait([serving])
