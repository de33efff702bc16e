"""A connection that takes only a share of a core: its statements rest between steps, so that live delivery has room."""

import time
from collections.abc import Callable

import apsw

BURST_S = 0.0005
"""After so much of a core's time it rests."""
REST_MAX_S = 0.1
_STEPS = 1_500
"""How many of SQLite's virtual instructions are between two looks at the clock, some dozens of microseconds."""


class Share:
    """How much of a core a thread takes: it works for BURST_S, and rests for as long as its share asks."""

    def __init__(
        self,
        share: float,
        *,
        cpu_s: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with work.

        Args:
            share: of one core, above 0; 1 for no rest.
            cpu_s: how much this thread has worked.
            sleep: rests.
            clock_s: for how long it has: what a system gives beyond that is taken off what follows.
        """
        self._rest_for_work = 1 / min(share, 1.0) - 1
        self._cpu_s = cpu_s
        self._sleep = sleep
        self._clock_s = clock_s
        self._rested_s = 0.0
        self._since_s = cpu_s()

    def rest(self) -> bool:
        """Rest if it is time to. Returns False, by which SQLite's progress handler goes on."""
        if (worked_s := self._cpu_s() - self._since_s) >= BURST_S:
            rest_s = min(REST_MAX_S, worked_s * self._rest_for_work) - self._rested_s
            began_s = self._clock_s()
            if rest_s > 0:
                self._sleep(rest_s)
            self._rested_s = max(0.0, self._clock_s() - began_s - rest_s)
            self._since_s = self._cpu_s()
        return False

    def pace(self, db: apsw.Connection) -> None:
        """Have the statements of a connection rest. Not one that reads a journal: an open read holds up its -wal."""
        if self._rest_for_work > 0:
            db.set_progress_handler(self.rest, _STEPS)


def run(db: apsw.Connection, sql: str, bindings: object = ()) -> None:
    """Execute to the end: a statement that returns a row, as some pragmas do, holds up those behind it until then."""
    for _ in db.execute(sql, bindings):  # type: ignore[arg-type]
        pass
