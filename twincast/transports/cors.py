"""What a page of a listed origin may ask: everything that a program may, but not what only a proxy may say."""

from collections.abc import Awaitable, Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from twincast.access.request import PROXY_HEADERS


class Cors(CORSMiddleware):
    """Cross-origin calls of the listed origins.

    Their preflights may name any header: tracing, cache and request libraries keep adding new ones, and a page that may
    send a credential can do no more by them. What a proxy says of a client stays the proxy's.
    """

    def __init__(
        self, app: ASGIApp, allow_origins: Collection[str], *, not_for_pages: Collection[str] = frozenset()
    ) -> None:
        """Serve `app`.

        Args:
            app: the next link.
            allow_origins: scheme://host[:port].
            not_for_pages: paths that no page has a use for, and whose answers so none may read.
        """
        super().__init__(
            app,
            allow_origins=tuple(allow_origins),
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            allow_private_network=True,  # a user who lists a public page for a server at home means that
            expose_headers=("ETag", "Retry-After", "Idempotency-Replayed", "Twincast-Position", "Twincast-Cursor"),
        )
        self._not_for_pages = not_for_pages

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # type: ignore[override]
        """Serve one request. A plain function: most requests are of no page, and pass."""
        if scope["facts"].origin is None or scope["path_here"] in self._not_for_pages:
            return self.app(scope, receive, send)
        return super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """See CORSMiddleware."""
        asked = request_headers.get("access-control-request-headers", "")
        if any(name.strip().lower().startswith(PROXY_HEADERS) for name in asked.split(",")):
            return PlainTextResponse("a page does not speak for a proxy", 400, headers=self.preflight_headers)
        return super().preflight_response(request_headers)
