"""A bell wakes what waits for its next ring, and nothing else."""

import asyncio

import pytest

from twincast.journal.bell import Bell


async def test_a_ring_wakes_all_that_wait() -> None:
    bell = Bell()
    waiting = [bell.next_ring() for _ in range(3)]
    assert not any(ring.done() for ring in waiting)
    bell.ring()
    await asyncio.gather(*waiting)


async def test_a_ring_is_not_kept_for_what_waits_later() -> None:
    bell = Bell()
    bell.ring()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bell.next_ring(), 0.01)


async def test_what_gave_up_is_passed_over() -> None:
    bell = Bell()
    gave_up, waits = bell.next_ring(), bell.next_ring()
    gave_up.cancel()
    bell.ring()
    await waits
