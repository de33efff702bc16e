"""`twincast delete`: one device that is no more, with its history or without."""

from typing import Annotated

import typer

from twincast import client
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out

app = commands()


@app.command(context_settings={"ignore_unknown_options": True})
def command(
    device: Device,
    *,
    history: Annotated[
        bool, typer.Option("--history", help="All that the log has of it, too, for good: readings and commands to it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --history: do not ask.")] = False,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Delete a device: its newest state goes, and everyone who watches is told. A later reading makes it anew."""
    if history and not yes:
        typer.confirm(f"Erase all that the log has of {device}? It cannot be brought back.", abort=True)
    with client.Rest(server_url(url, fingerprint)) as rest:
        event = rest.delete(device, history=history)
        pending = [each for each in rest.erasures() if each["seq"] == event["seq"]] if history else []
    if not history:
        out.print(f"deleted {device}, as number {event['seq']:,}")
        return
    out.print(f"erased {device}, as number {event['seq']:,}: no answer has anything of it any more")
    for each in pending:
        out.print(f"its {' and the '.join(each['pending'])} still have some of it, which the server erases now")
