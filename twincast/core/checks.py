"""Whether two servers made the same of one log: sums that each keeps as of some places of the stream. Pure.

The rules of a shared log give every server the same entries. A fault in them, or in a version of them, would part the
servers silently, so each keeps a sum of all that it has read and made, and tells the others where it stood at. Sums as
of the same place differ only between servers that hold different logs.
"""

from collections.abc import Mapping

NEWEST = 512
"""So many of the newest places are kept: servers that rest meet there."""
STEP, STEPS = 1_000, 128
"""Of older places, so many multiples of this: servers that are some seconds apart under load meet there."""


class Checks:
    """The sums of one server, by place in the stream."""

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}
        self._steps: dict[int, int] = {}
        self._place = 0

    def note(self, stream_seq: int, crc: int) -> None:
        """Keep the sum as of a place, which lies behind those before it."""
        self._newest[stream_seq] = crc
        if len(self._newest) > NEWEST:
            del self._newest[next(iter(self._newest))]
        if stream_seq % STEP == 0:
            self._steps[stream_seq] = crc
            if len(self._steps) > STEPS:
                del self._steps[next(iter(self._steps))]
        self._place = stream_seq

    def told(self) -> dict[int, int]:
        """Return what others are told: the sums as of the newest place, and as of the newest multiples of STEP."""
        told = {place: self._steps[place] for place in list(self._steps)[-2:]}
        if self._place:
            told[self._place] = self._newest[self._place]
        return told

    def differs_at(self, told: Mapping[int, int]) -> int | None:
        """Return the first place where another server's sums are not ours; None if they agree wherever both have one.

        What this server has not reached yet, or has forgotten, says nothing.
        """
        for place, crc in sorted(told.items()):
            own = self._newest.get(place, self._steps.get(place))
            if own is not None and own != crc:
                return place
        return None
