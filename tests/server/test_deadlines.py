"""Times that run out, and times that are stopped before."""

import asyncio

from twincast.server.deadlines import Deadline, Deadlines


async def test_what_is_late_is_told_once_and_may_begin_anew() -> None:
    late = asyncio.Queue[None]()
    deadline = Deadline(asyncio.get_running_loop(), 0.01, lambda: late.put_nowait(None))
    for _ in range(2):
        deadline.start()
        assert deadline.is_running
        await asyncio.wait_for(late.get(), 10)
        assert not deadline.is_running
    assert late.empty()


async def test_beginning_again_gives_no_more_time() -> None:
    loop, late = asyncio.get_running_loop(), asyncio.Event()
    deadline = Deadline(loop, 0.2, late.set)
    deadline.start()
    began_s = loop.time()
    while not late.is_set():
        deadline.start()
        await asyncio.sleep(0.01)
        assert loop.time() < began_s + 10


async def test_what_is_stopped_is_not_late() -> None:
    loop, late, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    four = [Deadline(loop, 0.01, late.set) for _ in range(4)]
    deadlines = Deadlines(head=four[0], body=four[1], write=four[2], idle=four[3])
    for each in four:
        each.start()
    deadlines.cancel()
    assert not any(each.is_running for each in four)
    deadlines.cancel()
    loop.call_later(0.05, over.set)
    await asyncio.wait_for(over.wait(), 10)
    assert not late.is_set()
