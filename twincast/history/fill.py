"""What stands in buckets that have nothing: pure, over the series that a history answers."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from twincast.history.query import Aggregate, Cell, Series

Fill = Literal["none", "null", "previous", "linear"]
FILLS: tuple[Fill, ...] = get_args(Fill)
_OF_A_BUCKET: frozenset[Aggregate] = frozenset({"sum", "count", "min_t", "max_t"})
"""What says something of a bucket's own readings: no other bucket's stands for it, else adding them up counts twice."""
_TEXTS: frozenset[Aggregate] = frozenset({"first", "last"})


def filled(series: Series, edges: Sequence[int], aggregates: Sequence[Aggregate], fill: Fill, now_us: int) -> Series:
    """Return a series with a row for each bucket of a query, or as it is if `fill` is none.

    `null` leaves the new rows empty. `previous` repeats the row before, and `linear` draws a line between the rows
    around them, by the starts of the buckets; before the first row, and with `linear` behind the last, they stay empty,
    and so do those that begin after now. A filled row's `count` is 0 in each case, and has no `sum`, `min_t`, `max_t`.
    """
    if fill == "none":
        return series
    starts = edges[:-1]
    begun = bisect_right(starts, now_us)
    at = {start: row for row, start in enumerate(series.starts_us)}
    rows = [at.get(start) for start in starts]
    columns = [
        _filled(column, rows, starts, aggregate, fill, begun=begun)
        for aggregate, column in zip(aggregates, series.columns, strict=True)
    ]
    return series._replace(starts_us=starts, columns=columns)


def _filled(
    column: Sequence[Cell],
    rows: Sequence[int | None],
    starts: Sequence[int],
    aggregate: Aggregate,
    fill: Fill,
    *,
    begun: int,
) -> list[Cell]:
    cells = [None if row is None else column[row] for row in rows]
    if aggregate == "count":
        return [0 if row is None else cell for row, cell in zip(rows, cells, strict=True)]
    if aggregate in _OF_A_BUCKET or fill == "null" or (fill == "linear" and aggregate in _TEXTS):
        return cells
    return _BY[fill](cells[:begun], starts) + cells[begun:]


def _previous(cells: list[Cell], starts: Sequence[int]) -> list[Cell]:
    newest: Cell = None
    found: list[Cell] = []
    for cell in cells:
        newest = newest if cell is None else cell
        found.append(newest)
    return found


def _linear(cells: list[Cell], starts: Sequence[int]) -> list[Cell]:
    found = list(cells)
    before: int | None = None
    for index, cell in enumerate(cells):
        if not isinstance(cell, int | float):
            continue
        if before is not None and index - before > 1:
            left = cells[before]
            assert isinstance(left, int | float)
            span_us = starts[index] - starts[before]
            for between in range(before + 1, index):
                share = (starts[between] - starts[before]) / span_us
                found[between] = left * (1 - share) + cell * share
        before = index
    return found


_BY: dict[Fill, Callable[[list[Cell], Sequence[int]], list[Cell]]] = {"previous": _previous, "linear": _linear}
