"""This tree against another commit of it: the same loads on both, in turns, so that the machine's moods meet both.

What is compared is the server. The load, the interpreter and the installed packages are this tree's for both.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.machine import ROOT
from benchmarks.peers import Twincast, TwincastWithLogin
from benchmarks.report import Samples, number
from benchmarks.runs import SQLITE, Run, Target, delays, fan_out, ingest, memory_of_idle, page_cost, rest_writes, steady

NOW, THEN = "now", "then"
LESS_IS_BETTER = (", ms", ", bytes", ", % of a core", "CPU µs a reading")
BASELINE = "dd6600c"
"""The commit before the work on the path of a reading, over which it is judged."""
TARGETS = (
    Target(f"ingest: {SQLITE.name}", NOW, THEN, at_least=1.75),
    Target(f"steady 20,000/s, p99, ms: {SQLITE.name}", NOW, THEN, at_most=0.6),
    Target(f"steady 20,000/s, longest, ms: {SQLITE.name}", NOW, None, at_most=60.0, in_each_round=True),
)
"""What must come out over the baseline, in ten rounds."""
LOSS = 0.97
"""A figure is a loss if no round of it comes up to so much of what it was: one that does may be the machine's mood."""


@dataclass(frozen=True)
class Side:
    """One of the two trees."""

    name: str
    root: Path

    def runs(self) -> dict[str, list[Run]]:
        """Return the loads that are compared, on this tree's server."""
        memory, sqlite = Twincast("memory", self.root), Twincast("sqlite", self.root)
        return {
            "fanout-1": [fan_out(memory, 1)],
            "fanout-10": [fan_out(memory, 10)],
            "fanout-100": [fan_out(memory, 100), fan_out(sqlite, 100), fan_out(TwincastWithLogin(root=self.root), 100)],
            "fanout-1000": [fan_out(memory, 1_000)],
            "ingest": [ingest(memory), ingest(sqlite)],
            "rest": [rest_writes(sqlite)],
            "latency": [delays(memory), delays(sqlite)],
            "steady": [steady(sqlite)],
            "idle": [memory_of_idle(memory)],
            "page": [page_cost(memory)],
        }


@dataclass(frozen=True)
class Change:
    """How a figure has changed: what it is over what it was, turned so that more is better."""

    figure: str
    then: float
    now: float
    ratios: list[float]

    @property
    def is_loss(self) -> bool:
        """Whether every single round says that it is worse, by more than the machine varies."""
        return max(self.ratios) < LOSS


def named(commit: str) -> str:
    """Return the hash that a commit has, whatever it was called. Raises ValueError if there is no such commit."""
    found = subprocess.run(
        ["git", "rev-parse", "--verify", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise ValueError(f"there is no commit {commit}: {found.stderr.strip()}")
    return found.stdout.strip()


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Lay out the files of a commit for as long as the context lasts.

    Raises:
        ValueError: there is no such commit.
    """
    archive = subprocess.run(
        ["git", "archive", "--format=tar", named(commit)], cwd=ROOT, capture_output=True, check=True
    )
    with tempfile.TemporaryDirectory() as directory:
        # Not by `tarfile`: the filter that it wants is not in every Python 3.11.
        subprocess.run(["tar", "--extract", "--directory", directory], input=archive.stdout, check=True)
        yield Path(directory)


def measured(
    chosen: list[str], then: Path, rounds: int, seconds: float, told: Callable[[str], None]
) -> Iterator[tuple[str, str, float]]:
    """Run the loads on both trees in each round, the other one first in every second; yield figure, side, value."""
    sides = Side(THEN, then), Side(NOW, ROOT)
    loads = {side: side.runs() for side in sides}
    for round_ in range(rounds):
        for name in chosen:
            for index in range(len(loads[sides[0]][name])):
                for side in sides if round_ % 2 == 0 else sides[::-1]:
                    told(f"round {round_ + 1} of {rounds}: {name}, {side.name}")
                    for figure, system, value in loads[side][name][index](seconds):
                        yield f"{figure}: {system}", side.name, value


def changes(samples: Samples) -> list[Change]:
    """Compare what both trees have measured, round by round."""
    found = []
    for (figure, side), now in samples.items():
        if side != NOW:
            continue
        then = samples[figure, THEN]
        pairs = list(zip(then, now, strict=True))
        is_turned = any(end in figure for end in LESS_IS_BETTER)
        ratios = [before / after if is_turned else after / before for before, after in pairs]
        found.append(Change(figure, median(then), median(now), ratios))
    return found


def table(found: list[Change]) -> str:
    """Return Markdown: what was, what is, and by how much each is better or worse."""
    lines = ["| what | then | now | better by | range | |", "|---|--:|--:|--:|--:|---|"]
    for change in found:
        spread = f"{min(change.ratios):.2f} to {max(change.ratios):.2f}"
        figures = f"{number(change.then)} | {number(change.now)} | {median(change.ratios):.2f}"
        lines.append(f"| {change.figure} | {figures} | {spread} | {'**loss**' if change.is_loss else ''} |")
    return "\n".join(lines)
