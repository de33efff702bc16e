"""The table of the newest state that `twincast get` prints in a terminal."""

from collections.abc import Iterable

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from twincast.cli.columns import NARROW, widths
from twincast.cli.terminal import out
from twincast.client.rest import RawTwin

ROWS_AT_ONCE = 500
"""A table is laid out as a whole before its first line can be read."""
TIME_CHARS = 19


def print_state(found: Iterable[tuple[str, RawTwin]]) -> None:
    """Print the newest state of devices, sorted by name."""
    width, rows = out.console.width, sorted(found, key=lambda row: row[0])
    has_times = width >= NARROW
    longest = max(cell_len(device_id) for device_id, _ in rows)
    shared = widths(width, longest, (TIME_CHARS,) if has_times else ())
    for start in range(0, len(rows), ROWS_AT_ONCE):
        table = Table(
            box=None, header_style="bold", show_header=not start, padding=(0, shared.gap, 0, 0), pad_edge=False
        )
        table.add_column("Device", width=shared.name, overflow="fold")
        table.add_column("Value", width=shared.value, overflow="fold")
        if has_times:
            table.add_column("Updated (UTC)", width=TIME_CHARS, no_wrap=True)
        for device_id, twin in rows[start : start + ROWS_AT_ONCE]:
            at = twin.updated_at_utc[:TIME_CHARS].replace("T", " ")
            # As Text, because a device's words are no markup.
            row = [Text(device_id), Text(bytes(twin.value).decode()), Text(at)]
            table.add_row(*row[: len(table.columns)])
        out.console.print(table)
