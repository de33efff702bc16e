"""What a server prints when it is up: its address, and how a person, a program and a phone log in."""

import logging
import sys

from rich.markup import escape

from twincast import stdio
from twincast.app import App
from twincast.journal.place import Place, forget_place, note_place
from twincast.journal.url import file_of
from twincast.server import qr
from twincast.server.exposure import Exposure, has_login
from twincast.server.first_key import OWNER, make_first_code, make_first_key, save_first_key

logger = logging.getLogger("twincast.server")


class Banner:
    """The banner of one server on standard output."""

    def __init__(self, exposure: Exposure, host: str, port: int) -> None:
        """Prepare the banner.

        Args:
            exposure: where the server is, and for whom.
            host: of the first listener.
            port: of the first listener.
        """
        self._exposure = exposure
        self._url = exposure.url(host, port)
        self._journal_path = file_of(exposure.settings.journal)
        self._console = stdio.Output(highlight=False, emoji=False)
        self._code: str | None = None
        self._is_noted = False

    def show_first_key(self) -> None:
        """Make the first key if others may reach the server and there is none; show it on a terminal, else save it.

        It is not printed into a pipe, for logs are kept and read by others. Raises what `make_first_key` does.
        """
        if not self._exposure.settings.lan or has_login(self._exposure.settings) or self._journal_path is None:
            return
        make_first_key(self._journal_path, self._show_key if self._console.is_terminal else self._save_key)
        if self._console.is_terminal:
            self._code = make_first_code(self._journal_path)

    def show(self, app: App) -> None:
        """Print the banner, and note the address for `twincast pair`."""
        if self._journal_path is not None:
            try:
                kept = self._exposure.self_signed
                note_place(self._journal_path, Place(self._url, None if kept is None else kept.fingerprint))
                self._is_noted = True
            except OSError as error:
                logger.warning("`twincast pair` will not know where the server is: %s", error.strerror)
        try:
            self._show(app)
        except OSError:
            logger.warning("nobody takes standard output; the server is at %s", self._url)
            stdio.give_up(sys.stdout)

    def forget(self) -> None:
        """Remove the note of the address, if it is this server's."""
        if self._is_noted and self._journal_path is not None:  # another server's note is not ours
            forget_place(self._journal_path)

    def _show(self, app: App) -> None:
        count = len(app.parts.hub.state.twins)
        devices = "1 device" if count == 1 else f"{count:,} devices"
        self._say(f"[bold]twincast[/] {app.version} is up, with {devices} remembered")
        self._say(f"  Dashboard  [bold cyan]{escape(f'{self._url}/dashboard')}[/]")
        self._say(f"  API        {escape(self._url)}/docs")
        self._say(f"  Journal    {escape(app.settings.journal)}")
        if self._exposure.private:
            also = [str(address) for address in self._exposure.private[1:]]
            if also:
                self._say(f"  Also at    {', '.join(also)}")
        if app.parts.admission.authenticator.is_required:
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
