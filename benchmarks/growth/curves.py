"""A dimension that grows, and the curves over it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

BEND = 1.5
"""A curve bends where one point's unit cost is so many times that of the point before."""

Measured = Mapping[str, float]
"""Of one point: the unit cost of each curve."""


@dataclass(frozen=True)
class Dimension:
    """Something that grows, and how one of its points is measured."""

    name: str
    grows: str
    """What it is that grows: the horizontal axis."""
    unit: str
    """What a unit cost is: the vertical axis."""
    how: str
    """How it is measured, for those who read the figures."""
    points: Sequence[int]
    quick: Sequence[int]
    measure: Callable[[int, float], Measured]
    """Measure one point, for about so many seconds a curve."""
    long: Sequence[int] = field(default=())
    """Points that are asked for by `--long`: they need time and room."""


@dataclass(frozen=True)
class Bend:
    """A place where a curve's unit cost grows faster than it should."""

    curve: str
    before: int
    after: int
    ratio: float


Curves = Mapping[str, Mapping[int, float]]
"""The unit cost at each point, of each curve."""


def curves_of(points: Mapping[int, Measured]) -> Curves:
    """Turn what was measured at each point into curves, in the order of the points."""
    curves: dict[str, dict[int, float]] = {}
    for point, measured in sorted(points.items()):
        for name, cost in measured.items():
            curves.setdefault(name, {})[point] = cost
    return curves


def bends_of(curves: Curves) -> list[Bend]:
    """Return where curves bend upwards."""
    bends = []
    for name, curve in curves.items():
        points = list(curve)
        for before, after in pairwise(points):
            if curve[before] > 0 and (ratio := curve[after] / curve[before]) > BEND:
                bends.append(Bend(name, before, after, ratio))
    return bends
