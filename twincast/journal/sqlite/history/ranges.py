"""Ranges of times, in microseconds: where they meet, and what widths leave over of them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")
SECOND_US = 1_000_000
Range = tuple[int, int]
"""From a time up to another one, which is outside."""


def ends(edges: Sequence[int]) -> Range:
    """Return the range that edges enclose."""
    return edges[0], edges[-1]


def after(times_us: Range) -> Range:
    """Return the range of some times, of which the last one is meant too."""
    return times_us[0], times_us[1] + 1


def meet(one: Range, other: Range) -> Range | None:
    """Return what two ranges have in common; None if that is nothing."""
    since_us, until_us = max(one[0], other[0]), min(one[1], other[1])
    return (since_us, until_us) if since_us < until_us else None


def narrowest(edges: Sequence[int]) -> int:
    """Return the width of the narrowest bucket, in microseconds."""
    if isinstance(edges, range):
        return edges.step
    return min(after - before for before, after in pairwise(edges))


def at_edges(edges: Sequence[int], width_us: int) -> list[Range]:
    """Return what rollups of a width leave over: where an edge is not a multiple of it, the span of that rollup."""
    if isinstance(edges, range) and edges[0] % width_us == 0 and edges.step % width_us == 0:
        return []
    left: list[Range] = []
    for edge in edges:
        start = edge // width_us * width_us
        if start == edge:
            continue
        rest = max(start, edges[0]), min(start + width_us, edges[-1])
        if left and rest[0] < left[-1][1]:
            rest = left.pop()[0], rest[1]
        if rest[0] < rest[1]:
            left.append(rest)
    return left


def groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield items in groups of some size."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
