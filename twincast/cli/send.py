"""`twincast send`: one value from the command line, or one a line from standard input."""

from typing import TYPE_CHECKING, Annotated

import typer

from twincast import client
from twincast.cli.arguments import one_word, value_of
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out
from twincast.core.times import read_time
from twincast.errors import BadTime
from twincast.later import later

if TYPE_CHECKING:
    from twincast.cli import lines
else:
    lines = later("twincast.cli.lines")

app = commands()


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def command(
    context: typer.Context,
    device: Device,
    value: Annotated[
        str,
        typer.Argument(
            help="What is JSON is that: 21.5, true, null and, quoted for a shell, '{\"rpm\": 900}' or '\"21.5\"'."
            ' All else is text, but what begins with {, \\[ or " must be JSON.'
            " - reads one JSON value a line from standard input."
        ),
    ],
    *,
    measured_at: Annotated[
        str | None, typer.Option(help="When it was measured, with its zone: 2026-11-27T04:16:10Z. \\[default: now]")
    ] = None,
    timed: Annotated[
        bool, typer.Option("--timed", help="Each line of standard input begins with its time, as of --measured-at.")
    ] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Send a reading, or one a line from standard input."""
    try:
        text = one_word([value, *context.args])
        if text == "-":
            if measured_at is not None:
                raise ValueError("--measured-at is of one value; with --timed each line begins with its own time")
            lines.send(server_url(url, fingerprint), device, is_timed=timed)
        elif timed:
            raise ValueError("--timed is of the lines of standard input, VALUE -; one value has --measured-at")
        else:
            at = None if measured_at is None else read_time(measured_at, "--measured-at")
            send(server_url(url, fingerprint), device, text, measured_at=at)
    except BadTime as error:
        raise typer.BadParameter(error.message) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def send(url: str, device_id: str, text: str, *, measured_at: str | None = None) -> None:
    """Send one value, and when it was measured, if that is not now.

    Raises:
        ValueError: see `value_of`.
        TwincastError: the server refused it, or is not there.
    """
    value = value_of(text)
    with client.Rest(url) as rest:
        event = rest.publish(device_id, value, measured_at=measured_at)
    as_text = ", as text" if isinstance(value, str) else ""
    as_late = ", as late: the device has a newer one" if event["type"] == "late" else ""
    out.print(f"stored as number {event['seq']:,}{as_text}{as_late}")
