"""Tables as commands print them: drawn in a terminal; elsewhere a row is a line, however long."""

from collections.abc import Iterable, Sequence

from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from twincast.cli.terminal import out

UNBOUNDED = 100_000
"""Columns; nothing that is printed has as many."""


def print_whole(table: Table, folding: Sequence[Column]) -> None:
    """Print a table without cutting anything: columns fold in a terminal; elsewhere a row is a line, however long."""
    for column in folding:
        column.overflow = "fold"
    if not out.is_terminal:
        wide = out.console.options.update(max_width=UNBOUNDED, width=UNBOUNDED)
        out.console.width = Measurement.get(out.console, wide, table).maximum
    out.console.print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names, bold, and what there is to say of each."""
    table = Table.grid(padding=(0, 2))
    for name, text in facts:
        table.add_row(Text(name, "bold"), Text(text))
    out.console.print(table)
