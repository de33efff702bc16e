"""The back-off: how long to wait between attempts, and how long one attempt may take."""

import random
from collections.abc import Callable

TIMEOUT_S = 10.0
FIRST_S, MAX_S = 0.5, 15.0
HELD_S = 10.0
"""A connection that lasted less does not count as a success: its end may have a cause that ends the next one too."""


class Backoff:
    """Waits that are a random part of a bound that doubles ("full jitter"), so that a fleet does not return at once."""

    def __init__(self, max_s: float | None = None, *, part: Callable[[], float] = random.random) -> None:
        """Begin.

        Args:
            max_s: the bound at which it no longer doubles; MAX_S if None.
            part: returns which part of the bound to wait, from 0 to 1.
        """
        self._max_s = MAX_S if max_s is None else max_s
        self._part = part
        self._attempt = 0

    def wait_s(self, held_s: float | None = None) -> float:
        """Return how long to wait before the next attempt; `held_s` is how long this one lasted, if it succeeded."""
        if held_s is not None and held_s >= HELD_S:
            self._attempt = 0
        bound_s = min(self._max_s, FIRST_S * 2.0 ** min(self._attempt, 10))
        self._attempt += 1
        return self._part() * bound_s

    def reset(self) -> None:
        """Note a success."""
        self._attempt = 0
