"""What an HTTP request passes before its operation: a chain of small ASGI links, each of which knows only the next.

    Place(Health(Guard(Cors(Identify(AccessLog(Operations(framework)))))))

What a link has found out is in the scope for those behind it: `path_here`, the path in this application; `facts`, the
request's facts, parsed once; and `caller`, unless the path is open to everyone.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.types import ASGIApp

from twincast import logs
from twincast.access.admission import Admission
from twincast.access.jwks import FETCH_TIMEOUT_S
from twincast.access.request import Caller, RequestFacts
from twincast.errors import KeysNotFetched, TwincastError
from twincast.transports.asgi import Receive, Scope, Send, facts_of, placed
from twincast.transports.cors import Cors
from twincast.transports.health import Health
from twincast.transports.operation import Operation
from twincast.transports.pages import is_open
from twincast.transports.parts import Parts
from twincast.transports.refusal import refuse
from twincast.transports.scrape import PATH as SCRAPE_PATH

access_log = logging.getLogger("twincast.access")

WITHOUT_CREDENTIAL = frozenset({"/ws", "*"})
"""Over HTTP these say how the server is spoken to, and nothing of what it holds."""
KEYS_TIMEOUT_S = FETCH_TIMEOUT_S + 1.0
"""How long a request waits for the keys of its token's issuer: longer than a fetch takes, to say how it ended."""


def front(
    framework: ASGIApp,
    parts: Parts,
    operations: Iterable[Operation],
    *,
    websocket: ASGIApp,
    lifespan: ASGIApp,
    allow_origins: Iterable[str],
) -> ASGIApp:
    """Return the chain in front of a framework that routes what no link has answered.

    Args:
        framework: serves pages, routes that a user has added, and operations whose path holds a name.
        parts: what the edges share.
        operations: the REST calls.
        websocket: serves `/ws`.
        lifespan: serves the application's start and end.
        allow_origins: the web origins whose pages may call this server.
    """
    operations = tuple(operations)
    chain: ASGIApp = AccessLog(Operations(framework, operations))
    chain = Identify(chain, parts.admission, operations)
    chain = Cors(chain, tuple(allow_origins), not_for_pages=frozenset({SCRAPE_PATH}))
    chain = Health(Guard(chain, parts.admission), lambda: parts.is_ready)
    return Place(chain, Upgrades(websocket, framework, parts.admission), lifespan, parts.root_path)


class Place:
    """Sorts connections by protocol, and says which path of this application each one asks for."""

    def __init__(self, http: ASGIApp, websocket: ASGIApp, lifespan: ASGIApp, own_path: str) -> None:
        self._by_type = {"http": http, "websocket": websocket}
        self._lifespan = lifespan
        self._own_path = own_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        serve = self._by_type.get(scope["type"])
        if serve is None:
            await self._lifespan(scope, receive, send)
            return
        scope, path = placed(scope, self._own_path)
        scope["path_here"] = path
        await serve(scope, receive, send)


class Guard:
    """Parses the facts of a request, and refuses a page of another site before anything is said of what there is."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            facts = scope["facts"] = facts_of(scope)
            if facts.origin is not None:
                self._admission.check(facts)
        except TwincastError as error:
            await refuse(error, send)
            return
        await self._app(scope, receive, send)


class Identify:
    """Finds out who calls. What is open to everyone is still refused to foreign names and addresses."""

    def __init__(self, app: ASGIApp, admission: Admission, operations: Iterable[Operation]) -> None:
        self._app = app
        self._admission = admission
        self._own_ways = {each.path: each.identify for each in operations if each.identify is not None}
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        logs.CONNECTION.set(next(self._numbers))
        path, facts = scope["path_here"], scope["facts"]
        try:
            if is_open(path) or path in WITHOUT_CREDENTIAL:
                self._admission.check(facts)
            else:
                scope["caller"] = await self._caller(scope, path, facts)
        except TwincastError as error:
            access_log.info("%s %s from %s: %s %s", scope["method"], path, facts.peer, error.http_status, error.code)
            await refuse(error, send)
            return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, path: str, facts: RequestFacts) -> Caller:
        own_way = self._own_ways.get(path)
        caller = None if own_way is None else own_way(scope, facts)
        if caller is not None:
            return caller
        try:
            return self._admission.identify(facts)
        except KeysNotFetched as error:
            try:
                async with asyncio.timeout(KEYS_TIMEOUT_S):
                    await self._admission.issuer_keys_fetched()
            except TimeoutError:
                raise error from None
            return self._admission.identify(facts)


class AccessLog:
    """Notes each request, its caller and its end; never its query, which may hold a ticket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if access_log.isEnabledFor(logging.INFO):
            await self._serve_noted(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_noted(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = time.perf_counter()
        status = 0

        async def noting_send(event: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = event.get("status", status)
            await send(event)

        try:
            await self._app(scope, receive, noting_send)
        finally:
            caller = scope.get("caller")
            took_ms = (time.perf_counter() - began_s) * 1_000
            identity, address = (caller.principal.id, caller.address) if caller else ("-", "-")
            access_log.info(
                "%s %s %s %s %s %.1f ms", scope["method"], scope["path"], status, identity, address, took_ms
            )


class Operations:
    """Serves operations at fixed paths as bare ASGI: the framework's routing costs more than most of them."""

    def __init__(self, framework: ASGIApp, operations: Iterable[Operation]) -> None:
        self._framework = framework
        self._hot = {(each.method, each.path): each for each in operations if each.folder is None}
        self._hot |= {("HEAD", path): each for (method, path), each in self._hot.items() if method == "GET"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        serve = self._hot.get((scope["method"], scope["path_here"]), self._framework)
        await serve(scope, receive, send)


class Upgrades:
    """WebSockets: `/ws` identifies its own clients; a route that a user has added gets those who are identified."""

    def __init__(self, websocket: ASGIApp, framework: ASGIApp, admission: Admission) -> None:
        self._websocket = websocket
        self._framework = framework
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        if scope["path_here"] == "/ws":
            await self._websocket(scope, receive, send)
            return
        try:
            scope["caller"] = self._admission.identify_upgrade(facts_of(scope))
        except TwincastError:
            await send({"type": "websocket.close", "code": 1008})  # before the handshake: the server answers 403
        else:
            await self._framework(scope, receive, send)
