"""`twincast delete`: one device that is no more, with its history or without."""

import os
from typing import Annotated

import typer

from twincast import client
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import err, out
from twincast.errors import NoSuchDevice, NotPermitted

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
    with client.Rest(server_url(url, fingerprint)) as rest:
        if history and not yes:
            _ask(rest, device)
        event = rest.delete(device, history=history)
        pending = [each for each in rest.erasures() if each["seq"] == event["seq"]] if history else []
    if not history:
        out.print(f"deleted {device}, as number {event['seq']:,}")
        return
    out.print(f"erased {device}, as number {event['seq']:,}: no answer has anything of it any more")
    for each in pending:
        out.print(f"its {' and the '.join(each['pending'])} still have some of it, which the server erases now")


def _ask(rest: client.Rest, device: str) -> None:
    """Ask whether it shall be, once there is something to ask about.

    Raises:
        NoSuchDevice: there is not.
        typer.Exit: it shall not.
        typer.Abort: Ctrl-C, or the end of the input.
    """
    try:
        rest.history(device, limit=1)
    except NotPermitted:  # a key that may not read can still delete
        pass
    except NoSuchDevice as error:
        if "TWINCAST_TOKEN" not in os.environ:
            raise
        raise NoSuchDevice(f"{error}, or none that this key may read; with --yes it is deleted unseen") from None
    is_wanted = False
    try:
        is_wanted = typer.confirm(f"Erase all that the log has of {device}? It cannot be brought back.")
    finally:
        if not is_wanted:
            err.print("nothing was erased")
    if not is_wanted:
        raise typer.Exit(1)
