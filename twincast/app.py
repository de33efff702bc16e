"""Puts the parts together: the application, from its settings."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from twincast import __version__, logs
from twincast.access.admission import Admission
from twincast.access.authenticator import BURST_S, Authenticator
from twincast.access.limits import Bounds
from twincast.access.origin import OriginPolicy
from twincast.core.rights import Rate
from twincast.delivery.session import Limits
from twincast.errors import LoginUnusable, TwincastError
from twincast.hub.hub import system_now_utc
from twincast.journal.url import shared_log_of
from twincast.later import later
from twincast.lifespan import Lifespan, PlainStart, retention_of
from twincast.settings import Settings
from twincast.transports import poll, scrape
from twincast.transports.asgi import Receive, Scope, Send
from twincast.transports.documents import openapi
from twincast.transports.events import EventStreams
from twincast.transports.front import front
from twincast.transports.operation import Operation
from twincast.transports.pages import add_pages
from twincast.transports.parts import PORTABLE, EdgeInUse, Parts, RequestLimits
from twincast.transports.rest import audit, cluster, control, data, erasing, history, pairing, status, tickets
from twincast.transports.routes import add_route
from twincast.transports.unrouted import answer_unrouted
from twincast.transports.websocket import WebSocketEndpoint

if TYPE_CHECKING:  # most servers take no tokens
    from twincast.access import jwks, tokens
else:
    jwks, tokens = later("twincast.access.jwks"), later("twincast.access.tokens")

logger = logging.getLogger("twincast")


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
        self.settings = settings
        self.parts = _parts(settings, edge)
        self.life = Lifespan(self.parts, settings, now_utc, is_edge_known=edge is not None)
        super().__init__(
            title="twincast",
            version=__version__,
            description="A live state backend. The WebSocket at `/ws` carries the same messages, live.",
            openapi_url=None,  # the document and what shows it are among the pages
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,  # the scheme that it leads to is that of the last hop, and may be plain HTTP
            lifespan=self.life.run,
        )
        self.operations = _operations(self.parts)
        """The calls of REST."""
        for operation in self.operations:
            add_route(self, operation)
        add_pages(self, __version__)
        answer_unrouted(self)
        self._front = front(
            super().__call__,
            self.parts,
            self.operations,
            websocket=WebSocketEndpoint(self.parts),
            lifespan=PlainStart(super().__call__, self.life),
            allow_origins=settings.allow_origin,
        )

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document: the routes, and the shapes that they refer to."""
        return openapi.complete(super().openapi(), self.operations)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan; see transports/front."""
        await self._front(scope, receive, send)

    @property
    def startup_error(self) -> TwincastError | None:
        """Why the application could not start."""
        return self.life.startup_error


def refuse_settings(settings: Settings) -> None:
    """Refuse settings with which no server can start: before it opens or makes anything.

    Raises:
        LoginUnusable: tokens are not set up in a way that can work.
        SettingUnusable: what of the log is to be kept cannot be.
    """
    _tokens(settings)
    retention_of(settings).check()


def create_app(settings: Settings, *, edge: str | None = None, now_utc: Callable[[], str] = system_now_utc) -> App:
    """Assemble the application from its settings; see App. From then on uvicorn writes no credential to its log."""
    logs.keep_credentials_out()
    for line in settings.ignored:
        logger.warning(line)
    return App(settings, edge=edge, now_utc=now_utc)


def _parts(settings: Settings, edge: str | None) -> Parts:
    limits = Limits(
        message_max_bytes=settings.message_max_bytes,
        outbox_max_bytes=settings.outbox_max_bytes,
        handshake_timeout_s=settings.handshake_timeout_s,
        ping_interval_s=settings.ping_interval_s,
        pong_timeout_s=settings.pong_timeout_s,
    )
    return Parts(
        admission=_admission(settings),
        limits=limits,
        request_limits=RequestLimits(body_max_bytes=settings.body_max_bytes, updates_max=settings.request_max_updates),
        edge=EdgeInUse(edge or PORTABLE),
        version=__version__,
        journal=settings.journal,
        root_path=settings.root_path,
    )


def _operations(parts: Parts) -> tuple[Operation, ...]:
    streams = EventStreams(parts)
    return (
        *status.operations(parts),
        *history.operations(parts),  # before those at shorter paths, which would match theirs as well
        *erasing.operations(parts),
        *data.operations(parts),
        *control.operations(parts),
        *tickets.operations(parts),
        *audit.operations(parts),
        *cluster.operations(parts),
        *poll.operations(parts, stream=streams.stream, identify=streams.ticket_holder),
        *scrape.operations(parts),
        *pairing.operations(parts),
    )


def _admission(settings: Settings) -> Admission:
    authenticator = Authenticator(
        tokens=_tokens(settings),
        # The keys of a shared log are seen once it has been read, and are changed from any machine: a server of it that
        # others reach is never open.
        is_required=settings.reaches_others and shared_log_of(settings.journal) is not None,
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
        trusted_proxies=settings.believed_proxies,
    )


def _tokens(settings: Settings) -> "tokens.Tokens | None":
    keys: jwks.Jwks | jwks.StaticKey
    if settings.jwt_jwks is not None and settings.jwt_key is not None:
        raise LoginUnusable("--jwt-jwks and --jwt-key are two ways to the same; give one of them, not both")
    if settings.jwt_jwks is not None:
        keys = jwks.Jwks(jwks.fetch_from(settings.jwt_jwks), time.monotonic)
    elif settings.jwt_key is not None:
        keys = jwks.StaticKey.of_file(settings.jwt_key)
    else:
        return None
    return tokens.Tokens(
        keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=settings.jwt_algorithm,
        rate=_rate(settings),
    )


def _rate(settings: Settings) -> Rate:
    return Rate(settings.rate_updates_per_s, BURST_S * settings.rate_updates_per_s)
