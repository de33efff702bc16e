"""How a server that stops has its clients go to the other servers on its log: one after another, not all at once.

Clients that come back all in the same moment cost the other servers a state each, and a handshake. So the ends are
spread: a client that is told to come back by close code 1012 has its cursor, and misses nothing wherever it comes.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

SPREAD_MAX_S = 3.0
"""Over how long the ends are spread at most."""
SPREAD_OF_TIMEOUT = 0.5
"""And how much of the time that the server has for its end; the rest is for what is under way."""
CLIENT_S = 0.01
"""How much time each client adds: a few go at once."""
STEP_S = 0.02


def spread_s(clients: int, timeout_s: float) -> float:
    """Return over how long some clients are spread, by a server that has so long to stop."""
    return min(SPREAD_MAX_S, SPREAD_OF_TIMEOUT * timeout_s, clients * CLIENT_S)


async def end_spread(ends: Sequence[Callable[[], object]], over_s: float, is_hurried: Callable[[], bool]) -> None:
    """Call what ends each client, in any order, evenly over some time.

    Args:
        ends: each ends one client; one that has left meanwhile may be ended too.
        over_s: how long that takes.
        is_hurried: whether it should no longer take its time; asked after each step.
    """
    mixed = random.sample(ends, len(ends))
    steps = max(1, round(over_s / STEP_S))
    for step in range(steps):
        for end in mixed[len(mixed) * step // steps : len(mixed) * (step + 1) // steps]:
            end()
        if step + 1 < steps and not is_hurried():
            await asyncio.sleep(STEP_S)
