"""Walk the growth: `scripts/bench growth [DIMENSION…] [--quick] [--long]`."""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from benchmarks.growth import report
from benchmarks.growth.curves import Dimension, Measured, curves_of
from benchmarks.growth.loads import DIMENSIONS
from benchmarks.growth.log import LOG
from benchmarks.machine import LOAD_CORE, ROOT, python, use_core

RESULTS = ROOT / "benchmarks" / "results" / "growth.md"
IMAGES = ROOT / "docs" / "images"
ALL = {dimension.name: dimension for dimension in (*DIMENSIONS, LOG)}


def main(arguments: Sequence[str]) -> int:
    """Measure each point in a process of its own, print the curves; write and draw them, unless it was quick."""
    parser = argparse.ArgumentParser(prog="scripts/bench growth", description=f"Dimensions: {', '.join(ALL)}.")
    parser.add_argument("dimensions", nargs="*", metavar="DIMENSION", help="what grows; all if none is named")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one curve is measured at a point, about")
    parser.add_argument("--quick", action="store_true", help="few points, short, to see that everything works")
    parser.add_argument("--long", action="store_true", help="also the points that need much time and room on the disk")
    parser.add_argument("--rounds", type=int, default=1, help="how often each point is measured; the least counts")
    parser.add_argument("--point", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.dimensions) - set(ALL):
        parser.error(f"there is no dimension {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    chosen = [ALL[name] for name in asked.dimensions or ALL]
    if asked.point is not None:
        print(json.dumps(chosen[0].measure(asked.point, asked.seconds)))
        return 0
    if asked.quick:
        asked.seconds = 0.2
    console = Console()
    measured = _measured(chosen, asked, console)
    for dimension, points in measured:
        console.print(Markdown(report.section(dimension, curves_of(points))))
    if not asked.quick:
        report.write(measured, RESULTS)
        for dimension, points in measured:
            report.plot(dimension, curves_of(points), IMAGES / f"growth-{dimension.name}.svg")
    return 0


def _points(dimension: Dimension, asked: argparse.Namespace) -> list[int]:
    if asked.quick:
        return list(dimension.quick)
    return [*dimension.points, *(dimension.long if asked.long else ())]


def _measured(
    chosen: Sequence[Dimension], asked: argparse.Namespace, console: Console
) -> list[tuple[Dimension, dict[int, Measured]]]:
    """Measure the points in rounds; of each curve's rounds the least is its cost, for what else runs only adds."""
    least: dict[str, dict[int, dict[str, float]]] = {dimension.name: {} for dimension in chosen}
    steps = [
        (dimension, point) for _ in range(asked.rounds) for dimension in chosen for point in _points(dimension, asked)
    ]
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(steps))
        for dimension, point in steps:
            progress.update(bar, description=f"{dimension.name}: {point:,}")
            known = least[dimension.name].setdefault(point, {})
            for curve, cost in _apart(dimension.name, point, asked.seconds).items():
                known[curve] = min(cost, known.get(curve, cost))
            progress.advance(bar)
    return [(dimension, dict(least[dimension.name])) for dimension in chosen]


def _apart(name: str, point: int, seconds: float) -> Measured:
    """Measure one point in a process that has done nothing before."""
    use_core(LOAD_CORE)
    command = python("-m", "benchmarks.growth", name, "--point", str(point), "--seconds", str(seconds))
    printed = subprocess.run(command, cwd=Path(ROOT), check=True, stdout=subprocess.PIPE, text=True).stdout
    measured: dict[str, float] = json.loads(printed.splitlines()[-1])
    return measured
