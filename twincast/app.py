"""Everything put together: the only file that knows every part."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.routing import Route

from twincast import __version__
from twincast.core.door import Door
from twincast.core.messages import encode
from twincast.core.session import Limits
from twincast.errors import BadMessage, Forbidden, MethodNotAllowed, NotFound, TwincastError
from twincast.hub import Hub, system_now_utc
from twincast.journal import open_journal
from twincast.settings import Settings
from twincast.transports import asyncapi, schemas
from twincast.transports.asgi import Receive, Scope, Send
from twincast.transports.events import EventsEndpoint
from twincast.transports.operation import PROBLEM, problem
from twincast.transports.rest import Rest
from twincast.transports.websocket import WebSocketEndpoint

logger = logging.getLogger("twincast")

PACKAGE = Path(__file__).parent
HUB_DIED = 70  # EX_SOFTWARE of sysexits.h

PAGE_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'"
)
# Swagger UI and Redoc set styles in the markup that they make, and Redoc searches in a worker.
DOCS_POLICY = PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'") + "; worker-src blob:"


class App(FastAPI):
    """The ASGI application. Users may add routes of their own to it, as to any FastAPI application."""

    def __init__(
        self, settings: Settings, *, edge: str = "portable", now_utc: Callable[[], str] = system_now_utc
    ) -> None:
        """Assemble the parts; the journal is opened when the server starts the application's lifespan.

        Args:
            settings: what the user set.
            edge: which WebSocket edge serves `/ws`, for the status: "portable" is this application's own.
            now_utc: the clock that updates are stamped by, as ISO 8601 text.
        """
        super().__init__(
            title="twincast",
            version=__version__,
            description="A live state backend. The WebSocket at `/ws` carries the same messages, live.",
            docs_url=None,
            redoc_url=None,
            lifespan=_lifespan,
        )
        self.settings = settings
        self.now_utc = now_utc
        self.hub: Hub | None = None
        self.startup_error: TwincastError | None = None
        """Why the application could not start."""
        self.limits = Limits(
            message_max_bytes=settings.message_max_bytes,
            outbox_max_bytes=settings.outbox_max_bytes,
            handshake_timeout_s=settings.handshake_timeout_s,
            ping_interval_s=settings.ping_interval_s,
            pong_timeout_s=settings.pong_timeout_s,
        )
        self.door = Door(allow_hosts=settings.allow_host, allow_origins=settings.allow_origin)
        rest = Rest(
            self._open_hub,
            body_max_bytes=settings.body_max_bytes,
            request_max_updates=settings.request_max_updates,
            facts={"version": __version__, "journal": settings.journal, "edge": edge},
        )
        self.events = EventsEndpoint(self._open_hub, outbox_max_bytes=settings.outbox_max_bytes)
        operations = (*rest.operations, self.events.operation)
        self._hot = {(operation.method, operation.path): operation for operation in operations}
        self._websocket = WebSocketEndpoint(self._open_hub, self.door, self.limits)
        for operation in operations:
            operation.describe(self)
        _add_pages(self)
        self.add_exception_handler(HTTPException, _as_problem)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document: the routes, and the shapes that they refer to."""
        document = super().openapi()
        shapes = document.setdefault("components", {}).setdefault("schemas", {})
        shapes.update(schemas.components(*schemas.IN_REST))
        return document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: the door first, then the hot operations without the framework, then the rest."""
        kind = scope["type"]
        if kind == "http":
            try:
                self.door.check(*_host_and_origin(scope))
            except Forbidden as error:
                await _problem_response(error)(scope, receive, send)
                return
            hot = self._hot.get((scope["method"], scope["path"]))
            await (hot or super().__call__)(scope, receive, send)
        elif kind == "websocket":
            if scope["path"] == "/ws":
                await self._websocket(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        else:
            await super().__call__(scope, receive, self._plainly(send))

    def _open_hub(self) -> Hub:
        if self.hub is None:
            raise RuntimeError("the application has not started: its lifespan must run before the first request")
        return self.hub

    def _plainly(self, send: Send) -> Send:
        """Say an expected failure of the start in its own words, where the framework would print a traceback."""

        async def plain_send(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "lifespan.startup.failed" and self.startup_error is not None:
                event["message"] = self.startup_error.message
            await send(event)

        return plain_send


def create_app(settings: Settings, *, edge: str = "portable", now_utc: Callable[[], str] = system_now_utc) -> App:
    """Assemble the application from its settings; see App."""
    return App(settings, edge=edge, now_utc=now_utc)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    assert isinstance(app, App)
    try:
        settings = app.settings
        journal = await open_journal(settings.journal, memory_max_bytes=settings.memory_journal_max_bytes)
        hub = await Hub.over(
            journal,
            open_batch_max_bytes=settings.open_batch_max_bytes,
            resume_max_entries=settings.resume_max_entries,
            now_utc=app.now_utc,
        )
    except TwincastError as error:
        app.startup_error = error
        raise
    app.hub = hub
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_drive, hub, name="hub")
            _end_streams_on_signals(app.events)
            yield {"hub": hub, "door": app.door, "limits": app.limits}
            await hub.stop()
            group.cancel_scope.cancel()
    finally:
        await journal.close()


def _end_streams_on_signals(events: EventsEndpoint) -> None:
    """End event streams when the process is told to stop: a server waits for its responses, and these have no end."""
    if threading.current_thread() is not threading.main_thread():
        return  # an application in a thread gets no signals; who runs it ends its streams
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        handle = signal.getsignal(number)
        if callable(handle):

            def end_streams(number: int, frame: FrameType | None, handle: Any = handle) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(events.end_streams)
                handle(number, frame)

            signal.signal(number, end_streams)


async def _drive(hub: Hub) -> None:
    """Run the hub. A server whose state nobody drives would answer and lie, so it ends; the journal is on disk."""
    try:
        await hub.run()
    except Exception:
        logger.critical("the state is no longer driven; the server ends here", exc_info=True)
        logging.shutdown()
        os._exit(HUB_DIED)


def _add_pages(app: App) -> None:
    pages = PACKAGE / "pages"
    for path, file, policy in (
        ("/", pages / "home.html", PAGE_POLICY),
        ("/docs", pages / "docs.html", DOCS_POLICY),
        ("/redoc", pages / "redoc.html", DOCS_POLICY),
        ("/asyncapi", pages / "asyncapi.html", PAGE_POLICY),
        ("/dashboard", PACKAGE / "dashboard" / "index.html", PAGE_POLICY),
    ):
        app.add_api_route(path, _Page(file, policy), methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/asyncapi.json", _asyncapi, methods=["GET"], include_in_schema=False)
    app.mount("/pages", _Assets(directory=pages))
    app.mount("/dashboard", _Assets(directory=PACKAGE / "dashboard"))


async def _asyncapi(request: Request) -> Response:
    return Response(encode(asyncapi.document(__version__, request.url.netloc)), media_type="application/json")


class _Page:
    """One HTML file, under its content security policy."""

    def __init__(self, file: Path, policy: str) -> None:
        self._file = file
        self._headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "cache-control": "no-cache",
        }

    async def __call__(self) -> Response:
        return FileResponse(self._file, headers=self._headers)


class _Assets(StaticFiles):
    """The files that the pages load; checked for news at each load, so that an update shows at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        response.headers["access-control-allow-origin"] = "*"  # a page of somebody's own imports the client module
        return response


async def _as_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == MethodNotAllowed.http_status:
        routes = [route for route in request.app.routes if isinstance(route, Route) and route.path == path]
        taken = {method for route in routes for method in route.methods or ()}
        allow = ", ".join(sorted(taken))
        return _problem_response(MethodNotAllowed(f"{path} takes {allow}, not {request.method}"), {"allow": allow})
    if error.status_code == NotFound.http_status:
        return _problem_response(NotFound(f"there is nothing at {path}; / lists what there is"))
    return _problem_response(BadMessage(error.detail))


def _problem_response(error: TwincastError, headers: Any = None) -> Response:
    return Response(problem(error), status_code=error.http_status, media_type=PROBLEM, headers=headers)


def _host_and_origin(scope: Scope) -> tuple[str | None, str | None]:
    host = origin = None
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
    return host, origin
