"""Whose position is it? A log's name outlives a copy of its file; the runs on it tell the copies apart.

Each start on a log opens a generation: a random name, stored before anybody is served, with the seq at which it begins.
Whoever copies, restores or forks the log copies the names of the past, never those of the other's future.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from twincast.core.model import Position

GENERATIONS_MAX = 10_000
"""How many runs a log remembers, the newest: a week of a server that starts anew each minute, and 2 MB in memory."""
UNNAMED = ""
"""The generation of what was written before there were any; its epoch is the log's name alone."""


class Generation(NamedTuple):
    """One run on a log."""

    name: str
    begin_seq: int
    """The seq of the log's newest entry when it began."""


class Lineage:
    """The runs on one log, as far as this copy of it knows them."""

    __slots__ = ("_ends", "epoch")

    def __init__(self, log: str, generations: Sequence[Generation]) -> None:
        """Take a log's name, and its runs from the oldest to the one that goes on; there is at least that one."""
        self.epoch = epoch_of(log, generations[-1].name)
        """What positions of this run are said with, on every wire."""
        self._ends = {epoch_of(log, older.name): newer.begin_seq for older, newer in pairwise(generations)}

    def why_not(self, position: Position, head_seq: int) -> str:
        """Say why a position means nothing here; empty if the log up to it is what its holder has seen.

        Args:
            position: of any log, in the hand of anybody.
            head_seq: where this log ends.

        Returns:
            `epoch`: it was given out by another log, by a copy of this one, or by this one before it lost its end.
            `ahead`: it is of this run, which has not come so far.
        """
        if position.epoch == self.epoch:
            return "" if position.seq <= head_seq else "ahead"
        end_seq = self._ends.get(position.epoch)
        return "" if end_seq is not None and position.seq <= end_seq else "epoch"


def epoch_of(log: str, generation: str) -> str:
    """Return the epoch on the wire, `LOG-GENERATION`."""
    return f"{log}-{generation}" if generation else log
