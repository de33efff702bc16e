"""Whose positions count where, while logs are run, copied, restored and forked, and clients keep what they were told.

A cursor is honoured if and only if the log that it comes to remembers the run that gave it out, and says of everything
up to it what the client was told.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twincast.core.lineage import UNNAMED, Generation, Lineage, epoch_of
from twincast.core.model import Position

LOG = "10c"
REMEMBERED = 4


@dataclass
class File:
    """What a disk holds: commits, of which a copy has the first ones, and whether a server runs on it."""

    commits: list[int | str] = field(default_factory=list)  # an entry, no two are alike; or the name of a generation
    is_running: bool = False

    @property
    def history(self) -> list[int]:
        return [commit for commit in self.commits if isinstance(commit, int)]

    @property
    def generations(self) -> list[Generation]:
        found, seq = [], 0
        for commit in self.commits:
            if isinstance(commit, str):
                found.append(Generation(commit, seq))
            else:
                seq += 1
        return found[-REMEMBERED:]

    @property
    def lineage(self) -> Lineage:
        return Lineage(LOG, self.generations)


class Cursor(NamedTuple):
    """What a client holds: a position, and what it was told up to there."""

    position: Position
    told: tuple[int, ...]


Step = tuple[str, int, int]
VERBS = ("start", "write", "write", "greet", "copy", "lose", "restore")
Rule = Callable[[list[Generation], Position, int], str]


class Disks:
    """Operators and clients on copies of one log; what they do is a script of verbs, each with two numbers."""

    def __init__(self, script: Sequence[Step]) -> None:
        self._entries, self._names = itertools.count(1), itertools.count(1)
        self.files = [File()]
        self.cursors: list[Cursor] = []
        for verb, which, number in script:
            getattr(self, f"_{verb}")(self.files[which % len(self.files)], number)

    def _start(self, file: File, _: int) -> None:
        """Start a server, or once more after an end or a crash."""
        file.commits.append(f"g{next(self._names)}")
        file.is_running = True

    def _write(self, file: File, number: int) -> None:
        """Store some entries, each of which is told to a client."""
        for _ in range(number % 3 + 1 if file.is_running else 0):
            file.commits.append(next(self._entries))
            self._greet(file, 0)

    def _greet(self, file: File, number: int) -> None:
        """Greet a client; one that was resumed from further back is told the epoch of this run."""
        if file.is_running:
            seq = max(0, len(file.history) - number % 4)
            self.cursors.append(Cursor(Position(file.lineage.epoch, seq), tuple(file.history[:seq])))

    def _copy(self, file: File, _: int) -> None:
        """Make a backup, a clone of the disk, a fork."""
        self.files.append(File(list(file.commits)))

    def _lose(self, file: File, number: int) -> None:
        """Copy a file without its newest commits, such as without its WAL."""
        self.files.append(File(file.commits[: -(number % 3 + 1)]))

    def _restore(self, file: File, number: int) -> None:
        """Put another file in the place of this one."""
        file.is_running = False
        file.commits = list(self.files[number % len(self.files)].commits)

    def verdicts(self, rule: Rule) -> Iterator[tuple[str, bool, bool]]:
        """Bring every cursor to every server.

        Yields:
            why it is not honoured; whether the log up to it is what the client was told; whether its run is known.
        """
        for file in self.files:
            history, generations = file.history, file.generations
            known = {epoch_of(LOG, generation.name) for generation in generations}
            for position, told in self.cursors if file.is_running else ():
                is_shared = tuple(history[: position.seq]) == told
                yield rule(generations, position, len(history)), is_shared, position.epoch in known


def lineage_says(generations: list[Generation], position: Position, head_seq: int) -> str:
    return Lineage(LOG, generations).why_not(position, head_seq)


steps = st.tuples(st.sampled_from(VERBS), st.integers(0, 99), st.integers(0, 99))


@given(st.lists(steps, max_size=40))
@settings(max_examples=500, deadline=None)
def test_a_cursor_is_honoured_where_the_log_up_to_it_is_the_one_that_was_told(script: list[Step]) -> None:
    for reason, is_shared, is_known in Disks(script).verdicts(lineage_says):
        assert (reason == "") == (is_shared and is_known)
        assert reason in {"", "epoch"}, "nobody was told of what his run has not stored"


def by_the_name_of_the_log(generations: list[Generation], position: Position, head_seq: int) -> str:
    """The rule before there were generations."""
    return "" if position.seq <= head_seq else "ahead"


def forgetting_any_run(generations: list[Generation], position: Position, head_seq: int) -> str:
    """Forget runs between others, such as those in which nothing was written, to save room."""
    first, *others = generations
    return lineage_says([first, *others[-1:]], position, head_seq)


@pytest.mark.parametrize("wrong", [by_the_name_of_the_log, forgetting_any_run])
def test_scripts_like_these_find_a_rule_that_is_wrong(wrong: Rule) -> None:
    """The control: each of these lets a client go on in a past that is not its own."""
    chance = random.Random(0)
    for _ in range(2_000):
        script = [(chance.choice(VERBS), chance.randrange(99), chance.randrange(99)) for _ in range(30)]
        if any(not reason and not is_shared for reason, is_shared, _ in Disks(script).verdicts(wrong)):
            return
    raise AssertionError("the scripts try nothing that it gets wrong")


def test_a_position_of_this_run_beyond_its_end_is_ahead() -> None:
    lineage = Lineage(LOG, [Generation("a", 0), Generation("b", 5)])
    assert [lineage.why_not(Position("10c-b", seq), 7) for seq in (0, 4, 7, 8)] == ["", "", "", "ahead"]
    assert [lineage.why_not(Position("10c-a", seq), 7) for seq in (0, 5, 6, 8)] == ["", "", "epoch", "epoch"]


def test_a_position_that_names_the_log_alone_counts_up_to_the_first_run_with_a_name() -> None:
    old, new = [Generation(UNNAMED, 0), Generation("a", 5), Generation("b", 6)], [Generation("a", 0)]
    assert [Lineage(LOG, old).why_not(Position(LOG, seq), 9) for seq in (0, 5, 6)] == ["", "", "epoch"]
    assert Lineage(LOG, new).why_not(Position(LOG, 0), 9) == "epoch"


@pytest.mark.parametrize("epoch", ["", "10c-", "-a", "10c-a-a", "10C-a", "10c-A", "other-a", "10c-c"])
def test_whatever_else_is_said_is_of_another_log(epoch: str) -> None:
    assert Lineage(LOG, [Generation("a", 0), Generation("b", 1)]).why_not(Position(epoch, 0), 1) == "epoch"
