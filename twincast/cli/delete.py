"""`twincast delete`: one device that is no more."""

from twincast import client
from twincast.cli.options import Device, Fingerprint, Url, commands, server_url
from twincast.cli.terminal import out

app = commands()


@app.command(context_settings={"ignore_unknown_options": True})
def command(device: Device, url: Url = None, fingerprint: Fingerprint = None) -> None:
    """Delete a device: its newest state goes, and everyone who watches is told. A later reading makes it anew."""
    with client.Rest(server_url(url, fingerprint)) as rest:
        event = rest.delete(device)
    out.print(f"deleted {device}, as number {event['seq']:,}")
