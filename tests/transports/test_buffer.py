"""The buffer in front of a `send` that waits."""

import asyncio

from twincast.delivery.cast import Cast
from twincast.transports.buffer import Buffer, Idle


class Flow:
    """Notes when it is held back."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")


async def test_a_full_buffer_pauses_the_flow_and_a_drained_one_resumes_it() -> None:
    buffer, flow, gate = Buffer(100), Flow(), asyncio.Semaphore(0)
    buffer.flow = flow
    sent: list[bytes] = []

    async def send(cast: Cast) -> None:
        await gate.acquire()
        sent.extend(cast.messages)

    for number in range(5):
        buffer.write(Cast([b"%d" % number * 30]))
    assert flow.said == ["pause"] * 2
    draining = asyncio.create_task(buffer.drain_to(send))
    buffer.end()
    for _ in range(5):
        gate.release()
    await asyncio.wait_for(draining, 10)
    assert flow.said[2:] == ["resume"]
    assert [message[:1] for message in sent] == [b"0", b"1", b"2", b"3", b"4"]


async def test_while_nothing_comes_the_idle_call_is_made_again_and_again() -> None:
    buffer, beats = Buffer(100), 0
    buffer.flow = Flow()

    async def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            buffer.write(Cast([b"x"]))
            buffer.end()

    async def send(_cast: Cast) -> None:
        assert beats == 3

    await asyncio.wait_for(buffer.drain_to(send, idle=Idle(0.01, beat)), 10)
