"""`twincast history`: what a device reported, as a curve, or as lines for other programs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from twincast import client
from twincast.cli import plot as plots
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out
from twincast.wire.messages import encode

if TYPE_CHECKING:
    from twincast.client import Buckets, History
    from twincast.client.history import Question

HEIGHT, COLUMNS_MIN, COLUMNS_MAX = 12, 20, 500
LABEL_CHARS = 16
"""So much of a line is left for the numbers at the axis."""
ENTRIES = 20
"""How many are shown of what has no numbers, unless the limit says otherwise."""

app = commands()


@app.command()
def command(
    device: Device,
    *,
    since: Annotated[str | None, typer.Option("--from", help="The beginning: -1h, -7d, a time or a position.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="The end; now, if not given.")] = None,
    path: Annotated[str | None, typer.Option(help="A part of the value, as a JSON Pointer: /motor/rpm.")] = None,
    every: Annotated[str | None, typer.Option(help="The width of buckets: 500ms, 5m, 1h, 1d, 1mo.")] = None,
    agg: Annotated[str | None, typer.Option(help="avg, min, max, sum, count, first, last, p50, p95, …")] = None,
    tz: Annotated[str | None, typer.Option(help="The zone of days, weeks and months, such as Europe/Berlin.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many entries, the newest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as into a pipe.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Show what a device reported: a curve of its numbers, or its newest values; lines into a pipe."""
    given = {"from_": since, "to": until, "path": path, "every": every, "agg": agg, "tz": tz, "limit": limit}
    question: Any = {name: value for name, value in given.items() if value is not None}
    if as_json and as_csv:
        raise typer.BadParameter("lines are JSON or CSV; give --json or --csv, not both")
    with client.Rest(server_url(url, fingerprint)) as rest:
        if as_csv or as_json or not out.is_terminal:
            for line in rest.history_lines(device, "csv" if as_csv else "ndjson", **question):
                out.print(line.rstrip("\n"))
        elif limit is not None:
            _print_entries(rest.history(device, **question))
        else:
            _show(rest, device, question)


def _show(rest: client.Rest, device: str, question: "Question") -> None:
    """Draw a curve, or print the newest values of what has no numbers in the time asked for."""
    columns = max(COLUMNS_MIN, min(COLUMNS_MAX, out.console.width - LABEL_CHARS))
    asked: Any = {"tz": question["tz"]} if "tz" in question else {}
    asked |= {name: value for name, value in question.items() if name in {"from_", "to", "path"}}
    asked |= {"every": question["every"]} if "every" in question else {"points": columns}
    found = rest.history(device, **asked, agg=("avg", "min", "max", "count"), fill="null")
    (series,) = found.series
    if any(series["count"]):
        _draw(found, series)
        return
    entries: Any = {name: value for name, value in question.items() if name in {"from_", "to", "path"}}
    _print_entries(rest.history(device, **entries, limit=ENTRIES))


def _draw(found: "History", series: "Buckets") -> None:
    rows = list(plots.plot(series["min"], series["max"], series["avg"], height=HEIGHT))
    for row in rows:
        out.print(row)
    times = [row[2] for row in found.rows()[1]]
    begin, end = (each.strftime("%Y-%m-%d %H:%M:%S") for each in (times[0], times[-1]))
    for line in plots.axis(begin, end, len(series), rows[0].index("┤")):
        out.print(line)
    total = sum(series["count"])
    smallest = min(each for each in series["min"] if each is not None)
    largest = max(each for each in series["max"] if each is not None)
    what = f"{series.device_id} {series.path}".rstrip()
    span = f"{plots.short(smallest)} to {plots.short(largest)}"
    out.print(f"{what}: {total:,} numbers from {span}, by {found.every}, in UTC")


def _print_entries(found: "History") -> None:
    for entry in reversed(found.entries):
        out.print(f"{entry.at_utc[:23].replace('T', ' ')}  {encode(entry.value).decode()}")
    if not found.entries:
        out.print("nothing in this time")
