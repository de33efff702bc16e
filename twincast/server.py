"""One server process: the application under uvicorn, with the fast WebSocket edge where it fits."""

import asyncio
import errno
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Never

import uvicorn
from rich.markup import escape

from twincast import logs, stdio
from twincast.access import addresses
from twincast.app import App, create_app
from twincast.errors import AddressUnusable
from twincast.journal import has_keys
from twincast.machine import open_files_max, quoted
from twincast.settings import Settings
from twincast.tls import Certificate
from twincast.transports.http import BoundedHttp, HttpBounds

logger = logging.getLogger("twincast.server")

BACKLOG = 4_096  # a fleet that reconnects comes all at once
FILES_FOR_CONNECTIONS = 0.8  # the rest is for the journal, and for those who are told that there are too many
FILES_FOR_OTHERS = (
    48  # at least: the journal, its readers and the event loop have about 26, however few files there are
)
FILES_WHERE_UNBOUNDED = 16_384  # Windows; what they cost in memory is the bound there
TLS_HANDSHAKE_S = 10.0
TICKS_A_LOOK = 10  # uvicorn ticks ten times a second; the certificate is looked at once


def serve(settings: Settings) -> int:
    """Run a server until it is told to stop, and say where its dashboard is.

    Returns:
        The process's exit status: 0 after Ctrl-C or SIGTERM.

    Raises:
        AddressUnusable: the port is in use, or others reach the address and the server is not fit for that.
        JournalUnusable: the journal cannot be opened.
        LoginUnusable: tokens, or the certificate, are not set up in a way that can work.
    """
    _refuse_exposure(settings)
    logs.configure(settings.log_format, settings.log_level)
    certificate = certificate_of(settings)
    listener = listen(settings.host, settings.port)
    edge = fast_edge()
    app = create_app(settings, edge="picows" if edge else "portable")
    config = configured(app, edge)
    # What kept the application from starting is raised below, once, in words for the person who started it.
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.startup_error is None)
    signal.signal(signal.SIGTERM, _exit_quietly)
    try:
        Server(config, app, certificate).run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code not in {0, None} and app.startup_error is None:
            raise
    finally:
        listener.close()
    if app.startup_error is not None:
        raise app.startup_error
    return 0


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate that the settings name; None for plain HTTP.

    Raises:
        LoginUnusable: it cannot be used.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


def configured(app: App, edge: type | None) -> uvicorn.Config:
    """Return how uvicorn runs the application; `edge` is the fast WebSocket edge, or None for the portable one."""
    return uvicorn.Config(
        app,
        ws=edge or "auto",
        ws_max_size=2 * app.settings.message_max_bytes,
        ws_per_message_deflate=False,
        loop="auto",  # uvloop, where it is
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        headers=[] if app.settings.tls_cert is None else [_strict_transport(app.settings)],
        timeout_graceful_shutdown=round(app.settings.shutdown_timeout_s),
    )


class Server(uvicorn.Server):
    """uvicorn's server, with bounds on connections and a certificate that may change."""

    def __init__(
        self, config: uvicorn.Config, app: App, certificate: Certificate | None = None, *, is_talkative: bool = True
    ) -> None:
        super().__init__(config)
        self._app = app
        self._certificate = certificate
        self._is_talkative = is_talkative

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server. The sockets are listened to here, for uvicorn sets no time for TLS handshakes."""
        await super().startup(sockets=[])
        self.lifespan.state["http_bounds"] = _http_bounds(self._app.settings)
        tls = None if self._certificate is None else self._certificate.context
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            server = await loop.create_server(
                self._protocol,
                sock=listener,
                ssl=tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if tls else None,
            )
            self.servers.append(server)
        if sockets and self._is_talkative:
            _say_where(self._app, sockets[0])

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn.Server."""
        if self._certificate is not None and counter % TICKS_A_LOOK == 0:
            self._certificate.reload_if_changed()
        return await super().on_tick(counter)

    def _protocol(self) -> BoundedHttp:
        return BoundedHttp(self.config, self.server_state, self.lifespan.state)


def _strict_transport(settings: Settings) -> tuple[str, str]:
    """Return the header that keeps browsers to TLS (RFC 6797). Of this name alone: others below it have their own."""
    return "Strict-Transport-Security", f"max-age={settings.hsts_max_age_s}"


def _http_bounds(settings: Settings) -> HttpBounds:
    files = open_files_max() or FILES_WHERE_UNBOUNDED
    proxies = [addresses.network(text) for text in settings.trusted_proxy] if settings.behind_tls_proxy else []

    def is_exempt(peer: str) -> bool:
        address = addresses.parse(peer)
        return address is not None and (address.is_loopback or any(address in network for network in proxies))

    return HttpBounds(
        settings.connections_max or max(1, min(int(FILES_FOR_CONNECTIONS * files), files - FILES_FOR_OTHERS)),
        settings.address_connections_max,
        settings.head_max_bytes,
        settings.head_timeout_s,
        settings.body_timeout_s,
        settings.write_timeout_s,
        settings.keep_alive_timeout_s,
        is_exempt,
    )


def _say_where(app: App, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    scheme = "http" if app.settings.tls_cert is None else "https"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        _print_where(app, url)
    except OSError:
        logger.warning("nobody takes standard output; the server is at %s", url)
        stdio.give_up(sys.stdout)


def _print_where(app: App, url: str) -> None:
    assert app.hub is not None
    console = stdio.Output(highlight=False, emoji=False)
    count = len(app.hub.state.twins)
    devices = "1 device" if count == 1 else f"{count:,} devices"
    console.print(f"[bold]twincast[/] {app.version} is up, with {devices} remembered")
    console.print(f"  Dashboard  [bold cyan]{url}/dashboard[/]", soft_wrap=True)
    console.print(f"  API        {url}/docs", soft_wrap=True)
    console.print(f"  Journal    {escape(app.settings.journal)}", soft_wrap=True)
    if app.admission.authority.is_required:
        console.print("  Login      asked for; [bold]twincast keys add[/] makes a key", soft_wrap=True)
    console.print("  Ctrl-C stops it; nothing that was accepted is lost")


def fast_edge() -> type | None:
    """Return the fast WebSocket edge; None, and a warning, where it does not fit."""
    try:
        from twincast.transports.picows import PicowsEdge  # noqa: PLC0415  # absent where no wheel fits
    except ImportError as error:
        logger.warning("the fast WebSocket edge does not fit here, the portable one serves: %s", error)
        return None
    return PicowsEdge


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        AddressUnusable: another program does, or it is none of ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise AddressUnusable(f"cannot listen on {host}:{port}: {_why_not(error)}") from None


def _why_not(error: OSError | UnicodeError) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return "another program is listening there; --port chooses another"
        case errno.EACCES:
            return "the system lets only its administrator have that port; --port 8000 is anyone's"
        case _:
            return "--host takes an address of this machine, such as 127.0.0.1 or 0.0.0.0"


def _refuse_exposure(settings: Settings) -> None:
    """Do not let others reach a server that asks nobody who he is, or lets all on the way read along."""
    is_local = addresses.is_local(settings.host)
    if is_local and not settings.behind_tls_proxy:
        return
    where = "behind a proxy" if is_local else f"on {settings.host}"
    journal = f" --journal {quoted(settings.journal)}" if settings.journal != type(settings)().journal else ""
    missing = []
    if settings.jwt_jwks is None and settings.jwt_key is None and not has_keys(settings.journal):
        if settings.journal.startswith("sqlite:"):
            missing.append(f"a login:  twincast keys add NAME --may publish,read,command --devices '*'{journal}")
        else:
            missing.append("a login:  a journal on disk, such as --journal sqlite:twincast.db, and `twincast keys add`")
    if settings.tls_cert is None and not settings.behind_tls_proxy:
        missing.append("TLS:      twincast serve ... --tls-cert CERT.pem --tls-key KEY.pem")
        missing.append("or        twincast serve ... --behind-tls-proxy, if nobody but the proxy reaches the port")
    if missing:
        raise AddressUnusable(f"others would reach a server {where}, so it needs\n  " + "\n  ".join(missing))


def _exit_quietly(_signal: int, _frame: FrameType | None) -> Never:
    raise SystemExit(0)
