"""What a page of a listed origin may ask: everything that a program may, but not whom it comes from."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from twincast.access.request import PROXY_HEADERS


class Cors(CORSMiddleware):
    """Cross-origin calls of the listed origins.

    Their preflights may name any header: tracing, cache and request libraries add ever new ones, and a page that may
    send a credential can do no more by them. What a proxy says of a client stays the proxy's.
    """

    def __init__(self, app: ASGIApp, allow_origins: Sequence[str]) -> None:
        """Serve `app`; `allow_origins` are scheme://host[:port]."""
        super().__init__(
            app,
            allow_origins=allow_origins,
            allow_methods=("GET", "HEAD", "POST", "DELETE"),
            allow_headers=("*",),
            allow_private_network=True,  # who lists a public page for a server at home means that
            expose_headers=("ETag", "Retry-After", "Idempotency-Replayed"),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """See CORSMiddleware."""
        asked = request_headers.get("access-control-request-headers", "")
        if any(name.strip().lower().startswith(PROXY_HEADERS) for name in asked.split(",")):
            return PlainTextResponse("a page does not speak for a proxy", 400, headers=self.preflight_headers)
        return super().preflight_response(request_headers)
