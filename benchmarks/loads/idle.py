"""Idle connections: what each costs the server in memory."""

import asyncio

from benchmarks.loads.fanout import close_all, subscribe_all
from benchmarks.machine import ServerProcess
from benchmarks.peers import Streaming

SETTLE_S = 1.0


async def measure(system: Streaming, process: ServerProcess, port: int, *, connections: int) -> float:
    """Return how many bytes of its own the server needs for each connection that says nothing.

    Buffers of the kernel are not in it.
    """
    first = await subscribe_all(system, port, 50)  # what the first ones cost once is no cost of a connection
    await asyncio.sleep(SETTLE_S)
    before_bytes = process.memory_bytes
    idle = await subscribe_all(system, port, connections)
    await asyncio.sleep(SETTLE_S)
    after_bytes = process.memory_bytes
    close_all([*first, *idle])
    return (after_bytes - before_bytes) / connections
