"""When a connection is read, and when writers wait."""

import asyncio

from tests.server.transport import RecordingTransport
from twincast.server.flow import Flow


def test_a_connection_is_paused_and_resumed_once() -> None:
    transport = RecordingTransport()
    flow = Flow(transport)
    for step in (flow.resume_reading, flow.pause_reading, flow.pause_reading, flow.resume_reading, flow.resume_reading):
        step()
    assert transport.reading == ["pause", "resume"]


async def test_writers_wait_until_they_may_go_on() -> None:
    flow = Flow(RecordingTransport())
    await flow.drain()
    for _ in range(2):
        flow.pause_writing()
        assert flow.is_writing_paused
        waiting = [asyncio.create_task(flow.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        flow.resume_writing()
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert not flow.is_writing_paused
