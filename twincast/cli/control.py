"""`twincast control`: one command to one target."""

from typing import Annotated

import typer

from twincast import client
from twincast.cli.arguments import args_of
from twincast.cli.options import Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out

app = commands()


@app.command(context_settings={"ignore_unknown_options": True})
def command(
    target: Annotated[str, typer.Argument(help="Whom the command is for.")],
    command: Annotated[str, typer.Argument(help="Its name.")],
    args: Annotated[list[str] | None, typer.Argument(help="A JSON object, or NAME=VALUE pairs.")] = None,
    url: Url = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Send a command to everyone who watches."""
    try:
        control(server_url(url, fingerprint), target, command, args or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def control(url: str, target: str, command: str, args: list[str]) -> None:
    """Send a command, and print its position.

    Raises:
        ValueError: see `args_of`.
        TwincastError: the server refused it, or is not there.
    """
    with client.Rest(url) as rest:
        event = rest.control(target, command, args_of(args))
    out.print(f"dispatched as number {event['seq']:,}")
