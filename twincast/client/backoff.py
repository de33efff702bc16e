"""When to come back: the waits between attempts, and how long one attempt may take."""

import random
from collections.abc import Callable

TIMEOUT_S = 10.0
FIRST_S, MAX_S = 0.5, 15.0
HELD_S = 10.0
"""A connection that held for less was no success: what drops it may drop the next one as soon."""


class Backoff:
    """Waits that are random parts of a bound which doubles ("full jitter"), so that a fleet does not return as one."""

    def __init__(self, max_s: float | None = None, *, part: Callable[[], float] = random.random) -> None:
        """Begin.

        Args:
            max_s: the bound at which it no longer doubles; MAX_S if None.
            part: what to take of the bound, from 0 to 1.
        """
        self._max_s = MAX_S if max_s is None else max_s
        self._part = part
        self._attempt = 0

    def wait_s(self, held_s: float | None = None) -> float:
        """Return how long to wait before the next attempt; `held_s` is for how long this one held, if it came to be."""
        if held_s is not None and held_s >= HELD_S:
            self._attempt = 0
        bound_s = min(self._max_s, FIRST_S * 2.0 ** min(self._attempt, 10))
        self._attempt += 1
        return self._part() * bound_s

    def begin_anew(self) -> None:
        """Note a success."""
        self._attempt = 0
