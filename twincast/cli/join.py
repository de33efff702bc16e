"""`twincast join`: a code becomes a key of this device's own."""

import os
from contextlib import suppress
from typing import Annotated

import typer

from twincast import client
from twincast.cli.options import Fingerprint, commands, server_url
from twincast.cli.terminal import err, out
from twincast.errors import SettingUnusable
from twincast.machine import OWNER_ALONE

app = commands()


@app.command()
def command(
    url: Annotated[str, typer.Argument(help="The server's address.")],
    code: Annotated[str, typer.Argument(help="What `twincast pair` shows on the server's machine.")],
    save: Annotated[
        str | None, typer.Option(help="A new file for the key, which you alone may read. \\[default: it is printed]")
    ] = None,
    fingerprint: Fingerprint = None,
) -> None:
    """Exchange a code for a key of this device's own."""
    join(server_url(url, fingerprint), code, save)


def join(url: str, code: str, save: str | None) -> None:
    """Exchange a code for a key, and print that, alone on standard output; or save it in a new file of our own."""
    if save is None:
        out.print(client.pair(url, code))
        err.print("This key is shown this once; as the setting TWINCAST_TOKEN every command and client takes it.")
        return
    try:
        descriptor = os.open(save, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE)
    except OSError as error:  # before the code is used, for it is good once
        raise SettingUnusable(f"--save {save}: {error.strerror}; the code was not used") from None
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{client.pair(url, code)}\n")
    except BaseException:
        with suppress(OSError):
            os.unlink(save)
        raise
    said = f"The key is in {save}, for you alone to read. TWINCAST_TOKEN=$(cat {save}) gives it to a command or client."
    err.print(said)
