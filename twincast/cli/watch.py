"""`twincast watch`: every device live in the terminal, or one JSON line an event into a pipe."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from twincast.cli import preflight
from twincast.cli.arguments import actions_of
from twincast.cli.lasting import say_waiting, until_interrupted
from twincast.cli.options import Fingerprint, Patterns, Url, commands, server_url
from twincast.client import Event, connect
from twincast.core.subscription import rules_of
from twincast.errors import ValidationFailed
from twincast.later import later

if TYPE_CHECKING:
    from twincast.cli import screen
else:
    screen = later("twincast.cli.screen")

_encode = msgspec.json.Encoder().encode

app = commands()


@app.command()
def command(
    patterns: Patterns = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            help="Which events, as JSON lines: data_update, control, deleted, late; several with commas."
            " \\[default: all but late]"
        ),
    ] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Show every change: a live table, or one JSON line a change if the output is a pipe."""
    wanted = None if kinds is None else actions_of(kinds)
    try:
        rules_of(patterns or ("*",), wanted)
    except ValidationFailed as error:
        raise typer.BadParameter(error.message) from None
    until_interrupted(watch(server_url(url, fingerprint), patterns or [], wanted))


async def watch(url: str, patterns: Sequence[str], kinds: Sequence[str] | None = None) -> None:
    """Show a server's events until interrupted; reconnect by itself.

    Args:
        url: the server.
        patterns: which devices, such as `lab/*`. None means all.
        kinds: which events, as lines, in a terminal too; None for a table there.

    Raises:
        TwincastError: the server refuses it.
    """
    if kinds is None and sys.stdout.isatty():
        await screen.Screen(url, patterns).show()
        return
    async with (
        connect(url, devices=(), timeout_s=None, on_link=say_waiting) as client,
        client.watch(
            *patterns, kinds=kinds
        ) as events,  # from here on, so that nothing is missed while rights are asked for
    ):
        await preflight.require_read(url, patterns)
        async for event in events:
            print(_line(event), flush=True)


def _line(event: Event) -> str:
    """Return an event as the wire has it."""
    shown: dict[str, Any]
    if event.kind == "control":
        shown = {"type": event.kind, "target": event.device_id, "command": event.command, "args": event.args}
    elif event.kind == "deleted":
        shown = {"type": event.kind, "device_id": event.device_id}
    else:
        shown = {"type": event.kind, "device_id": event.device_id, "value": event.value}
    shown |= {"timestamp_utc": event.timestamp_utc, "source": event.source, "seq": event.seq, "epoch": event.epoch}
    if event.measured_at_utc is not None:
        shown["measured_at_utc"] = event.measured_at_utc
    if event.clock is not None:
        shown["clock"] = event.clock
    return _encode(shown | {"merged": event.merged} if event.merged > 1 else shown).decode()
