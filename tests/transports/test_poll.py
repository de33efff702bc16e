"""Long polls: how much one answer holds, and whether there is more."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.running import eventually_async
from tests.transports.conftest import Place
from twincast.access.request import Caller
from twincast.core.rights import ANYONE
from twincast.errors import NotYet
from twincast.transports import poll as module
from twincast.transports.events import EventStreams
from twincast.transports.operation import Call

CALLER = Caller(ANYONE, "127.0.0.1")


async def poll(place: Place, since: int, limit: int = 10_000) -> Any:
    query = f"since={place.hub.state.epoch}:{since}&limit={limit}"
    parts = place.parts()
    streams = EventStreams(parts)
    (operation,) = module.operations(parts, stream=streams.stream, identify=streams.ticket_holder)
    answer = await operation.run(Call(CALLER, query, "", None, b""))
    assert isinstance(answer.body, bytes)
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
        assert held_bytes <= module.POLL_MAX_BYTES + 256 * 1024 + size_bytes
        seen += [event["seq"] for event in answer["events"]]
        more, answers = answer["more"], answers + 1
        assert answer["seq"] == seen[-1]
    assert seen == list(range(1, count + 1))
    assert answers <= 1 + count * size_bytes / module.POLL_MAX_BYTES


async def test_a_poll_says_that_there_is_more_behind_its_limit(place: Place) -> None:
    await place.publish(*[b"1"] * 5)
    assert [(len(answer["events"]), answer["more"]) for answer in [await poll(place, n, 2) for n in (0, 2, 3, 4)]] == [
        (2, True),
        (2, True),
        (2, False),
        (1, False),
    ]


async def test_a_poll_waits_for_a_position_that_another_server_on_the_same_log_gave_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await poll(place, 1))["reason"] == "ahead"
    place.hub._is_shared = True
    polling = asyncio.create_task(poll(place, 1))
    await eventually_async(lambda: len(place.hub._awaited) == 1, "it waits")
    await place.publish(b"1")
    answer = await polling
    assert (answer["resumed"], answer["seq"], answer["events"]) == (True, 1, [])
    monkeypatch.setattr("twincast.hub.hub.COME_S", 0.01)
    with pytest.raises(NotYet):
        await poll(place, 9)
