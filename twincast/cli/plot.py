"""A curve in characters: for each bucket a line from its smallest to its largest number, and a dot at its average.

There is no area below it, for its axis need not begin at 0.
"""

from collections.abc import Iterator, Sequence

DOT, LINE = "●", "│"
_CORNER, _TICK = "└", "┤"

Numbers = Sequence[float | None]


def plot(lows: Numbers, highs: Numbers, averages: Numbers, *, height: int) -> Iterator[str]:
    """Yield the rows of a plot, the highest first, each with its axis; at least one number must be there.

    Args:
        lows: the smallest number of each column; None where it has none.
        highs: the largest.
        averages: where the dot stands.
        height: how many rows.
    """
    bottom = min(low for low in lows if low is not None)
    top = max(high for high in highs if high is not None)
    if top == bottom:
        height = 1
    step = (top - bottom) / max(1, height - 1)
    labels = [short(bottom + row * step) for row in range(height)]
    width = max(map(len, labels))
    columns = [
        _column(*numbers, bottom=bottom, step=step or 1.0, height=height)
        for numbers in zip(lows, highs, averages, strict=True)
    ]
    for row in reversed(range(height)):
        yield f"{labels[row].rjust(width)} {_TICK}{''.join(column[row] for column in columns)}".rstrip()


def axis(begin: str, end: str, columns: int, indent: int, width: int) -> Iterator[str]:
    """Yield the axis of time below a plot, with the times at its ends.

    Args:
        begin: the time of the first column.
        end: that of the last one.
        columns: how many there are.
        indent: how many characters stand before the axis.
        width: the terminal's; two times that are longer than it have a line each.
    """
    yield f"{' ' * indent}{_CORNER}{'─' * columns}"
    before = " " * (indent + 1)
    if len(begin) + 1 + len(end) <= columns:
        yield f"{before}{begin}{end.rjust(columns - len(begin))}"
    elif len(both := f"{before}{begin} to {end}") <= width:
        yield both
    else:
        before = " " * max(0, min(indent + 1, width - len(begin) - 3))
        yield f"{before}{begin} to"
        yield f"{before}{end}"


def short(number: float) -> str:
    """Return a number for a label."""
    return f"{number:.4g}"


def _column(
    low: float | None, high: float | None, average: float | None, *, bottom: float, step: float, height: int
) -> list[str]:
    cells = [" "] * height
    if low is None or high is None or average is None:
        return cells
    first, last, middle = (min(height - 1, round((number - bottom) / step)) for number in (low, high, average))
    for row in range(first, last + 1):
        cells[row] = LINE
    cells[middle] = DOT
    return cells
