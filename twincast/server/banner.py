"""What a server prints when it is up: its address, and how a person, a program and a phone log in."""

import logging
import sys
from typing import Self

import msgspec
from rich.markup import escape

from twincast import __version__, stdio
from twincast.app import App
from twincast.cluster.key_store import KeyStore
from twincast.console import Output
from twincast.journal.place import Place, forget_place, note_place
from twincast.server import qr
from twincast.server.exposure import Exposure, has_issuer, keys_of
from twincast.server.first_key import OWNER, make_first_code, make_first_key, save_first_key
from twincast.wire import implementation

logger = logging.getLogger("twincast.server")


class Start(msgspec.Struct, frozen=True):
    """What a server knows of itself once it serves."""

    devices: int | None
    """How many it remembers; None while it reads its log."""
    is_login_asked: bool

    @classmethod
    def of(cls, app: App) -> Self:
        """Return what an application knows that has started."""
        parts = app.parts
        devices = len(parts.hub.state.twins) if parts.is_running else None
        return cls(devices, parts.admission.authenticator.is_required)


def _remembered(devices: int | None) -> str:
    if devices is None:
        return "and reads its log before it serves anything"
    return f"with {'1 device' if devices == 1 else f'{devices:,} devices'} remembered"


class Banner:
    """The banner of one server on standard output."""

    def __init__(self, exposure: Exposure, host: str, port: int, *, workers: int = 0) -> None:
        """Prepare the banner.

        Args:
            exposure: where the server is, and for whom.
            host: of the first listener.
            port: of the first listener.
            workers: how many processes share the port; 0 if it is not shared.
        """
        self._exposure = exposure
        self._workers = workers
        self._url = exposure.url(host, port)
        self._keys = KeyStore(keys_of(exposure.settings))
        self._journal_path = self._keys.file
        self._console = Output(highlight=False, emoji=False)
        self._code: str | None = None
        self._is_noted = False

    def show_first_key(self) -> None:
        """Make the first key if others may reach the server and there is none; show it on a terminal, else save it.

        It is not printed into a pipe, for logs are kept and read by others. Raises what `make_first_key` does.
        """
        settings = self._exposure.settings
        if not settings.lan or self._journal_path is None or has_issuer(settings) or self._keys.has_keys():
            return
        make_first_key(self._keys, self._show_key if self._console.is_terminal else self._save_key)
        if self._console.is_terminal:
            self._code = make_first_code(self._keys)

    def show(self, start: Start) -> None:
        """Print the banner, and note the address for `twincast pair`."""
        if self._journal_path is not None:
            try:
                kept = self._exposure.self_signed
                note_place(self._journal_path, Place(self._url, None if kept is None else kept.fingerprint))
                self._is_noted = True
            except OSError as error:
                logger.warning("`twincast pair` will not know where the server is: %s", error.strerror)
        try:
            self._show(start)
        except OSError:
            logger.warning("nobody takes standard output; the server is at %s", self._url)
            stdio.give_up(sys.stdout)

    def forget(self) -> None:
        """Remove the note of the address, if it is this server's."""
        if self._is_noted and self._journal_path is not None:  # another server's note is not ours
            forget_place(self._journal_path)

    def _show(self, start: Start) -> None:
        self._say(f"[bold]twincast[/] {__version__} is up, {_remembered(start.devices)}")
        self._say(f"  Dashboard  [bold cyan]{escape(f'{self._url}/dashboard')}[/]")
        self._say(f"  API        {escape(self._url)}/docs")
        self._say(f"  Journal    {escape(self._exposure.settings.journal)}")
        if self._workers:
            self._say(f"  Workers    {self._workers}, which share one log")
        self._say(f"  Messages   {implementation.described()}")
        if self._exposure.private:
            also = [str(address) for address in self._exposure.private[1:]]
            if also:
                self._say(f"  Also at    {', '.join(also)}")
        if start.is_login_asked:
            self._say("  Login      asked for; [bold]twincast keys add[/] makes a key, [bold]twincast pair[/] a code")
        if self._exposure.self_signed is not None:
            self._say(f"  Trust      {self._exposure.self_signed.fingerprint}")
        if self._exposure.private:
            self._show_ways()
        self._say("  Ctrl-C stops it; nothing that was accepted is lost")

    def _show_ways(self) -> None:
        kept, settings = self._exposure.self_signed, self._exposure.settings
        if settings.tls_cert is None:
            self._say(
                "  Plain HTTP, as asked: whoever is on this network can read all that is sent, keys too, and use them."
                " [bold]--self-signed[/] encrypts it."
            )
        curl = "curl" if kept is None else f"curl -k --pinnedpubkey {kept.curl_pin}"
        pin = "" if kept is None else f', fingerprint="{kept.fingerprint}"'
        body = '{"device_id": "lab/lamp", "value": 1}'
        self._say("  With a key in TWINCAST_TOKEN:")
        self._say(
            escape(
                f'    {curl} -H "Authorization: Bearer $TWINCAST_TOKEN" -H "Content-Type: application/json"'
                f" -d '{body}' {self._url}/api/data"
            )
        )
        self._say("    from twincast.client import connect")
        self._say(escape(f'    async with connect("{self._url}"{pin}) as client: await client.publish("lab/lamp", 1)'))
        self._show_code()

    def _show_code(self) -> None:
        page = f"{self._url}/dashboard"
        if self._code is not None:
            page = f"{page}#pair={self._code}"
            self._say("  For a phone, once, within 5 minutes; it is logged in then:")
        else:
            self._say("  For a phone; [bold]twincast pair NAME --may read[/] shows one that logs it in:")
        if qr.can_be_drawn(self._console.encoding):
            for line in qr.drawn(page):
                self._console.print(line, soft_wrap=True)
        self._say(escape(f"    {page}"))

    def _show_key(self, secret: str) -> None:
        self._say(f"The first key, {OWNER}, which may do everything. It is shown this once:")
        self._console.print(secret, soft_wrap=True)

    def _save_key(self, secret: str) -> None:
        assert self._journal_path is not None
        name = save_first_key(self._journal_path, secret)
        self._say(f"The first key, {OWNER}, which may do everything, is in {escape(name)}: take it from there.")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
