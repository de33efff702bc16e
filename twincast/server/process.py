"""One server process: the application under uvicorn, with the fast WebSocket edge where it fits."""

import asyncio
import errno
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Never

import uvicorn

from twincast import logs
from twincast.access.addresses import TrustedProxies
from twincast.app import App, create_app, refuse_settings
from twincast.core.peers import Servers
from twincast.errors import AddressUnusable
from twincast.machine import open_files_max
from twincast.server.banner import Banner, Start
from twincast.server.exposure import exposed, refuse_exposure, with_certificate
from twincast.server.http import BoundedHttp, HttpBounds
from twincast.server.leaving import end_spread, spread_s
from twincast.server.tls import Certificate
from twincast.settings import Settings

logger = logging.getLogger("twincast.server")

BACKLOG = 4_096  # a fleet that reconnects comes all at once
FILES_FOR_CONNECTIONS = 0.8  # the rest is for the journal, and for connections that are refused with an answer
FILES_FOR_OTHERS = (
    48  # at least: the journal, its readers and the event loop have about 26, however few files there are
)
FILES_WHERE_UNBOUNDED = 16_384  # Windows; what they cost in memory is the bound there
TLS_HANDSHAKE_S = 10.0
TICKS_A_LOOK = 10  # uvicorn ticks ten times a second; the certificate is looked at once


def serve(settings: Settings) -> int:
    """Run a server until a signal stops it, and print where its dashboard is.

    Returns:
        The process's exit status: 0 after Ctrl-C or SIGTERM.

    Raises:
        AddressUnusable: the port is in use, or others reach the address and the server must not be exposed as it is.
        JournalUnusable: the journal cannot be opened.
        LoginUnusable: tokens, or the certificate, are not set up in a way that can work.
    """
    logs.configure(settings.log_format, settings.log_level)
    refuse_exposure(settings)
    refuse_settings(settings)
    exposure = exposed(settings)
    certificate = certificate_of(settings)
    with ExitStack() as undo:
        listeners = listen_all(exposure.hosts, settings.port)
        for listener in listeners:
            undo.enter_context(listener)
        exposure = with_certificate(exposure)
        certificate = certificate or certificate_of(exposure.settings)
        banner = Banner(exposure, *listeners[0].getsockname()[:2])
        banner.show_first_key()
        undo.callback(banner.forget)
        return run(
            exposure.settings,
            listeners,
            certificate,
            keeps_to_tls=exposure.self_signed is None,
            on_start=lambda app: banner.show(Start.of(app)),
        )


def run(
    settings: Settings,
    listeners: list[socket.socket],
    certificate: Certificate | None,
    *,
    keeps_to_tls: bool,
    on_start: Callable[[App], None],
    is_worker: bool = False,
    has_successors: bool = True,
) -> int:
    """Serve on sockets that are bound until a signal stops it.

    Args:
        settings: of this server; who may reach it has been decided.
        listeners: the sockets, which may listen already.
        certificate: for TLS; None for plain HTTP.
        keeps_to_tls: see `configured`.
        on_start: called once it serves.
        is_worker: whether others listen on the port as well. Then this one does so only once its log is read.
        has_successors: whether others go on when it stops, on whose log it is, so that its clients are sent there.

    Returns:
        The process's exit status: 0 after Ctrl-C or SIGTERM.

    Raises:
        TwincastError: it could not start; the message says why.
    """
    edge = fast_edge()
    app = create_app(settings, edge="picows" if edge else "portable")
    app.life.waits_for_log |= is_worker
    config = configured(app, edge, keeps_to_tls=keeps_to_tls)

    def started(app: App) -> None:
        on_start(app)
        _settle_memory()

    server = Server(config, app, certificate, on_start=started)
    app.parts.is_spread = has_successors
    return _run(server, app, listeners)


def _settle_memory() -> None:
    """Take what the start has made out of the garbage collector's sight: it stays as long as the process.

    A full collection walks all that it sees, and requests that wait for the disk bring one on the sooner the more there
    is of them: with the 80,000 objects of the modules these collections took a tenth of a loaded server's time.
    """
    gc.collect()
    gc.freeze()


def _run(server: "Server", app: App, listeners: list[socket.socket]) -> int:
    # An error of the application's start is raised below, once, in words for the person who started it. A second
    # signal cancels the application where it is; Starlette reports that with its traceback, and it is no error.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: app.startup_error is None and not (server.force_exit and _is_traceback(record))
    )
    signal.signal(signal.SIGTERM, exit_quietly)
    try:
        server.run(sockets=listeners)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code not in {0, None} and app.startup_error is None:
            raise
    if app.startup_error is not None:
        raise app.startup_error
    if server.force_exit:
        logger.warning("stopped at once, as a second signal asked: requests that were under way were not answered")
    return 0


def _is_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is not None or str(record.msg).startswith("Traceback")


def certificate_of(settings: Settings) -> Certificate | None:
    """Return the certificate that the settings name; None for plain HTTP.

    Raises:
        LoginUnusable: it cannot be used.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


def configured(app: App, edge: type | None, *, keeps_to_tls: bool = True) -> uvicorn.Config:
    """Return how uvicorn runs the application.

    Args:
        app: the application.
        edge: the fast WebSocket edge, or None for the portable one.
        keeps_to_tls: whether answers carry HSTS. Not with a self-signed certificate: a browser that trusts it would be
            kept from every other server of that name.
    """
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
        headers=[_strict_transport(app.settings)] if app.settings.tls_cert is not None and keeps_to_tls else [],
        timeout_graceful_shutdown=round(app.settings.shutdown_timeout_s),
    )


class Server(uvicorn.Server):
    """uvicorn's server, with bounds on connections and a certificate that may change."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: App,
        certificate: Certificate | None = None,
        *,
        on_start: Callable[[App], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._app = app
        app.parts.is_spread = True
        app.life.end_server = self.end
        self._certificate = certificate
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server. The sockets are opened here, because uvicorn sets no time for TLS handshakes."""
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
        if self._on_start is not None:
            self._on_start(self._app)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server. Where there are other servers on the log, clients are sent to them first."""
        servers = self._app.parts.servers
        if servers is not None and not self.force_exit:
            began_s = time.monotonic()
            await self._leave(servers)
            left_s = self._app.settings.shutdown_timeout_s - (time.monotonic() - began_s)
            self.config.timeout_graceful_shutdown = max(1, round(left_s))
        await super().shutdown(sockets)

    async def _leave(self, servers: Servers) -> None:
        parts = self._app.parts
        await parts.leave()
        if not servers.others_stay:
            return
        websockets = [each for each in self.server_state.connections if not isinstance(each, BoundedHttp)]
        ends = [*(each.shutdown for each in websockets), *parts.open_responses]
        over_s = spread_s(len(ends), self._app.settings.shutdown_timeout_s) if parts.is_spread else 0.0
        logger.info("%d clients are sent to the other servers, over %.1f s", len(ends), over_s)
        await end_spread(ends, over_s, lambda: self.force_exit or not servers.others_stay)

    def end(self) -> None:
        """Stop as a signal would: what was accepted is stored first."""
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn.Server."""
        if self._certificate is not None and counter % TICKS_A_LOOK == 0:
            self._certificate.reload_if_changed()
        return await super().on_tick(counter)

    def _protocol(self) -> BoundedHttp:
        return BoundedHttp(self.config, self.server_state, self.lifespan.state)


def _strict_transport(settings: Settings) -> tuple[str, str]:
    """Return the header that keeps browsers to TLS (RFC 6797). Without subdomains: those decide for themselves."""
    return "Strict-Transport-Security", f"max-age={settings.hsts_max_age_s}"


def _http_bounds(settings: Settings) -> HttpBounds:
    files = open_files_max() or FILES_WHERE_UNBOUNDED
    proxies = TrustedProxies(settings.believed_proxies)
    return HttpBounds(
        connections_max=settings.connections_max
        or max(1, min(int(FILES_FOR_CONNECTIONS * files), files - FILES_FOR_OTHERS)),
        address_connections_max=settings.address_connections_max,
        head_max_bytes=settings.head_max_bytes,
        head_timeout_s=settings.head_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
        is_exempt=proxies.is_exempt,
    )


def fast_edge() -> type | None:
    """Return the fast WebSocket edge; None, and a warning, where it does not fit."""
    try:
        from twincast.server.websocket import PicowsEdge  # noqa: PLC0415  # absent where no wheel fits
    except ImportError as error:
        logger.warning("the fast WebSocket edge does not fit here, the portable one serves: %s", error)
        return None
    return PicowsEdge


def listen_all(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen at several addresses, on one port. An address that is not ready yet is left out, with a warning.

    Raises:
        AddressUnusable: see `listen`; no listener stays open then.
    """
    listeners: list[socket.socket] = []
    try:
        for host in hosts:
            try:
                listeners.append(listen(host, listeners[0].getsockname()[1] if listeners else port))
            except AddressUnusable as error:
                if len(hosts) == 1 or getattr(error.__cause__, "errno", None) != errno.EADDRNOTAVAIL:
                    raise
                logger.warning("%s; the server goes on without it", error)
        if not listeners:
            raise AddressUnusable("this machine can be reached at none of its addresses yet; try again in some seconds")
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; a link-local one, such as fe80::1%eth0, has its zone.

    Raises:
        AddressUnusable: another program listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4] if "%" in host else (host, port)
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise AddressUnusable(f"cannot listen on {host}:{port}: {_why_not(error)}") from error


def _why_not(error: OSError | UnicodeError) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return "another program is listening there; --port chooses another"
        case errno.EACCES:
            return "the system lets only its administrator have that port; --port 8000 is anyone's"
        case _:
            return "--host takes an address of this machine, such as 127.0.0.1 or 0.0.0.0"


def exit_quietly(_signal: int, _frame: FrameType | None) -> Never:
    """End the process in order, with status 0: what a server does at SIGTERM before it serves."""
    raise SystemExit(0)
