"""`twincast status`: how a server is, and how full its journal."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from twincast.cli.options import Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out
from twincast.cli.units import in_bytes, in_time
from twincast.client import Rest

app = commands()


@app.command()
def command(
    as_json: Annotated[bool, typer.Option("--json", help="As the server says it.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Say how the server is. Exit status 1 if it is not well."""
    if not status(server_url(url, fingerprint), as_json=as_json):
        raise typer.Exit(1)


def status(url: str, *, as_json: bool) -> bool:
    """Print how the server is; return whether it is well.

    Raises:
        TwincastError: the server is not there.
    """
    with Rest(url) as rest:
        answer = rest.status()
    if as_json:
        print(json.dumps(answer))
    else:
        table = Table.grid(padding=(0, 2))
        space = answer.pop("space", None)
        shown = {name: _shown(name, value) for name, value in answer.items()}
        for name, text in (*shown.items(), *(journal_rows(space) if space else ())):
            table.add_row(Text(name, "bold"), Text(text))
        out.print(table)
    return bool(answer["ok"])


def _shown(name: str, value: Any) -> str:
    if name == "uptime_s":
        return str(timedelta(seconds=int(value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def journal_rows(space: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a status says of the journal's size, as names and texts."""
    if space["disk_free_bytes"] is None:
        yield "journal_size", f"{in_bytes(space['used_bytes'])} of memory"
    else:
        yield "journal_size", f"{in_bytes(space['file_bytes'])}, and {in_bytes(space['wal_bytes'])} of -wal"
    since = f", since {space['oldest_at_utc']}" if space["oldest_at_utc"] else ""
    yield "entries", f"{space['entries']:,}{since}"
    kept = [in_time(space["keep_s"])] if space["keep_s"] else []
    kept += [f"{in_bytes(space['keep_bytes'])} at most"] if space["keep_bytes"] else []
    yield "kept", ", ".join(kept) or "all"
    if space["disk_free_bytes"] is not None:
        yield "disk", f"{in_bytes(space['disk_free_bytes'])} free; {_lasts(space)}"
    if space["problem"]:
        yield "trimming", space["problem"]


def _lasts(space: Mapping[str, Any]) -> str:
    """Return for how long a disk lasts."""
    if space["growth_bytes_per_s"] is None:
        return "for how long that lasts is known after a minute of writing"
    pace = f"{in_bytes(space['growth_bytes_per_s'])}/s"
    if space["full_in_s"] is None:
        return f"it does not fill at this pace, {pace}"
    return f"full in {in_time(space['full_in_s'])} at this pace, {pace}"
