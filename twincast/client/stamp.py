"""The time at which a program handed a reading over: by the clock of this machine, unless the server shows it wrong."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from twincast.core.times import stored_form

OFF_S = 60.0
"""From so far off on a clock counts as wrong: the server believes no time that is further ahead of its own."""
TICK_MAX = timedelta(seconds=1)
"""A clock that is set back by less is waited for: the stamps go on by microseconds meanwhile."""


class Stamps:
    """Gives out times, in UTC. Each is after the one before, so that readings keep their order by them."""

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._monotonic_s = monotonic_s
        self._last = datetime.min.replace(tzinfo=UTC)
        self._server: tuple[datetime, float] | None = None  # its time, and ours by a clock that nobody sets

    def compare(self, server_utc: str) -> None:
        """Take the server's time, as it is now. While this machine's clock is wrong by it, its time counts."""
        try:
            now = datetime.fromisoformat(server_utc).astimezone(UTC)
        except ValueError:
            return
        is_off = abs((now - self._now()).total_seconds()) > OFF_S
        self._server = (now, self._monotonic_s()) if is_off else None

    def stamp(self) -> str:
        """Return the time."""
        if self._server is None:
            now = self._now()
        else:
            at, since_s = self._server
            now = at + timedelta(seconds=self._monotonic_s() - since_s)
        if timedelta() <= self._last - now < TICK_MAX:
            now = self._last + timedelta(microseconds=1)
        self._last = now
        return stored_form(now)
