import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from twincast.errors import Stopping
from twincast.journal.sqlite.history.turns import Steps, Turns


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    turns = Turns("test")
    yield turns
    await turns.close()


class Held:
    """Work whose first block waits until it may go on."""

    def __init__(self, done: list[str], name: str, blocks: int) -> None:
        self.done, self.name, self.blocks = done, name, blocks
        self.begun, self.may_go_on, self.ended = asyncio.Event(), threading.Event(), asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def steps(self) -> Steps[str]:
        try:
            self.loop.call_soon_threadsafe(self.begun.set)
            self.may_go_on.wait()
            for _ in range(self.blocks):
                self.done.append(self.name)
                yield
            return self.name
        finally:
            self.loop.call_soon_threadsafe(self.ended.set)


def blocks(done: list[str], name: str, count: int) -> Steps[str]:
    for _ in range(count):
        done.append(name)
        yield
    return name


async def test_what_has_taken_little_time_goes_before_what_has_taken_much(turns: Turns) -> None:
    done: list[str] = []
    held = Held(done, "long", 3)
    long = asyncio.create_task(turns.do(held.steps()))
    await held.begun.wait()
    short = asyncio.create_task(turns.do(blocks(done, "short", 1)))
    await asyncio.sleep(0)  # it stands in the queue now
    held.may_go_on.set()
    assert [await long, await short] == ["long", "short"]
    assert done == ["long", "short", "long", "long"]


async def test_a_long_one_has_a_turn_however_many_short_ones_come(turns: Turns) -> None:
    done: list[str] = []
    held = Held(done, "long", 2)
    long = asyncio.create_task(turns.do(held.steps()))
    await held.begun.wait()
    short = [asyncio.create_task(turns.do(blocks(done, "short", 1))) for _ in range(100)]
    await asyncio.sleep(0)
    held.may_go_on.set()
    await asyncio.gather(long, *short)
    assert done.index("long", 1) < 20


async def test_work_that_nobody_waits_for_any_more_ends_after_its_block(turns: Turns) -> None:
    done: list[str] = []
    held = Held(done, "given up", 1_000_000)
    task = asyncio.create_task(turns.do(held.steps()))
    await held.begun.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    held.may_go_on.set()
    assert await turns.do(blocks(done, "next", 1)) == "next"
    await held.ended.wait()
    assert done.count("given up") <= 2


async def test_an_error_comes_to_whoever_asked_and_to_nobody_else(turns: Turns) -> None:
    def failing() -> Steps[None]:
        yield
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await turns.do(failing())
    assert await turns.do(blocks([], "next", 2)) == "next"


async def test_closing_ends_what_is_under_way_and_makes_the_last_call() -> None:
    turns, last = Turns("test"), threading.Event()
    done: list[str] = []
    held = Held(done, "open", 1_000_000)
    task = asyncio.create_task(turns.do(held.steps()))
    await held.begun.wait()
    closing = asyncio.create_task(turns.close(last.set))
    await asyncio.sleep(0)
    held.may_go_on.set()
    await closing
    with pytest.raises(Stopping):
        await task
    with pytest.raises(Stopping):
        await turns.do(blocks(done, "late", 1))
    assert last.is_set()
    await held.ended.wait()


async def test_idle_work_is_done_in_blocks_until_nothing_is_left(turns: Turns) -> None:
    left, told = [3], []
    is_done, loop = asyncio.Event(), asyncio.get_running_loop()

    def work(is_busy: bool) -> float:
        told.append(is_busy)
        left[0] -= 1
        if not left[0]:
            loop.call_soon_threadsafe(is_done.set)
        return float(left[0] > 0)

    turns.when_idle(work)
    turns.wake()
    await is_done.wait()
    assert told == [False, False, False]


async def test_idle_work_that_fails_ends_no_thread(turns: Turns, caplog: pytest.LogCaptureFixture) -> None:
    def work(is_busy: bool) -> float:
        raise OSError("the disk is full")

    turns.when_idle(work)
    turns.wake()
    while "the disk is full" not in caplog.text:
        await turns.do(blocks([], "next", 1))
    assert await turns.do(blocks([], "next", 1)) == "next"
