"""`twincast get`: the newest state, once."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
import typer
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from twincast.cli.columns import NARROW, widths
from twincast.cli.options import Fingerprint, Patterns, Url, commands, server_url
from twincast.cli.terminal import out
from twincast.client import Rest
from twincast.client.rest import RawTwin
from twincast.core.pattern import Pattern
from twincast.errors import NotFound
from twincast.wire.messages import encode

ROWS_AT_ONCE = 500
"""A table is laid out as a whole before its first line can be read."""
TIME_CHARS = 19

Found = Iterable[tuple[str, RawTwin]]


app = commands()


@app.command()
def command(
    patterns: Patterns = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as into a pipe.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Print the newest state: a table, or JSON lines into a pipe; of one device that is named its value."""
    get(server_url(url, fingerprint), patterns or [], as_json=as_json)


def get(url: str, patterns: Sequence[str], *, as_json: bool) -> None:
    """Print the newest state of devices: a table, or JSON lines into a pipe; of one device that is named its value.

    Raises:
        NotFound: there are none.
        TwincastError: the server refused it, or is not there.
    """
    named = Pattern(patterns[0]).exact if len(patterns) == 1 else None
    with Rest(url) as rest:
        found = iter(rest.twins(patterns))
        first = next(found, None)
        if first is None:
            raise NotFound(_none(patterns, named))
        found = itertools.chain([first], found)
        if named is not None and not as_json:
            _, twin = first
            print(bytes(twin.value).decode())
        elif as_json or not out.is_terminal:
            _print_lines(found)
        else:
            _print_table(found)


def _print_lines(found: Found) -> None:
    for device_id, twin in found:
        print(encode({"device_id": device_id, **msgspec.structs.asdict(twin)}).decode())


def _print_table(found: Found) -> None:
    rows = sorted(found, key=lambda row: row[0])
    has_times = out.width >= NARROW
    longest = max(cell_len(device_id) for device_id, _ in rows)
    shared = widths(out.width, longest, (TIME_CHARS,) if has_times else ())
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
        out.print(table)


def _none(patterns: Sequence[str], named: str | None) -> str:
    if named is not None:
        return f"there is no device {named!r}"
    if patterns:
        return f"there is no device that {' or '.join(map(repr, patterns))} selects"
    return "there are no devices yet"
