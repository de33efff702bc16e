"""What an HTTP request passes before its operation: a chain of small ASGI links, each of which knows only the next.

    Place(Health(Guard(Cors(Readiness(Identify(AccessLog(Operations(framework))))))))

A link that has nothing to wait for is a plain function, which returns the awaitable of the next one: nothing is resumed
through it. What a link has found out is in the scope for those behind it: `path_here`, the path in this application;
`facts`, the request's facts, parsed once; and `caller`, unless the path is open to everyone.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Iterable, MutableMapping
from typing import Any

from starlette.types import ASGIApp

from twincast import logs
from twincast.access.admission import Admission
from twincast.access.request import Caller, RequestFacts
from twincast.access.tickets import TicketElsewhere, TicketUse
from twincast.errors import KeysNotFetched, TwincastError
from twincast.transports.asgi import Receive, Scope, Send, facts_of, of_head, placed
from twincast.transports.cors import Cors
from twincast.transports.health import METHODS, Health
from twincast.transports.operation import Operation
from twincast.transports.pages import is_open
from twincast.transports.parts import Parts
from twincast.transports.refusal import refuse
from twincast.transports.scrape import PATH as SCRAPE_PATH
from twincast.transports.websocket import turn_away
from twincast.wire.messages import encode

access_log = logging.getLogger("twincast.access")

WITHOUT_CREDENTIAL = frozenset({"/ws", "*"})
"""Over HTTP these say how the server is spoken to, and nothing of what it holds."""
KEYS_TIMEOUT_S = 6.0
"""How long a request waits for the keys of its token's issuer: longer than a fetch may take (`access/jwks`), to say how
it ended."""


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
    chain = Readiness(chain, parts, operations)
    chain = Cors(chain, tuple(allow_origins), not_for_pages=frozenset({SCRAPE_PATH}))
    chain = Health(Guard(chain, parts.admission), lambda: parts.is_ready)
    return Place(chain, Upgrades(websocket, framework, parts), lifespan, parts.root_path)


class Place:
    """Sorts connections by protocol, and says which path of this application each one asks for."""

    def __init__(self, http: ASGIApp, websocket: ASGIApp, lifespan: ASGIApp, own_path: str) -> None:
        self._by_type = {"http": http, "websocket": websocket}
        self._lifespan = lifespan
        self._own_path = own_path

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection, or the lifespan."""
        serve = self._by_type.get(scope["type"])
        if serve is None:
            return self._lifespan(scope, receive, send)
        if self._own_path or scope.get("root_path"):
            scope, scope["path_here"] = placed(scope, self._own_path)
        else:
            scope["path_here"] = scope["path"]
        return serve(scope, receive, send)


class Guard:
    """Parses the facts of a request, and refuses a page of another site before anything is said of what there is."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        try:
            facts = scope["facts"] = of_head(scope, "facts", facts_of)
            if facts.origin is not None:
                self._admission.check(facts)
        except TwincastError as error:
            return refuse(error, send)
        return self._app(scope, receive, send)


class Readiness:
    """Answers for a server that is not ready, before anyone is identified: who may come in is not known yet either.

    Pages are served; they hold nothing of the log.
    """

    def __init__(self, app: ASGIApp, parts: Parts, operations: Iterable[Operation]) -> None:
        self._app = app
        self._parts = parts
        self._answers = {each.path: each.unready for each in operations if each.unready is not None}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        opening = self._parts.opening
        if opening is None or is_open(scope["path_here"]):
            return self._app(scope, receive, send)
        try:
            self._parts.admission.check(scope["facts"])
        except TwincastError as error:
            return refuse(error, send)
        answer = self._answers.get(scope["path_here"]) if scope["method"] in METHODS else None
        body = None if answer is None else encode(answer(scope["facts"], opening))
        return refuse(self._parts.not_ready(opening), send, body)


class Identify:
    """Finds out who calls. What is open to everyone is still refused to foreign names and addresses."""

    def __init__(self, app: ASGIApp, admission: Admission, operations: Iterable[Operation]) -> None:
        self._app = app
        self._admission = admission
        self._own_ways = {each.path: each.identify for each in operations if each.identify is not None}
        self._numbers = itertools.count(1)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        logs.CONNECTION.set(next(self._numbers))
        path, facts = scope["path_here"], scope["facts"]
        try:
            if is_open(path) or path in WITHOUT_CREDENTIAL:
                self._admission.check(facts)
            else:
                scope["caller"] = self._caller(scope, path, facts)
        except KeysNotFetched as error:
            return self._with_keys(error, scope, receive, send)
        except TicketElsewhere as error:
            return self._with_ticket(error.use, scope, receive, send)
        except TwincastError as error:
            return _refuse(error, scope, send)
        return self._app(scope, receive, send)

    def _caller(self, scope: Scope, path: str, facts: RequestFacts) -> Caller:
        own_way = self._own_ways.get(path)
        caller = None if own_way is None else own_way(scope, facts)
        return self._admission.identify(facts) if caller is None else caller

    async def _with_keys(self, error: TwincastError, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request once the keys of its token's issuer are fetched."""
        try:
            try:
                async with asyncio.timeout(KEYS_TIMEOUT_S):
                    await self._admission.issuer_keys_fetched()
            except TimeoutError:
                raise error from None
            scope["caller"] = self._admission.identify(scope["facts"])
        except TwincastError as why:
            await _refuse(why, scope, send)
            return
        await self._app(scope, receive, send)

    async def _with_ticket(self, ticket: TicketUse, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request once the server that issued its ticket has answered."""
        try:
            scope["caller"] = await self._admission.identify_elsewhere(scope["facts"], ticket)
        except TwincastError as error:
            await _refuse(error, scope, send)
            return
        await self._app(scope, receive, send)


def _refuse(error: TwincastError, scope: Scope, send: Send) -> Awaitable[None]:
    method, path, peer = scope["method"], scope["path_here"], scope["facts"].peer
    access_log.info("%s %s from %s: %s %s", method, path, peer, error.http_status, error.code)
    return refuse(error, send)


class AccessLog:
    """Notes each request, its caller and its end; never its query, which may hold a ticket."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        serve = self._serve_noted if access_log.isEnabledFor(logging.INFO) else self._app
        return serve(scope, receive, send)

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

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        return self._hot.get((scope["method"], scope["path_here"]), self._framework)(scope, receive, send)


class Upgrades:
    """WebSockets: `/ws` identifies its own clients; a route that a user has added gets those who are identified."""

    def __init__(self, websocket: ASGIApp, framework: ASGIApp, parts: Parts) -> None:
        self._websocket = websocket
        self._framework = framework
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket."""
        if self._parts.opening is not None:
            await turn_away(self._parts, scope, receive, send)
            return
        if scope["path_here"] == "/ws":
            await self._websocket(scope, receive, send)
            return
        try:
            scope["caller"] = self._parts.admission.identify_upgrade(facts_of(scope))
        except TwincastError:
            await send({"type": "websocket.close", "code": 1008})  # before the handshake: the server answers 403
        else:
            await self._framework(scope, receive, send)
