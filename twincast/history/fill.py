"""What stands in buckets that have nothing: pure, over the series that a history answers."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from twincast.history.query import Aggregate, Cell, Series

Fill = Literal["none", "null", "previous", "linear"]
FILLS: tuple[Fill, ...] = get_args(Fill)
_OF_A_BUCKET: frozenset[Aggregate] = frozenset({"count", "min_t", "max_t"})
"""What says something of a bucket's own readings: no other bucket's stands for it."""
_TEXTS: frozenset[Aggregate] = frozenset({"first", "last"})


def filled(series: Series, edges: Sequence[int], aggregates: Sequence[Aggregate], fill: Fill) -> Series:
    """Return a series with a row for each bucket of a query, or as it is if `fill` is none.

    `null` leaves the new rows empty. `previous` repeats the row before, and `linear` draws a line between the rows
    around them, by the starts of the buckets; before the first row, and with `linear` behind the last, they stay empty.
    A filled row's `count` is 0 in each case, and has no `min_t` and `max_t`.
    """
    if fill == "none":
        return series
    starts = edges[:-1]
    at = {start: row for row, start in enumerate(series.starts_us)}
    rows = [at.get(start) for start in starts]
    columns = [
        _filled(column, rows, starts, aggregate, fill)
        for aggregate, column in zip(aggregates, series.columns, strict=True)
    ]
    return series._replace(starts_us=starts, columns=columns)


def _filled(
    column: Sequence[Cell], rows: Sequence[int | None], starts: Sequence[int], aggregate: Aggregate, fill: Fill
) -> list[Cell]:
    cells = [None if row is None else column[row] for row in rows]
    if aggregate == "count":
        return [0 if row is None else cell for row, cell in zip(rows, cells, strict=True)]
    if aggregate in _OF_A_BUCKET or fill == "null" or (fill == "linear" and aggregate in _TEXTS):
        return cells
    return _BY[fill](cells, starts)


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
