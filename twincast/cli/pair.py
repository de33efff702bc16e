"""`twincast pair`: a code on the server's machine, by which a device gets a key of its own."""

import base64
import time
from typing import Annotated
from urllib.parse import urlsplit

import typer

from twincast.access.addresses import is_local
from twincast.access.pairing import CODE_LIFE_S, CODES_MAX, make_pairing
from twincast.cli import keys
from twincast.cli.arguments import actions_of, duration_s
from twincast.cli.options import Devices, Fingerprint, Journal, May, Rate, address, commands, journal_url
from twincast.cli.terminal import err, out
from twincast.client.pin import fingerprint_of
from twincast.cluster.key_store import KeyStore
from twincast.core.rights import Rights
from twincast.journal.place import Place, place_noted
from twincast.server import qr

app = commands()


@app.command()
def command(
    name: Annotated[str, typer.Argument(help="What you call the key that it becomes, such as lab/fan.")],
    *,
    may: May,
    devices: Devices = None,
    expires: Annotated[
        str | None, typer.Option(help="How long the key is good, such as 30d. \\[default: for ever]")
    ] = None,
    rate: Rate = None,
    url: Annotated[
        str | None, typer.Option(help="Where the device reaches the server. \\[default: where that says it is]")
    ] = None,
    fingerprint: Fingerprint = None,
    journal: Journal = None,
) -> None:
    """Show a code, and a QR code, by which a device or a phone gets a key of its own: once, within 5 minutes."""
    pair(
        journal_url(journal),
        name,
        may=may,
        devices=devices or ["*"],
        expires=expires,
        rate_per_s=rate,
        url=None if url is None else address(url),
        fingerprint=fingerprint,
    )


def pair(
    journal: str,
    name: str,
    *,
    may: list[str],
    devices: list[str],
    expires: str | None,
    rate_per_s: float | None,
    url: str | None,
    fingerprint: str | None,
) -> None:
    """Make a code and print it, alone on standard output; and print how a device or a phone gets a key with it.

    Args:
        journal: the server's.
        name: of the key that it becomes, as what follows; see keys.add.
        may: its rights.
        devices: the patterns of them.
        expires: for how long the key is good.
        rate_per_s: how many updates a second.
        url: the server's address as others see it; None for the one that the server has noted itself.
        fingerprint: of that server, if it has a certificate of its own.
    """
    rights = Rights.of({action: devices for action in actions_of(may)})
    lives_s = None if expires is None else duration_s(expires)
    pairing, code = make_pairing(name, rights, now_s=int(time.time()), rate_per_s=rate_per_s, lives_s=lives_s)
    store = KeyStore(journal)
    with store.open(make=True, has_codes=True) as access:
        access.pair(pairing, keys.now_utc(), keys.actor(), life_s=CODE_LIFE_S, waiting_max=CODES_MAX)
    until = time.strftime("%H:%M:%S", time.localtime(pairing.until_s))
    _tell(f"A code for the key {name}, which may {keys.rights_of(pairing.grants)}. It is good once, until {until}:")
    out.print(code)
    if store.is_served is not False:
        noted = None if store.file is None else place_noted(store.file)
        _tell_how(code, noted if url is None else Place(url, fingerprint))
    else:
        _tell(f"No server runs on {store.place} now; the code can be used once one does.")


def _tell_how(code: str, place: Place | None) -> None:
    if place is None:
        _tell("On the device:  twincast join URL CODE   with the server's address; --url says it here.")
        return
    url, pin = place.url, place.fingerprint
    trusting, curl = "", "curl"
    if pin is not None:
        digest = base64.b64encode(fingerprint_of(pin)).decode()
        trusting, curl = f" --fingerprint {pin}", f"curl -k --pinnedpubkey sha256//{digest}"
    body = f'{{"code": "{code}"}}'
    _tell(f"On the device:  twincast join {url} {code}{trusting}")
    _tell(f"or:  {curl} -H 'Content-Type: application/json' -d '{body}' {url}/api/pair")
    if is_local(urlsplit(url).hostname):
        _tell(
            "That is this machine alone. `twincast serve --lan` is reached by others; --url says where, behind a proxy."
        )
        return
    page = f"{url}/dashboard#pair={code}"
    _tell(f"On a phone:  {page}")
    if qr.can_be_drawn(err.console.encoding):
        for line in qr.drawn(page):
            err.console.print(line, soft_wrap=True)


def _tell(text: str) -> None:
    err.print(text)
