"""One server process: the application under uvicorn, with the fast WebSocket edge where it fits."""

import errno
import logging
import signal
import socket
from ipaddress import ip_address
from types import FrameType
from typing import Never

import uvicorn
from rich.console import Console

from twincast.app import App, create_app
from twincast.errors import AddressUnusable
from twincast.settings import Settings

logger = logging.getLogger("twincast.server")

BACKLOG = 4_096  # a fleet that reconnects comes all at once


def serve(settings: Settings) -> int:
    """Run a server until it is told to stop, and say where its dashboard is.

    Returns:
        The process's exit status: 0 after Ctrl-C or SIGTERM.

    Raises:
        AddressUnusable: the port is in use, or the address is not one for a server without a login.
        JournalUnusable: the journal cannot be opened.
    """
    _refuse_public_address(settings.host)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    listener = listen(settings.host, settings.port)
    edge = fast_edge()
    app = create_app(settings, edge="picows" if edge else "portable")
    config = configured(app, edge)
    # What kept the application from starting is raised below, once, in words for the person who started it.
    logging.getLogger("uvicorn.error").addFilter(lambda _: app.startup_error is None)
    signal.signal(signal.SIGTERM, _exit_quietly)
    try:
        _Server(config, app).run(sockets=[listener])
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code not in {0, None} and app.startup_error is None:
            raise
    finally:
        listener.close()
    if app.startup_error is not None:
        raise app.startup_error
    return 0


def configured(app: App, edge: type | None) -> uvicorn.Config:
    """Return how uvicorn runs the application; `edge` is the fast WebSocket edge, or None for the portable one."""
    return uvicorn.Config(
        app,
        ws=edge or "auto",
        ws_max_size=2 * app.settings.message_max_bytes,
        ws_per_message_deflate=False,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(app.settings.shutdown_timeout_s),
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            _say_where(self._app, sockets[0])


def _say_where(app: App, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    assert app.hub is not None
    console = Console(highlight=False)
    console.print(f"[bold]twincast[/] {app.version} is up, with {len(app.hub.state.twins):,} devices remembered")
    console.print(f"  Dashboard  [bold cyan]{url}/dashboard[/]", soft_wrap=True)
    console.print(f"  API        {url}/docs", soft_wrap=True)
    console.print(f"  Journal    {app.settings.journal}", soft_wrap=True)
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
    except OSError as error:
        reason = "another program is listening there" if error.errno == errno.EADDRINUSE else error.strerror
        raise AddressUnusable(f"cannot listen on {host}:{port}: {reason}; --port chooses another") from None


def _refuse_public_address(host: str) -> None:
    try:
        is_local = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise AddressUnusable(
            f"there is no login yet, so twincast does not listen on {host}: anyone who reaches it could read and write."
            " Use --host 127.0.0.1, behind a proxy that asks for one, or an SSH tunnel"
        )


def _exit_quietly(_signal: int, _frame: FrameType | None) -> Never:
    raise SystemExit(0)
