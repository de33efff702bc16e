"""How full a journal is, and for how long its disk lasts at this pace; pure."""

from collections import deque

from msgspec import Struct

PACE_WINDOW_S, PACE_LEAST_S = 3_600.0, 60.0
"""Over how long growth is measured, and how long at least."""
PACE_STEP_S = 10.0
"""How far apart measurements are."""


class Space(Struct):
    """What a journal takes, and what there is."""

    file_bytes: int
    wal_bytes: int
    history_bytes: int
    """The closed part of the log, in files of its own."""
    used_bytes: int
    """What is in use of the file, and that; of a journal in memory, the window of changes that it keeps."""
    checkpoint_lag: int
    """How many changes the state on disk is behind: they are read anew at a start."""
    entries: int
    """How many changes the log has."""
    oldest_seq: int
    """The oldest of them; one behind the newest if there is none."""
    oldest_at_utc: str | None
    keep_s: float | None
    keep_bytes: int | None
    disk_free_bytes: int | None
    growth_bytes_per_s: float | None
    """How fast it has grown within the last hour; None until a minute of it is known."""
    full_in_s: float | None
    """When the disk is full at that pace; None if that is not known yet, or if the oldest goes first and makes room."""
    problem: str | None
    """Why less was trimmed than was asked for."""


class Pace:
    """How fast something grows, measured over the last hour."""

    def __init__(self, now_s: float, size_bytes: int) -> None:
        self._known = deque([(now_s, size_bytes)])
        self._size_bytes = size_bytes

    def note(self, now_s: float, size_bytes: int) -> None:
        """Take a measurement."""
        self._size_bytes = size_bytes
        if now_s - self._known[-1][0] < PACE_STEP_S:
            return
        self._known.append((now_s, size_bytes))
        while self._known[1][0] <= now_s - PACE_WINDOW_S:
            self._known.popleft()

    def bytes_per_s(self, now_s: float) -> float | None:
        """Return the growth, 0 for none; None if it is not known for long enough."""
        since_s, size_bytes = self._known[0]
        if now_s - since_s < PACE_LEAST_S:
            return None
        return max(0.0, (self._size_bytes - size_bytes) / (now_s - since_s))


def full_in_s(
    free_bytes: int | None,
    growth_bytes_per_s: float | None,
    until_bound_bytes: int | None,
    until_aged_s: float | None = None,
) -> float | None:
    """Return how long there is room; None if that is not known, or if the room lasts.

    Args:
        free_bytes: what there is, on the disk and in the file.
        growth_bytes_per_s: the pace.
        until_bound_bytes: what may still be taken before the oldest goes; None if nothing goes for its size.
        until_aged_s: in how long the oldest goes for its age, and as much at a time as comes; None if nothing does.
    """
    if free_bytes is None or not growth_bytes_per_s:
        return None
    lasts_s = free_bytes / growth_bytes_per_s
    if until_bound_bytes is not None and until_bound_bytes <= free_bytes:
        return None
    if until_aged_s is not None and until_aged_s <= lasts_s:
        return None
    return round(lasts_s, 1)
