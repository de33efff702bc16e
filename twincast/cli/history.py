"""`twincast history`: what a device reported, as a curve, or as lines for other programs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

import typer

from twincast import client
from twincast.cli import plot as plots
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import err, out
from twincast.cli.units import counted
from twincast.errors import NoSuchDevice, TooMuch, ValidationFailed
from twincast.later import later
from twincast.wire.messages import encode

if TYPE_CHECKING:
    from rich import cells

    from twincast.client import Buckets, History
else:
    cells = later("rich.cells")

HEIGHT, COLUMNS_MIN, COLUMNS_MAX = 12, 2, 500
LABEL_CHARS = 16
"""So much of a line is left for the numbers at the axis."""
ENTRIES = 20
"""How many are shown of what has no numbers, unless the limit says otherwise."""
_OF_ALL = ("from_", "to", "path")
"""What entries and buckets are asked for alike."""

Question = Mapping[str, Any]

app = commands()


@app.command()
def command(
    device: Device,
    *,
    since: Annotated[str | None, typer.Option("--from", help="The beginning: -1h, -7d, a time or a position.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="The end; now, if not given.")] = None,
    path: Annotated[
        list[str] | None, typer.Option(help="A part of the value, as a JSON Pointer: /motor/rpm; several times.")
    ] = None,
    every: Annotated[str | None, typer.Option(help="The width of buckets: 500ms, 5m, 1h, 1d, 1mo.")] = None,
    agg: Annotated[
        str | None, typer.Option(help="Of buckets as lines: avg, min, max, sum, count, first, last, p50, p95, …")
    ] = None,
    tz: Annotated[str | None, typer.Option(help="The zone of days, weeks and months, such as Europe/Berlin.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="How many entries, the newest. \\[default: all, as lines]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as into a pipe.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Show what a device reported: a curve of its numbers, or its newest values; lines into a pipe."""
    given = {"from_": since, "to": until, "path": path, "every": every, "agg": agg, "tz": tz, "limit": limit}
    question = {name: value for name, value in given.items() if value}
    if as_json and as_csv:
        raise typer.BadParameter("lines are JSON or CSV; give --json or --csv, not both")
    with client.Rest(server_url(url, fingerprint)) as rest, _refusals(device):
        if as_csv or as_json or not out.is_terminal:
            _print_lines(rest, device, question, as_csv=as_csv)
        elif limit is not None:
            found: History = rest.history(device, **question)  # type: ignore[arg-type]
            if found.entries:
                _print_entries(device, found, _Clock.of(tz), "")
            else:
                _print_nothing(rest, device, _Clock.of(tz))
        else:
            _show(rest, device, question)


@contextmanager
def _refusals(device: str) -> Iterator[None]:
    """Refuse what cannot be asked for as wrong arguments are, and say what a pattern is not."""
    try:
        yield
    except ValidationFailed as error:
        raise typer.BadParameter(error.message) from None
    except NoSuchDevice as error:
        if "*" not in device:
            raise
        raise NoSuchDevice(f"{error.message}; this command takes the name of one device, not a pattern") from None


def _print_lines(rest: client.Rest, device: str, question: Question, *, as_csv: bool) -> None:
    """Print all that was asked for, as lines; say it if that is nothing, for nobody sees a pipe that is empty."""
    asked: Any = question if "limit" in question or "every" in question else {**question, "limit": None}
    many = 0
    for line in rest.history_lines(device, "csv" if as_csv else "ndjson", **asked):
        out.print(line.rstrip("\n"))
        many += 1
    if many > int(as_csv):
        return
    hint = "; --path /NAME takes a part of an object" if "path" not in question else ""
    what = f"no numbers in this time{hint}" if "every" in question else "nothing in this time"
    err.print(f"twincast: {what}{_why_empty(rest, device, _Clock.of(question.get('tz')))}")


def _why_empty(rest: client.Rest, device: str, clock: "_Clock") -> str:
    """Return what is said beside it where nothing is found: that the history was deleted, if it was, and when."""
    deletions = rest.history(device, kinds="deleted").entries
    erased = next((entry for entry in deletions if entry.scope == "history"), None)
    if erased is None:
        return ""
    at = clock.told(datetime.fromisoformat(erased.timestamp_utc))
    return f"; the history of {device} up to {at} ({clock.name}) was deleted"


class _Clock(NamedTuple):
    """In which zone times are told."""

    zone: tzinfo
    name: str

    @classmethod
    def of(cls, tz: str | None) -> "_Clock":
        """Return the clock of a zone, which the server knows; UTC if this machine does not."""
        try:
            return cls(UTC if tz is None else ZoneInfo(tz), tz or "UTC")
        except (KeyError, ValueError, OSError):
            return cls(UTC, "UTC")

    def told(self, time: datetime, timespec: str = "seconds") -> str:
        """Return a time without its zone."""
        return time.astimezone(self.zone).replace(tzinfo=None).isoformat(" ", timespec)


def _show(rest: client.Rest, device: str, question: Question) -> None:
    """Draw a curve, or print the newest values of what has no numbers in the time asked for."""
    if "agg" in question:
        raise typer.BadParameter(
            "--agg is of lines, with --json or --csv: a curve shows the smallest number of each moment, the largest,"
            " and the average"
        )
    clock = _Clock.of(question.get("tz"))
    found = _buckets(rest, device, question)
    if not any(any(series["count"]) for series in found.series):
        entries: Any = {name: value for name, value in question.items() if name in _OF_ALL}
        past = rest.history(device, **entries, limit=ENTRIES)
        if past.entries:
            _print_entries(device, past, clock, "no numbers in this time; ")
        else:
            _print_nothing(rest, device, clock)
        return
    asked = question.get("every", found.every)
    widened = f" ({asked} has more than fit here)" if asked != found.every else ""
    for series in found.series:
        if any(series["count"]):
            _draw(series, clock, f"by {found.every}{widened}")
        else:
            out.print(f"{series.device_id} {series.path}: no numbers in this time")


def _buckets(rest: client.Rest, device: str, question: Question) -> "History":
    """Return the buckets of a curve: of the width that was asked for if they fit the terminal, else of a wider one."""
    columns = max(COLUMNS_MIN, min(COLUMNS_MAX, out.console.width - LABEL_CHARS))
    asked: Any = {name: value for name, value in question.items() if name in {*_OF_ALL, "tz"}}
    asked |= {"agg": ("avg", "min", "max", "count"), "fill": "null"}
    if "every" in question:
        try:
            found = rest.history(device, **asked, every=question["every"])
        except TooMuch:
            pass
        else:
            if all(len(series) <= columns for series in found.series):
                return found
    return rest.history(device, **asked, points=columns)


def _draw(series: "Buckets", clock: _Clock, width: str) -> None:
    rows = list(plots.plot(series["min"], series["max"], series["avg"], height=HEIGHT))
    for row in rows:
        out.print(row)
    begin, end = (clock.told(datetime.fromtimestamp(series.time_ms[at] / 1_000, UTC)) for at in (0, -1))
    for line in plots.axis(begin, end, len(series), rows[0].index("┤"), out.console.width):
        out.print(line)
    smallest, largest = (
        plots.short(choose(each for each in series[name] if each is not None))
        for name, choose in (("min", min), ("max", max))
    )
    span = smallest if smallest == largest else f"from {smallest} to {largest}"
    what = f"{series.device_id} {series.path}".rstrip()
    out.print(f"{what}: {counted(sum(series['count']), 'number')}, {span}, {width}, in {clock.name}")


def _print_entries(device: str, found: "History", clock: _Clock, why: str) -> None:
    for entry in reversed(found.entries):
        at = clock.told(datetime.fromisoformat(entry.at_utc), "milliseconds")
        out.print(_cut(f"{at}  {encode(entry.value).decode()}", out.console.width))
    many = counted(len(found.entries), "value")
    which = f"the newest {many}; --limit asks for more" if found.has_more else f"{many}, the newest last"
    out.print(f"{device}: {why}{which}; times in {clock.name}")


def _print_nothing(rest: client.Rest, device: str, clock: _Clock) -> None:
    out.print(f"nothing in this time{_why_empty(rest, device, clock)}")


def _cut(text: str, width: int) -> str:
    """Return a line that fits, cut at its end."""
    return text if cells.cell_len(text) <= width else f"{cells.set_cell_size(text, width - 1).rstrip()}…"
