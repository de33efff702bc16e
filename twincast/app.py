"""Everything put together: the only file that knows every part."""

import asyncio
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from types import FrameType
from typing import Any
from urllib.parse import quote

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from twincast import __version__, logs
from twincast.access.admission import Admission
from twincast.access.authenticator import BURST_S, Authenticator
from twincast.access.jwks import FETCH_TIMEOUT_S, Jwks, StaticKey, fetch_from
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.access.request import Caller, RequestFacts
from twincast.access.tokens import Tokens
from twincast.core.quotas import Quotas
from twincast.core.rights import NOBODY, Rate
from twincast.delivery.session import Limits
from twincast.errors import (
    BadMessage,
    KeysNotFetched,
    LoginUnusable,
    MethodNotAllowed,
    NotFound,
    NotStarted,
    TwincastError,
    UpgradeRequired,
)
from twincast.hub.hub import Hub, system_now_utc
from twincast.journal import open_journal
from twincast.journal.retention import Retention
from twincast.settings import Settings
from twincast.transports.asgi import PICOWS, PORTABLE, SAFE_HEADERS, EdgeInUse, Receive, Scope, Send, facts_of, placed
from twincast.transports.cors import Cors
from twincast.transports.documents import openapi, shapes
from twincast.transports.events import EventsEndpoint
from twincast.transports.health import Health
from twincast.transports.metrics import Metrics
from twincast.transports.operation import PROBLEM, Operation, problem, refuse, refusing_headers
from twincast.transports.pages import add_pages, is_open
from twincast.transports.rest.pairing import PATH as PAIRING
from twincast.transports.rest.pairing import PairingEndpoint
from twincast.transports.rest.rest import Rest
from twincast.transports.scrape import NEIGHBOUR, Scrape, came_by_proxy
from twincast.transports.scrape import PATH as SCRAPE_PATH
from twincast.transports.websocket import WebSocketEndpoint
from twincast.wire.messages import SizeLimits

logger = logging.getLogger("twincast")
access_log = logging.getLogger("twincast.access")

WITHOUT_CREDENTIAL = frozenset({"/ws", "*"})
"""Whoever asks these over HTTP learns how the server is spoken to, and nothing of what it holds."""
FAST_EDGE = "twincast.server.websocket"
"""uvicorn loads what its `--ws` names before it starts the application."""
IDLE = (
    "twincast was not started here, or has ended: an application that mounts it needs one line more,"
    " `FastAPI(lifespan=twin.lifespan)`, or in a lifespan of its own `async with twin.running():`;"
    " docs/inside.md has both"
)
"""What is said instead of an answer where nobody runs the lifespan: nobody does by itself where it is mounted."""
HUB_DIED = 70  # EX_SOFTWARE of sysexits.h

KEYS_TIMEOUT_S = FETCH_TIMEOUT_S + 1.0
"""How long a request waits for the keys of its token's issuer: longer than a fetch takes, to say how it ended."""


class App(FastAPI):
    """The ASGI application. Users may add routes of their own to it, as to any FastAPI application."""

    def __init__(
        self, settings: Settings, *, edge: str | None = None, now_utc: Callable[[], str] = system_now_utc
    ) -> None:
        """Assemble the parts; the journal is opened when the server starts the application's lifespan.

        Args:
            settings: what the user set.
            edge: which WebSocket edge serves `/ws`, for the status: "portable" is this application's own, "picows" the
                fast one; None for the one that was named to the ASGI server.
            now_utc: the clock that updates are stamped by, as ISO 8601 text.
        """
        super().__init__(
            title="twincast",
            version=__version__,
            description="A live state backend. The WebSocket at `/ws` carries the same messages, live.",
            openapi_url=None,  # the document and what shows it are among the pages
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,  # the scheme that it leads to is that of the last hop, and may be plain HTTP
            lifespan=_lifespan,
        )
        self.settings = settings
        self.now_utc = now_utc
        self._own_path = settings.root_path
        self.hub: Hub | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where the hub lives."""
        self._is_idle_noted = False
        self.startup_error: TwincastError | None = None
        """Why the application could not start."""
        self.limits = Limits(
            message_max_bytes=settings.message_max_bytes,
            outbox_max_bytes=settings.outbox_max_bytes,
            handshake_timeout_s=settings.handshake_timeout_s,
            ping_interval_s=settings.ping_interval_s,
            pong_timeout_s=settings.pong_timeout_s,
        )
        self.edge = EdgeInUse(edge or PORTABLE)
        self.is_edge_told = edge is not None
        self.admission = _admission(settings)
        rest = Rest(
            self.open_hub,
            self.admission,
            body_max_bytes=settings.body_max_bytes,
            request_max_updates=settings.request_max_updates,
            facts={"version": __version__},
            edge=self.edge,
            private_facts={"journal": settings.journal},
        )
        self.events = EventsEndpoint(
            self.open_hub,
            self.admission,
            outbox_max_bytes=settings.outbox_max_bytes,
            close_timeout_s=self.limits.close_timeout_s,
        )
        metrics = Metrics(
            self.open_hub, version=__version__, edge=lambda: self.edge.name, event_feeds=self.events.feeds
        )
        scrape = Scrape(metrics.text, metrics.content_type, self.admission.limits)
        pairing = PairingEndpoint(self.open_hub, self.admission)
        operations = (*rest.operations, self.events.operation, scrape.operation, pairing.operation)
        self._hot: dict[tuple[str, str], Operation] = {
            (each.method, each.path): each for each in operations if each.folder is None
        }
        self._hot |= {("HEAD", path): each for (method, path), each in self._hot.items() if method == "GET"}
        self._websocket = WebSocketEndpoint(self.open_hub, self.admission, self.limits, self.edge)
        self._health = Health(self._is_ready)
        self._numbers = itertools.count(1)
        self._cors = Cors(self._serve_known, settings.allow_origin)
        for operation in operations:
            operation.describe(self)
        add_pages(self, __version__)
        self.add_route("/ws", _refuse_to_answer, include_in_schema=False)
        self.add_exception_handler(HTTPException, _as_problem)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document: the routes, and the shapes that they refer to."""
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(shapes.components(*shapes.IN_REST))
        document["components"]["securitySchemes"] = {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "description": "an API key or a JWT",
            }
        }
        document["security"] = [{"bearer": []}, {}]
        openapi.complete(document)
        return document

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: the entrance first, then the hot operations without the framework, then the rest."""
        kind = scope["type"]
        if kind == "http":
            scope, path = placed(scope, self._own_path)
            if self._health.serves(scope["method"], path):
                await self._health.answer(path, send)
                return
            try:
                facts = facts_of(scope)
                if facts.origin is not None:
                    self.admission.check(facts)
            except TwincastError as error:
                await refuse(error, send)
                return
            if facts.origin is None or path == SCRAPE_PATH:  # which no page has a use for, and so none may read
                await self._serve(scope, receive, send, facts, path)
            else:
                await self._cors(scope, receive, send)
        elif kind == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            await super().__call__(scope, receive, self._plainly(send))

    async def _serve_known(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send, facts_of(scope), placed(scope)[1])

    async def _serve(self, scope: Scope, receive: Receive, send: Send, facts: RequestFacts, path: str) -> None:
        logs.CONNECTION.set(next(self._numbers))
        try:
            if is_open(path) or path in WITHOUT_CREDENTIAL:
                self.admission.check(facts)
            elif path == PAIRING:
                scope["caller"] = Caller(NOBODY, self.admission.check(facts))
            else:
                scope["caller"] = await self._identify(scope, path, facts)
        except TwincastError as error:
            access_log.info("%s %s from %s: %s %s", scope["method"], path, facts.peer, error.http_status, error.code)
            await refuse(error, send)
            return
        hot = self._hot.get((scope["method"], path))
        serve = hot or self._serve_rest
        if access_log.isEnabledFor(logging.INFO):
            await _serve_noted(serve, scope, receive, send)
        else:
            await serve(scope, receive, send)

    async def _serve_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is not hot by the framework, which adds to the root_path what it has mounted itself."""
        scope["path_here"] = placed(scope)[1]
        await super().__call__(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope, path = placed(scope, self._own_path)
        scope["path_here"] = path
        if path == "/ws":
            await self._websocket(scope, receive, send)
            return
        try:
            scope["caller"] = self.admission.identify_upgrade(facts_of(scope))
        except TwincastError:
            await send({"type": "websocket.close", "code": 1008})  # before the handshake: the server answers 403
        else:
            await super().__call__(scope, receive, send)

    async def _identify(self, scope: Scope, path: str, facts: RequestFacts) -> Caller:
        if path == SCRAPE_PATH and facts.authorization is None and not came_by_proxy(scope):
            neighbour = self.admission.neighbour(facts)
            if neighbour is not None:
                return Caller(NEIGHBOUR, neighbour)
        ticket = self.events.ticket_in(scope) if path == self.events.operation.path else None
        try:
            return self.admission.identify(facts, ticket=ticket)
        except KeysNotFetched as error:
            try:
                async with asyncio.timeout(KEYS_TIMEOUT_S):
                    await self.admission.issuer_keys_fetched()
            except TimeoutError:
                raise error from None
            return self.admission.identify(facts)

    def open_hub(self) -> Hub:
        """Return the hub.

        Raises:
            NotStarted: the lifespan does not run.
        """
        if self.hub is None:
            if not self._is_idle_noted:
                self._is_idle_noted = True
                logger.error(IDLE)
            raise NotStarted(IDLE)
        return self.hub

    def _is_ready(self) -> bool:
        return self.hub is not None and self.hub.problem is None

    def _plainly(self, send: Send) -> Send:
        """Say an expected failure of the start in its own words, where the framework would print a traceback."""

        async def plain_send(event: MutableMapping[str, Any]) -> None:
            if event["type"] == "lifespan.startup.failed" and self.startup_error is not None:
                event["message"] = self.startup_error.message
            await send(event)

        return plain_send


def create_app(settings: Settings, *, edge: str | None = None, now_utc: Callable[[], str] = system_now_utc) -> App:
    """Assemble the application from its settings; see App. From then on uvicorn writes no credential to its log."""
    logs.keep_credentials_out()
    for line in settings.ignored:
        logger.warning(line)
    return App(settings, edge=edge, now_utc=now_utc)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    assert isinstance(app, App)
    try:
        settings = app.settings
        async with AsyncExitStack() as undo:
            journal = await open_journal(
                settings.journal,
                memory_max_bytes=settings.memory_journal_max_bytes,
                retention=Retention(settings.keep, settings.keep_bytes, settings.resume_max_entries),
                now_utc=app.now_utc,
            )
            undo.push_async_callback(journal.close)  # unless it has started
            hub = await Hub.over(
                journal,
                open_batch_max_bytes=settings.open_batch_max_bytes,
                resume_max_entries=settings.resume_max_entries,
                quotas=Quotas(settings.devices_max, settings.state_max_bytes, settings.identity_state_max_bytes),
                sizes=SizeLimits(settings.message_max_bytes, settings.value_max_bytes),
                snapshot_part_max_bytes=settings.snapshot_part_max_bytes,
                now_utc=app.now_utc,
            )
            keyring = await hub.keyring(-1)
            assert keyring is not None
            app.admission.learn(keyring)
            await _fetch_keys(app.admission.authenticator)
            undo.pop_all()
    except TwincastError as error:
        app.startup_error = error
        raise
    app.hub, app.loop = hub, asyncio.get_running_loop()
    if not app.is_edge_told and FAST_EDGE in sys.modules:
        app.edge.name = PICOWS
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_drive, hub, name="hub")
            group.start_soon(_keep_keys, app.admission, hub, name="admission")
            with _streams_ended_by_signals(app.events):
                yield {
                    "hub": hub,
                    "admission": app.admission,
                    "limits": app.limits,
                    "edge": app.edge,
                    "root_path": settings.root_path,
                }
                await hub.stop()
            group.cancel_scope.cancel()
    finally:
        app.hub = None
        await journal.close()


@contextmanager
def _streams_ended_by_signals(events: EventsEndpoint) -> Iterator[None]:
    """End event streams when the process is told to stop: a server waits for its responses, and these have no end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # an application in a thread gets no signals; who runs it ends its streams
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, tuple[Any, Any]] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handle = signal.getsignal(number)
        if callable(handle):

            def end_streams(number: int, frame: FrameType | None, handle: Any = handle) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(events.end_streams)
                handle(number, frame)

            signal.signal(number, end_streams)
            before[number] = (end_streams, handle)
    try:
        yield
    finally:
        for number, (ours, theirs) in before.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)


async def _serve_noted(serve: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a request, and note who asked what and how it went; never the query, which may hold a ticket."""
    began_s = time.perf_counter()
    status = 0

    async def noting_send(event: MutableMapping[str, Any]) -> None:
        nonlocal status
        status = event.get("status", status)
        await send(event)

    try:
        await serve(scope, receive, noting_send)
    finally:
        caller = scope.get("caller")
        took_ms = (time.perf_counter() - began_s) * 1_000
        who, where = (caller.principal.id, caller.address) if caller else ("-", "-")
        access_log.info("%s %s %s %s %s %.1f ms", scope["method"], scope["path"], status, who, where, took_ms)


async def _drive(hub: Hub) -> None:
    """Run the hub. A server whose state nobody drives would answer and lie, so it ends; the journal is on disk."""
    try:
        await hub.run()
    except Exception:
        logger.critical("the state is no longer driven; the server ends here", exc_info=True)
        logging.shutdown()
        os._exit(HUB_DIED)


async def _keep_keys(admission: Admission, hub: Hub) -> None:
    """Follow the keys. A failing disk makes it believe none; a fault that nobody foresaw makes it end."""
    try:
        await admission.run(hub.keyring)
    except Exception:
        logger.critical("revoked keys would no longer be noticed; the server ends here", exc_info=True)
        logging.shutdown()
        os._exit(HUB_DIED)


async def _fetch_keys(authenticator: Authenticator) -> None:
    if authenticator.jwks is not None:
        try:
            await authenticator.jwks.refresh()
        except LoginUnusable as error:
            logger.warning("no token is good until the issuer's keys can be fetched: %s", error)


def _admission(settings: Settings) -> Admission:
    authenticator = Authenticator(
        tokens=_tokens(settings),
        anonymous_may_read=settings.anonymous == "read",
        rate_per_s=settings.rate_updates_per_s,
    )
    bounds = Bounds(
        address_connections_max=settings.address_connections_max,
        identity_connections_max=settings.identity_connections_max,
        unauthenticated_max=settings.unauthenticated_max,
        failed_logins_per_minute=settings.failed_logins_per_minute,
        auth_timeout_s=settings.auth_timeout_s,
        frames_rate=_rate(settings),
    )
    origin_policy = OriginPolicy(allow_hosts=settings.allow_host, allow_origins=settings.allow_origin)
    return Admission(
        origin_policy,
        authenticator,
        bounds,
        trusted_proxies=settings.trusted_proxy if settings.behind_tls_proxy else (),
    )


def _tokens(settings: Settings) -> Tokens | None:
    keys: Jwks | StaticKey
    if settings.jwt_jwks is not None and settings.jwt_key is not None:
        raise LoginUnusable("--jwt-jwks and --jwt-key are two ways to the same; one of them")
    if settings.jwt_jwks is not None:
        keys = Jwks(fetch_from(settings.jwt_jwks), time.monotonic)
    elif settings.jwt_key is not None:
        keys = StaticKey.of_file(settings.jwt_key)
    else:
        return None
    return Tokens(
        keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=settings.jwt_algorithm,
        rate=_rate(settings),
    )


def _rate(settings: Settings) -> Rate:
    return Rate(settings.rate_updates_per_s, BURST_S * settings.rate_updates_per_s)


_SAFE = {name.decode(): value.decode() for name, value in SAFE_HEADERS}


async def _refuse_to_answer(_: Request) -> Response:
    """Answer who opens `/ws` as a page: a person, or a proxy that was not told to pass the upgrade on."""
    return _problem_response(
        UpgradeRequired(
            "here is the WebSocket, and this request asks for none; a proxy on the way has to pass on the headers"
            " Connection and Upgrade, as deploy/nginx.conf does"
        )
    )


async def _as_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path_here"]
    if request.method == "OPTIONS" and (error.status_code == MethodNotAllowed.http_status or path.endswith("*")):
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"allow": ", ".join(_taken(request)), **_SAFE})
    if error.status_code == MethodNotAllowed.http_status:
        allow = ", ".join(_taken(request))
        return _problem_response(MethodNotAllowed(f"{path} takes {allow}, not {request.method}"), {"allow": allow})
    if error.status_code == NotFound.http_status:
        place = _other_place(request, path)
        if place is not None:
            return Response(status_code=HTTPStatus.TEMPORARY_REDIRECT, headers={"location": place, **_SAFE})
        whole = request.scope["path"]
        first = f"{whole.removesuffix(path)}/"
        return _problem_response(NotFound(f"there is nothing at {whole}; {first} lists what there is"))
    return _problem_response(BadMessage(error.detail))


def _other_place(request: Request, path: str) -> str | None:
    """Return where somebody who has a slash too many or too few is to go; None if there is nothing either.

    Relative: the scheme, the name and the path that a client knows us by are those of the first proxy.
    """
    if request.method not in {"GET", "HEAD"}:
        return None
    if not path:  # where this application is mounted, and not in it
        return quote(request.scope["path"].rpartition("/")[2]) + "/"
    if path.endswith("/") and _routes(request, path[:-1], Match.FULL):
        return f"../{quote(path[:-1].rpartition('/')[2])}"
    return None


def _routes(request: Request, path: str, *matches: Match) -> list[Route]:
    """Return the routes that match a path in this application in one of these ways."""
    scope = {**request.scope, "root_path": "", "path": path}
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return [route for route in routes if route.matches(scope)[0] in matches]


def _taken(request: Request) -> list[str]:
    """Return the methods that a path takes, or the whole server for `*`; a folder of files, as every path, is read."""
    path = request.scope["path_here"]
    if path.endswith("*"):
        routes = [route for route in request.app.routes if isinstance(route, Route)]
    else:
        routes = _routes(request, path, Match.FULL, Match.PARTIAL)
    taken = {method for route in routes for method in route.methods or ()}
    return sorted({*(taken or ("GET", "HEAD")), "OPTIONS"})


def _problem_response(error: TwincastError, headers: Any = None) -> Response:
    response = Response(problem(error), status_code=error.http_status, media_type=PROBLEM, headers=headers)
    response.raw_headers.extend(refusing_headers(error))
    return response
