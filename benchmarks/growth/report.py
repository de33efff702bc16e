"""Curves as pictures and as tables, and where they bend."""

import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.growth.curves import BEND, Curves, Dimension, Measured, bends_of, curves_of


def number(value: float) -> str:
    """Write a cost with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def section(dimension: Dimension, curves: Curves) -> str:
    """Return Markdown: the unit cost at each point, and where the curves bend."""
    points = sorted({point for curve in curves.values() for point in curve})
    lines = [
        f"## {dimension.name}",
        "",
        f"{dimension.unit}, over {dimension.grows}. {dimension.how[0].upper()}{dimension.how[1:]}.",
        "",
        f"| {dimension.grows} | {' | '.join(curves)} |",
        f"|--:|{'--:|' * len(curves)}",
    ]
    for point in points:
        cells = (number(curve[point]) if point in curve else "" for curve in curves.values())
        lines.append(f"| {point:,} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in _of_bends(curves))])


def _of_bends(curves: Curves) -> list[str]:
    bends = bends_of(curves)
    if not bends:
        return [f"no bend: no point costs over {BEND} times the one before"]
    return [f"**{b.curve}** bends from {b.before:,} to {b.after:,}: {b.ratio:.1f} times" for b in bends]


def write(measured: Sequence[tuple[Dimension, Mapping[int, Measured]]], file: Path) -> None:
    """Write the sections of what was measured, in place of the same sections of a run before."""
    sections = _sections(file)
    when = f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}"
    for dimension, points in measured:
        sections[dimension.name] = f"{section(dimension, curves_of(points))}\n\n({when})"
    head = "What `scripts/bench growth` found; docs/benchmarks.md has the method."
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join([head, *sections.values()]) + "\n")


def _sections(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    _, *parts = file.read_text().split("\n## ")
    return {part.partition("\n")[0]: f"## {part.rstrip()}" for part in parts}


def plot(dimension: Dimension, curves: Curves, file: Path) -> None:
    """Draw the unit costs over what grows, both on logarithmic axes; a ring is where a curve bends."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    pyplot.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "twincast"})
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), label=name, marker="o")
    for bend in bends_of(curves):
        axes.plot(
            bend.after, curves[bend.curve][bend.after], marker="o", markersize=14, fillstyle="none", color="black"
        )
    axes.set(xscale="log", yscale="log", xlabel=dimension.grows, ylabel=dimension.unit)
    costs = [cost for curve in curves.values() for cost in curve.values()]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    axes.set_ylim(10.0**low, 10.0**high)  # whole decades, so that what is flat looks so
    decades = [10.0**exponent for exponent in range(low, high + 1)]
    axes.set_yticks(decades, [f"{decade:g}" for decade in decades])
    points = sorted({point for curve in curves.values() for point in curve})
    axes.set_xticks(points, [f"{point:,}" for point in points], rotation=30)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
